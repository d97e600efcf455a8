"""What a matrix of features says of itself: spread, rank, spectrum, redundancy.

Rows are samples, (N, D). The eigenvalues λ are those of the covariance, largest first, and σ = √λ. Ranks depend on N:
compare only values of equal N, and give N ≥ 10 D where possible. All but the spreads ignore the scale of the features,
so each of those is blind to a representation that shrinks to a point.

Sources: RankMe, Garrido et al. 2022, arXiv:2210.02885; effective rank, Roy & Vetterli 2007; stable rank, Tsitsulin et
al. 2023, arXiv:2305.16562; α-ReQ, Agrawal et al. 2022 (NeurIPS 35); spread of directions, arXiv:2011.10566.
"""

from math import ceil, log, sqrt
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from ..losses import norms, wide

SMALLEST: Final = 1e-9  # eigenvalues below this share of the largest are rounding
MIDDLE: Final = (0.03, 0.5)  # the part of the spectrum that a power law is fitted to
POINTS: Final = 10  # … and how many eigenvalues that takes


def std(features: Float[Tensor, "n d"]) -> float:
    """The standard deviation over samples, averaged over features; 0 for a single point.

    Relative to step 0 it is the number that shows full collapse. It cannot see that few directions are left.
    """
    return features.double().std(0, correction=0).mean().item()


def std_over_samples(tokens: Float[Tensor, "b n d"]) -> float:
    """`std` at each position, averaged over positions: what a representation of positions only has lost."""
    return wide(tokens).std(0, correction=0).mean().item()


def norm(tokens: Float[Tensor, "*n d"]) -> float:
    """The mean length of tokens: what grows where two directions of prediction drive each other up.

    It cannot see whether samples differ.
    """
    return norms(tokens).mean().item()


def std_to_mean(features: Float[Tensor, "n d"]) -> float | None:
    """The spread (root mean square distance to the mean) over the length of the mean; None where that is 0.

    Small is no collapse: a healthy representation may have a large mean. It says how far the raw rank, the cosine and
    the spread of directions are to be trusted, which a large mean fools.
    """
    rows = features.double()
    length = rows.mean(0).norm().item()
    return rows.var(0, correction=0).sum().sqrt().item() / length if length else None


