"""Classifies series by the nearest training series (Euclidean or DTW): the baseline for representations of series.

    DTW(a, b) = the least Σ |a_i − b_j|² over paths of pairs (i, j) from both first steps to both last steps that
    advance by one step in a, in b or in both, with |i − j| at most the band.

Source: Sakoe & Chiba, IEEE Trans. ASSP 26 (1978) 43. All channels share one warping path.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int64

Distance = Literal["euclidean", "dtw"]


def classify_nearest(
    train: Float[np.ndarray, "n c t"],
    y: Int64[np.ndarray, " n"],
    test: Float[np.ndarray, "m c t"],
    distance: Distance,
    band: float = 0.1,
) -> Int64[np.ndarray, " m"]:
    """The class of each test series' nearest training series; `band` is the band of DTW as a share of the steps."""
    steps = round(band * train.shape[2])
    away = (
        (lambda one: np.square(train - one).sum((1, 2)))
        if distance == "euclidean"
        else lambda one: dtw_distances(one, train, steps)
    )
    found: Int64[np.ndarray, " m"] = y[[int(away(one).argmin()) for one in test]]
    return found


def dtw_distances(a: Float[np.ndarray, "c t"], b: Float[np.ndarray, "n c t"], band: int) -> Float[np.ndarray, " n"]:
    """The DTW distance, a sum of squares, from one series to each of n; a band of 0 gives squared Euclidean distance.

    The cells with i + j = k are computed together, for all n, because each depends only on the two previous diagonals.
    Row i + 1 of a diagonal is cell i; row 0 lies outside the table.
    """
    t, x, many = a.shape[1], a[..., None], b.transpose(1, 2, 0)
    two, one = (np.full((t + 1, len(b)), np.inf) for _ in range(2))
    two[0] = 0.0  # the start, before the first step of both series
    for k in range(2 * t - 1):
        low, high = max(0, k - t + 1, -((band - k) // 2)), min(t - 1, k, (k + band) // 2)
        now, rows, above = np.full_like(one, np.inf), slice(low + 1, high + 2), slice(low, high + 1)
        if low <= high:
            cost = np.square(x[:, above] - many[:, k - high : k - low + 1][:, ::-1]).sum(0)
            now[rows] = cost + np.minimum(np.minimum(one[rows], one[above]), two[above])
        if k == 0:
            two[0] = np.inf
        two, one = one, now
    return one[t]
