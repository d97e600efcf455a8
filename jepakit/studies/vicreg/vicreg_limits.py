"""Study: at which weights does VICReg lose the spread or the rank of its features, measured and predicted by theory?

Two views of a normal sample are x_i = √(1 − ρ) u + √ρ e_i, feature by feature, with variance 1; the share ρ_j of the
variance in direction j is noise. A linear embedding z = x W of d features sees n new samples in every step. Let s, v
and c be the weights of invariance, variance and covariance, and Σ the covariance of z over all samples. The expected
loss follows:

1. Invariance. The views differ by √ρ (e_1 − e_2), so its expectation is (2/d) Σ_j ρ_j μ_j, where μ_j = Σ_k W_jk² is
   the variance of z from direction j.
2. Variance. A feature of standard deviation σ has σq in a batch, q² chi-squared by its n − 1 degrees of freedom. The
   expectation H(σ) = E max(0, 1 − √(σ²q² + eps)) is positive even at σ = 1, because half of all batches fall below it.
3. Covariance. E C_kl² = Σ_kl² + (Σ_kl² + Σ_kk Σ_ll) / (n − 1) for normal samples. Over both views, all Σ_kk = σ²,
   2 [n/(n−1) (Σ_j μ_j² / d − σ⁴) + (d−1)/(n−1) σ⁴]: even uncorrelated features pay (d−1)/(n−1) σ⁴.
4. Σ_j μ_j = d σ², and no more than d of the μ_j are not 0. For a given σ, water-filling minimises the sum of 1 and 3:
   μ_j = max(0, θ − s ρ_j) (n−1) / (2 c n), so noisier directions keep less variance.
5. The only remaining unknown, σ, is found on a grid.

Limits that follow, where v₁ is the weight of variance at which the std is 1 with many samples:

- With c = 0 and one ρ: √(σ² + eps) = v / (4 s ρ), so v₁ = 4 s ρ. The hinge's slope is at most 1 / (2 √eps) in σ², so
  below v = 4 s ρ √eps the std is 0: full collapse. That limit holds with any c, n and d, as 3 is of fourth order in σ.
- With s = 0 and d up to the number of directions: v₁ = 8 c (d−1)/(n−1). So with many features and few samples the std
  stays below 1 however well views agree, as in the published setting (8192 and 2048 with v = 25 c).
- With c = 0 all features follow the cleanest direction: rank 1. Because 3 is of fourth order and 1 of second, whatever
  lowers σ also lowers the rank. The batch does not bound the rank over all samples, because each step has new samples.

One assumption, equal Σ_kk, is not derived; and a nonlinear embedding may do better than a linear one.

Source: VICReg, arXiv:2105.04906, for the loss; C-JEPA, arXiv:2410.19560, for the remark that it may lose rank.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Adam

from ... import losses
from ...collapse.features import entropy_rank
from ...core.files import file_slug
from ...reporting.figures import Figure
from ...types import Rng
from ..claims import Equal
from ..maps import Map, draw_map_grid
from ..study import Own, Scores, Study

NOISE_SHARES: Final = tuple(0.05 + 0.03 * j for j in range(16))  # the shares ρ_j
VARIANCE_WEIGHTS: Final = tuple(0.125 * 3.0**k for k in range(7))
INVARIANCE_WEIGHTS: Final = tuple(0.25 * 4.0**k for k in range(5))
BATCHES, WIDTHS = (8, 32, 128), (4, 16, 64)
HIDDEN_LAYER_CASE: Final = (32, 64)  # the batch and width at which an embedding with a hidden layer is trained as well
HIDDEN, STEPS, LR, SEEN, EPS, TINY = 64, 400, 0.03, 4096, 1e-4, 1e-9
COLLAPSE_SHARE: Final = 0.5  # of the std that the hinge asks for, and of the possible rank
METRICS: Final = ("variance weight at half the std", "variance weight at half the rank")
PREDICTION_TOLERANCE: Final = 0.15
FINE_INVARIANCE: Final = tuple(INVARIANCE_WEIGHTS[0] * 2 ** (k / 4) for k in range(33))
EMBEDDINGS: Final = {
    **{f"linear · batch {n} · width {d}": (n, d, 0) for n in BATCHES for d in WIDTHS},
    f"hidden layer · batch {HIDDEN_LAYER_CASE[0]} · width {HIDDEN_LAYER_CASE[1]}": (*HIDDEN_LAYER_CASE, HIDDEN),
}


class FeatureSpread(NamedTuple):
    """The standard deviation of the features, and their rank by variance (`collapse.features.entropy_rank`)."""

    std: float
    rank: float


def predict_minimum(
    variance: float, invariance: float, batch: int, width: int, cov: float = 1.0, noise: Sequence[float] = NOISE_SHARES
) -> FeatureSpread:
    """The minimum of the expected loss, by steps 1 to 5 of the module; `cov` is positive."""
    rho = torch.tensor(sorted(noise)[:width], dtype=torch.float64)
    sigma, short = hinge_shortfall(batch)
    mu = fill_level(width * sigma**2, invariance * rho, 2 * cov * batch / (batch - 1))
    least = variance * short + expected_loss(mu, sigma, invariance * rho, batch, width, cov)
    k = int(least.argmin())
    return FeatureSpread(float(sigma[k]), entropy_rank(mu[k]))


def fill_level(total: Float[Tensor, " g"], price: Float[Tensor, " p"], slope: float) -> Float[Tensor, "g p"]:
    """max(0, θ − price) / slope, with the level θ at which it sums to `total`; prices in rising order."""
    level = (slope * total[:, None] + price.cumsum(0)) / torch.arange(1, len(price) + 1)
    last = (level > price).sum(1, keepdim=True).clamp(min=1) - 1
    return (level.gather(1, last) - price).clamp(min=0) / slope


@cache
def hinge_shortfall(batch: int) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"]]:
    """A grid of σ from 0 to 2.5, and H(σ) of step 2 by the density of q."""
    sigma, freedom = torch.cat([torch.zeros(1), torch.logspace(-4, 0.4, 3000)]).double(), batch - 1
    q = torch.linspace(0, 1 + 6 / math.sqrt(freedom), 2001, dtype=torch.float64)[1:]
    density = (freedom - 1) * q.log() - freedom * q**2 / 2
    weight = (density - density.max()).exp()
    return sigma, (1 - (sigma[:, None] ** 2 * q**2 + EPS).sqrt()).clamp(min=0) @ (weight / weight.sum())


def expected_loss(
    mu: Float[Tensor, "g p"], sigma: Float[Tensor, " g"], price: Float[Tensor, " p"], batch: int, width: int, cov: float
) -> Float[Tensor, " g"]:
    """The weighted invariance and covariance of steps 1 and 3; `price` is s ρ."""
    repeated = (mu.square().sum(1) / width - sigma**4) * batch / (batch - 1)
    return 2 * (mu @ price) / width + 2 * cov * (repeated + (width - 1) / (batch - 1) * sigma**4)


def draw_views(batch: int, noise: Float[Tensor, " p"], gen: torch.Generator) -> Float[Tensor, "2 n p"]:
    """Two views of `batch` new samples."""
    u = torch.randn(batch, len(noise), generator=gen)
    return (1 - noise).sqrt() * u + noise.sqrt() * torch.randn(2, batch, len(noise), generator=gen)


def train_embeddings(
    variance: Float[Tensor, " m"],
    invariance: Float[Tensor, " m"],
    batch: int,
    width: int,
    rng: Rng,
    steps: int = STEPS,
    hidden: int = 0,
    noise: Sequence[float] = NOISE_SHARES,
) -> list[FeatureSpread]:
    """Embeddings trained from the same start on the same samples, one for each pair of weights; covariance weighs 1.

    They are linear, or have a `hidden` layer of rectified units. Returns their spread on SEEN samples of one view.
    """
    gen, rho = rng.generator(), torch.tensor(noise)
    sizes = [len(noise), *([hidden] if hidden else []), width]
    layers = [torch.randn(a, b, generator=gen) / math.sqrt(a) for a, b in pairwise(sizes)]
    weights = [w.expand(len(variance), -1, -1).clone().requires_grad_() for w in layers]
    optimizer = Adam(weights, lr=LR, betas=(0.9, 0.99))
    total = torch.func.vmap(_training_loss, in_dims=(0, 0, 0, None))
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = LR * (1 + math.cos(math.pi * k / steps)) / 2
        optimizer.zero_grad()
        loss: Tensor = total(weights, variance, invariance, draw_views(batch, rho, gen)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    x = draw_views(SEEN, rho, gen)[0].double()
    with torch.no_grad():
        return [_spectrum_of(embed_samples([w[m].double() for w in weights], x)) for m in range(len(variance))]


def embed_samples(weights: Sequence[Float[Tensor, "_ _"]], x: Float[Tensor, "*v n p"]) -> Float[Tensor, "*v n d"]:
    """The embedding, with rectified units between two matrices."""
    for weight in weights[:-1]:
        x = (x @ weight).relu()
    return x @ weights[-1]


def _training_loss(weights: Sequence[Tensor], variance: Tensor, invariance: Tensor, x: Tensor) -> Tensor:
    terms = losses.vicreg(embed_samples(weights, x))
    return invariance * terms["invariance"] + variance * terms["variance"] + terms["covariance"]


def _spectrum_of(z: Float[Tensor, "n d"]) -> FeatureSpread:
    eigenvalues = torch.linalg.eigvalsh(z.T.cov()).flip(0).clamp(min=0)
    return FeatureSpread(float(z.std(0).mean()), entropy_rank(eigenvalues))


def train_seed(seed: int, steps: int | None = None) -> dict[str, list[list[float]]]:
    """All trainings of one seed: by embedding, the std and the rank at every pair of weights."""
    pairs = torch.cartesian_prod(torch.tensor(VARIANCE_WEIGHTS), torch.tensor(INVARIANCE_WEIGHTS))
    found = {}
    for name, (batch, width, hidden) in EMBEDDINGS.items():
        rng = Rng(seed).fork(name)
        results = train_embeddings(pairs[:, 0], pairs[:, 1], batch, width, rng, steps or STEPS, hidden)
        found[name] = [list(values) for values in zip(*results, strict=True)]
    return found


def measure_seeds(seeds: Sequence[int], steps: int | None, _: Path) -> Iterator[dict[str, list[list[float]]]]:
    """The trainings of one seed after another."""
    return (train_seed(seed, steps) for seed in seeds)


def crossing_weight(values: Sequence[float], level: float) -> float | None:
    """The variance weight at which `values` (over rising VARIANCE_WEIGHTS) first pass `level`; None if they do not."""
    for k, (low, high) in enumerate(pairwise(values)):
        if low < level <= high:
            # Between two weights, both are nearly powers of the weight.
            share = math.log(level / max(low, TINY)) / math.log(high / max(low, TINY))
            return VARIANCE_WEIGHTS[k] * math.pow(VARIANCE_WEIGHTS[k + 1] / VARIANCE_WEIGHTS[k], share)
    return None


def predicted_boundary(what: int, invariance: float, batch: int, width: int) -> float | None:
    """The weight of variance at which the prediction fails, by bisection; `what` is an index of `FeatureSpread`."""
    limit, (low, high) = failure_level(what, width), (math.log(VARIANCE_WEIGHTS[0]), math.log(VARIANCE_WEIGHTS[-1]))
    ends = [predict_minimum(math.exp(at), invariance, batch, width)[what] < limit for at in (low, high)]
    if ends != [True, False]:
        return None
    for _ in range(12):
        middle = (low + high) / 2
        if predict_minimum(math.exp(middle), invariance, batch, width)[what] < limit:
            low = middle
        else:
            high = middle
    return math.exp(high)


def failure_level(what: int, width: int) -> float:
    """The std or the rank below which an embedding has failed."""
    return COLLAPSE_SHARE * (1 if what == 0 else min(width, len(NOISE_SHARES)))


def tabulate(seeds: Sequence[Mapping[str, Sequence[Sequence[float]]]]) -> dict[tuple[str, str], list[float]]:
    """The boundary by seed and the predicted one, if both are within the range of weights tried."""
    rows: dict[tuple[str, str], list[float]] = {}
    for name, (batch, width, _) in EMBEDDINGS.items():
        for k, invariance in enumerate(INVARIANCE_WEIGHTS):
            for what, metric in enumerate(METRICS):
                here = [
                    crossing_weight(seed[name][what][k :: len(INVARIANCE_WEIGHTS)], failure_level(what, width))
                    for seed in seeds
                ]
                # Read from the same weights as the measured one; otherwise the gaps between them would count as errors.
                theory = crossing_weight(
                    [predict_minimum(v, invariance, batch, width)[what] for v in VARIANCE_WEIGHTS],
                    failure_level(what, width),
                )
                if theory is not None and None not in here:
                    label = f"{name} · invariance {invariance:g}"
                    rows[label, metric] = [value for value in here if value is not None]
                    rows[label, f"{metric}, predicted"] = [theory] * len(here)
    return rows


def claims() -> Iterator[Equal]:
    """The claim, for each kind of embedding, that the measured boundary agrees with the prediction."""
    for kind in ("linear", "hidden layer"):
        rows = [
            f"{name} · invariance {s:g}" for name in EMBEDDINGS if name.startswith(kind) for s in INVARIANCE_WEIGHTS
        ]
        for metric in METRICS:
            pairs = tuple(((row, metric), (row, f"{metric}, predicted")) for row in rows)
            yield Equal(f"{metric} and the predicted one", pairs, PREDICTION_TOLERANCE, words=kind.capitalize())


def conclusions(scores: Scores) -> list[str]:
    """The definition of the boundary."""
    return [
        "The boundary is the weight of variance below which the std is under half of what the hinge asks for, or the "
        "rank under half of what width and directions allow. There is no row if the tried weights do not enclose both "
        "the measured and the predicted boundary."
    ]


def draw_maps(seeds: Sequence[Mapping[str, Sequence[Sequence[float]]]]) -> list[tuple[str, Figure]]:
    """Maps over both weights, one for each batch and width: the measured values and both boundaries."""
    found = []
    for what, kind in enumerate(("Standard deviation", "Rank")):
        maps = []
        for name, (batch, width, _) in EMBEDDINGS.items():
            mean = (
                torch.tensor([seed[name][what] for seed in seeds]).mean(0).reshape(len(VARIANCE_WEIGHTS), -1).tolist()
            )
            limit = failure_level(what, width)
            dots = [(s, crossing_weight([row[k] for row in mean], limit)) for k, s in enumerate(INVARIANCE_WEIGHTS)]
            line = [(s, predicted_boundary(what, s, batch, width)) for s in FINE_INVARIANCE]
            maps.append(Map(name, [[v * COLLAPSE_SHARE / limit for v in row] for row in mean], line, dots))
        svg = draw_map_grid(
            maps,
            VARIANCE_WEIGHTS,
            INVARIANCE_WEIGHTS,
            f"{kind} over both weights",
            ("weight of invariance", "weight of variance"),
        )
        found.append((file_slug(kind), Figure(kind, svg, MAP_CAPTION, wide=True)))
    return found


MAP_CAPTION: Final = (
    "Each cell is a training, all seeds averaged: the stronger the colour, the nearer to the maximum. The line is the "
    "predicted boundary for a linear embedding, the dots are the measured one: below them more than half is lost. The "
    "prediction has no fitted constant. If the std is 0, the rank is that of rounding errors."
)
STUDY = Study(
    title="The limits of VICReg",
    source="the loss of VICReg, arXiv:2105.04906; the prediction is derived in this study's module",
    claim=(
        "Weights, batch and width alone predict where a linear embedding of normal samples loses its spread and its "
        "rank: the std if invariance outweighs variance, or if covariance does because many features are compared over "
        "few samples; the rank if the remaining variance cannot pay for the noisier directions."
    ),
    arms=(),
    claims=tuple(claims()),
    conclusions=conclusions,
    own=Own(measure_seeds, tabulate, draw_maps),
)
