"""Ranks: correlations of orders, and the rank of one candidate among others."""

import numpy as np
from jaxtyping import Float, Float64, Num


def tied_ranks(values: Num[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The rank of each value, from 1; equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: np.ndarray = np.cumsum(counts)[which] - (counts[which] - 1) / 2
    return last


def spearman(x: Num[np.ndarray, " n"], y: Num[np.ndarray, " n"]) -> float:
    """Spearman's rank correlation; 0 if the values of either are all equal."""
    a, b = (ranks - ranks.mean() for ranks in (tied_ranks(x), tied_ranks(y)))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 0.0


def first_candidate_ranks(
    energy: Float[np.ndarray, "n c"],
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """How often the first of C candidates has the lowest energy, and its reciprocal rank, for each row.

    Of equal energies any may come first: both are means over their orders, so that energies which tell nothing apart
    give exactly `chance_ranks`.
    """
    own = energy[:, :1]
    below, level = (energy < own).sum(1), (energy == own).sum(1)
    reciprocal = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, energy.shape[1] + 1))])
    first: np.ndarray = (below == 0) / level
    mean: np.ndarray = (reciprocal[below + level] - reciprocal[below]) / level
    return first, mean


def chance_ranks(candidates: int) -> tuple[float, float]:
    """What `first_candidate_ranks` gives on average for energies drawn at random."""
    return 1 / candidates, float((1 / np.arange(1, candidates + 1)).sum()) / candidates
