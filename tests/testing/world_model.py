"""A world model in one file: a recurrent state that frames and actions lead on, and a predictor of the next frame.

s_t = f(frame t)        h_t = tanh(W [h_{t-1}, s_t, a_{t-1}])        pred_t = P([h_t, a_t])
L = mean over t of |pred_t - LayerNorm(g(frame t + 1))|^2,    g the EMA of f, no gradient
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit import losses
from jepakit.methods.base import Weights, token_rows
from jepakit.methods.predictive import Predictive
from jepakit.nn import ema
from jepakit.nn.conv import CNN
from jepakit.nn.encoder import EncoderConfig
from jepakit.nn.mlp import MLP
from jepakit.types import Batch, Rng, Signal, State, Terms


@dataclass(frozen=True)
class Config:
    """`ema` is the decay at the first and the last step."""

    encoder: EncoderConfig = field(default_factory=lambda: CNN(patch=None))
    ema: tuple[float, float] = (0.99, 1.0)

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """One token per frame, or per quarter of a series."""
        if len(signal.size) == 1:
            return cls(MLP(patch=(signal.size[0] // 4,), width=16, hidden=16, depth=1))
        return cls(CNN(patch=(1, *signal.size[1:]), width=16, channels=(8,)))


class WorldModel(Predictive):
    """A recurrent state that actions lead on; see the module's equations."""

    cfg: Config
    needs = frozenset({"time", "action"})

    def __init__(self, cfg: Config, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.encoder = cfg.encoder.build(signal)
        self.target_encoder = ema.target(self.encoder)
        dim = self.encoder.dim
        self.lead = nn.Linear(2 * dim + signal.action_size, dim)
        self.predictor = nn.Linear(dim + signal.action_size, dim)

    def actions(self, batch: Batch, steps: int) -> Float[Tensor, "b t a"]:
        """The action that leads to each step but the first."""
        assert batch.action is not None
        return batch.action[:, self.encoder.patch[0] - 1 :: self.encoder.patch[0]][:, : steps - 1]

    def frames(self, batch: Batch, weights: Weights) -> Float[Tensor, "b t d"]:
        """Every frame by itself."""
        encoder = self.target_encoder if weights == "target" else self.encoder
        s: Tensor = encoder(self.normalize(batch.x))
        return s

    def update(self, h: Tensor, s: Tensor, action: Tensor | None) -> Float[Tensor, "b d"]:
        """The state after one more frame."""
        action = s.new_zeros(len(s), self.signal.action_size) if action is None else action
        return torch.tanh(self.lead(torch.cat([h, s, action], -1)))

    def states(self, batch: Batch, weights: Weights) -> Float[Tensor, "b t d"]:
        """The state after every frame."""
        s = self.frames(batch, weights)
        actions = [None, *self.actions(batch, s.shape[1]).unbind(1)]
        h = [torch.zeros_like(s[:, 0])]
        for frame, action in zip(s.unbind(1), actions, strict=True):
            h.append(self.update(h[-1], frame, action))
        return torch.stack(h[1:], 1)

    def compare(self, batch: Batch, other: Batch) -> tuple[Tensor, Tensor]:
        """What is predicted of every next frame, and what `other` has there."""
        h = self.states(batch, "context")
        pred = self.predictor(torch.cat([h[:, :-1], self.actions(batch, h.shape[1])], -1))
        return pred, losses.normalize_target(self.frames(other, "target")[:, 1:]).detach()

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The mean squared error of the next frame."""
        pred, target = self.compare(batch, batch)
        loss = losses.prediction(pred, target, "l2")
        return Terms({"prediction": loss}, compared=(token_rows([pred]), token_rows([target])))

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """The state after every frame."""
        return self.states(batch, weights)

    def after_step(self, progress: float) -> None:
        """The EMA; its decay moves linearly."""
        start, end = self.cfg.ema
        ema.update(self.target_encoder, self.encoder, start + (end - start) * progress)

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The squared error of what `batch` and its actions predict of the frames of `other`."""
        pred, target = self.compare(batch, other)
        return (pred - target).square().flatten(1).mean(1)

    def start(self, obs: Float[Tensor, "b c ..."]) -> State:
        """The state after one frame."""
        return self.observe(State(torch.zeros(len(obs), 1, self.encoder.dim).to(obs)), obs)

    def observe(self, state: State, obs: Float[Tensor, "b c ..."], action: Tensor | None = None) -> State:
        """The state after a further frame, to which `action` led."""
        x = obs if len(self.signal.size) == 1 else obs[:, :, None]
        s = self.frames(Batch(x), "target")[:, 0]
        return State(self.update(state.tokens[:, 0], s, action)[:, None])

    def step(self, state: State, action: Tensor | None = None, z: Tensor | None = None) -> State:
        """The state after the frame that is predicted."""
        h = state.tokens[:, 0]
        action = h.new_zeros(len(h), self.signal.action_size) if action is None else action
        return State(self.update(h, self.predictor(torch.cat([h, action], -1)), action)[:, None])
