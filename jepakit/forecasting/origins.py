"""Windows to fit a reader to, and moments of held-out data from which forecasts are tried."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..data.base import spread
from ..data.series.dataset import Series
from ..evals.windows import FEWEST, steps_seen
from ..scoring.sliding import covered

MOST = 4000
"""Windows to fit to, and moments to try, at most: evenly spread."""
HELD = 0.2


@dataclass(frozen=True, eq=False)
class Origins:
    """All steps of the run's data, where windows of `size` steps begin, and which of them the fit may see.

    The first `past` steps of a window are known, the others to be foretold. `fit` lie before the part that is held
    out, `every` all over; from `tried`, past halves whose future is held out, forecasts are compared with what came:
    `room` steps of it.
    """

    values: Float[np.ndarray, "c t"]
    size: int
    past: int
    fit: Int64[np.ndarray, " f"]
    every: Int64[np.ndarray, " e"]
    tried: Int64[np.ndarray, " k"]
    room: Int64[np.ndarray, " k"]

    def cut(self, starts: Int64[np.ndarray, " n"], length: int) -> Float[Tensor, "n c {length}"]:
        """`length` steps from each start."""
        at = starts[:, None] + np.arange(length)
        return torch.from_numpy(np.ascontiguousarray(self.values[:, at].transpose(1, 0, 2)))

    def future(self, begin: int, horizon: int) -> Float[np.ndarray, "k c {horizon}"]:
        """What came after the first `begin` steps of every one that is tried; NaN beyond the end of its series."""
        steps = np.arange(horizon)
        at = np.minimum(self.tried[:, None] + begin + steps, self.values.shape[1] - 1)
        found = self.values[:, at].transpose(1, 0, 2).astype(np.float64)
        return np.where((steps < self.room[:, None])[:, None], found, np.nan)


def origins(dataset: Series, method: Any, size: int) -> Origins:
    """What to fit to and to try, by windows of `size` steps.

    In long series the last fifth of each is held out, else the last fifth of the series. Raises ValueError where too
    few windows are left.
    """
    cut, spans = steps_seen(method, size), covered(dataset)
    # A fifth of a series has to hold something to foretell.
    long = all(HELD * (s.end - s.begin) >= 2 and (1 - HELD) * (s.end - s.begin) >= size + FEWEST for s in spans)
    edges = [s.end - int(HELD * (s.end - s.begin)) for s in spans]
    if not long:
        first = len(spans) - max(1, int(HELD * len(spans)))
        edges = [s.end if k < first else s.begin for k, s in enumerate(spans)]
    fit = _joined([np.arange(s.begin, e - size + 1) for s, e in zip(spans, edges, strict=True)])
    every = _joined([np.arange(s.begin, s.end - size + 1) for s in spans])
    tried = _joined([np.arange(max(s.begin, e - cut), s.end - cut) for s, e in zip(spans, edges, strict=True)])
    ends = np.concatenate(
        [np.full(max(0, s.end - cut - max(s.begin, e - cut)), s.end) for s, e in zip(spans, edges, strict=True)]
    )
    if len(fit) < FEWEST or not len(tried):
        raise ValueError(
            f"the run was trained on {len(every)} windows, too few to fit a reader and to hold some out for intervals; "
            f"train on data with {2 * FEWEST} windows or more"
        )
    few = spread(len(tried), MOST)
    room = (ends[few] - tried[few] - cut).astype(np.int64)
    starts = (fit[spread(len(fit), MOST)], every[spread(len(every), MOST)], tried[few])
    return Origins(dataset.steps.values, size, cut, *starts, room)


def _joined(parts: list[np.ndarray]) -> Int64[np.ndarray, " n"]:
    return np.concatenate(parts).astype(np.int64)
