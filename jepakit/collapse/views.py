"""Measures of what survives a change of view (LiDAR, signal share, consistency), and how close two encoders are.

Views are (n, q, D): q masks or crops of each of n samples. They scatter by S_w within a sample, and the samples' means
scatter by S_b = signal + S_w / q. Because of the second term, LiDAR as published has a floor: whitened features of pure
noise have S_b = I / q, which is full rank. The corrected value subtracts it and keeps only eigenvalues above the noise.

Sources: LiDAR, Thilak et al. 2023, arXiv:2312.04000. Largest eigenvalue of noise: Johnstone 2008, Annals of Statistics
36(6), 2638–2716 (doi:10.1214/08-AOS605), Theorem 1.
"""

from math import acos, exp, log, sin, tan
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

LIDAR_DELTA: Final = 1e-4  # added to S_w in the published LiDAR, in the features' own units
RELATIVE_JITTER: Final = 1e-7  # added to S_w in the corrected LiDAR, as a share of its mean diagonal
TRACY_WIDOM_99: Final = 2.02  # the 99 % quantile of the Tracy-Widom law (β = 1)


class Scatter(NamedTuple):
    """Unbiased covariances (D, D), float64 on the CPU: of samples' means, and of views around their sample's mean."""

    between: Float[Tensor, "d d"]
    within: Float[Tensor, "d d"]


def view_scatter(views: Float[Tensor, "n q d"]) -> Scatter:
    """The scatter of the samples' means, and of the views within a sample; n and q are 2 or more."""
    rows = views.double().cpu()
    n, q, _ = rows.shape
    means = rows.mean(1)
    around, inside = means - means.mean(0), (rows - means[:, None]).flatten(0, 1)
    return Scatter(around.T @ around / (n - 1), inside.T @ inside / (n * (q - 1)))


def lidar(views: Float[Tensor, "n q d"]) -> float:
    """LiDAR as published: exp(−Σ p ln p), p = λ / Σλ + 1e-8, λ of S_w^−½ S_b S_w^−½ with S_w = cov + 1e-4 I.

    It is near full rank for pure noise and for views that are grouped wrongly, and its constant has the features'
    units; `lidar_corrected` has neither flaw. Covariances are means over samples and views, as published.
    """
    n, q, _ = views.shape
    s = view_scatter(views)
    within = s.within * (q - 1) / q
    values = _whitened_eigenvalues(
        s.between * (n - 1) / n, within + LIDAR_DELTA * torch.eye(len(within), dtype=within.dtype)
    )
    p = values / values.sum() + 1e-8
    return (-(p * p.log()).sum()).exp().item() if values.sum() > 0 else 0.0


def lidar_corrected(views: Float[Tensor, "n q d"]) -> float | None:
    """LiDAR without its floor, from the whitened eigenvalues above `noise_edge`, less 1 / q; 0 if there is none.

    Pure noise and wrongly grouped views give 0 in 99 of 100 cases. It misses signal that is weaker than the edge: give
    more views or samples. None if n (q − 1) ≤ D, so that S_w cannot be whitened, or if views do not differ. The edge
    assumes normal features; heavy tails exceed it a little more often.
    """
    n, q, d = views.shape
    s = view_scatter(views)
    size = s.within.diagonal().mean()
    if n * (q - 1) <= d or not size > RELATIVE_JITTER * s.between.diagonal().mean():
        return None
    values = _whitened_eigenvalues(s.between, s.within + RELATIVE_JITTER * size * torch.eye(d, dtype=s.within.dtype))
    signal = values[values > noise_edge(n, q, d)] - 1 / q
    p = signal / signal.sum()
    return torch.special.entr(p).sum().exp().item() if len(signal) else 0.0


def noise_edge(n: int, q: int, d: int) -> float:
    """The 99 % quantile of the largest whitened eigenvalue for n means of q views of pure noise in d dimensions.

    For noise, q S_b and S_w are independent Wishart matrices with n − 1 and n (q − 1) degrees of freedom, and the
    logarithm of the largest root follows the Tracy-Widom law with a mean and a width that depend on n, q and d.
    """
    between, inside = n - 1, n * (q - 1)
    total = between + inside - 1
    gamma, phi = (acos(1 - 2 * (k - 0.5) / total) for k in (min(d, between), max(d, between)))
    mean = 2 * log(tan((phi + gamma) / 2))
    width = (16 / total**2 / (sin(phi + gamma) ** 2 * sin(phi) * sin(gamma))) ** (1 / 3)
    return exp(mean + TRACY_WIDOM_99 * width) * inside / between / q


def signal_share(views: Float[Tensor, "n q d"]) -> float | None:
    """tr(S_b − S_w / q) / tr(S_b + S_w): the share of variance that belongs to the sample; 0 for noise.

    A few strong directions determine it. None if there is no variance.
    """
    s = view_scatter(views)
    between, within = s.between.trace().item(), s.within.trace().item()
    return (between - within / views.shape[1]) / (between + within) if between + within else None


def view_consistency(views: Float[Tensor, "n q d"]) -> float:
    """The mean cosine between views of the same sample, less that between views of two samples, with the mean removed.

    At 1 a sample looks the same in every view; at 0 views of a sample are no closer than others, as in a full collapse
    to noise. It is also high if all samples use one direction, and does not show that.
    """
    n, q, _ = views.shape
    rows = views.double().cpu()
    unit = torch.nn.functional.normalize(rows - rows.mean((0, 1)), dim=2)
    ones, whole = unit.square().sum(), unit.sum((0, 1)).square().sum()
    inside = unit.sum(1).square().sum()
    same, other = (inside - ones) / (n * q * (q - 1)), (whole - inside) / (n * (n - 1) * q * q)
    return (same - other).item()


def encoder_agreement(target: Float[Tensor, "n d"], context: Float[Tensor, "n d"]) -> float:
    """The mean cosine between two encoders' features of the same samples, each with its mean removed; 1 if equal.

    It tells how far a moving average lags behind the online encoder, not which of them is better.
    """
    a, b = (x.double() - x.double().mean(0) for x in (target, context))
    return torch.nn.functional.cosine_similarity(a, b, dim=1).mean().item()


def _whitened_eigenvalues(between: Float[Tensor, "d d"], within: Float[Tensor, "d d"]) -> Float[Tensor, " d"]:
    """The eigenvalues of W^−½ B W^−½."""
    if not (between.isfinite().all() and within.isfinite().all()):
        return torch.full_like(between[0], torch.nan)
    scale, axes = torch.linalg.eigh(within)
    root = axes * scale.clamp(min=torch.finfo(scale.dtype).tiny).rsqrt()
    values: Tensor = torch.linalg.eigvalsh(root.T @ between @ root)
    return values.clamp(min=0)
