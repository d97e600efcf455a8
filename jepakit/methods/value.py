"""The value of a latent for rewards: what a planner adds at the end of its horizon, learned on a frozen world model.

`rule` "model": the best action by the model's own predictions, without further data (fitted value iteration):

    target = max over a of [R(ŝ′) + γ (1 − p_done(ŝ′)) V̄(ŝ′)],   ŝ′ = the model's next latent from s by a

`rule` "logs": the value of the behaviour in the data (temporal differences):

    target = r_t + γ (1 − done_t) V̄(s_{t+1})

    L = mean |V(s) − target|²,        V̄ the moving average of V

V̄ is kept within what rewards like those of the data can add up to, from min r / (1 − γ) to max r / (1 − γ); where
there are ends, a reward of 0 counts as well. The largest of several guesses is too large on average, and targets that
are made of guesses would grow without a bound.
R and p_done are the parent's heads; without a done head nothing ends. The actions tried are all choices of a discrete
action, evenly spaced values of a single number, and otherwise `candidates` random ones within the bounds. "model"
learns from the latents of the data and from those that its best actions lead to, since data of a random policy lack the
states that a good policy visits; a predictor that remembers starts there without a past. V is a readout of a latent, in
units of the reward's deviation over 1 − γ.

Sources: fitted value iteration, Ernst et al. 2005; TD(0), Sutton 1988.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..nn import ema
from ..nn.readout import FlatMLP, ReadoutConfig
from ..types import ActionSpec, Batch, Rng, Signal, State, Terms
from .base import Method, token_rows
from .head import Head
from .worldmodel import CALIBRATION_SAMPLES, WorldModel


@dataclass(frozen=True)
class Config:
    """Settings; `decay` is that of the moving average."""

    parents: tuple[str, ...] = ()
    parent_hashes: tuple[str, ...] = ()
    rule: Literal["model", "logs"] = "model"
    body: ReadoutConfig = field(default_factory=FlatMLP)
    gamma: float = 0.97
    candidates: int = 9
    decay: float = 0.99

    def __post_init__(self) -> None:
        if not (0 <= self.gamma < 1 and 0 <= self.decay <= 1) or self.candidates < 2:
            raise ValueError(
                f"gamma is {self.gamma:g}, decay {self.decay:g} and candidates {self.candidates}; give a gamma from 0 "
                "to below 1, a decay from 0 to 1 and 2 candidates or more"
            )

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """A small value, for the contract."""
        return cls(body=FlatMLP(32, 1), gamma=0.5, candidates=3, decay=0.9)


class Value(Head):
    """The value of latents of a world model; see the module's equations."""

    cfg: Config
    needs = frozenset({"time", "action"})
    Parents = (WorldModel,)
    reward_low: Tensor
    reward_high: Tensor

    def __init__(self, cfg: Config, signal: Signal, parents: Sequence[Method] = ()) -> None:
        super().__init__(cfg, signal, parents)
        if len(self.parents) > 1:
            raise ValueError(f"a value reads one run, but {len(self.parents)} are given; give one")
        if cfg.rule == "model" and self.world.reward_head is None:
            raise ValueError(
                "the world model has no reward head, from which its value could be computed; train it with "
                "method.reward 1, or set rule logs"
            )
        self.body = cfg.body.build(self.world.encoder.dim, 1, self.world.grid)
        self.target_body = ema.target(self.body)
        self.register_buffer("reward_low", torch.full((), -torch.inf))
        self.register_buffer("reward_high", torch.full((), torch.inf))

    @property
    def world(self) -> WorldModel:
        """The parent."""
        assert isinstance(self.parent, WorldModel)
        return self.parent

    @property
    def calibration_samples(self) -> int:
        """The number of samples whose rewards bound the value."""
        return CALIBRATION_SAMPLES

    def calibrate(self, batch: Batch) -> None:
        """Fit the bounds of a reward; nothing is bounded without rewards, or if so rare ones that all here are 0."""
        if batch.reward is None or not batch.reward.any():
            return
        ends = batch.done is not None or self.world.done_head is not None
        rewards = torch.cat([batch.reward.flatten(), batch.reward.new_zeros(int(ends))])
        self.reward_low.copy_(rewards.min())
        self.reward_high.copy_(rewards.max())

    def value(self, tokens: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b"]:
        """The discounted sum of the rewards to come, in the data's units."""
        return self._in_units(self._standard(self.body, tokens))

    def _standard(self, body: torch.nn.Module, tokens: Tensor) -> Float[Tensor, "*b"]:
        out: Tensor = body(tokens)
        return losses.at_least_float32(out[..., 0])

    def _rest(self, tokens: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b"]:
        """What the moving average says of the rewards to come, within their bounds."""
        guess = self._in_units(self._standard(self.target_body, tokens))
        return guess.clamp(self.reward_low / (1 - self.cfg.gamma), self.reward_high / (1 - self.cfg.gamma))

    def _in_units(self, value: Tensor) -> Tensor:
        world = self.world
        return (value * world.reward_std[0] + world.reward_mean[0]) / (1 - self.cfg.gamma)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The squared error of the value, in standard units."""
        if self.cfg.rule == "logs" and batch.reward is None:
            raise ValueError("rule logs reads rewards, which the samples lack; give data with rewards")
        with torch.no_grad():
            tokens, target = self._targets_by_model(batch, rng) if self.cfg.rule == "model" else self._from_logs(batch)
            target = (target * (1 - self.cfg.gamma) - self.world.reward_mean[0]) / self.world.reward_std[0]
        found = self._standard(self.body, tokens)
        loss = (found - target).square().mean()
        return Terms(
            {"value": loss},
            {"mean": self._in_units(found.detach()).mean()},
            (token_rows([found[..., None]]), token_rows([target[..., None]])),
        )

    def _from_logs(self, batch: Batch) -> tuple[Float[Tensor, "b t n d"], Float[Tensor, "b t"]]:
        """The latents of all frames but the last, and their targets by temporal differences."""
        assert batch.reward is not None
        s = self.world.latents(batch, "target")
        rest = self._rest(s[:, 1:])
        if batch.done is not None:
            rest = rest.masked_fill(batch.done, 0.0)
        return s[:, :-1], batch.reward + self.cfg.gamma * rest

    def _targets_by_model(self, batch: Batch, rng: Rng) -> tuple[Float[Tensor, "b r n d"], Float[Tensor, "b r"]]:
        """The latents of all frames and those after the best action from each, and their targets by the model."""
        s = self.world.latents(batch, "target")
        spec = self.signal.action
        assert spec is not None
        b, t = s.shape[:2]
        total, local = rng.global_batch(b)
        u = torch.rand(total, 2 * t, self.cfg.candidates, spec.size, generator=rng.fork("actions").generator())[local]
        tried = candidate_actions(spec, u.to(s.device))
        first, after = self._best(s.flatten(0, 1), tried[:, :t].flatten(0, 1))
        second, _ = self._best(after, tried[:, t:].flatten(0, 1))
        tokens = torch.cat([s, after.reshape(s.shape)], 1)
        return tokens, torch.cat([first.reshape(b, t), second.reshape(b, t)], 1)

    def _best(
        self, tokens: Float[Tensor, "r n d"], actions: Float[Tensor, "r k a"]
    ) -> tuple[Float[Tensor, " r"], Float[Tensor, "r n d"]]:
        """The largest return over the actions, and the latent after the best."""
        world, (rows, count) = self.world, actions.shape[:2]
        each = tokens.repeat_interleave(count, 0)
        after = world.step(State(each, world.predictor.start(each)), actions.flatten(0, 1)).tokens
        rest = self._rest(after)
        if world.done_head is not None:
            rest = rest * torch.sigmoid(-world.done_logit(after))
        gain = (world.predict_reward(after) + self.cfg.gamma * rest).reshape(rows, count)
        best = gain.argmax(1)
        place = torch.arange(rows, device=best.device) * count + best
        return gain.amax(1), after[place]

    def after_step(self, progress: float) -> None:
        """Move the average V̄."""
        ema.update(self.target_body, self.body, self.cfg.decay)

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The mean squared difference (B,) between the values of the frames of both, in standard units."""
        a, b = (self._standard(self.body, self.world.latents(x, "target")) for x in (batch, other))
        return (a - b).square().mean(1)


def candidate_actions(spec: ActionSpec, u: Float[Tensor, "*b k a"]) -> Float[Tensor, "*b _ a"]:
    """Actions to try, from uniform numbers u: see the module's docstring. Numbers without bounds lie in [−1, 1]."""
    if spec.discrete:
        return torch.eye(spec.size, device=u.device, dtype=u.dtype).expand(*u.shape[:-2], -1, -1)
    low, high = (
        u.new_tensor(bound or (sign * (spec.max_norm or 1.0),) * spec.size)
        for bound, sign in ((spec.low, -1), (spec.high, 1))
    )
    if spec.size == 1:
        even = torch.linspace(0, 1, u.shape[-2], device=u.device, dtype=u.dtype)[:, None]
        return (low + (high - low) * even).expand(*u.shape[:-2], -1, -1)
    action = low + (high - low) * u
    if spec.max_norm is None:
        return action
    parts = action.reshape(*action.shape[:-1], spec.parts, -1)
    length: Tensor = torch.linalg.vector_norm(parts, dim=-1, keepdim=True).clamp(min=1e-12)
    return (parts * (spec.max_norm / length).clamp(max=1)).flatten(-2)
