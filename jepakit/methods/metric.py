"""A learned distance to go, in steps, between latents of a frozen world model; a raw latent distance knows no walls.

`rule` "quasimetric" (QRL): two states are as far apart as possible, while each step costs at most 1; the equations are
in methods/quasimetric.py.

`rule` "expectile" (IVL): the steps to go V along the best of the actions in the data, V̄ its moving average:

    V(s, g) = softplus(h([s, g]))           target = 1 if s_{t+1} is g, else 1 + γ V̄(s_{t+1}, g)
    L = E |τ − 1(V < target)| · (V − target)²,     so targets below V count τ, those above it 1 − τ

f, e and h are readouts (nn/readout.py) of the tokens of a frame. Half of the goals of "expectile" are later frames of
the same sample.

Sources: QRL, arXiv:2304.01203; IVL, as the value of HIQL, arXiv:2307.11949. Deliberate difference: steps to go are
positive numbers instead of negative values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .. import losses
from ..core.distributed import all_gather
from ..nn import ema
from ..nn.readout import FlatMLP
from ..types import Batch, Rng, Signal, Terms
from .base import Method
from .head import Head
from .predictive import Predictive
from .quasimetric import (
    QuasimetricConfig,
    frame_rows,
    global_rows,
    goal_draws,
    goal_rows,
    quasimetric,
    quasimetric_terms,
    start_multiplier,
)


@dataclass(frozen=True)
class Config(QuasimetricConfig):
    """Settings; see also `QuasimetricConfig`. `gamma`, `expectile` and `decay` (of V̄) are for the rule "expectile"."""

    parents: tuple[str, ...] = ()
    parent_hashes: tuple[str, ...] = ()
    rule: Literal["quasimetric", "expectile"] = "quasimetric"
    gamma: float = 0.98
    expectile: float = 0.9
    decay: float = 0.995

    def __post_init__(self) -> None:
        super().__post_init__()
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
            self.multiplier = start_multiplier(cfg)
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
            return quasimetric(self.body(tokens), self.body(goal), self.cfg.symmetric)
        return self._read_pair(self.body, tokens, goal)

    def _read_pair(self, body: nn.Module, tokens: Tensor, goal: Tensor) -> Float[Tensor, "..."]:
        lead = (tokens[..., 0, 0] + goal[..., 0, 0]).shape
        pair = torch.cat([part.expand(*lead, *part.shape[-2:]) for part in (tokens, goal)], -1)
        return F.softplus(losses.at_least_float32(body(pair)[..., 0]))

    # --- learning

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The terms of the rule."""
        s = self.latents(batch)
        rows = goal_rows(batch, s.shape[1], self.cfg.goals, rng.fork("goals"))
        if self.cfg.rule == "quasimetric":
            return Terms(*quasimetric_terms(self.body(s), rows, self.multiplier, self.cfg))
        return self._expectile_loss(s, self._with_later_goals(batch, rows, rng.fork("goals")))

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

    def _with_later_goals(self, batch: Batch, rows: Int[Tensor, "b t"], rng: Rng) -> Int[Tensor, "b t"]:
        """The rows, half of them replaced by those of later frames of the same sample."""
        steps = rows.shape[1]
        drawn = goal_draws(batch, steps, rng)
        t = torch.arange(steps, device=rows.device)
        later = t + 1 + (drawn[:, 2] * (steps - 1 - t)).long()
        own = global_rows(batch)[:, None] * steps + later.clamp(max=steps - 1)
        return torch.where(drawn[:, 3] < 0.5, own, rows)

    def after_step(self, progress: float) -> None:
        """Move the average V̄."""
        if self.target_body is not None:
            ema.update(self.target_body, self.body, self.cfg.decay)

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The mean distance (B,) from the frames of `batch` to the next frames of `other`."""
        s, g = self.latents(batch), self.latents(other)
        return self.steps_to_go(s[:, :-1], g[:, 1:]).mean(1)
