"""The errors that a reader's last forecasts of a series made, where it was not fitted to what came."""

from typing import Final

import numpy as np
from jaxtyping import Float32, UInt64

from ..data.series.dataset import Series
from .candidates import Candidate, View
from .intervals import HALF_LIFE, RecentErrors
from .unseen import Stretch
from .windows import Span

REACH: Final = 3
"""How many half-lives back forecasts are tried again."""
PER_HORIZON: Final = 4
"""How many forecasts are tried again in every horizon."""
MAX_TRIED: Final = 8000
LEAST_TRIED: Final = 8
"""The most forecasts that are tried again, in all series, unless that is fewer than LEAST_TRIED in each."""
SAME_STEPS: Final = 16
"""So many equal steps in a row are the same steps, at most."""


class SeenSteps:
    """The steps that readers are fitted to, recognised by their values wherever they are given again.

    So many steps in a row as `length` are compared, by a hash.
    """

    def __init__(self, fit: list[Stretch], length: int) -> None:
        self.length = min(length, SAME_STEPS)
        parts = [self._hashes(s.values[:, s.begin : s.end]) for s in fit]
        self.known = np.unique(np.concatenate(parts))

    def _hashes(self, values: Float32[np.ndarray, "c t"]) -> UInt64[np.ndarray, " _"]:
        """The hash of the steps from every one on, modulo 2^64."""
        # Zero is added since it makes the bits of -0 those of 0.
        bits = np.ascontiguousarray(values + np.float32(0)).view(np.uint32).astype(np.uint64)
        count = max(0, values.shape[1] - self.length + 1)
        factor = np.random.default_rng(0).integers(1, 2**63, (len(values), self.length), dtype=np.uint64) * 2 + 1
        total = np.zeros(count, dtype=np.uint64)
        for k in range(self.length):
            total += (bits[:, k : k + count] * factor[:, k, None]).sum(0, dtype=np.uint64)
        return total

    def end(self, values: Float32[np.ndarray, "c t"]) -> int:
        """The first of the given steps after all that readers are fitted to."""
        same = np.flatnonzero(np.isin(self._hashes(values), self.known))
        return int(same[-1]) + self.length if len(same) else 0


def recent_errors(
    dataset: Series, span: Span, seen: SeenSteps, used: Candidate, view: View, past: int, horizon: int, most: int
) -> RecentErrors | None:
    """The errors of the last forecasts, at most so many, that know `past` steps; None if there are none.

    Each has the weight of an independent forecast for every half horizon between its origin and the next, spread over
    its steps, and halved for every HALF_LIFE horizons that its value is old.
    """
    stride = max(1, horizon // PER_HORIZON, REACH * HALF_LIFE * horizon // most)
    values = dataset.steps.values[:, max(span.begin, span.end - REACH * HALF_LIFE * horizon - past) : span.end]
    end = values.shape[1]
    origins = np.arange(end - stride, max(past, seen.end(values)) - 1, -stride)[:most]
    if not len(origins):
        return None
    known = np.stack([values[:, at - past : at] for at in origins]).astype(np.float64)
    step = origins[:, None] + np.arange(horizon)
    truth = values[:, np.minimum(step, end - 1)].transpose(1, 0, 2)
    ratio = np.abs(used.forecast(known, horizon) - truth) / view.scale(known)
    age = end - 1 - step
    weight = np.where(age >= 0, 0.5 ** (age / (HALF_LIFE * horizon)), 0.0) * 2 * stride / (horizon + 1) / horizon
    return RecentErrors(ratio, weight)
