"""Windows that slide over series, and the score of every step that they cover."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..data.series.dataset import Series
from ..methods.base import Method
from .rounds import Round

Scores = Float64[np.ndarray, " t"]
Progress = Callable[[int, int], None]


class Span(NamedTuple):
    """Steps `begin` up to, not including, `end` of a series, counted among the steps of all series of a data set."""

    name: str
    begin: int
    end: int

    def starts(self, window: int, stride: int) -> Int64[np.ndarray, " n"]:
        """Where windows begin, `stride` steps apart, and one at the very end; none where the series is shorter."""
        last = self.end - window
        if last < self.begin:
            return np.empty(0, dtype=np.int64)
        starts = np.arange(self.begin, last + 1, stride, dtype=np.int64)
        return starts if starts[-1] == last else np.append(starts, np.int64(last))


def whole(dataset: Series) -> list[Span]:
    """All steps of every series."""
    ends = pairwise([*dataset.steps.first.tolist(), dataset.steps.values.shape[1]])
    return [Span(name, *both) for name, both in zip(dataset.steps.name, ends, strict=True)]


def covered(dataset: Series) -> list[Span]:
    """The stretch of every series between the first and the last step that some sample holds."""
    found = []
    for k, name in enumerate(dataset.steps.name):
        mine = dataset.cut.record == k
        if mine.any():
            begin, length = dataset.begin[mine], dataset.cut.length[mine]
            found.append(Span(name, int(begin.min()), int((begin + length).max())))
    return found


class Slider(NamedTuple):
    """A method in evaluation mode, how its windows are scored, and how far apart they begin, in steps."""

    method: Method
    rounds: Sequence[Round]
    stride: int
    causal: bool
    batch: int
    device: torch.device | str

    @property
    def window(self) -> int:
        """Steps in a window."""
        return int(self.method.signal.size[0])

    def scores(
        self, dataset: Series, spans: Sequence[Span], progress: Progress = lambda done, total: None
    ) -> Iterator[Scores]:
        """The score of each step of each span, NaN where no window has one; one span at a time.

        A step's score is the mean over the windows that hide it or, if causal, that of the first one: windows that end
        later know more. Raises ValueError where a score is not finite.
        """
        starts = [span.starts(self.window, self.stride) for span in spans]
        done, total = 0, sum(map(len, starts))
        for span, mine in zip(spans, starts, strict=True):
            gathered = (_First if self.causal else _Mean)(span.end - span.begin)
            for k in range(0, len(mine), self.batch):
                part = mine[k : k + self.batch]
                for at, error in self._errors(dataset, part):
                    gathered.add(at - span.begin, error)
                progress(done := done + len(part), total)
            found = gathered.take()
            if np.isinf(found).any():
                raise ValueError(f"scores of {span.name} are not finite; take an earlier checkpoint by --step")
            yield found

    def _errors(
        self, dataset: Series, starts: Int64[np.ndarray, " b"]
    ) -> Iterator[tuple[Int64[np.ndarray, " n"], Scores]]:
        """The steps that each round hides in these windows, and their errors, window by window."""
        x = torch.from_numpy(
            dataset.steps.values[:, starts[:, None] + np.arange(self.window)].transpose(1, 0, 2).copy()
        )
        patch = int(cast(Any, self.method).encoder.patch[0])
        for one in self.rounds:
            with torch.inference_mode():
                errors: Tensor = one.errors(self.method, x.to(self.device)).double().cpu()
            errors = errors.nan_to_num(nan=torch.inf)
            steps = one.tokens.numpy()[:, None] * patch + np.arange(patch)
            yield (starts[:, None] + steps.ravel()).ravel(), errors.repeat_interleave(patch, 1).flatten().numpy()


class _Mean:
    """The mean of all errors of a step."""

    def __init__(self, steps: int) -> None:
        self.total, self.count = np.zeros(steps), np.zeros(steps)

    def add(self, at: Int64[np.ndarray, " n"], error: Scores) -> None:
        """Count errors of the steps `at`."""
        np.add.at(self.total, at, error)
        np.add.at(self.count, at, 1)

    def take(self) -> Scores:
        """NaN where there are none."""
        mean: Scores = np.divide(self.total, self.count, out=np.full(len(self.total), np.nan), where=self.count > 0)
        return mean


class _First:
    """The first error of a step: that of the window that ends first."""

    def __init__(self, steps: int) -> None:
        self.found = np.full(steps, np.nan)

    def add(self, at: Int64[np.ndarray, " n"], error: Scores) -> None:
        """Keep errors of those steps `at` that have none; of several the first."""
        at, where = np.unique(at, return_index=True)
        fresh = np.isnan(self.found[at])
        self.found[at[fresh]] = error[where[fresh]]

    def take(self) -> Scores:
        """NaN where there are none."""
        return self.found
