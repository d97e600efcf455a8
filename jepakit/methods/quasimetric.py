"""A quasi-metric of latents in steps: as far apart as possible, while each step costs at most 1.

    d(x, y) = ‖f(x) − f(y)‖ [+ max_j relu(e(x)_j − e(y)_j), unless `symmetric`]
    minimise  E φ(d(s, g)),   φ(d) = softplus_β(far − d), β .1,    subject to  E relu(d(s_t, s_{t+1}) − 1)² ≤ slack²
    by        φ + λ (E relu(d(s_t, s_{t+1}) − 1)² − slack²),      λ = softplus(speed · θ) ascends, all else descends

Source: QRL, arXiv:2304.01203. Deliberate differences: the metric is a Euclidean distance of embeddings beside one
asymmetric maximum instead of an IQE head; the multiplier is a parameter of the same optimiser, `speed` times as fast,
instead of having its own.
"""

from dataclasses import dataclass, field
from math import expm1, inf, log
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .. import losses
from ..core.distributed import all_gather, process_rank, world_size
from ..nn.readout import FlatMLP, ReadoutConfig
from ..types import Batch, Rng

PUSH_SHARPNESS = 0.1  # β of φ
START_MULTIPLIER = 3.0  # λ at the first step

Goals = Literal["batch", "label", "trajectory"]


@dataclass(frozen=True)
class QuasimetricConfig:
    """Settings; `far` is c of φ, in steps: pairs are pushed apart up to about there; `out` counts the features of f.

    `body` makes these of the tokens of a frame. `speed` is how many times faster than the other parameters the
    multiplier learns. Goals are frames of the same batch (`goals` "batch"), of samples with the same label, such as the
    layout of a maze ("label"), or of the same sample ("trajectory").
    """

    body: ReadoutConfig = field(default_factory=lambda: FlatMLP(hidden=256, depth=3))
    out: int = 64
    symmetric: bool = False
    goals: Goals = "batch"
    far: float = 25.0
    slack: float = 0.1
    speed: float = 10.0

    def __post_init__(self) -> None:
        if self.out < 2 or not all(0 < value < inf for value in (self.far, self.slack, self.speed)):
            raise ValueError(
                f"out is {self.out}, far {self.far:g}, slack {self.slack:g} and speed {self.speed:g}; give 2 features "
                "or more, and finite numbers above 0"
            )


def start_multiplier(cfg: QuasimetricConfig) -> nn.Parameter:
    """θ (1,) of the multiplier, such that λ is START_MULTIPLIER."""
    return nn.Parameter(torch.tensor([log(expm1(START_MULTIPLIER)) / cfg.speed]))


def quasimetric(a: Float[Tensor, "*b o"], b: Float[Tensor, "*c o"], symmetric: bool = False) -> Float[Tensor, "..."]:
    """The distance (…) of two embeddings; leading axes broadcast. The first half of the features is f, the other e."""
    difference = losses.at_least_float32(a) - losses.at_least_float32(b)
    if symmetric:
        return safe_norm(difference)
    half = difference.shape[-1] // 2
    return safe_norm(difference[..., :half]) + difference[..., half:].relu().amax(-1)


def quasimetric_terms(
    e: Float[Tensor, "b t o"], rows: Int[Tensor, "b t"], theta: Float[Tensor, "1"], cfg: QuasimetricConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The terms `push` and `constraint` of the embeddings of frames and of their goals, and what to log.

    `rows` says which frames of all processes are the goals; see `goal_rows`.
    """
    goals = all_gather(e.flatten(0, 1))[rows]
    push = F.softplus(cfg.far - quasimetric(e, goals, cfg.symmetric), beta=PUSH_SHARPNESS).mean()
    step = quasimetric(e[:, :-1], e[:, 1:], cfg.symmetric)
    excess = (step - 1).relu().square().mean() - cfg.slack**2
    multiplier = F.softplus(cfg.speed * theta)[0]
    # The value of λ · excess, with λ's gradient turned around: its parameter ascends.
    constraint = (2 * multiplier.detach() - multiplier) * excess
    return {"push": push, "constraint": constraint}, {"multiplier": multiplier.detach(), "step": step.detach().mean()}


def safe_norm(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    """The Euclidean length; its gradient at 0 is 0, and finite near it."""
    return (x.square().sum(-1) + 1e-12).sqrt() - 1e-6


# --- goals


def goal_rows(batch: Batch, steps: int, goals: Goals, rng: Rng) -> Int[Tensor, "b t"]:
    """For each of `steps` frames of every sample, the row of its goal among the frames of all processes.

    Rows are those of `frame_rows`. Raises ValueError if goals have the same label and the batch has no labels.
    """
    drawn = goal_draws(batch, steps, rng)
    other = pick_column(_allowed_samples(batch, goals), drawn[:, 0])
    return other * steps + (drawn[:, 1] * steps).long()


def goal_draws(batch: Batch, steps: int, rng: Rng) -> Float[Tensor, "b 4 t"]:
    """Uniform numbers for the goal of each frame: its sample, its frame there, and two for goals in the same sample."""
    return draws_per_sample(rng, len(batch), (4, steps)).to(batch.x.device)


def _allowed_samples(batch: Batch, goals: Goals) -> Bool[Tensor, "b k"]:
    """Whether the frames of a sample of any process (column) may be goals of a sample of this one (row).

    With goals of the same label, samples without one have goals of their own.
    """
    rows = global_rows(batch)[:, None]
    every = torch.arange(len(batch) * world_size(), device=batch.x.device)
    if goals == "trajectory":
        return rows == every
    if goals == "batch":
        return (rows >= 0).expand(-1, len(every))
    if batch.label is None:
        raise ValueError(
            "goals are frames of samples with the same label, but the batch has none; give labels or other goals"
        )
    label = batch.label.to(torch.float64)  # what processes exchange is a sum of floating-point numbers
    same = label[:, None] == all_gather(label)
    return (same & (label[:, None] >= 0)) | (rows == every)


def global_rows(batch: Batch) -> Int[Tensor, " b"]:
    """The place of each sample among those of all processes."""
    return process_rank() * len(batch) + torch.arange(len(batch), device=batch.x.device)


def frame_rows(s: Float[Tensor, "b t n d"]) -> Int[Tensor, "b t"]:
    """The place of each frame among those of all processes, by sample, then by time."""
    count = s.shape[0] * s.shape[1]
    return process_rank() * count + torch.arange(count, device=s.device).reshape(s.shape[:2])


def draws_per_sample(rng: Rng, batch: int, shape: tuple[int, ...]) -> Float[Tensor, "b ..."]:
    """Uniform numbers in [0, 1) for each local sample, the same however the global batch is split."""
    total, local = rng.global_batch(batch)
    return torch.rand(total, *shape, generator=rng.generator())[local]


def pick_column(allowed: Bool[Tensor, "b k"], u: Float[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """For uniform numbers u, one of the allowed columns of each row, each as likely."""
    counts = allowed.sum(1, keepdim=True)
    nth = (u * counts).long().minimum(counts - 1)
    # The allowed columns of a row, first.
    order = allowed.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    return order.gather(1, nth)
