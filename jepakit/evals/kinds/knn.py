"""k nearest neighbours: exact, without training, and with no sensitive setting.

Representations are compared by cosine similarity: scaled to unit length but not centred. Raw series are compared by
Euclidean distance (`Features.distance`), since the size of a value tells them apart too and the one nearest series is
the usual baseline. Their similarity is that of the equation, which is the cosine where all series x are equally long:

    c(q, b) = 1 − |q − b|² / 2 s²,   s² the mean of |x|² over the training series

With uniform weights each of the k neighbours has one vote, and ties
go to the class whose neighbours have the larger sum of similarities. With softmax weights a neighbour of similarity c
votes exp(c / temperature); k = 20 and 0.07 are customary. If there are fewer than 20 training samples, k is all.

In many encoders a few directions carry most of the variance and determine the neighbours. Whitening weighs all alike:

    u = L⁻¹ (x − m),   L Lᵀ = (1 − α) Σ + α tr(Σ) / D I

m and Σ are the mean and covariance of the training features, without labels; α = 0.1 keeps noise in directions that
hardly vary from being amplified.

Source: Wu et al. 2018, arXiv:1805.01978; Caron et al. 2021, arXiv:2104.14294; whitening of features compared by cosine:
Jégou & Chum 2012, "Negative evidences and co-occurences in image retrieval"; Euclidean 1-NN as the baseline for series:
Bagnall et al. 2017, arXiv:1602.01711.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from ..features import Features, Pool, count_classes
from ..metrics.result import Value, accuracy_results

MAX_SIMILARITIES = 2**24
"""The most similarities held at a time (64 MiB)."""

DEFAULT_K = 20
"""The number of neighbours that vote by default."""

SHRINKAGE = 0.1
"""α, the usual value of scikit-learn's ShrunkCovariance."""


@dataclass(frozen=True)
class Config:
    """`k` neighbours vote, each once ("uniform") or with exp(similarity / temperature) ("softmax").

    `k` None is 20, or all training samples if there are fewer. `whiten` whitens the features first.
    """

    k: int | None = None
    weights: Literal["uniform", "softmax"] = "uniform"
    temperature: float = 0.07
    whiten: bool = False
    pool: Pool = "mean"

    def __post_init__(self) -> None:
        if (self.k is not None and self.k < 1) or self.temperature <= 0:
            raise ValueError(
                f"k={self.k} and temperature={self.temperature} must be positive; the usual values are 20 and 0.07"
            )


def evaluate(train: Features, test: Features, cfg: Config) -> Iterator[tuple[str, Value]]:
    """Yield the accuracy on `test` by the labels of the nearest training samples, and `k` with its reason."""
    k, reason = choose_k(cfg.k, len(train))
    yield "k", f"{k}: {reason}"
    yield from accuracy_results(predict_labels(train, test.x, cfg), test.y, count_classes(train.y, test.y))


def choose_k(k: int | None, n: int) -> tuple[int, str]:
    """How many of `n` training samples vote, and why. Raises ValueError if `k` exceeds `n`."""
    if k is None:
        return (
            (DEFAULT_K, "the usual number")
            if n >= DEFAULT_K
            else (n, f"all training samples, fewer than the usual {DEFAULT_K}")
        )
    if k > n:
        raise ValueError(f"k={k} neighbours of {n} training samples; give k={n} or less, or more data")
    return k, "as configured"


def predict_labels(train: Features, x: Float32[np.ndarray, "m d"], cfg: Config) -> Int64[np.ndarray, " m"]:
    """The predicted label of each row of `x`. Raises ValueError if there are fewer than k training samples."""
    k, _ = choose_k(cfg.k, len(train))
    bank, queries = torch.from_numpy(train.x), torch.from_numpy(x)
    if cfg.whiten:
        bank, queries = whiten_features(bank, queries)
    similarities = euclidean_similarities
    if train.distance == "cosine":
        bank, similarities = F.normalize(bank, dim=1), cosine_similarities
    labels, classes = torch.from_numpy(train.y), count_classes(train.y)
    rows = max(1, MAX_SIMILARITIES // max(len(bank), classes))
    found = []
    for query in torch.split(queries, rows):
        near = similarities(query, bank).topk(k, dim=1)
        found.append(_count_votes(near.values.double(), labels[near.indices], classes, k, cfg))
    return torch.cat(found).numpy()


def cosine_similarities(query: Float32[Tensor, "m d"], bank: Float32[Tensor, "n d"]) -> Float32[Tensor, "m n"]:
    """The cosine of every pair; `bank` holds vectors of length 1."""
    return F.normalize(query, dim=1) @ bank.T


def euclidean_similarities(query: Float32[Tensor, "m d"], bank: Float32[Tensor, "n d"]) -> Float64[Tensor, "m n"]:
    """The similarity of every pair by the module's equation; 1 where two are equal."""
    power = bank.double().square().sum(1).mean().clamp(min=torch.finfo(bank.dtype).tiny)
    # Sums of differences, not products of vectors: two series that are nearly equal would lose all digits.
    away = torch.cdist(query, bank, compute_mode="donot_use_mm_for_euclid_dist").double()
    return 1 - away.square() / (2 * power)


def whiten_features(
    train: Float32[Tensor, "n d"], x: Float32[Tensor, "m d"]
) -> tuple[Float32[Tensor, "n d"], Float32[Tensor, "m d"]]:
    """Both whitened by the module's equation, fitted on `train`."""
    mean = train.mean(0)
    centred = train - mean
    covariance = (1 - SHRINKAGE) * (centred.T @ centred) / len(train)
    # If nothing varies at all, the tiny term avoids a division by zero, and 0 stays 0.
    covariance.diagonal().add_(SHRINKAGE * centred.square().mean() + torch.finfo(train.dtype).tiny)
    whitener = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    return centred @ whitener, (x - mean) @ whitener


def _count_votes(similarity: Tensor, label: Tensor, classes: int, k: int, cfg: Config) -> Tensor:
    # Similarities of k neighbours sum to [-k, k], so a vote outweighs all of them, and they only break ties; of series
    # that are further apart than opposite ones, none breaks a tie. The nearest comes first: relative to it, the votes
    # of far neighbours do not all vanish.
    uniform = similarity.clamp(min=-1) + 2 * k + 1
    softmax = ((similarity - similarity[:, :1]) / cfg.temperature).exp()
    weight = uniform if cfg.weights == "uniform" else softmax
    return similarity.new_zeros(len(label), classes).scatter_add_(1, label, weight).argmax(1)
