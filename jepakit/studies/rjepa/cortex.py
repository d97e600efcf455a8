"""Measures of physiology, on recorded states of a circuit: pure functions of arrays (T steps, N samples, d units).

Each says its formula, its source, and what it cannot see. None of them knows where the states come from.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from ...evals.metrics.result import bootstrap_interval
from ...types import Rng

LONGEST, RESAMPLES = 100.0, 1000
# Time constants that are tried; 0 is a unit that keeps nothing.
TIME_CONSTANTS: Final = np.concatenate([[0.0], np.geomspace(0.1, LONGEST, 400)])


def unit_autocorrelation(h: Float[np.ndarray, "t n d"], lags: int) -> Float64[np.ndarray, "l d"]:
    """r(l) of every unit for l = 0 … `lags`, Σ h̃_t h̃_{t+l} / √(Σ h̃_t² Σ h̃_{t+l}²), with sums over steps and samples.

    h̃ has the mean over samples taken out of every step, so that what all samples do alike in time counts nowhere. NaN
    for a unit that does not vary. Source: the estimate of Murray et al. 2014 (Nat. Neurosci. 17, 1661).
    Cannot see: whether the unit remembers or its input does; only for inputs that are independent is it the former.
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
    """How much is left of a difference: the mean over samples of |h − h'| of every unit, over that of the first step.

    NaN for a unit that did not differ. It is the response to a perturbation, and so free of what the input repeats.
    Cannot see: what other units have taken over, and memory that a perturbation of this size does not move.
    """
    gap = np.abs(h.astype(np.float64) - other).mean(1)
    left: np.ndarray = np.divide(gap, gap[:1], out=np.full(gap.shape, np.nan), where=gap[:1] > 1e-12)
    return left


def remaining_norm(h: Float[np.ndarray, "t n d"], other: Float[np.ndarray, "t n d"]) -> Float64[np.ndarray, "t 1"]:
    """How much is left of the difference of all units together, ‖h − h'‖, over samples."""
    gap = np.linalg.norm(h.astype(np.float64) - other, axis=2)[..., None]
    return remaining_difference(gap, np.zeros_like(gap))


def exponential_decay(tau: Float[np.ndarray, "*k"], lags: int) -> Float64[np.ndarray, "l *k"]:
    """exp(−l / τ) for l = 0 … `lags`; for τ = 0 it is 0 after lag 0."""
    lag = np.arange(lags + 1).reshape(-1, *[1] * np.ndim(tau))
    found: np.ndarray = np.exp(-np.where(lag == 0, 0.0, lag / np.maximum(tau, 1e-9)))
    return found


def time_constant(curve: Float[np.ndarray, "l d"]) -> Float64[np.ndarray, " d"]:
    """The τ, in steps, whose exp(−l / τ) is nearest to each curve that is 1 at lag 0: least squares, 0 or 0.1 … 100.

    NaN where the curve is. A unit h' = φ h + noise has τ = −1 / ln φ. Source: Murray et al. 2014, without their offset.
    Cannot see: that a curve is no exponential (a unit of several time constants, or one that rings); and a τ much
    longer than the lags, which 100 stands for.
    """
    tried = exponential_decay(TIME_CONSTANTS, len(curve) - 1)
    # Curves that are NaN have NaN errors everywhere, which argmin takes for the first.
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
    """By how much `changed` exceeds `control`, pair by pair: mean(a) / mean(b), and mean(a − b) / std(a − b).

    Pairs of one `group` (a picture) are drawn together, 1,000 times. Source: Cohen's d for pairs; Efron 1979.
    Cannot see: differences between trainings, which the seeds are for.
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
    """(first − last) / (first + last) of what repeats evoke: 1 where nothing is left, below 0 where it grows.

    0 where both are 0. Source: the usual contrast of two responses; what adapts in networks that are to be like cortex
    is in Vinken et al. 2020 (Sci. Adv. 6).
    Cannot see: how fast it goes, nor whether the unit tires or the state has simply arrived where the input leads it.
    """
    first, last = float(curve[0]), float(curve[-1])
    return (first - last) / (first + last) if first + last > 0 else 0.0


def standardise_units(h: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n e"]:
    """Every unit with mean 0 and deviation 1 over the samples; those that do not vary are left out."""
    centred = h.astype(np.float64) - h.mean(0, dtype=np.float64)
    std = centred.std(0)
    kept = std > 1e-12
    found: np.ndarray = centred[:, kept] / std[kept]
    return found


def response_sparseness(r: Float[np.ndarray, "*k n"]) -> Float64[np.ndarray, "*k"]:
    """S = (1 − a) / (1 − 1 / n), a = (Σ r / n)² / (Σ r² / n), over the last axis: from 0 (all equal) to 1 (one only).

    Along stimuli it is a unit's lifetime sparseness, along units the population's. Responses are 0 or more: here
    |h − mean|, since a unit of tanh has no side that is silence, and its mirror image would do the same. So a normal
    distribution of h has 1 − 2 / π = 0.36, which is no sparseness. 0 where nothing responds.
    Source: Treves & Rolls 1991 (Network 2, 371) for a, Vinje & Gallant 2000 (Science 287, 1273) for S.
    Cannot see: which stimuli a unit answers to, nor whether a decoder needs few of them.
    """
    n, square = r.shape[-1], np.square(r).mean(-1)
    a = np.divide(r.mean(-1) ** 2, square, out=np.ones_like(square), where=square > 1e-12)
    found: np.ndarray = (1 - a) / (1 - 1 / n)
    return found


def excess_kurtosis(z: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, " d"]:
    """The excess kurtosis of every standardised unit over samples, mean z⁴ − 3: 0 for a normal distribution.

    Source: Field 1994 (Neural Comput. 6, 559). Cannot see: sparseness of units with two levels, which have −2.
    """
    found: np.ndarray = (z**4).mean(0) - 3
    return found
