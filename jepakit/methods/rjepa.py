"""R-JEPA: a recurrent circuit sees one fixation after another and predicts its own next representation.

    y_t = encoder(x_t)        h_t = circuit(h_{t−1}, y_t)        pred_t = P(h_t [, a_t])
    L = mean over t of d(pred_t, sg(h_{t+1})),        d = mean squared difference over positions and features

x_t is frame t: a fixated patch, a frame of a video, a piece of a series; a_t, with `saccade`, the action that leads to
frame t + 1. The target is the circuit's own next state, without a gradient. What the panel calls the target encoder is
the same one. Each sample is the mean over its own steps.

Learning rules (`rule`): bptt, back-propagation through time; rfp, recurrent forward propagation, the same gradient
without a graph of the past (rfp.py); truncated, each step by itself. `below` says how the encoder learns: full (with
rfp by traces of all its parameters), instant (rfp only: from the error of each step alone), or frozen. What rfp cannot
do exactly is refused unless `approximate` is set; then its cosine to bptt, on one sequence, is watched: `rfp/cosine`.

Source: Velarde & Parra 2024, arXiv:2411.16695. Its equations are not known to us: that the target is the next state,
the circuits (nn/gated.py), and the form of the predictor are our reading of what it states.
"""

from dataclasses import dataclass, field
from typing import Literal, cast

from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..nn.conv import CNN
from ..nn.encoder import EncoderConfig
from ..nn.mlp import MLP
from ..recurrent import sequences, unroll
from ..recurrent.circuit import Circuit
from ..types import Batch, Rng, Signal, State, Terms
from .base import Weights
from .predictive import Predictive


@dataclass(frozen=True)
class Config:
    """Settings; `hidden` are features of the mlp predictor; with `identity`, a linear one begins with the state that is
    there already. `chunk` are the steps rfp takes together."""

    encoder: EncoderConfig = field(default_factory=lambda: CNN(patch=None))
    circuit: Circuit = field(default_factory=Circuit)
    predictor: Literal["linear", "mlp", "none"] = "linear"
    hidden: int = 256
    identity: bool = False
    saccade: bool = False
    distance: losses.Kind = "l2"
    stop_gradient: bool = True
    rule: unroll.Rule = "bptt"
    below: unroll.Below = "full"
    approximate: bool = False
    chunk: int = 32

    def __post_init__(self) -> None:
        if min(self.hidden, self.chunk) < 1:
            raise ValueError(f"hidden is {self.hidden} and chunk {self.chunk}; give 1 or more")
        if self.rule != "rfp" and self.below == "instant":
            raise ValueError(f"below is instant, which rule {self.rule} does not have; give rule rfp, or below full")

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """The smallest settings for a signal, for tests."""
        if len(signal.size) == 1:
            return cls(MLP(patch=(signal.size[0] // 4,), width=16, hidden=16, depth=1), Circuit(width=16), hidden=16)
        return cls(CNN(patch=(1, *signal.size[1:]), width=16, channels=(8,)), Circuit(width=16), hidden=16)


class RJEPA(Predictive):
    """The method; see the module."""

    needs = frozenset({"time"})

    @classmethod
    def requires(cls, cfg: Config) -> frozenset[str]:
        """Time, and actions where the predictor reads them."""
        return cls.needs | ({"action"} if cfg.saccade else set())

    def __init__(self, cfg: Config, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.encoder = cfg.encoder.build(signal)
        if cfg.below == "frozen":
            self.encoder.requires_grad_(False)
        sequences.check(self.encoder, cfg.saccade)
        sequences.hold_statistics(self.encoder)
        grid = (*self.encoder.grid[1:], 1, 1)[:2]
        self.circuits = cfg.circuit.build(self.encoder.dim, grid)
        self.predictor = sequences.predictor(cfg, signal.action * cfg.saccade)
        if cfg.rule == "rfp":
            unroll.refuse(self.circuits, self.below, cfg.approximate)

    @property
    def below(self) -> unroll.Below:
        """How the encoder learns; frozen where it has nothing to learn."""
        learns = any(p.requires_grad for p in self.encoder.parameters())
        return cast(unroll.Below, self.cfg.below if learns else "frozen")

    @property
    def calibration_samples(self) -> int:
        """How many samples the circuit's standardisation is fitted to."""
        return sequences.FITTED if self.cfg.circuit.standardize else 0

    def calibrate(self, x: Float[Tensor, "b c ..."]) -> None:
        """Mean and deviation of the encoder's features, where the circuit takes them out."""
        self.circuits.fit(sequences.maps(self.encoder, self.normalize(x)))

    def check(self, samples: int) -> None:
        """Raises ValueError where the traces of so many samples do not fit into memory."""
        if self.cfg.rule == "rfp":
            unroll.check_memory(self.circuits, self.encoder if self.below == "full" else None, samples, self.mean)

    def caution(self, samples: int) -> str:
        """See Method: what the traces of an encoder take."""
        traced = self.cfg.rule == "rfp" and self.below == "full"
        return unroll.dear(self.circuits, self.encoder, samples) if traced else ""

    def forward(self, batch: Batch, rng: Rng) -> Terms:
        """The loss; padding follows what it belongs to, so that it reaches no state that counts."""
        return self.loss(batch, rng)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The prediction error, by the learning rule that is set."""
        return sequences.learn(self, batch)

    def diagnostics(self, x: Float[Tensor, "b c ..."]) -> dict[str, Tensor]:
        """See Method: the balance of circuit and predictor, and how near a gradient is that is not exact."""
        return sequences.watch(self, x)

    def encode(self, x: Float[Tensor, "b c ..."], weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """The states (B, N, D) after every frame, those of one frame's positions together."""
        return sequences.unrolled(self, x).transpose(0, 1).flatten(1, 2)

    def energy(self, x: Float[Tensor, "b c ..."], y: Float[Tensor, "b c ..."]) -> Float[Tensor, " b"]:
        """The mean distance (B,) from what the states of x predict to the next states of y; actions count as none."""
        return sequences.energy(self, x, y)

    def predict(self, h: Float[Tensor, "t b p d"], action: Float[Tensor, "t b a"] | None = None) -> Tensor:
        """The next state (T, B, P, W) as the predictor has it; where it reads actions, none is as good as zeros."""
        return sequences.predict(self.predictor, h, action, self.signal.action * self.cfg.saccade)

    def start(self, obs: Float[Tensor, "b c ..."]) -> State:
        """See Predictive."""
        return sequences.seen(self, self.circuits.start(len(obs)), obs)

    def observe(self, state: State, obs: Float[Tensor, "b c ..."], action: Float[Tensor, "b a"] | None = None) -> State:
        """See Predictive; what was seen does not depend on the action."""
        return sequences.seen(self, tuple(s.flatten(0, 1) for s in state.hidden), obs)

    def step(self, state: State, action: Float[Tensor, "b a"] | None = None, z: Tensor | None = None) -> State:
        """See Predictive: what the top shows is what was predicted, the rest of the state stays."""
        return sequences.imagined(self, state, None if action is None else action[None])
