"""A world model: latents of frames, and a predictor of the next latent from the latent and an action.

    s_t = norm(f(x_t) [+ P(proprio_t)])                          the latent of frame t, N tokens of D features
    ŝ_{t+1} = norm(g(ŝ_t, a_t)),   ŝ_t = s_t at t = 0, k, 2k, …  roll-outs of k = `steps` steps from true latents
    L = rollout · mean_t |ŝ_t − s_t|² + forcing · mean_t |norm(g(s_t, a_t)) − s_{t+1}|²
      + std · mean_t (1/D) Σ_j max(0, 1 − √Var(s_t,j))           each feature varies over samples (VICReg)
      + cov · mean_t (1/D) Σ_{i≠j} Cov(s_t,i, s_t,j)²            features do not repeat one another (VICReg)
      + temporal · mean_t |s_{t+1} − s_t|²                       latents change slowly
      + inverse · mean_t |h(s_t, s_{t+1}) − a_t|²                the action can be read from two latents
      + sigreg · mean_t SIGReg(s_t)                              latents are normally distributed (LeJEPA)
      + reward · (|R(ŝ_t) − r_t|² + |R(s_t) − r_t|²) / 2 + done · the same with the cross-entropy of `done`
      + metric · (push + constraint)                             a distance to go between latents (quasimetric.py)

|·|² are means over tokens and features. Every term has its own weight, and a weight of 0 leaves the term out.
Statistics over samples are taken per time step and per token, over the samples of all processes. r_t is the reward of
the step that leads to frame t, and R and the done head read the latent alone, that of the roll-out and the encoded one.
The distance to go needs to know what stands in the way, so its gradient makes the encoder show it.

Nothing but a term, an EMA target (`ema`), or an encoder that keeps the weights that `--init` gives (`frozen`), prevents
the collapse. The predictor g is one of nn/dynamics.py; methods/latentworld.py computes latents and roll-outs. Frames,
actions, rewards and proprioception are standardised with statistics of the training data.

std 16, cov 8 / (D − 1), temporal 12, inverse 1, rollout 1, steps 8 with GRU dynamics is the setting of EB-JEPA
(arXiv:2602.03604, Two Rooms), which follows PLDM (arXiv:2502.14819). forcing 1, rollout 0 and sigreg alone, with a
transformer of history 3, is LeWorldModel. Deliberate differences: covariances are divided by D as in VICReg, not by
D (D − 1), where a weight of 8 is next to nothing; latents are normalised without affine instead of by a LayerNorm with
one, so that the scale of the latents is fixed; roll-outs begin anew every k frames instead of only at the first; the
predictor is residual; tokens of a frame are normalised one by one, and have statistics of their own.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .. import losses
from ..core.notes import Note
from ..nn import ema as moving
from ..nn.conv import CNN
from ..nn.dynamics import DynamicsConfig, ResidualMLP
from ..nn.encoder import EncoderConfig
from ..nn.keypoints import Keypoints
from ..nn.mlp import MLP, build_perceptron
from ..types import Batch, Rng, Signal, Size, Terms
from .base import token_rows
from .latentworld import LatentWorld
from .quasimetric import QuasimetricConfig, goal_rows, quasimetric, quasimetric_terms, start_multiplier

# Number of samples whose statistics standardise actions, rewards and proprioception.
CALIBRATION_SAMPLES = 256
MIN_STD = 1e-6  # a number that varies less than this is constant and stays as it is

FIELD_ADVICE = {
    "action": "give trajectories with actions",
    "proprio": "name it with data.proprio, or set method.proprio 0",
    "reward": "set method.reward 0",
    "done": "set method.done 0",
}


@dataclass(frozen=True)
class Config:
    """Settings; the weights of the terms have the names of the module's equations.

    `steps` is the length k of a roll-out; `to_go` describes the distance that the term `metric` learns. `proprio`
    counts the proprioceptive values that enter the latent beside the frame (None: all that the data have, 0: none).
    `norm` gives every token zero mean and unit variance over its features. `hidden` is the width of the heads.
    `ema` holds the decays of a target encoder at the first and the last step; without it the targets are the
    encoder's own latents, and with `stop_gradient` they get no gradient.
    """

    encoder: EncoderConfig = field(default_factory=lambda: CNN(patch=None, channels=(16, 32, 32)))
    predictor: DynamicsConfig = field(default_factory=ResidualMLP)
    steps: int = 8
    rollout: float = 1.0
    forcing: float = 0.0
    std: float = 16.0
    cov: float = 0.1
    temporal: float = 12.0
    inverse: float = 1.0
    sigreg: float = 0.0
    reward: float = 0.0
    done: float = 0.0
    metric: float = 0.0
    to_go: QuasimetricConfig = field(default_factory=QuasimetricConfig)
    distance: losses.Kind = "l2"
    norm: bool = True
    proprio: int | None = None
    hidden: int = 256
    ema: tuple[float, float] | None = None
    stop_gradient: bool = False
    frozen: bool = False
    directions: int = 256

    def __post_init__(self) -> None:
        losses.check_weights(
            self, "rollout", "forcing", "std", "cov", "temporal", "inverse", "sigreg", "reward", "done", "metric"
        )
        if not self.rollout + self.forcing:
            raise ValueError("rollout and forcing are both 0, so nothing is predicted; give one of them a weight")
        if min(self.steps, self.hidden, self.directions) < 1 or (self.proprio or 0) < 0:
            raise ValueError(
                f"steps is {self.steps}, hidden {self.hidden}, directions {self.directions} and proprio "
                f"{self.proprio}; give 1 or more, and a proprio of 0 or more"
            )
        if self.ema is not None:
            moving.check(self.ema)

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """The smallest settings with every term but `metric`, for the contract."""
        encoder: EncoderConfig = MLP(patch=(1,), width=16, hidden=32, depth=1)
        if len(signal.size) == 3:
            encoder = CNN(patch=(1, *signal.size[1:]), width=16, channels=(8,))
        return cls(
            encoder, ResidualMLP(32, 1), steps=2, forcing=0.5, std=4.0, temporal=0.1, sigreg=0.02, reward=0.1, done=0.1,
            hidden=16, directions=32,
        )  # fmt: skip


class WorldModel(LatentWorld):
    """An encoder of frames and a predictor with actions; see the module's equations."""

    cfg: Config
    needs = frozenset({"time", "action"})
    batch_statistics = True
    judges_dynamics = True
    reward_mean: Tensor
    reward_std: Tensor

    def __init__(self, cfg: Config, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.encoder = cfg.encoder.build(signal)
        check_frames(self.encoder, signal)
        dim, size = self.encoder.dim, signal.action_size
        self.grid = tuple(self.encoder.grid[1:])
        tokens = torch.Size(self.grid).numel()
        self.proprio = signal.proprio if cfg.proprio is None else cfg.proprio
        self.embed_proprio = nn.Linear(self.proprio, dim) if self.proprio else None
        self.target_encoder = moving.target(self.encoder) if cfg.ema is not None else None
        if cfg.frozen:
            self.encoder.requires_grad_(False)
        self.predictor = cfg.predictor.build(dim, size, self.grid)

        def head(frames: int, out: int) -> nn.Sequential:
            return build_perceptron([frames * tokens * dim, cfg.hidden, out], "layer", nn.GELU)

        self.inverse_head = head(2, size) if cfg.inverse else None
        self.reward_head = head(1, 1) if cfg.reward else None
        self.done_head = head(1, 1) if cfg.done else None
        if cfg.metric:
            self.metric_body = cfg.to_go.body.build(dim, cfg.to_go.out, self.grid)
            self.multiplier = start_multiplier(cfg.to_go)
        for name, width in (("action", size), ("reward", 1), ("proprio", self.proprio)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_std", torch.ones(width))

    @classmethod
    def requires(cls, cfg: Config) -> frozenset[str]:
        """Time and actions, and labels if the distance to go is learned between samples of the same label."""
        return cls.needs | ({"label"} if cfg.metric and cfg.to_go.goals == "label" else set())

    @classmethod
    def fit_config(
        cls, cfg: Any, signal: Signal, proposal: tuple[Size, str] | None = None, frames: bool = True
    ) -> tuple[Any, list[Note]]:
        """As `Predictive.fit_config`; every auto patch is a whole frame, and vectors are read by a perceptron.

        Raises ValueError if the data have another number of proprioceptive values than the settings say.
        """
        encoder, notes = cfg.encoder, list[Note]()
        if isinstance(encoder, CNN) and encoder.patch is None and len(signal.size) == 1:
            encoder = MLP(patch=None, width=encoder.width, hidden=2 * encoder.width)
            notes = [Note("method.encoder.name", "mlp", "frames are vectors, without a grid to convolve over")]
        if isinstance(encoder, CNN | MLP | Keypoints) and encoder.patch is None:
            patch = (1, *signal.size[1:])
            encoder = replace(encoder, patch=patch)
            notes.append(Note("method.encoder.patch", list(patch), "a frame at a time"))
        if cfg.proprio is None and signal.proprio:
            notes.append(Note("method.proprio", signal.proprio, "the values beside each frame; 0 leaves them out"))
        if cfg.proprio not in (None, 0, signal.proprio):
            raise ValueError(
                f"method.proprio is {cfg.proprio}, but the data have {signal.proprio} proprioceptive values beside "
                "each frame; leave method.proprio out to read them, or name others as data.proprio"
            )
        proprio = signal.proprio if cfg.proprio is None else cfg.proprio
        return replace(cfg, encoder=encoder, proprio=proprio), notes

    def check(self, samples: int) -> None:
        """Raise ValueError if `samples` samples at a time cannot tell how features vary."""
        cfg = self.cfg
        if cfg.std or cfg.cov:
            losses.check_vicreg(samples, self.encoder.dim, cfg.std, cfg.cov)
        if cfg.sigreg:
            losses.check_samples(samples, "a distribution needs")

    @property
    def calibration_samples(self) -> int:
        """The number of samples whose actions, rewards and proprioception are standardised."""
        return CALIBRATION_SAMPLES

    def calibrate(self, batch: Batch) -> None:
        """Fit the mean and deviation of actions (unless they are discrete), rewards and proprioception.

        Raises ValueError if the batch lacks what the settings read.
        """
        self._require(batch, *self._fields)
        discrete = self.signal.action is not None and self.signal.action.discrete
        fields = {"action": None if discrete else batch.action, "reward": batch.reward, "proprio": batch.proprio}
        for name, values in fields.items():
            mean, std = getattr(self, f"{name}_mean"), getattr(self, f"{name}_std")
            if values is None or not len(mean):
                continue
            rows = values.reshape(-1, len(mean))
            spread = rows.std(0)
            mean.copy_(rows.mean(0))
            std.copy_(spread.where(spread > MIN_STD, torch.ones_like(spread)))

    @property
    def _fields(self) -> list[str]:
        """The fields of a batch that the settings read."""
        read = {"proprio": self.proprio, "reward": self.cfg.reward, "done": self.cfg.done}
        return ["action", *[name for name, wanted in read.items() if wanted]]

    def _require(self, batch: Batch, *names: str) -> None:
        for name in names:
            if getattr(batch, name) is None:
                raise ValueError(f"the world model reads {name}, which the samples lack; {FIELD_ADVICE[name]}")

    def predict_actions(self, s: Float[Tensor, "b t n d"]) -> Float[Tensor, "b u a"]:
        """The standardised actions between neighbouring frames, read from their latents."""
        assert self.inverse_head is not None
        found: Tensor = self.inverse_head(torch.cat([s[:, :-1].flatten(2), s[:, 1:].flatten(2)], -1))
        return found

    def predict_reward(self, tokens: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b"]:
        """The reward, in the data's units, of the step that led to these latents. Raises ValueError without a head."""
        return self._read(self.reward_head, tokens, "reward") * self.reward_std[0] + self.reward_mean[0]

    def done_logit(self, tokens: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b"]:
        """The logit that an episode has ended at these latents. Raises ValueError without a head."""
        return self._read(self.done_head, tokens, "done")

    def steps_to_go(self, tokens: Float[Tensor, "*b n d"], goal: Float[Tensor, "*c n d"]) -> Float[Tensor, "..."]:
        """The steps to go from latents to goals (…); leading axes broadcast. Needs `metric` above 0."""
        return quasimetric(self.metric_body(tokens), self.metric_body(goal), self.cfg.to_go.symmetric)

    def _read(self, head: nn.Module | None, tokens: Tensor, name: str) -> Tensor:
        if head is None:
            raise ValueError(f"this world model has no {name} head; train it with method.{name} above 0")
        out: Tensor = head(tokens.flatten(-2))
        return out[..., 0]

    # --- learning

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The weighted terms of the module's equations."""
        self._require(batch, *self._fields)
        assert batch.action is not None
        cfg, action = self.cfg, self.normalize_action(batch.action)
        s = losses.at_least_float32(self.latents(batch))
        target = self._targets(s, batch)
        terms: dict[str, Tensor] = {}
        pred = s
        if cfg.forcing:
            pred = self.predict_each(s[:, :-1], action)
            terms["forcing"] = cfg.forcing * self._compare(pred, target).mean()
        if cfg.rollout:
            pred = self.roll_out(s, action)
            terms["prediction"] = cfg.rollout * self._compare(pred, target).mean()
        terms |= self._regularize(s, action, rng) | self._read_terms(s, pred, batch)
        log: dict[str, Tensor] = {}
        if cfg.metric:
            rows = goal_rows(batch, s.shape[1], cfg.to_go.goals, rng.fork("goals"))
            found, log = quasimetric_terms(self.metric_body(s), rows, self.multiplier, cfg.to_go)
            terms |= {name: cfg.metric * term for name, term in found.items()}
        return Terms(terms, log, compared=(token_rows([pred.float()]), token_rows([target.float()])))

    def _targets(self, s: Float[Tensor, "b t n d"], batch: Batch) -> Float[Tensor, "b u n d"]:
        """The latents of frames 1 … T that predictions are compared with."""
        if self.target_encoder is None:
            return s[:, 1:].detach() if self.cfg.stop_gradient else s[:, 1:]
        with torch.no_grad():
            return self.latents(batch, "target")[:, 1:]

    def _compare(self, pred: Tensor, target: Tensor) -> Float[Tensor, "b t n d"]:
        return losses.elementwise(losses.at_least_float32(pred), losses.at_least_float32(target), self.cfg.distance)

    def _regularize(self, s: Float[Tensor, "b t n d"], action: Tensor, rng: Rng) -> dict[str, Tensor]:
        """The terms against collapse, weighted."""
        cfg, found = self.cfg, {}
        per_step = s.movedim(0, 2)  # (T + 1, N, B, D): statistics over samples at every time step and token
        if cfg.std:
            found["std"] = cfg.std * losses.variance(per_step)
        if cfg.cov:
            found["cov"] = cfg.cov * losses.covariance(per_step)
        if cfg.temporal:
            found["temporal"] = cfg.temporal * (s[:, 1:] - s[:, :-1]).square().mean()
        if cfg.inverse:
            found["inverse"] = cfg.inverse * (self.predict_actions(s) - action).square().mean()
        if cfg.sigreg:
            directions = losses.unit_directions(s.shape[-1], cfg.directions, rng.fork("directions"))
            found["sigreg"] = cfg.sigreg * losses.sigreg(per_step, directions)
        return found

    def _read_terms(self, s: Tensor, pred: Float[Tensor, "b t n d"], batch: Batch) -> dict[str, Tensor]:
        """The terms of the heads for reward and done, weighted; each reads predicted and encoded latents."""
        cfg, found = self.cfg, {}
        both = torch.stack([pred.to(s.dtype), s[:, 1:]])
        if cfg.reward:
            assert batch.reward is not None
            wanted = (batch.reward - self.reward_mean) / self.reward_std
            found["reward"] = cfg.reward * (self._read(self.reward_head, both, "reward") - wanted).square().mean()
        if cfg.done:
            assert batch.done is not None
            ended = batch.done.to(s.dtype).expand(2, -1, -1)
            logit = losses.at_least_float32(self.done_logit(both))
            found["done"] = cfg.done * F.binary_cross_entropy_with_logits(logit, ended)
        return found

    def after_step(self, progress: float) -> None:
        """Move the target encoder, if there is one; its decay goes linearly from the first to the second of `ema`."""
        if self.target_encoder is not None and self.cfg.ema is not None:
            start, end = self.cfg.ema
            moving.update(self.target_encoder, self.encoder, start + (end - start) * progress)

    # --- measures

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The mean distance (B,) of roll-outs from `batch`, by its actions, to the latents of the frames of `other`."""
        self._require(batch, "action")
        assert batch.action is not None
        s, seen = self.latents(batch, "target"), self.latents(other, "target")
        pred = self.roll_out(s, self.normalize_action(batch.action))
        return self._compare(pred, seen[:, 1:]).flatten(1).mean(1)

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """Whether actions matter, and whether latents follow what moves.

        `actions/energy_ratio` is the mean energy under the true actions over that under other samples' actions: 1 if
        actions have no influence. `actions/inverse_error` is the error of the inverse dynamics over that of the mean
        action: 1 if two latents tell nothing of the action between them. `spread/within` is the share of the latents'
        variance that lies within samples, over time: 0 if latents show only what stands still.
        """
        if batch.action is None or len(batch) < 2:
            return {}
        s, action = self.latents(batch, "target").float(), self.normalize_action(batch.action)
        true, shuffled = (self._compare(self.roll_out(s, a), s[:, 1:]).mean() for a in (action, action.roll(1, 0)))
        tiny = torch.finfo(s.dtype).tiny
        found = {"actions/energy_ratio": true / shuffled.clamp(min=tiny)}
        if self.inverse_head is not None:
            guess = (action - action.mean((0, 1))).square().mean().clamp(min=tiny)
            found["actions/inverse_error"] = (self.predict_actions(s) - action).square().mean() / guess
        within = (s - s.mean(1, keepdim=True)).square().mean()
        found["spread/within"] = within / (s - s.mean((0, 1))).square().mean().clamp(min=tiny)
        return found


def check_frames(encoder: Any, signal: Signal) -> None:
    """Raise ValueError unless an encoder reads the signal frame by frame."""
    if encoder.mixes:
        raise ValueError("the encoder sees all frames at once; give encoder.name frames around it, or cnn or mlp")
    if encoder.patch[0] != 1:
        raise ValueError(
            f"the encoder's patch {tuple(encoder.patch)} spans {encoder.patch[0]} frames, but an action leads from "
            "each to the next; give encoder.patch a first side of 1"
        )
    if encoder.grid[0] < 2:
        raise ValueError(f"samples have {encoder.grid[0]} frame, so there is nothing to predict; give 2 or more")
