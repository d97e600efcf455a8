"""Divides a run's series for forecasts: windows to fit readers on, and windows to judge them on.

Readers are fitted on what the encoder was trained on, and judged on windows whose future it never saw: the steps after
those that training read, or whole series that it left out. A run that left nothing out is judged on the last fifth of
its data, which it has seen; `Division.seen` says so.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from ..data import SourceConfig
from ..data.draws import spread_evenly
from ..data.series.dataset import Series
from ..evals.windows import MIN_WINDOWS
from .windows import Span, sampled_spans, whole_spans

MAX_FITTED: Final = 4000
MAX_JUDGED: Final = 2000
"""The most windows to fit on, and to judge on: evenly spread."""
SEEN_SHARE: Final = 0.2
"""The share at the end that is judged on if training left nothing out."""
PARTS: Final = 5
"""Into how many parts what readers are fitted on is divided, to forecast each by readers of the others."""
MIN_JUDGED: Final = 19
"""The fewest forecasts from which an interval of 95 % can be calibrated: 19 errors and a new one are 20."""


class Stretch(NamedTuple):
    """The steps `begin` … `end` - 1 of one series, among `values`; forecasts are of those from `first` on."""

    values: Float32[np.ndarray, "c t"]
    begin: int
    first: int
    end: int

    def origins(self, past: int, horizon: int) -> Int64[np.ndarray, " n"]:
        """The first step of every forecast of `horizon` steps that knows `past` steps of the series."""
        return np.arange(max(self.first, self.begin + past), self.end - horizon + 1, dtype=np.int64)

    def edges(self) -> list[int]:
        """The first steps of PARTS parts in time, and the end."""
        return [self.begin + k * (self.end - self.begin) // PARTS for k in range(PARTS + 1)]

    def after(self, step: int) -> "Stretch":
        """The part from `step` on."""
        return Stretch(self.values, step, step, self.end)

    def room(self, past: int) -> int:
        """How many steps can be forecast at most, if `past` steps must be known."""
        return max(0, self.end - max(self.first, self.begin + past))


class Division(NamedTuple):
    """Where to fit and where to judge; `seen`: the encoder was trained on what is judged on."""

    fit: list[Stretch]
    judge: list[Stretch]
    seen: bool

    @property
    def judged_part(self) -> str:
        """A noun for the part that is judged on."""
        return "the last fifth of the data" if self.seen else "the held-out part"


class Judged(NamedTuple):
    """Forecasts to be judged: the known steps, and what came; they are spread evenly over `origins` possible ones."""

    past: Float64[np.ndarray, "n c p"]
    truth: Float64[np.ndarray, "n c h"]
    origins: int

    @property
    def independent(self) -> float:
        """How many of the forecasts are independent, roughly.

        Errors k steps ahead from origins closer than k share steps; k is (h + 1) / 2 on average.
        """
        return max(1.0, 2 * self.origins / (int(self.truth.shape[2]) + 1))


def divide(own: Series, left_out: SourceConfig | None, size: int) -> Division:
    """Where to fit and judge forecasts of a run on `own`, by windows of `size` steps.

    `left_out` are the settings of what training left out, None if it left out nothing. Then the last fifth of every
    series is judged on or, if series are short, the last fifth of them.
    """
    values, spans = own.steps.values, sampled_spans(own)
    if left_out is None:
        edges = _seen_edges(spans, size)
        fit = [Stretch(values, s.begin, s.begin, e) for s, e in zip(spans, edges, strict=True)]
        judge = [Stretch(values, s.begin, e, s.end) for s, e in zip(spans, edges, strict=True)]
        return Division(fit, [s for s in judge if s.first < s.end], seen=True)
    judge = _steps_after_training(own)
    if not judge:
        # Made-up series of the test part are not among the steps of the training part.
        rest: Series | None = left_out.open().as_series()
        judge = [] if rest is None else [Stretch(rest.steps.values, s.begin, s.begin, s.end) for s in whole_spans(rest)]
    return Division([Stretch(values, s.begin, s.begin, s.end) for s in spans], judge, seen=False)


def _steps_after_training(own: Series) -> list[Stretch]:
    """Of every series the steps after the last that a training sample covers; all, if none covers any."""
    spans = whole_spans(own)
    after = np.array([span.begin for span in spans], dtype=np.int64)
    np.maximum.at(after, own.cut.record, own.begin + own.cut.length)
    return [
        Stretch(own.steps.values, s.begin, int(a), s.end) for s, a in zip(spans, after, strict=True) if int(a) < s.end
    ]


def _seen_edges(spans: Sequence[Span], size: int) -> list[int]:
    """The first step of every series that is judged on: the last fifth of each if all are long, else of the series."""
    if all(SEEN_SHARE * s.steps >= 2 and (1 - SEEN_SHARE) * s.steps >= size + MIN_WINDOWS for s in spans):
        return [s.end - int(SEEN_SHARE * s.steps) for s in spans]
    first = len(spans) - max(1, int(SEEN_SHARE * len(spans)))
    return [s.end if k < first else s.begin for k, s in enumerate(spans)]


def check_division(division: Division, past: int, size: int, horizon: int) -> None:
    """Raise ValueError, naming the fix, if too few windows are there to fit readers on, or to judge their forecasts on.

    Every forecast is judged over the whole horizon: a part of it would say nothing of the steps beyond.
    """
    if (count := sum(len(s.origins(0, size)) for s in division.fit)) < MIN_WINDOWS:
        raise ValueError(
            f"there are {count} windows to fit readers on, and they need {MIN_WINDOWS}; train on longer or more series"
        )
    room = np.array([s.room(past) for s in division.judge] or [0])

    def forecasts(h: int) -> int:
        return int(np.maximum(room - h + 1, 0).sum())

    if forecasts(horizon) >= MIN_JUDGED:
        return
    longest = int(room.max())
    possible = bisect_left(range(1, longest + 1), True, key=lambda h: forecasts(h) < MIN_JUDGED)
    shorter = f"give a --horizon of {possible} or less, or " if possible else ""
    more = "on more data" if division.seen else "with a larger data.held_out, or on more data"
    if longest < horizon:
        why = f"{division.judged_part} has {longest} steps to forecast, fewer than the horizon of {horizon}"
    else:
        why = (
            f"{division.judged_part} has room for {forecasts(horizon)} forecasts of {horizon} steps, but to compare "
            f"them and to calibrate their intervals takes {MIN_JUDGED}"
        )
    raise ValueError(f"{why}; {shorter}train {more}")


def parted(division: Division, size: int) -> list[Division]:
    """What readers are fitted on, in PARTS parts: each is judged on once, with the rest to fit on.

    The parts are those of every series in time if each has room for a window of `size` steps, else they are
    groups of series. Empty if there are too few series, or the rest has too few windows.
    """
    fit = division.fit
    if all((s.end - s.begin) // PARTS >= size for s in fit):
        cut = [s.edges() for s in fit]
        judge = [[s._replace(first=e[k], end=e[k + 1]) for s, e in zip(fit, cut, strict=True)] for k in range(PARTS)]
        rest = [
            [part for s, e in zip(fit, cut, strict=True) for part in (s._replace(end=e[k]), s.after(e[k + 1]))]
            for k in range(PARTS)
        ]
    else:
        group = np.arange(len(fit)) * PARTS // len(fit)
        judge = [[s for s, g in zip(fit, group, strict=True) if g == k] for k in range(PARTS)]
        rest = [[s for s, g in zip(fit, group, strict=True) if g != k] for k in range(PARTS)]
    found = [Division(*both, division.seen) for both in zip(rest, judge, strict=True)]
    enough = all(sum(len(s.origins(0, size)) for s in one.fit) >= MIN_WINDOWS for one in found)
    return found if enough else []


def fit_windows(division: Division, size: int) -> Float[np.ndarray, "n c {size}"]:
    """Windows of `size` steps to fit on, at most MAX_FITTED of them."""
    places = _places([s.origins(0, size) for s in division.fit], MAX_FITTED)
    return np.stack([division.fit[k].values[:, start : start + size] for k, start in places])


def judged_windows(division: Division, past: int, horizon: int, most: int = MAX_JUDGED) -> Judged:
    """Forecasts to be judged: `past` known steps and `horizon` steps that came; at most so many."""
    origins = [s.origins(past, horizon) for s in division.judge]
    places = _places(origins, most)
    known = np.stack([division.judge[k].values[:, at - past : at] for k, at in places]).astype(np.float64)
    truth = np.stack([division.judge[k].values[:, at : at + horizon] for k, at in places]).astype(np.float64)
    return Judged(known, truth, sum(map(len, origins)))


def _places(origins: Sequence[Int64[np.ndarray, " _"]], most: int) -> list[tuple[int, int]]:
    """At most so many places, evenly spread: the stretch and the step."""
    ends = np.cumsum([len(each) for each in origins])
    few = np.array(spread_evenly(int(ends[-1]), most))
    stretch = np.searchsorted(ends, few, side="right")
    rank = few - np.concatenate([[0], ends])[stretch]
    return [(int(k), int(origins[k][r])) for k, r in zip(stretch, rank, strict=True)]
