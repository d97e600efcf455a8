"""Measures of a matrix of features: spread, rank, spectrum and redundancy.

Rows are samples, (N, D). λ are the eigenvalues of the covariance, largest first, and σ = √λ. Ranks depend on N:
compare only values at equal N, and give N ≥ 10 D if possible. All measures but the spreads ignore the scale of the
features, so they are blind to a representation that shrinks to a point.

Sources: RankMe, Garrido et al. 2022, arXiv:2210.02885; effective rank, Roy & Vetterli 2007; stable rank, Tsitsulin et
al. 2023, arXiv:2305.16562; α-ReQ, Agrawal et al. 2022 (NeurIPS 35); spread of directions, arXiv:2011.10566.
"""

from math import ceil, log, sqrt
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from ..losses import at_least_float32, norms

MIN_EIGENVALUE_SHARE: Final = 1e-9  # eigenvalues below this share of the largest are rounding
FIT_RANGE: Final = (0.03, 0.5)  # the part of the spectrum to which a power law is fitted
MIN_FIT_POINTS: Final = 10  # the fewest eigenvalues for that fit


def feature_std(features: Float[Tensor, "n d"]) -> float:
    """The standard deviation over samples, averaged over features; 0 for a single point.

    Relative to step 0, it is the number that shows full collapse. It does not show that few directions are left.
    """
    return features.double().std(0, correction=0).mean().item()


def std_over_samples(tokens: Float[Tensor, "b n d"]) -> float:
    """`std` at each position, averaged over positions; near 0 if tokens represent nothing but their position."""
    return at_least_float32(tokens).std(0, correction=0).mean().item()


def token_norm(tokens: Float[Tensor, "*n d"]) -> float:
    """The mean length of tokens, which grows if two directions of prediction drive each other up.

    It does not show whether samples differ.
    """
    return norms(tokens).mean().item()


def std_to_mean(features: Float[Tensor, "n d"]) -> float | None:
    """The spread (root mean square distance to the mean) over the length of the mean; None if that length is 0.

    A small value is not a collapse: a healthy representation may have a large mean. It tells how far to trust the raw
    rank, the mean cosine and the spread of directions, all of which a large mean misleads.
    """
    rows = features.double()
    length = rows.mean(0).norm().item()
    return rows.var(0, correction=0).sum().sqrt().item() / length if length else None


