"""Physiological measures of a circuit's recorded states: pure functions of arrays (T steps, N samples, d units).

Each docstring gives the formula, the source and the limits of the measure. No measure depends on the states' origin.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from ...evals.metrics.result import bootstrap_interval
from ...types import Rng

LONGEST, RESAMPLES = 100.0, 1000
# Candidate time constants; 0 is a unit without memory.
TIME_CONSTANTS: Final = np.concatenate([[0.0], np.geomspace(0.1, LONGEST, 400)])


def unit_autocorrelation(h: Float[np.ndarray, "t n d"], lags: int) -> Float64[np.ndarray, "l d"]:
    """r(l) of every unit for l = 0 … `lags`, Σ h̃_t h̃_{t+l} / √(Σ h̃_t² Σ h̃_{t+l}²), with sums over steps and samples.

    h̃ is h minus the mean over samples at every step, so that a time course shared by all samples does not count. NaN
    for a unit that does not vary. Source: the estimate of Murray et al. 2014 (Nat. Neurosci. 17, 1661).
    Limit: it cannot tell whether the unit or its input is correlated in time, unless inputs are independent.
    """
    centred = h.astype(np.float64) - h.mean(1, keepdims=True, dtype=np.float64)
    found = []
    for lag in range(lags + 1):
        a, b = centred[: len(h) - lag], centred[lag:]
        size = np.sqrt(np.square(a).sum((0, 1)) * np.square(b).sum((0, 1)))
        found.append(np.divide((a * b).sum((0, 1)), size, out=np.full(h.shape[2], np.nan), where=size > 1e-12))
    return np.array(found)


def remaining_difference(
    h: Float[np.ndarray, "t n d"], other: Float[np.ndarray, "t n d"]
) -> Float64[np.ndarray, "t d"]:
    """The remaining share of a difference: the mean over samples of |h − h'| per unit, over that of the first step.

    NaN for a unit that did not differ. As a response to a perturbation it does not depend on repetitions in the input.
    Limit: it does not see what other units have taken over, nor memory that a perturbation of this size does not move.
    """
    gap = np.abs(h.astype(np.float64) - other).mean(1)
    left: np.ndarray = np.divide(gap, gap[:1], out=np.full(gap.shape, np.nan), where=gap[:1] > 1e-12)
    return left


def remaining_norm(h: Float[np.ndarray, "t n d"], other: Float[np.ndarray, "t n d"]) -> Float64[np.ndarray, "t 1"]:
    """The remaining share of the difference ‖h − h'‖ of all units together, over samples."""
    gap = np.linalg.norm(h.astype(np.float64) - other, axis=2)[..., None]
    return remaining_difference(gap, np.zeros_like(gap))


def exponential_decay(tau: Float[np.ndarray, "*k"], lags: int) -> Float64[np.ndarray, "l *k"]:
    """exp(−l / τ) for l = 0 … `lags`; for τ = 0 it is 0 after lag 0."""
    lag = np.arange(lags + 1).reshape(-1, *[1] * np.ndim(tau))
    found: np.ndarray = np.exp(-np.where(lag == 0, 0.0, lag / np.maximum(tau, 1e-9)))
    return found


def time_constant(curve: Float[np.ndarray, "l d"]) -> Float64[np.ndarray, " d"]:
    """The τ, in steps, of the least-squares fit exp(−l / τ) to each curve that is 1 at lag 0: 0 or 0.1 … 100.

    NaN for a NaN curve. A unit h' = φ h + noise has τ = −1 / ln φ. Source: Murray et al. 2014, without their offset.
    Limit: it does not show that a curve is not exponential (a unit with several time constants, or one that rings), nor
    a τ much longer than the lags, for which it gives 100.
    """
    tried = exponential_decay(TIME_CONSTANTS, len(curve) - 1)
    # NaN curves have NaN errors everywhere, so argmin returns index 0.
    error = np.square(tried).sum(0)[:, None] - 2 * tried.T @ curve
    found: np.ndarray = np.where(np.isnan(curve).any(0), np.nan, TIME_CONSTANTS[error.argmin(0)])
    return found


