"""Finds the length of the season of series: the lag at which their changes repeat themselves."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, Float64

CLEAR: Final = 0.2
"""The correlation of the changes in one season with those in the next, and its height above shorter lags, at least."""
FIRST_LAG: Final = 2
"""At lag 1, changes correlate negatively where values are noisy; that is no valley before a season."""
NEARLY: Final = 0.8
"""Multiples of a season correlate as well; the shortest lag with this share of the highest correlation is it …"""
TIED_ERRORS: Final = 2.0
"""… or one whose correlation, and that of its multiples, is lower by at most so many standard errors of the
difference."""
BESIDE: Final = 0.1
"""Peaks this share of a season apart belong to one season."""


def season_length(series: Sequence[Float[np.ndarray, "c _"]], longest: int) -> int:
    """The steps of a season of `longest` steps at most; 0 if the series have no clear season.

    Changes from step to step are compared, because the level of a series that drifts is like itself at every lag.
    """
    correlation = change_correlation(series, longest + 1)
    inner = np.arange(FIRST_LAG + 1, len(correlation) - 1)
    valley = np.minimum.accumulate(correlation[FIRST_LAG:])[inner - FIRST_LAG]
    peaks = inner[(correlation[inner] > correlation[inner - 1]) & (correlation[inner] >= correlation[inner + 1])]
    peaks = peaks[correlation[peaks] >= CLEAR]
    peaks = peaks[correlation[peaks] - valley[peaks - FIRST_LAG - 1] >= CLEAR]
    if not len(peaks):
        return 0
    highest = peaks[np.argmax(correlation[peaks])]
    error = np.sqrt(2) * correlation_error(correlation[:highest], sum(values.shape[1] - 1 for values in series))
    nearly, tied = NEARLY * correlation[highest], float(correlation[highest] - TIED_ERRORS * error)
    known = correlation[: highest + 1]
    shortest = next(p for p in peaks.tolist() if correlation[p] >= nearly or repeats(known, p, tied))
    # Noise makes several peaks of one; the highest of those beside each other is the season.
    near = peaks[(peaks >= shortest) & (peaks <= (1 + BESIDE) * shortest)]
    return int(near[np.argmax(correlation[near])])


def repeats(correlation: Float64[np.ndarray, " lags"], lag: int, level: float) -> bool:
    """Whether the longest lag is a multiple of `lag`, and the correlation reaches `level` at all of its multiples.

    Each may be off by the share BESIDE of the lag.
    """
    beside, longest = int(BESIDE * lag), len(correlation) - 1
    multiples = range(lag, longest + beside + 1, lag)
    return abs(multiples[-1] - longest) <= beside and all(
        correlation[m - beside : m + beside + 1].max() >= level for m in multiples
    )


def correlation_error(shorter: Float64[np.ndarray, " lags"], changes: int) -> float:
    """The standard error of the autocorrelation of so many changes at a lag, from those at 0 and all `shorter` lags.

    Source: Bartlett 1946, Journal of the Royal Statistical Society 8, for a series without correlation at longer lags.
    """
    return float(np.sqrt((1 + 2 * np.square(shorter[1:]).sum()) / changes))


def change_correlation(series: Sequence[Float[np.ndarray, "c _"]], longest: int) -> Float64[np.ndarray, " lags"]:
    """The autocorrelation of the changes from step to step at lags 0 … `longest`, averaged over channels.

    Lags that no series is long enough for are left out.
    """
    total, count = np.zeros((series[0].shape[0], longest + 1)), np.zeros(longest + 1)
    for values in series:
        change = np.diff(values.astype(np.float64), axis=1)
        steps = change.shape[1]
        if steps < 2:
            continue
        change = change - change.mean(1, keepdims=True)
        spectrum = np.fft.rfft(change, 2 * steps, axis=1)
        products = np.fft.irfft(np.abs(spectrum) ** 2, 2 * steps, axis=1)[:, : min(steps, longest + 1)]
        total[:, : products.shape[1]] += products
        count[: products.shape[1]] += steps - np.arange(products.shape[1])
    known = count > 0
    mean = total[:, known] / count[known]
    varies = mean[:, 0] > 0
    return (mean[varies] / mean[varies, :1]).mean(0) if varies.any() else np.zeros(0)