def direction_std(features: Float[Tensor, "n d"]) -> float:
    """√D · mean std of features scaled to length 1: 1 if they spread over all directions alike, 0 for one direction.

    It ignores the scale, and a large mean looks like a collapse.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    return sqrt(features.shape[1]) * float(unit.std(0, correction=0).mean())


def mean_cosine(features: Float[Tensor, "n d"]) -> float:
    """The mean cosine between two different samples: 0 if they spread over all directions alike, 1 for one direction.

    A large mean looks like a collapse.
    """
    n, unit = len(features), torch.nn.functional.normalize(features.double(), dim=1)
    return ((unit.sum(0).square().sum() - unit.square().sum()) / (n * (n - 1))).item()


def spectrum(features: Float[Tensor, "n d"], centred: bool = True) -> Float[Tensor, " d"]:
    """The eigenvalues of the covariance, largest first, float64 on the CPU; all NaN if a feature is not finite.

    Without `centred`, those of the second moment, where the mean counts as a direction.
    """
    rows = features.double().cpu()
    if not rows.isfinite().all():
        return torch.full_like(rows[0], torch.nan)
    rows = rows - rows.mean(0) if centred else rows
    n, d = rows.shape
    # With fewer samples than features, the Gram matrix has the same eigenvalues; the others are zero.
    square = rows @ rows.T if n < d else rows.T @ rows
    values = torch.linalg.eigvalsh(square / n).flip(0).clamp(min=0)
    return torch.cat([values, values.new_zeros(d - len(values))])


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """RankMe of the centred features: exp(−Σ p ln p), p = σ / Σσ + 1e-7; 1 … min(N, D), and 0 for one point.

    Blind to full collapse: features that have shrunk to a point are noise of full rank.
    """
    return rank_of(spectrum(features))


def raw_rank(features: Float[Tensor, "n d"]) -> float:
    """RankMe as published, without removing the mean. A large mean looks like a single direction."""
    return rank_of(spectrum(features, centred=False))


def rank_of(eigenvalues: Float[Tensor, " d"]) -> float:
    """RankMe of the eigenvalues of a `spectrum`, from the entropy of σ = √λ."""
    sigma = eigenvalues.sqrt()
    if sigma.sum() == 0:
        return 0.0
    p = sigma / sigma.sum() + 1e-7
    return (-(p * p.log()).sum()).exp().item()


def entropy_rank(eigenvalues: Float[Tensor, " d"]) -> float:
    """exp(−Σ p ln p), p = λ / Σλ: a rank by variance, where weak directions count less than in RankMe.

    It is 0 for one point, and blind to full collapse.
    """
    if eigenvalues.sum() == 0:
        return 0.0
    p = eigenvalues / eigenvalues.sum()
    return float(torch.special.entr(p).sum().exp())


def stable_rank(eigenvalues: Float[Tensor, " d"]) -> float:
    """Σλ / λ₁: how many directions as strong as the first would have this variance; 0 for one point.

    Robust to noise and blind to full collapse; one strong direction hides all others.
    """
    return (eigenvalues.sum() / eigenvalues[0]).item() if eigenvalues[0] != 0 else 0.0


def participation_ratio(eigenvalues: Float[Tensor, " d"]) -> float:
    """(Σλ)² / Σλ²: a smooth count of the directions in use; 0 for one point; blind to full collapse."""
    squares = eigenvalues.square().sum()
    return (eigenvalues.sum().square() / squares).item() if squares != 0 else 0.0


def alpha_req(eigenvalues: Float[Tensor, " d"]) -> float | None:
    """α-ReQ: α of λ_j ~ j^−α, by a least-squares line through the middle (3 … 50 %) of the spectrum on log axes.

    About 1 is said to be good; far above 1, few directions matter; near 0, features are white noise. None if the middle
    holds fewer than 10 eigenvalues, as after a collapse of rank, when a fit means nothing; NaN if an eigenvalue is NaN.
    Blind to full collapse, and biased downwards unless N is far above D.
    """
    if not eigenvalues.isfinite().all():
        return float("nan")
    kept = eigenvalues[eigenvalues > MIN_EIGENVALUE_SHARE * eigenvalues[0]]
    first, last = int(FIT_RANGE[0] * len(kept)), ceil(FIT_RANGE[1] * len(kept))
    if last - first < MIN_FIT_POINTS:
        return None
    x = torch.tensor([log(j) for j in range(first + 1, last + 1)], dtype=torch.float64)
    y = kept[first:last].log()
    x = x - x.mean()
    return -((x * y).sum() / x.square().sum()).item()


def redundancy(features: Float[Tensor, "n d"]) -> float:
    """The mean absolute correlation between two different features: 0 if none repeats another, 1 if all are the same.

    Independent features still give about √(2 / (π N)). It depends on the basis: a rotated representation has another
    redundancy and the same rank. Features without spread are ignored; with fewer than two others it is 1.
    """
    centred = features.double() - features.double().mean(0)
    length = centred.norm(dim=0)
    unit = (centred / length)[:, length > MIN_EIGENVALUE_SHARE**0.5 * length.max()]
    d = len(unit.T)
    if d < 2:
        return 1.0
    return (float((unit.T @ unit).abs().sum()) - d) / (d * (d - 1))


def position_share(tokens: Float[Tensor, "b n d"]) -> float:
    """The share of the tokens' variance that their position explains; 1 means that samples leave no trace.

    It ignores the scale, and what the rest of the variance is: it is also low if samples differ along one direction
    only, or if every token is noise.
    """
    total = at_least_float32(tokens).var((0, 1), correction=0).mean()
    by_position = at_least_float32(tokens).mean(0).var(0, correction=0).mean()
    return (by_position / total).item() if total > 0 else 1.0