class Effect(NamedTuple):
    """A ratio of means and a standardised difference, each with the middle 95 % of a bootstrap."""

    ratio: float
    ratio_low: float
    ratio_high: float
    d: float
    d_low: float
    d_high: float


def paired_effect(
    changed: Float[np.ndarray, " n"], control: Float[np.ndarray, " n"], group: Int64[np.ndarray, " n"], rng: Rng
) -> Effect:
    """The paired effect of `changed` over `control`: mean(a) / mean(b), and mean(a − b) / std(a − b).

    The bootstrap draws the pairs of one `group` (a picture) together, 1,000 times. Source: Cohen's d for pairs; Efron
    1979. Limit: it does not cover differences between trainings; the seeds do.
    """
    a, b = changed.astype(np.float64), control.astype(np.float64)
    _, place = np.unique(group, return_inverse=True)
    columns = (np.ones(len(a)), a, b, np.square(a - b))
    sums = np.stack([np.bincount(place, column) for column in columns], 1)
    generator = np.random.default_rng(rng.generator().initial_seed())
    groups = len(sums)
    drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES) @ sums
    (ratio,), (d,) = _effect_sizes(sums.sum(0)[None])
    ratios, ds = _effect_sizes(drawn)
    return Effect(ratio, *bootstrap_interval(ratio, ratios), d, *bootstrap_interval(d, ds))


def _effect_sizes(sums: Float64[np.ndarray, "r 4"]) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " r"]]:
    n, a, b, square = sums.T
    mean = (a - b) / n
    std = np.sqrt(np.maximum(square / n - mean**2, 0))
    zero = np.zeros_like(mean)
    return np.divide(a, b, out=zero + 1, where=b > 1e-12), np.divide(mean, std, out=zero, where=std > 1e-12)


def adaptation_index(curve: Float[np.ndarray, " r"]) -> float:
    """(first − last) / (first + last) of the responses to repeats: 1 if no response remains, below 0 if it grows.

    0 if both are 0. Source: the usual contrast of two responses; for adaptation in network models of cortex see Vinken
    et al. 2020 (Sci. Adv. 6).
    Limit: it shows neither the speed, nor whether the unit adapts or the state has just converged for this input.
    """
    first, last = float(curve[0]), float(curve[-1])
    return (first - last) / (first + last) if first + last > 0 else 0.0


def standardise_units(h: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n e"]:
    """All units scaled to mean 0 and deviation 1 over the samples; units that do not vary are left out."""
    centred = h.astype(np.float64) - h.mean(0, dtype=np.float64)
    std = centred.std(0)
    kept = std > 1e-12
    found: np.ndarray = centred[:, kept] / std[kept]
    return found


def response_sparseness(r: Float[np.ndarray, "*k n"]) -> Float64[np.ndarray, "*k"]:
    """S = (1 − a) / (1 − 1 / n), a = (Σ r / n)² / (Σ r² / n), over the last axis: from 0 (all equal) to 1 (one only).

    Along stimuli it is a unit's lifetime sparseness, along units the population sparseness. Responses r are not
    negative: they are |h − mean|, since a tanh unit has no silent side and its mirror image is equivalent. A normal
    distribution of h therefore has 1 − 2 / π = 0.36, which does not indicate sparseness. 0 if nothing responds.
    Source: Treves & Rolls 1991 (Network 2, 371) for a, Vinje & Gallant 2000 (Science 287, 1273) for S.
    Limit: it shows neither which stimuli a unit responds to, nor whether a decoder needs few units.
    """
    n, square = r.shape[-1], np.square(r).mean(-1)
    a = np.divide(r.mean(-1) ** 2, square, out=np.ones_like(square), where=square > 1e-12)
    found: np.ndarray = (1 - a) / (1 - 1 / n)
    return found


def excess_kurtosis(z: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, " d"]:
    """The excess kurtosis of every standardised unit over samples, mean z⁴ − 3: 0 for a normal distribution.

    Source: Field 1994 (Neural Comput. 6, 559). Limit: it misses the sparseness of two-level units, which have −2.
    """
    found: np.ndarray = (z**4).mean(0) - 3
    return found
