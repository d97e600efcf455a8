"""Representational similarity analysis: do representations and recorded responses order the same items alike?

Nothing is fitted. d_ij = 1 − r(x_i, x_j), with Pearson's r over features, is the dissimilarity of items i and j; all
pairs form the dissimilarity matrix (RDM) of a representation. With responses (repeats or subjects R, items N, units U):

    value      the mean over R of Spearman's correlation between the representation's RDM and that of the responses
    ceiling    the best that a model could reach, since repeats differ (Nili et al. 2014): each RDM's ranks correlated
               with the mean ranks of the others (lower), and of all including itself (upper: no RDM reaches more)
    cka        linear centred kernel alignment (Kornblith et al. 2019, arXiv:1905.00414), the mean over R: `cka` with
               the unbiased estimate of HSIC (Song et al. 2012), 0 on average for unrelated ones; `cka_plain` with the
               plain one, ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of centred columns, which is large where features outnumber items

The interval is a bootstrap over items: N items are drawn with replacement and ranked again, and the pairs of an item
with its own copies, whose dissimilarity is 0 by construction, are left out. Subjects are not resampled.

Sources: Kriegeskorte, Mur and Bandettini, Frontiers in Systems Neuroscience 2:4 (2008); Nili et al., PLoS Computational
Biology 10(4) e1003553 (2014).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from ..metrics.result import NUM_RESAMPLES, Value, bootstrap_counts, bootstrap_interval, score_results
from ..recorded import RecordedResponses

READS = "recorded"
PLAIN = True
ROUNDING_DIGITS = 10
"""Dissimilarities are rounded to so many digits, because smaller differences are rounding errors."""
MAX_PAIRS = 2**16
"""The most pairs, over all draws processed together: 512 KiB per array."""


@dataclass(frozen=True)
class Config:
    """`responses` is a .npy file of shape (items, units) or (repeats, items, units), items in the data's order."""

    responses: str = ""


def evaluate(train: RecordedResponses, test: RecordedResponses, cfg: Config) -> Iterator[tuple[str, Value]]:
    """Yield how well the items' dissimilarities in `test` agree with those of the responses; `train` is not read."""
    test.check_values()
    own = rank_levels(rdm(test.x))
    recorded = [rank_levels(rdm(y)) for y in test.responses]
    _need_order(recorded)
    (value,) = mean_agreement(own, recorded, np.ones((1, len(own))))
    draws: list[float] = []
    for weights in pair_counts(bootstrap_counts(len(test))):
        draws.extend(mean_agreement(own, recorded, weights))
        yield "progress", len(draws) / NUM_RESAMPLES
    interval = _finite_interval(float(value), np.array(draws))
    yield from score_results("RDM Spearman correlation", 0.0 if np.isnan(value) else float(value), interval)
    yield "cka", float(np.mean([cka(test.x, y) for y in test.responses]))
    yield "cka_plain", float(np.mean([cka_plain(test.x, y) for y in test.responses]))
    if len(recorded) > 1:
        yield from zip(("ceiling_low", "ceiling_high"), noise_ceiling(recorded), strict=True)
    yield "repeats", float(len(recorded))
    for what in ("nan", "flat", "unread"):
        yield f"left_out_{what}", float(getattr(test, what))


def rdm(x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, " pairs"]:
    """The upper triangle of the dissimilarities 1 − r between all items, row by row.

    An item whose features are all equal has no correlation, so its dissimilarity to all others is 1.
    """
    centred = x.astype(np.float64) - x.mean(1, dtype=np.float64, keepdims=True)
    size = np.linalg.norm(centred, axis=1, keepdims=True)
    # Equal features leave only rounding errors after centring.
    unit = centred / np.where(size > 1e-12 * np.linalg.norm(x, axis=1, keepdims=True), size, np.inf)
    pairs: np.ndarray = 1 - (unit @ unit.T)[np.triu_indices(len(x), 1)]
    return pairs.round(ROUNDING_DIGITS)


def rank_levels(values: Float64[np.ndarray, " p"]) -> Int64[np.ndarray, " p"]:
    """The position of every value among the distinct values, from 0: all that Spearman's correlation needs."""
    _, place = np.unique(values, return_inverse=True)
    return place.astype(np.int64)


def weighted_ranks(level: Int64[np.ndarray, " p"], weights: Float64[np.ndarray, "b p"]) -> Float64[np.ndarray, "b p"]:
    """Ranks, up to a constant, if pair k occurs weights[b, k] times; equal values share their mean rank."""
    count, rows = int(level.max()) + 1, np.arange(len(weights))[:, None]
    total = np.bincount((rows * count + level).ravel(), weights.ravel(), len(weights) * count).reshape(-1, count)
    shared: np.ndarray = (total.cumsum(1) - total / 2)[:, level]
    return shared


