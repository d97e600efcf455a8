"""Means and shares over episodes, with intervals by a bootstrap that draws whole episodes."""

import numpy as np
from jaxtyping import Float, Float64, Int64

from .result import bootstrap_counts, bootstrap_interval


def episode_sums(values: Float[np.ndarray, "n *k"], episode: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "e *k"]:
    """The sum of the rows of each episode, by episode number."""
    _, which = np.unique(episode, return_inverse=True)
    sums = np.zeros((int(which.max()) + 1, *values.shape[1:]))
    np.add.at(sums, which, values)
    return sums


def ratio_with_interval(
    above: Float[np.ndarray, " n"], below: Float[np.ndarray, " n"], episode: Int64[np.ndarray, " n"]
) -> tuple[float, tuple[float, float]]:
    """The sum of `above` over that of `below`, and its interval; both have a row per sample of these episodes."""
    tops, bottoms = episode_sums(above, episode), episode_sums(below, episode)
    counts = bootstrap_counts(len(tops))
    drawn = counts @ bottoms
    draws = np.divide(counts @ tops, drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)
    value = float(tops.sum() / bottoms.sum())
    return value, bootstrap_interval(value, draws)


def mean_with_interval(
    values: Float[np.ndarray, " n"], episode: Int64[np.ndarray, " n"]
) -> tuple[float, tuple[float, float]]:
    """The mean over samples, and its interval."""
    return ratio_with_interval(values, np.ones(len(values)), episode)


def explained_with_interval(
    wrong: Float[np.ndarray, " n"], spread: Float[np.ndarray, " n"], episode: Int64[np.ndarray, " n"]
) -> tuple[float, tuple[float, float]]:
    """R², 1 − Σ `wrong` / Σ `spread`, and its interval."""
    ratio, (low, high) = ratio_with_interval(wrong, spread, episode)
    return 1 - ratio, (1 - high, 1 - low)
