"""Windows that slide over series, as long as the method knows them from training, and the score of every step."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..data.series.dataset import Series
from ..methods.base import Method
from ..run.checkpoint import Loaded
from .hiding import Round


class Known(NamedTuple):
    """Steps of the shortest and of the longest window that a method has learnt from, in whole patches of `patch` steps.

    They differ where it was trained on whole series of unequal lengths.
    """

    least: int
    most: int
    patch: int

    def fits(self, steps: int) -> int:
        """Steps of the longest window in a series of so many; 0 where the shortest one does not fit."""
        size = min(self.most, steps // self.patch * self.patch)
        return size if size >= self.least else 0

    @property
    def told(self) -> str:
        """The shortest one in words."""
        if self.least == self.most:
            return f"the run's window has {self.least} steps"
        return f"the shortest series that the run was trained on has {self.least} steps in whole patches"

    @property
    def fix(self) -> str:
        """What helps where a series is shorter."""
        return f"give longer series, or train with a {'smaller ' if self.least == self.most else ''}data.window"


def known(method: Method, dataset: Series) -> Known:
    """The windows that a method knows from the data that it was trained on."""
    patch, size = int(cast(Any, method).encoder.patch[0]), int(method.signal.size[0])
    if not dataset.padded:
        return Known(size, size, patch)
    least, most = (int(steps) // patch * patch for steps in (dataset.cut.length.min(), dataset.cut.length.max()))
    return Known(least, most, patch)


def trained_on(loaded: Loaded, use: str) -> Series:
    """A run's own data; `use` tells what for. Raises ValueError where they are gone, or where they were stretched."""
    try:
        found: Series = loaded.run.data.open().as_series("scoring and forecasting")
    except ValueError as error:
        raise ValueError(f"{error}. The run was trained on that, and {use}") from None
    if found.unequal == "stretch" and (found.cut.length != found.native[0]).any():
        low, high = int(found.cut.length.min()), int(found.cut.length.max())
        raise ValueError(
            f"the run stretches series of {low} to {high} steps to one length, so its steps have no length of their "
            "own; train with data.unequal=pad or data.unequal=cut, or with a data.window"
        )
    return found


Scores = Float64[np.ndarray, " t"]
Progress = Callable[[int, int], None]


class Span(NamedTuple):
    """Steps `begin` up to, not including, `end` of a series, counted among the steps of all series of a data set."""

    name: str
    begin: int
    end: int


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
    """A method in evaluation mode, the windows that it knows, the rounds of those of so many steps, and their stride.

    Where they may differ in length, a series that is shorter than the longest is one window, as in training, and
    causal ones grow with it.
    """

    method: Method
    known: Known
    rounds: Callable[[int], Sequence[Round]]
    stride: int
    causal: bool
    batch: int
    device: torch.device | str

    def windows(self, span: Span) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Where windows begin, and how many steps they have: `stride` apart, and one at the very end."""
        steps = span.end - span.begin
        first = self.known.least if self.causal else self.known.fits(steps)
        if not self.known.fits(steps):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        ends = np.arange(first, steps + 1, self.stride, dtype=np.int64)
        ends = ends if ends[-1] == steps else np.append(ends, np.int64(steps))
        sizes = np.minimum(ends // self.known.patch * self.known.patch, self.known.most)
        return span.begin + ends - sizes, sizes

    def scores(
        self, dataset: Series, spans: Sequence[Span], progress: Progress = lambda done, total: None
    ) -> Iterator[Scores]:
        """The score of each step of each span, NaN where no window has one; one span at a time.

        A step's score is the mean over the windows that hide it or, if causal, that of the first one: windows that end
        later know more. Raises ValueError where a score is not finite.
        """
        windows = [self.windows(span) for span in spans]
        done, total = 0, sum(len(begins) for begins, _ in windows)
        for span, (begins, sizes) in zip(spans, windows, strict=True):
            gathered = (_First if self.causal else _Mean)(span.end - span.begin)
            for part in _batches(sizes, self.batch):
                for at, error in self._errors(dataset, begins[part], int(sizes[part.start])):
                    gathered.add(at - span.begin, error)
                progress(done := done + part.stop - part.start, total)
            found = gathered.take()
            if np.isinf(found).any():
                raise ValueError(f"scores of {span.name} are not finite; take an earlier checkpoint by --step")
            yield found

    def _errors(
        self, dataset: Series, begins: Int64[np.ndarray, " b"], size: int
    ) -> Iterator[tuple[Int64[np.ndarray, " n"], Scores]]:
        """The steps that each round hides in windows of `size` steps, and their errors, window by window."""
        x = torch.from_numpy(dataset.steps.values[:, begins[:, None] + np.arange(size)].transpose(1, 0, 2).copy())
        patch = self.known.patch
        for one in self.rounds(size):
            with torch.inference_mode():
                errors: Tensor = one.errors(self.method, x.to(self.device)).double().cpu()
            errors = errors.nan_to_num(nan=torch.inf)
            steps = one.tokens.numpy()[:, None] * patch + np.arange(patch)
            yield (begins[:, None] + steps.ravel()).ravel(), errors.repeat_interleave(patch, 1).flatten().numpy()


def _batches(sizes: Int64[np.ndarray, " n"], most: int) -> Iterator[slice]:
    """Neighbours of one size, `most` at a time."""
    for begin, end in pairwise([0, *(np.flatnonzero(np.diff(sizes)) + 1).tolist(), len(sizes)]):
        for k in range(begin, end, most):
            yield slice(k, min(k + most, end))


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
