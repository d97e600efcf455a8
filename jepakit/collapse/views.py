"""What survives a change of view: LiDAR, the share of signal, consistency; and how close two encoders are.

Views are (n, q, D): q masks or crops of each of n samples. Within a sample they scatter by S_w, the samples' means by
S_b = signal + S_w / q. That second part is why LiDAR as published has a floor: features of pure noise, whitened, have
S_b = I / q, which is full rank. The corrected value subtracts it and keeps only eigenvalues above what noise reaches.

Sources: LiDAR, Thilak et al. 2023, arXiv:2312.04000. Largest eigenvalue of noise: Johnstone 2008, Annals of Statistics
36(6), 2638–2716 (doi:10.1214/08-AOS605), Theorem 1.
"""

from math import acos, exp, log, sin, tan
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

DELTA: Final = 1e-4  # of the published LiDAR, in the features' own units
JITTER: Final = 1e-7  # of the corrected one, as a share of the mean variance within
ONE_IN_A_HUNDRED: Final = 2.02  # the Tracy-Widom law's (β = 1) value at 99 %


class Scatter(NamedTuple):
    """Unbiased covariances (D, D), float64 on the CPU: of the samples' means, and of views around their mean."""

    between: Float[Tensor, "d d"]
    within: Float[Tensor, "d d"]


def scatter(views: Float[Tensor, "n q d"]) -> Scatter:
    """How the means of the samples scatter, and the views within them; n and q are 2 or more."""
    rows = views.double().cpu()
    n, q, _ = rows.shape
    means = rows.mean(1)
    around, inside = means - means.mean(0), (rows - means[:, None]).flatten(0, 1)
    return Scatter(around.T @ around / (n - 1), inside.T @ inside / (n * (q - 1)))


def lidar(views: Float[Tensor, "n q d"]) -> float:
    """LiDAR as published: exp(−Σ p ln p), p = λ / Σλ + 1e-8, λ of S_w^−½ S_b S_w^−½ with S_w = cov + 1e-4 I.

    It reads near full rank for pure noise and for views that are grouped wrongly, and its constant has the features'
    units; see `lidar_corrected`. The covariances are the means over samples and views, as published.
    """
    n, q, _ = views.shape
    s = scatter(views)
    within = s.within * (q - 1) / q
    values = _whitened(s.between * (n - 1) / n, within + DELTA * torch.eye(len(within), dtype=within.dtype))
    p = values / values.sum() + 1e-8
    return (-(p * p.log()).sum()).exp().item() if values.sum() > 0 else 0.0


def lidar_corrected(views: Float[Tensor, "n q d"]) -> float | None:
    """LiDAR without its floor: of the whitened eigenvalues above `noise_edge`, less 1 / q; 0 where none is.

    Pure noise and wrongly grouped views read 0 in 99 of 100 cases. It does not see signal that is weaker than the
    edge: give more views or samples. None where n (q − 1) ≤ D, so that S_w cannot be whitened, or where views do not
    differ. The edge is that of normal features; heavy tails lie above it a little more often.
    """
    n, q, d = views.shape
    s = scatter(views)
    size = s.within.diagonal().mean()
    if n * (q - 1) <= d or not size > JITTER * s.between.diagonal().mean():
        return None
    values = _whitened(s.between, s.within + JITTER * size * torch.eye(d, dtype=s.within.dtype))
    signal = values[values > noise_edge(n, q, d)] - 1 / q
    p = signal / signal.sum()
    return torch.special.entr(p).sum().exp().item() if len(signal) else 0.0


def noise_edge(n: int, q: int, d: int) -> float:
    """What the largest whitened eigenvalue of n means of q views of noise in d dimensions exceeds once in a hundred.

    q S_b and S_w are then independent Wishart matrices with n − 1 and n (q − 1) degrees of freedom, and the logarithm
    of the largest root follows Tracy and Widom's law around a mean and a width that depend on these three numbers.
    """
    between, inside = n - 1, n * (q - 1)
    total = between + inside - 1
    gamma, phi = (acos(1 - 2 * (k - 0.5) / total) for k in (min(d, between), max(d, between)))
    mean = 2 * log(tan((phi + gamma) / 2))
    width = (16 / total**2 / (sin(phi + gamma) ** 2 * sin(phi) * sin(gamma))) ** (1 / 3)
    return exp(mean + ONE_IN_A_HUNDRED * width) * inside / between / q


def signal_share(views: Float[Tensor, "n q d"]) -> float | None:
    """tr(S_b − S_w / q) / tr(S_b + S_w): the share of variance that belongs to the sample; 0 for noise.

    A few strong directions decide it. None where there is no variance.
    """
    s = scatter(views)
    between, within = s.between.trace().item(), s.within.trace().item()
    return (between - within / views.shape[1]) / (between + within) if between + within else None


def consistency(views: Float[Tensor, "n q d"]) -> float:
    """The mean cosine of two views of one sample, less that of views of two samples, after removing the mean.

    1: a sample looks the same in every view; 0: views of a sample are no closer than others, as in a full collapse
    to noise. It cannot see that all samples use one direction: there it is high.
    """
    n, q, _ = views.shape
    rows = views.double().cpu()
    unit = torch.nn.functional.normalize(rows - rows.mean((0, 1)), dim=2)
    ones, whole = unit.square().sum(), unit.sum((0, 1)).square().sum()
    inside = unit.sum(1).square().sum()
    same, other = (inside - ones) / (n * q * (q - 1)), (whole - inside) / (n * (n - 1) * q * q)
    return (same - other).item()


def agreement(target: Float[Tensor, "n d"], context: Float[Tensor, "n d"]) -> float:
    """The mean cosine between what two encoders make of the same samples, each less its mean: 1 for the same.

    It says how far an average lags behind what it averages, not which of them is better.
    """
    a, b = (x.double() - x.double().mean(0) for x in (target, context))
    return torch.nn.functional.cosine_similarity(a, b, dim=1).mean().item()


def _whitened(between: Float[Tensor, "d d"], within: Float[Tensor, "d d"]) -> Float[Tensor, " d"]:
    """The eigenvalues of W^−½ B W^−½."""
    if not (between.isfinite().all() and within.isfinite().all()):
        return torch.full_like(between[0], torch.nan)
    scale, axes = torch.linalg.eigh(within)
    root = axes * scale.clamp(min=torch.finfo(scale.dtype).tiny).rsqrt()
    values: Tensor = torch.linalg.eigvalsh(root.T @ between @ root)
    return values.clamp(min=0)