def direction_std(features: Float[Tensor, "n d"]) -> float:
    """√D · mean std of the features brought to length 1: 1 for all directions alike, 0 for one; blind to the scale.

    A large mean looks like collapse to it.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    return sqrt(features.shape[1]) * float(unit.std(0, correction=0).mean())


def mean_cosine(features: Float[Tensor, "n d"]) -> float:
    """The mean cosine between two different samples: 0 for all directions alike, 1 for one.

    A large mean looks like collapse to it.
    """
    n, unit = len(features), torch.nn.functional.normalize(features.double(), dim=1)
    return ((unit.sum(0).square().sum() - unit.square().sum()) / (n * (n - 1))).item()


def spectrum(features: Float[Tensor, "n d"], centred: bool = True) -> Float[Tensor, " d"]:
    """The eigenvalues of the covariance, largest first, float64 on the CPU; NaN where a feature is not finite.

    Not `centred`: of the second moment, in which the mean counts as a direction.
    """
    rows = features.double().cpu()
    if not rows.isfinite().all():
        return torch.full_like(rows[0], torch.nan)
    rows = rows - rows.mean(0) if centred else rows
    n, d = rows.shape
    # With fewer samples than features the Gram matrix has the same eigenvalues, and the others are zero.
    square = rows @ rows.T if n < d else rows.T @ rows
    values = torch.linalg.eigvalsh(square / n).flip(0).clamp(min=0)
    return torch.cat([values, values.new_zeros(d - len(values))])


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """RankMe of the centred features: exp(−Σ p ln p), p = σ / Σσ + 1e-7; 1 … min(N, D), 0 for one point.

    Blind to full collapse: what is left of the features after shrinking is noise of full rank.
    """
    return rank_of(spectrum(features))


def raw_rank(features: Float[Tensor, "n d"]) -> float:
    """RankMe as published, means not removed. A large mean looks like one direction, however many vary around it."""
    return rank_of(spectrum(features, centred=False))


def rank_of(eigenvalues: Float[Tensor, " d"]) -> float:
    """The rank that belongs to a `spectrum`: the entropy is that of σ = √λ."""
    sigma = eigenvalues.sqrt()
    if sigma.sum() == 0:
        return 0.0
    p = sigma / sigma.sum() + 1e-7
    return (-(p * p.log()).sum()).exp().item()


def entropy_rank(eigenvalues: Float[Tensor, " d"]) -> float:
    """exp(−Σ p ln p), p = λ / Σλ: the rank by variance, in which weak directions count less than in RankMe's.

    0 for one point; blind to full collapse.
    """
    if eigenvalues.sum() == 0:
        return 0.0
    p = eigenvalues / eigenvalues.sum()
    return float(torch.special.entr(p).sum().exp())


def stable_rank(eigenvalues: Float[Tensor, " d"]) -> float:
    """Σλ / λ₁: how many directions as strong as the first there would be; 0 for one point.

    Robust to noise. One strong direction hides all the others; blind to full collapse.
    """
    return (eigenvalues.sum() / eigenvalues[0]).item() if eigenvalues[0] != 0 else 0.0


def participation_ratio(eigenvalues: Float[Tensor, " d"]) -> float:
    """(Σλ)² / Σλ²: a smooth count of the directions in use; 0 for one point. Blind to full collapse."""
    squares = eigenvalues.square().sum()
    return (eigenvalues.sum().square() / squares).item() if squares != 0 else 0.0


def alpha_req(eigenvalues: Float[Tensor, " d"]) -> float | None:
    """α-ReQ: λ_j ~ j^−α, a least-squares line through the middle (3 … 50 %) of the spectrum on logarithmic axes.

    About 1 is said to be good, far above 1 few directions matter, near 0 it is white noise. None where the middle
    holds fewer than 10 eigenvalues, as after a collapse of rank, where a fit means nothing; NaN where they are.
    Blind to full collapse, and biased downwards where N is not far above D.
    """
    if not eigenvalues.isfinite().all():
        return float("nan")
    kept = eigenvalues[eigenvalues > SMALLEST * eigenvalues[0]]
    first, last = int(MIDDLE[0] * len(kept)), ceil(MIDDLE[1] * len(kept))
    if last - first < POINTS:
        return None
    x = torch.tensor([log(j) for j in range(first + 1, last + 1)], dtype=torch.float64)
    y = kept[first:last].log()
    x = x - x.mean()
    return -((x * y).sum() / x.square().sum()).item()


def redundancy(features: Float[Tensor, "n d"]) -> float:
    """The mean absolute correlation between two different features: 0 none repeats another, 1 all say the same.

    Independent features still read about √(2 / (π N)). It depends on the basis: a turned representation has another
    redundancy and the same rank. Features without spread do not count; with fewer than two others it is 1.
    """
    centred = features.double() - features.double().mean(0)
    length = centred.norm(dim=0)
    unit = (centred / length)[:, length > SMALLEST**0.5 * length.max()]
    d = len(unit.T)
    if d < 2:
        return 1.0
    return (float((unit.T @ unit).abs().sum()) - d) / (d * (d - 1))


def position_share(tokens: Float[Tensor, "b n d"]) -> float:
    """The share of the variance of tokens that their position explains; 1 means that the sample leaves no trace.

    Blind to the scale, and to what the rest of the variance is: where samples differ along one direction only, or each
    token is noise, it is low as well.
    """
    total = wide(tokens).var((0, 1), correction=0).mean()
    by_position = wide(tokens).mean(0).var(0, correction=0).mean()
    return (by_position / total).item() if total > 0 else 1.0
