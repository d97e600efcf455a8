"""A learned distance to go, in steps, between latents of a frozen world model; a raw latent distance knows no walls.

`rule` "quasimetric" (QRL): two states are as far apart as possible, while each step costs at most 1:

    d(x, y) = ‖f(x) − f(y)‖ [+ max_j relu(e(x) − e(y))_j, unless `symmetric`]
    minimise  E φ(d(s, g)),   φ(d) = softplus_β(far − d), β .1,    subject to  E relu(d(s_t, s_{t+1}) − 1)² ≤ slack²
    by        φ + λ (E relu(d(s_t, s_{t+1}) − 1)² − slack²),      λ = softplus(speed · θ) ascends, all else descends

`rule` "expectile" (IVL): the steps to go V along the best of the actions in the data, V̄ its moving average:

    V(s, g) = softplus(h([s, g]))           target = 1 if s_{t+1} is g, else 1 + γ V̄(s_{t+1}, g)
    L = E |τ − 1(V < target)| · (V − target)²,     so targets below V count τ, those above it 1 − τ

f, e and h are readouts (nn/readout.py) of the tokens of a frame. Goals are frames of the same batch (`goals` "batch"),
of samples with the same label, such as the layout of a maze ("label"), or of the same sample ("trajectory"). Half of
the goals of "expectile" are later frames of the same sample.

Sources: QRL, arXiv:2304.01203; IVL, as the value of HIQL, arXiv:2307.11949. Deliberate differences: the metric is
a Euclidean distance of embeddings beside one asymmetric maximum instead of an IQE head; the multiplier is a parameter
of the same optimiser, `speed` times as fast, instead of having its own; steps to go are positive numbers instead of
negative values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import expm1, inf, log
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .. import losses
from ..core.distributed import all_gather, process_rank, world_size
from ..nn import ema
from ..nn.readout import FlatMLP, ReadoutConfig
from ..types import Batch, Rng, Signal, Terms
from .base import Method
from .head import Head
from .predictive import Predictive

PUSH_SHARPNESS = 0.1  # β of φ
START_MULTIPLIER = 3.0  # λ at the first step


@dataclass(frozen=True)
class Config:
    """Settings; `far` is c of φ, in steps: pairs are pushed apart up to about there; `out` counts the features of f.

    `speed` is how many times faster than the other parameters the multiplier learns. `gamma`, `expectile` and `decay`
    (of the moving average) belong to the rule "expectile".
    """

    parents: tuple[str, ...] = ()
    parent_hashes: tuple[str, ...] = ()
    rule: Literal["quasimetric", "expectile"] = "quasimetric"
    body: ReadoutConfig = field(default_factory=lambda: FlatMLP(hidden=256, depth=3))
    out: int = 64
    symmetric: bool = False
    goals: Literal["batch", "label", "trajectory"] = "batch"
    far: float = 25.0
    slack: float = 0.1
    speed: float = 10.0
    gamma: float = 0.98
    expectile: float = 0.9
    decay: float = 0.995

    def __post_init__(self) -> None:
        if self.out < 2 or not all(0 < value < inf for value in (self.far, self.slack, self.speed)):
            raise ValueError(
                f"out is {self.out}, far {self.far:g}, slack {self.slack:g} and speed {self.speed:g}; give 2 features "
                "or more, and finite numbers above 0"
            )
        if not (0 < self.gamma <= 1 and 0 < self.expectile < 1 and 0 <= self.decay <= 1):
            raise ValueError(
                f"gamma is {self.gamma:g}, expectile {self.expectile:g} and decay {self.decay:g}; give numbers "
                "between 0 and 1"
            )

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """A small quasi-metric, for the contract."""
        return cls(body=FlatMLP(32, 1), out=8, far=5.0)


class Metric(Head):
    """A distance to go on the latents of a world model; see the module's equations."""

    cfg: Config
    needs = frozenset({"time"})
    batch_statistics = True
    Parents = (Predictive,)

    @classmethod
    def requires(cls, cfg: Config) -> frozenset[str]:
        """Time, and labels if goals are of the same label."""
        return cls.needs | ({"label"} if cfg.goals == "label" else set())

    def __init__(self, cfg: Config, signal: Signal, parents: Sequence[Method] = ()) -> None:
        super().__init__(cfg, signal, parents)
        if len(self.parents) > 1:
            raise ValueError(f"a metric reads one run, but {len(self.parents)} are given; give one")
        encoder: Any = self.encoder
        dim = self.parent.encode(signal.zeros()).shape[-1]
        grid = tuple(encoder.grid[1:])
        self.frames = int(encoder.grid[0])
        if cfg.rule == "quasimetric":
            self.body = cfg.body.build(dim, cfg.out, grid)
            # θ with softplus(speed · θ) = START_MULTIPLIER
            self.multiplier = nn.Parameter(torch.tensor([log(expm1(START_MULTIPLIER)) / cfg.speed]))
            self.target_body = None
        else:
            self.body = cfg.body.build(2 * dim, 1, grid)
            self.target_body = ema.target(self.body)

    def latents(self, batch: Batch) -> Float[Tensor, "b t n d"]:
        """The parent's latent of every frame."""
        with torch.no_grad():
            s = self.parent.encode(batch)
        return s.reshape(len(s), batch.x.shape[2] * self.frames // self.parent.signal.size[0], -1, s.shape[-1])

    # --- distances

    def steps_to_go(self, tokens: Float[Tensor, "*b n d"], goal: Float[Tensor, "*c n d"]) -> Float[Tensor, "..."]:
        """The steps to go from latents to goals (…); leading axes broadcast."""
        if self.cfg.rule == "quasimetric":
            return self.between(self.body(tokens), self.body(goal))
        return self._read_pair(self.body, tokens, goal)

    def between(self, a: Float[Tensor, "*b o"], b: Float[Tensor, "*c o"]) -> Float[Tensor, "..."]:
        """The quasi-metric of two embeddings (…); leading axes broadcast."""
        difference = losses.at_least_float32(a) - losses.at_least_float32(b)
        if self.cfg.symmetric:
            return safe_norm(difference)
        half = difference.shape[-1] // 2
        return safe_norm(difference[..., :half]) + difference[..., half:].relu().amax(-1)

    def _read_pair(self, body: nn.Module, tokens: Tensor, goal: Tensor) -> Float[Tensor, "..."]:
        lead = (tokens[..., 0, 0] + goal[..., 0, 0]).shape
        pair = torch.cat([part.expand(*lead, *part.shape[-2:]) for part in (tokens, goal)], -1)
        return F.softplus(losses.at_least_float32(body(pair)[..., 0]))

    # --- learning

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The terms of the rule."""
        s = self.latents(batch)
        rows = self._goal_rows(batch, s.shape[1], rng)
        return self._quasimetric_loss(s, rows) if self.cfg.rule == "quasimetric" else self._expectile_loss(s, rows)

    def _quasimetric_loss(self, s: Float[Tensor, "b t n d"], rows: Int[Tensor, "b t"]) -> Terms:
        cfg = self.cfg
        e = self.body(s)
        goals = all_gather(e.flatten(0, 1))[rows]
        push = F.softplus(cfg.far - self.between(e, goals), beta=PUSH_SHARPNESS).mean()
        step = self.between(e[:, :-1], e[:, 1:])
        excess = (step - 1).relu().square().mean() - cfg.slack**2
        multiplier = F.softplus(cfg.speed * self.multiplier)[0]
        # The value of λ · excess, with λ's gradient turned around: its parameter ascends.
        constraint = (2 * multiplier.detach() - multiplier) * excess
        log = {"multiplier": multiplier.detach(), "step": step.detach().mean()}
        return Terms({"push": push, "constraint": constraint}, log)

    def _expectile_loss(self, s: Float[Tensor, "b t n d"], rows: Int[Tensor, "b t"]) -> Terms:
        cfg = self.cfg
        now, after, rows = s[:, :-1], s[:, 1:], rows[:, :-1]
        goal = all_gather(s.flatten(0, 1))[rows]
        arrives = rows == frame_rows(s)[:, 1:]
        assert self.target_body is not None
        with torch.no_grad():
            rest = cfg.gamma * self._read_pair(self.target_body, after, goal)
            target = 1 + rest.masked_fill(arrives, 0)
        found = self._read_pair(self.body, now, goal)
        weight = torch.where(found < target, 1 - cfg.expectile, cfg.expectile)
        loss = (weight * (found - target).square()).mean()
        return Terms({"expectile": loss}, {"steps": found.detach().mean()})

    def _goal_rows(self, batch: Batch, steps: int, rng: Rng) -> Int[Tensor, "b t"]:
        """For every frame of every sample, the row of its goal among the frames of all processes, as `frame_rows`."""
        b, device = len(batch), batch.x.device
        drawn = draws_per_sample(rng.fork("goals"), b, (4, steps)).to(device)
        other = pick(self._allowed(batch), drawn[:, 0])
        rows = other * steps + (drawn[:, 1] * steps).long()
        if self.cfg.rule == "quasimetric":
            return rows
        t = torch.arange(steps, device=device)
        later = t + 1 + (drawn[:, 2] * (steps - 1 - t)).long()
        own = global_rows(batch)[:, None] * steps + later.clamp(max=steps - 1)
        return torch.where(drawn[:, 3] < 0.5, own, rows)

    def _allowed(self, batch: Batch) -> Bool[Tensor, "b k"]:
        """Whether the frames of a sample of any process (column) may be goals of a sample of this one (row)."""
        rows = global_rows(batch)[:, None]
        every = torch.arange(len(batch) * world_size(), device=batch.x.device)
        if self.cfg.goals == "trajectory":
            return rows == every
        if self.cfg.goals == "batch":
            return (rows >= 0).expand(-1, len(every))
        assert batch.label is not None
        label = batch.label.to(torch.float64)  # what processes exchange is a sum of floating-point numbers
        return label[:, None] == all_gather(label)

    def after_step(self, progress: float) -> None:
        """Move the average V̄."""
        if self.target_body is not None:
            ema.update(self.target_body, self.body, self.cfg.decay)

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The mean distance (B,) from the frames of `batch` to the next frames of `other`."""
        s, g = self.latents(batch), self.latents(other)
        return self.steps_to_go(s[:, :-1], g[:, 1:]).mean(1)


def safe_norm(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    """The Euclidean length; its gradient at 0 is 0, and finite near it."""
    return (x.square().sum(-1) + 1e-12).sqrt() - 1e-6


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


def pick(allowed: Bool[Tensor, "b k"], u: Float[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """For uniform numbers u, one of the allowed columns of each row, each as likely."""
    counts = allowed.sum(1, keepdim=True)
    nth = (u * counts).long().minimum(counts - 1)
    # The allowed columns of a row, first.
    order = allowed.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    return order.gather(1, nth)