def weighted_correlation(
    a: Float64[np.ndarray, "b p"], b: Float64[np.ndarray, "b p"], weights: Float64[np.ndarray, "b p"]
) -> Float64[np.ndarray, " b"]:
    """Pearson's r if pair k occurs weights[b, k] times; NaN if either argument does not vary."""
    total = np.maximum(weights.sum(1, keepdims=True), 1)
    a, b = (v - _row_products(weights, v)[:, None] / total for v in (a, b))
    wa = weights * a
    spread = np.sqrt(_row_products(wa, a) * _row_products(weights * b, b))
    r: np.ndarray = np.divide(_row_products(wa, b), spread, out=np.full(len(a), np.nan), where=spread > 0)
    return r.clip(-1, 1)


def mean_agreement(
    own: Int64[np.ndarray, " p"], recorded: list[Int64[np.ndarray, " p"]], weights: Float64[np.ndarray, "b p"]
) -> Float64[np.ndarray, " b"]:
    """Spearman's correlation with one RDM, averaged over repeats, if pair k occurs weights[b, k] times."""
    mine = weighted_ranks(own, weights)
    each = [weighted_correlation(mine, weighted_ranks(theirs, weights), weights) for theirs in recorded]
    mean: np.ndarray = np.mean(each, axis=0)
    return mean


def pair_counts(counts: Int64[np.ndarray, "r n"]) -> Iterator[Float64[np.ndarray, "b pairs"]]:
    """How often each pair of different items occurs, given how often each item was drawn, a few draws at a time.

    Copies of one item do not form pairs. MAX_PAIRS limits the number of draws at a time.
    """
    first, second = np.triu_indices(counts.shape[1], 1)
    step = max(1, MAX_PAIRS // len(first))
    for start in range(0, len(counts), step):
        drawn = counts[start : start + step].astype(np.float64)
        yield drawn[:, first] * drawn[:, second]


def noise_ceiling(recorded: list[Int64[np.ndarray, " p"]]) -> tuple[float, float]:
    """The lower and upper noise ceiling of several RDMs.

    Mean ranks are not ranked again: they are the vector with the largest mean correlation.
    """
    each = np.concatenate([weighted_ranks(level, np.ones((1, len(level)))) for level in recorded])
    each -= each.mean(1, keepdims=True)
    each /= np.linalg.norm(each, axis=1, keepdims=True)
    whole, once = each.sum(0, keepdims=True).repeat(len(each), 0), np.ones_like(each)
    return float(weighted_correlation(each, whole - each, once).mean()), float(
        weighted_correlation(each, whole, once).mean()
    )


def cka(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n u"]) -> float:
    """Linear CKA with unbiased HSIC: 0 on average for unrelated arrays, 1 for arrays equal up to rotation and scale.

    It can be negative by chance. Gram matrices are centred so that every row sums to 0 without the diagonal (Székely
    and Rizzo 2014), which gives the estimate of Song et al. 2012 as a plain sum of products. 0 if either does not vary.
    """
    return _matrix_cosine(_u_centred(x), _u_centred(y))


def cka_plain(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n u"]) -> float:
    """Linear CKA as published, in [0, 1]; 0 if either argument does not vary."""
    return _matrix_cosine(_gram_matrix(x), _gram_matrix(y))


def _need_order(recorded: list[Int64[np.ndarray, " p"]]) -> None:
    """Raise ValueError if all items of a repeat are equally dissimilar."""
    for r, level in enumerate(recorded):
        if not level.any():
            raise ValueError(
                f"all items are equally dissimilar by the responses of repeat {r} (counted from 0), which gives no "
                "order; leave that repeat out, or give units that differ in more than the strength of the response"
            )


def _row_products(a: Float64[np.ndarray, "b p"], b: Float64[np.ndarray, "b p"]) -> Float64[np.ndarray, " b"]:
    products: np.ndarray = np.einsum("bp,bp->b", a, b)
    return products


def _gram_matrix(x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n n"]:
    centred = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    products: np.ndarray = centred @ centred.T
    return products


def _u_centred(x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n n"]:
    k, n = _gram_matrix(x), len(x)
    np.fill_diagonal(k, 0)
    row = k.sum(0) / (n - 2)
    centred: np.ndarray = k - row - row[:, None] + row.sum() / (n - 1)
    np.fill_diagonal(centred, 0)
    return centred


def _matrix_cosine(a: Float64[np.ndarray, "n n"], b: Float64[np.ndarray, "n n"]) -> float:
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / size) if size > 0 else 0.0


def _finite_interval(value: float, draws: Float64[np.ndarray, " r"]) -> tuple[float, float]:
    """The interval over draws with a defined correlation; (0, 0) if an RDM does not vary."""
    known = draws[np.isfinite(draws)]
    return (0.0, 0.0) if np.isnan(value) or not len(known) else bootstrap_interval(value, known)
