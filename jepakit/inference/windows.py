"""Slides windows over series, at the lengths the run was trained on, and gathers an error for every step."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..data.series.dataset import Series
from ..methods.base import Method
from ..methods.masked import Masked
from .hiding import Round

Scores = Float64[np.ndarray, " t"]
ProgressCallback = Callable[[int, int], None]


class WindowLengths(NamedTuple):
    """Steps of the shortest and of the longest window that a run was trained on, in whole patches of `patch` steps.

    They differ if it was trained on whole series of unequal lengths.
    """

    shortest: int
    longest: int
    patch: int

    def longest_fit(self, steps: int) -> int:
        """Steps of the longest window in a series of `steps`; 0 if even the shortest does not fit."""
        size = min(self.longest, steps // self.patch * self.patch)
        return size if size >= self.shortest else 0

    @property
    def length_requirement(self) -> str:
        """The required length of a series, as part of an error message."""
        if self.shortest == self.longest:
            return f"the run's window has {self.shortest} steps"
        return f"the shortest series that the run was trained on has {self.shortest} steps in whole patches"

    @property
    def advice(self) -> str:
        """Advice on shorter series, as part of an error message."""
        smaller = "smaller " if self.shortest == self.longest else ""
        return f"give longer series, or train with a {smaller}data.window"


def window_lengths(method: Method, dataset: Series) -> WindowLengths:
    """The lengths of the windows that `method` was trained on; `dataset` is its training data."""
    patch, size = method.patch_steps, int(method.signal.size[0])
    if not dataset.has_padding:
        return WindowLengths(size, size, patch)
    shortest, longest = (int(n) // patch * patch for n in (dataset.cut.length.min(), dataset.cut.length.max()))
    return WindowLengths(shortest, longest, patch)


class Span(NamedTuple):
    """Steps `begin` … `end` - 1 of a series, counted among the steps of all series of a data set."""

    name: str
    begin: int
    end: int

    @property
    def steps(self) -> int:
        """The number of steps of the span."""
        return self.end - self.begin


def whole_spans(dataset: Series) -> list[Span]:
    """All steps of every series."""
    ends = pairwise([*dataset.steps.first.tolist(), dataset.steps.values.shape[1]])
    return [Span(name, *both) for name, both in zip(dataset.steps.name, ends, strict=True)]


def sampled_spans(dataset: Series) -> list[Span]:
    """For every series, the steps from the first to the last that any sample contains."""
    found = []
    for k, name in enumerate(dataset.steps.name):
        mine = dataset.cut.record == k
        if mine.any():
            begin, length = dataset.begin[mine], dataset.cut.length[mine]
            found.append(Span(name, int(begin.min()), int((begin + length).max())))
    return found


class SlidingScorer(NamedTuple):
    """Scores steps by windows that end `stride` steps apart.

    `method` is in evaluation mode, and `rounds` gives the predictions that score a window of so many steps. If lengths
    may differ, a series shorter than the longest window is one window, as in training, and causal windows grow with it.
    """

    method: Masked
    lengths: WindowLengths
    rounds: Callable[[int], Sequence[Round]]
    stride: int
    causal: bool
    batch: int
    device: torch.device | str

    def windows(self, span: Span) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """The first step and the length of each window of a span; the last one ends with the span."""
        first = self.lengths.shortest if self.causal else self.lengths.longest_fit(span.steps)
        if not self.lengths.longest_fit(span.steps):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        ends = np.arange(first, span.steps + 1, self.stride, dtype=np.int64)
        ends = ends if ends[-1] == span.steps else np.append(ends, np.int64(span.steps))
        sizes = np.minimum(ends // self.lengths.patch * self.lengths.patch, self.lengths.longest)
        return span.begin + ends - sizes, sizes

    def step_scores(
        self, dataset: Series, spans: Sequence[Span], progress: ProgressCallback = lambda done, total: None
    ) -> Iterator[Scores]:
        """The scores (T,) of the steps of each span, one span at a time; NaN for steps that no window scores.

        A step's score is the mean over the windows that hide it or, if causal, that of the first of them: windows that
        end later know more. Raises ValueError if a score is not finite.
        """
        windows = [self.windows(span) for span in spans]
        done, total = 0, sum(len(begins) for begins, _ in windows)
        for span, (begins, sizes) in zip(spans, windows, strict=True):
            errors = (_FirstErrors if self.causal else _MeanErrors)(span.steps)
            for part in _equal_size_batches(sizes, self.batch):
                for at, error in self._window_errors(dataset, begins[part], int(sizes[part.start])):
                    errors.add(at - span.begin, error)
                progress(done := done + part.stop - part.start, total)
            scores = errors.result()
            if np.isinf(scores).any():
                raise ValueError(f"scores of {span.name} are not finite; take an earlier checkpoint by --step")
            yield scores

    def _window_errors(
        self, dataset: Series, begins: Int64[np.ndarray, " b"], size: int
    ) -> Iterator[tuple[Int64[np.ndarray, " n"], Scores]]:
        """Of each round, the steps that it hides in windows of `size` steps and their errors, window by window."""
        x = torch.from_numpy(dataset.steps.values[:, begins[:, None] + np.arange(size)].transpose(1, 0, 2).copy())
        patch = self.lengths.patch
        for one in self.rounds(size):
            with torch.inference_mode():
                errors: Tensor = one.token_errors(self.method, x.to(self.device)).double().cpu()
            errors = errors.nan_to_num(nan=torch.inf)
            steps = one.tokens.numpy()[:, None] * patch + np.arange(patch)
            yield (begins[:, None] + steps.ravel()).ravel(), errors.repeat_interleave(patch, 1).flatten().numpy()


def _equal_size_batches(sizes: Int64[np.ndarray, " n"], batch: int) -> Iterator[slice]:
    """Neighbouring windows of one size, at most `batch` at a time."""
    for begin, end in pairwise([0, *(np.flatnonzero(np.diff(sizes)) + 1).tolist(), len(sizes)]):
        for k in range(begin, end, batch):
            yield slice(k, min(k + batch, end))


class _MeanErrors:
    """The mean of all errors of each step."""

    def __init__(self, steps: int) -> None:
        self.total, self.count = np.zeros(steps), np.zeros(steps)

    def add(self, at: Int64[np.ndarray, " n"], error: Scores) -> None:
        """Count errors of the steps `at`."""
        np.add.at(self.total, at, error)
        np.add.at(self.count, at, 1)

    def result(self) -> Scores:
        """The means; NaN for steps without errors."""
        mean: Scores = np.divide(self.total, self.count, out=np.full(len(self.total), np.nan), where=self.count > 0)
        return mean


class _FirstErrors:
    """The first error of each step: that of the window that ends first."""

    def __init__(self, steps: int) -> None:
        self.first = np.full(steps, np.nan)

    def add(self, at: Int64[np.ndarray, " n"], error: Scores) -> None:
        """Keep the errors of those steps `at` that have none yet; if a step comes twice, its first."""
        at, where = np.unique(at, return_index=True)
        fresh = np.isnan(self.first[at])
        self.first[at[fresh]] = error[where[fresh]]

    def result(self) -> Scores:
        """The errors; NaN for steps without any."""
        return self.first
