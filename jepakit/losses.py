"""Prediction distances, and regularisers that keep representations apart, over the global batch.

Sums use at least fp32, whatever the precision of the representations and of autocast. In terms that compare samples, n
counts the samples of all ranks, so two ranks have the loss and the gradient of one process (core/distributed.py).
"""

from contextlib import AbstractContextManager
from math import ceil, inf
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .core.distributed import all_gather, all_reduce_sum, global_moments, process_rank
from .types import Rng

Kind = Literal["smooth_l1", "l1", "l2"]

LOW_BEST_STD = 0.8
"""A run whose `best_std` is below this gets a note."""


def normalize_target(target: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Each target token at zero mean and unit variance over its features (eps 1e-5, no affine)."""
    return F.layer_norm(at_least_float32(target), target.shape[-1:], eps=1e-5)


def prediction(
    pred: Float[Tensor, "*n d"],
    target: Float[Tensor, "*n d"],
    kind: Kind = "smooth_l1",
) -> Float[Tensor, ""]:
    """The mean distance over tokens and features; "smooth_l1" is quadratic below a difference of 1.

    No gradient reaches the target.
    """
    return elementwise(at_least_float32(pred), at_least_float32(target.detach()), kind).mean()


def elementwise(pred: Float[Tensor, "*n"], target: Float[Tensor, "*#n"], kind: Kind) -> Float[Tensor, "*n"]:
    """The distance of every entry, without a mean. The target may broadcast."""
    if kind == "l2":
        return (pred - target).square()
    if kind == "l1":
        return (pred - target).abs()
    return F.smooth_l1_loss(pred, target.expand_as(pred), reduction="none")


def on_sphere(s: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Every token scaled to unit length."""
    return F.normalize(at_least_float32(s), dim=-1)


def norms(s: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
    """The length of every token."""
    length: Tensor = torch.linalg.vector_norm(at_least_float32(s), dim=-1)
    return length


def norm_penalty(s: Float[Tensor, "*n d"], radius: float) -> Float[Tensor, ""]:
    """The mean over tokens of (|s| − radius)²: 0 on the sphere of that radius; its gradient points along s."""
    return (norms(s) - radius).square().mean()


def invariance(views: Float[Tensor, "*k v n d"]) -> Float[Tensor, ""]:
    """The mean squared difference between two views of a sample, over all pairs of views; v is at least 2.

    For two views it is their mean squared error. Source: VICReg, arXiv:2105.04906.
    """
    # The mean over all pairs is twice the variance, so the pairs need not be formed.
    return 2 * at_least_float32(views).var(-3, correction=1).mean()


def variance(z: Float[Tensor, "*v n d"], eps: float = 1e-4) -> Float[Tensor, ""]:
    """(1/d) Σ_k max(0, 1 − √(Var(z_k) + eps)): how far each feature's std over samples is below 1, averaged over views.

    Var divides by n − 1. If all samples are equal, the value is 1 − √eps and the gradient cannot separate them.
    Source: VICReg, arXiv:2105.04906.
    """
    _, var, count = global_moments(at_least_float32(z).movedim(-2, 0).flatten(1))
    return F.relu(1 - (var * count / (count - 1) + eps).sqrt()).mean()


def covariance(z: Float[Tensor, "*v n d"]) -> Float[Tensor, ""]:
    """(1/d) Σ_{k≠l} Cov(z_k, z_l)², with 1 / (n − 1): how much features repeat one another, averaged over views.

    With unit variances it is at least d / (n − 1) − 1. Source: VICReg, arXiv:2105.04906.
    """
    z = at_least_float32(z)
    count = all_reduce_sum(z.new_tensor(float(z.shape[-2])))
    centred = z - all_reduce_sum(z.sum(-2, keepdim=True)) / count
    with no_autocast(z):
        cov = all_reduce_sum(centred.mT @ centred) / (count - 1)
    own = cov.diagonal(dim1=-2, dim2=-1).square().sum(-1)
    return ((cov.square().sum((-2, -1)) - own) / z.shape[-1]).mean()


def vicreg(views: Float[Tensor, "v n d"]) -> dict[str, Float[Tensor, ""]]:
    """`invariance`, `variance` and `covariance`, averaged over all pairs of views and not weighted.

    As published, a pair's variance is the mean over its two views, and its covariance their sum.
    """
    return {"invariance": invariance(views), "variance": variance(views), "covariance": 2 * covariance(views)}


def check_weights(settings: Any, *names: str) -> None:
    """Raise ValueError for the first of the weights `names` that is negative or not finite."""
    for name in names:
        if not 0 <= getattr(settings, name) < inf:
            raise ValueError(f"{name} is {getattr(settings, name):g}; give a finite weight of 0 or more")


def check_samples(samples: int, whose: str) -> None:
    """Raise ValueError for fewer than 2 samples at a time; the sentence begins with `whose`, e.g. "contrast needs"."""
    if samples < 2:
        raise ValueError(
            f"{whose} 2 samples at a time (length.batch / length.accumulate), not {samples}; raise length.batch"
        )


def check_vicreg(samples: int, width: int, std: float, cov: float) -> None:
    """Raise ValueError if weights `std` and `cov` cannot keep `width` features apart with `samples` samples.

    The limit is a `best_std` of 1/3: below it, the loss as a whole asks for less than a third of the std that its
    variance term names. The published 8192 features are fine with 2048 samples, and still pass with 256.
    """
    check_samples(samples, "variance and covariance need")
    if std and cov and width > _max_width_ratio(1 / 3, std, cov) * (samples - 1):
        room = _suggest_sizes(1 / 3, samples, width, std, cov)
        raise ValueError(
            f"{width} projected features are too many for the covariances of {samples} samples at a time "
            f"(length.batch / length.accumulate): their std would stay far below 1; {room}"
        )


def vicreg_shortfall(samples: int, width: int, std: float, cov: float) -> str:
    """A sentence if `best_std` is below SHORT, so that the variance term can never be satisfied; else "".

    With the published weights 25 and 1 this happens above about 7 features per sample.
    """
    best = best_std(samples, width, std, cov)
    if best >= LOW_BEST_STD:
        return ""
    return (
        f"the std of {width} projected features comes to {best:.2f} at best, not to 1, because the covariances of "
        f"{samples} samples at a time hold it down; "
        f"{_suggest_sizes(LOW_BEST_STD, samples, width, std, cov)} for {LOW_BEST_STD:g}"
    )


def best_std(samples: int, width: int, std: float, cov: float) -> float:
    """The std s ≤ 1 at which weights `std` and `cov` balance, for `width` features and `samples` samples.

    n samples span n − 1 directions, so with every std at s the covariance term is at least s⁴ (d / (n − 1) − 1). Then
    std · (1 − s) + 2 cov · s⁴ (d / (n − 1) − 1) is smallest at s³ = std / (8 cov (d / (n − 1) − 1)).
    """
    spare = width / (samples - 1) - 1
    if not std or not cov or spare <= 0:
        return 1.0
    return min(1.0, float((std / (8 * cov * spare)) ** (1 / 3)))


def _max_width_ratio(s: float, std: float, cov: float) -> float:
    """The ratio d / (n − 1) at which `best_std` is s."""
    return 1 + std / (8 * cov * s**3)


def _suggest_sizes(s: float, samples: int, width: int, std: float, cov: float) -> str:
    """The number of samples, or of features, that gives a `best_std` of s, as the end of a sentence."""
    most = _max_width_ratio(s, std, cov)
    return f"give {1 + ceil(width / most)} samples or more, or method.projector.out {int(most * (samples - 1))} or less"


def unit_directions(dim: int, count: int, rng: Rng) -> Float[Tensor, "d k"]:
    """`count` random unit vectors, as columns; the same on every rank and in every micro-batch of a step."""
    return F.normalize(torch.randn(dim, count, generator=rng.generator()), dim=0)


def sigreg(
    z: Float[Tensor, "*v n d"], directions: Float[Tensor, "d k"], knots: int = 17, end: float = 3.0
) -> Float[Tensor, ""]:
    """How far samples are from a standard normal along unit `directions`, averaged over directions and views.

    Along each direction: n ∫ |φ(t) − exp(−t²/2)|² exp(−t²/2) dt, the statistic of Epps & Pulley, where φ is the
    samples' characteristic function (1/n) Σ exp(itx). The integral is taken by the trapezoidal rule with `knots` on
    [0, end] and doubled, since the integrand is even. It is about 1 for normal samples, whatever n, and .4 n for a
    single point at 0. If all samples are equal, the gradient cannot separate them. Source: LeJEPA, arXiv:2511.08544.
    """
    z = at_least_float32(z)
    t = torch.linspace(0, end, knots, dtype=z.dtype, device=z.device)
    normal = torch.exp(-t.square() / 2)
    weight = normal * (2 * end / (knots - 1))
    weight[[0, -1]] /= 2
    count = all_reduce_sum(z.new_tensor(float(z.shape[-2])))
    with no_autocast(z):
        angle = (z @ directions.to(z))[..., None] * t
    found = all_reduce_sum(torch.stack([angle.cos().sum(-3), angle.sin().sum(-3)])) / count
    off = (found[0] - normal).square() + found[1].square()
    return count * (off * weight).sum(-1).mean()


def info_nce(
    a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], temperature: float, decoupled: bool = False
) -> Float[Tensor, ""]:
    """The cross-entropy of finding a sample's other view among all other views of all ranks, by cosine / temperature.

    Each of the 2n views is a query once and has 2n − 2 negatives (NT-Xent). Source: SimCLR, arXiv:2002.05709.
    `decoupled` leaves the positive out of the denominator (arXiv:2110.06848), so the loss may be negative.
    """
    a, b = (F.normalize(at_least_float32(x), dim=-1) for x in (a, b))
    keys = torch.cat([all_gather(a), all_gather(b)])
    half = len(keys) // 2
    own = process_rank() * len(a) + torch.arange(len(a), device=a.device)
    itself, other = torch.cat([own, own + half]), torch.cat([own + half, own])
    with no_autocast(a):
        logits = torch.cat([a, b]) @ keys.T / temperature
    found = logits.gather(1, other[:, None])[:, 0]
    logits = logits.scatter(1, itself[:, None], -torch.inf)
    if decoupled:
        logits = logits.scatter(1, other[:, None], -torch.inf)
    return (logits.logsumexp(1) - found).mean()


def no_autocast(x: Tensor) -> AbstractContextManager[None]:
    """A context in which products keep the precision of their factors, even under autocast."""
    return torch.autocast(x.device.type, enabled=False)


def at_least_float32(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """x as float32, or unchanged if it is float64."""
    return x if x.dtype == torch.float64 else x.float()
