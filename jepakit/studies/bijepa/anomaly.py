"""Measures how well step scores separate anomalies from the rest, and computes simple baselines.

The area under the ROC curve of a series is the probability that a step inside a labelled window scores above a step
outside all of them; .5 is chance level. It is computed per series and averaged, so it says neither whether scores of
different series are comparable nor how many alarms a threshold raises. Steps without a score are ignored.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Float64, Shaped
from scipy.stats import median_abs_deviation

from ...types import Rng

NORMAL_STD_PER_MAD: Final = 1.4826  # the standard deviation over the median absolute deviation of a normal distribution
Scores = Float64[np.ndarray, " t"]


def mark_windows(time: Shaped[np.ndarray, " t"], windows: Sequence[Sequence[object]]) -> Bool[np.ndarray, " t"]:
    """Whether each time is in one of the `windows`, which are pairs of a first and a last time."""
    inside = np.zeros(len(time), dtype=bool)
    for first, last in windows:
        begin, end = np.array([first, last]).astype(time.dtype)
        inside |= (time >= begin) & (time <= end)
    return inside


def roc_area(scores: Scores, anomalous: Bool[np.ndarray, " t"]) -> float:
    """The area under the ROC curve over the steps that have a score.

    Raises ValueError if these steps are all labelled or all unlabelled.
    """
    from sklearn.metrics import roc_auc_score

    there = ~np.isnan(scores)
    kinds = anomalous[there]
    if kinds.all() or not kinds.any():
        raise ValueError(
            f"{int(kinds.sum())} of {len(kinds)} scored steps are labelled anomalous; give series that have both kinds"
        )
    return float(roc_auc_score(kinds, scores[there]))


def bootstrap_interval(values: Sequence[float], rng: Rng, resamples: int = 1000) -> tuple[float, float, float]:
    """The mean over series, and its 95 % interval: percentiles over bootstrap samples of the series."""
    gen = np.random.default_rng(rng.generator().initial_seed())
    means = np.array(values)[gen.integers(len(values), size=(resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def median_distance(x: Float[np.ndarray, " t"], window: int) -> Scores:
    """|x − median| over the last `window` steps, this one included; NaN for the first `window` − 1."""
    found: Scores = np.abs(
        x.astype(np.float64) - _at_ends(x, window, lambda windows: np.asarray(np.median(windows, axis=1)))
    )
    return found


def scaled_median_distance(x: Float[np.ndarray, " t"], window: int) -> Scores:
    """|x − median| / MAD over the last `window` steps, this one included; NaN for the first `window` − 1.

    If most of them are equal, a thousandth of the whole series' deviation replaces the MAD.
    """
    least = max(float(x.std()) / 1000, np.finfo(np.float64).tiny)
    spread = NORMAL_STD_PER_MAD * _at_ends(x, window, lambda windows: np.asarray(median_abs_deviation(windows, axis=1)))
    return median_distance(x, window) / np.maximum(spread, least)


def rolling_deviation(x: Float[np.ndarray, " t"], window: int) -> Scores:
    """The standard deviation of the `window` steps around each step; near an end, of the first or last ones."""
    found = _at_ends(x, window, lambda windows: np.asarray(windows.std(axis=1)))[window - 1 :]
    return found[np.clip(np.arange(len(x)) - window // 2, 0, len(found) - 1)]


def _at_ends(x: Float[np.ndarray, " t"], window: int, statistic: Callable[[np.ndarray], np.ndarray]) -> Scores:
    """A statistic of the last `window` steps at every step; NaN for the first `window` − 1."""
    if not 2 <= window <= len(x):
        raise ValueError(f"the window is {window} of {len(x)} steps; give 2 steps or more, and no more than there are")
    last = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), window)
    parts = [statistic(last[k : k + 4096]) for k in range(0, len(last), 4096)]
    return np.concatenate([np.full(window - 1, np.nan), *parts])


def step_distance(x: Float[np.ndarray, " t"]) -> Scores:
    """The distance of each value to the previous one; NaN for the first."""
    found: Scores = np.concatenate([[np.nan], np.abs(np.diff(x.astype(np.float64)))])
    return found


def average_scores(scores: Scores, window: int) -> Scores:
    """The mean score over the `window` steps around each step, ignoring steps without a score; NaN if none has one."""
    there, around = ~np.isnan(scores), np.ones(window)
    count = np.convolve(there.astype(float), around, "same")[: len(scores)]
    total = np.convolve(np.where(there, scores, 0.0), around, "same")[: len(scores)]
    mean: Scores = np.divide(total, count, out=np.full(len(scores), np.nan), where=count > 0.5)
    return mean
