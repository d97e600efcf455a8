"""R-JEPA: a recurrent circuit sees one fixation after another and predicts its own next representation.

    y_t = encoder(x_t)        h_t = circuit(h_{t−1}, y_t)        pred_t = P(h_t [, a_t])
    L = mean over t of d(pred_t, sg(h_{t+1})),        d = mean squared difference over positions and features

x_t is frame t: a fixated patch, a frame of a video, a piece of a series; a_t, with `saccade`, the action that leads to
frame t + 1. The target is the circuit's own next state, without a gradient. The panel's target encoder is the same
encoder. The loss of a sample is the mean over its own steps.

Learning rules (`rule`): bptt, back-propagation through time; rfp, recurrent forward propagation, which computes the
same gradient without a graph of the past (rfp.py); truncated, gradients within each step only. `below` says how the
encoder learns: full (with rfp, by traces of all its parameters), instant (rfp only: from the error of each step alone),
or frozen. Settings for which rfp is not exact are refused unless `approximate` is set; then the cosine of its gradient
to that of bptt, on one sequence, is logged as `rfp/cosine`.

Source: Velarde & Parra 2024, arXiv:2411.16695. We do not know its equations: the target (the next state), the circuits
(recurrent/cells.py) and the form of the predictor are our reading of its text.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import losses
from ..nn.conv import CNN
from ..nn.encoder import Encoder, EncoderConfig
from ..nn.heads import BatchNorm
from ..nn.mlp import MLP, build_perceptron
from ..recurrent import balance, gradients, rfp, unroll
from ..recurrent.circuit import Circuit, Circuits, States
from ..types import Batch, Rng, Signal, State, Terms
from .base import Weights
from .predictive import Predictive

# Number of samples whose statistics standardise the features.
CALIBRATION_SAMPLES = 256


@dataclass(frozen=True)
class Config:
    """Settings; `hidden` is the width of the mlp predictor, `chunk` the number of steps that rfp takes together.

    With `identity`, a linear predictor starts as the identity."""

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
            raise ValueError(f"below is instant, which rule {self.rule} does not support; give rule rfp, or below full")

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """The smallest settings for a signal, for tests."""
        if len(signal.size) == 1:
            return cls(MLP(patch=(signal.size[0] // 4,), width=16, hidden=16, depth=1), Circuit(width=16), hidden=16)
        return cls(CNN(patch=(1, *signal.size[1:]), width=16, channels=(8,)), Circuit(width=16), hidden=16)


class RJEPA(Predictive):
    """Recurrent JEPA: an encoder of frames, a recurrent circuit, and a predictor of the circuit's next state."""

    cfg: Config
    needs = frozenset({"time"})

    @classmethod
    def requires(cls, cfg: Config) -> frozenset[str]:
        """Time, and actions if the predictor reads them."""
        return cls.needs | ({"action"} if cfg.saccade else set())

    def __init__(self, cfg: Config, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.encoder = cfg.encoder.build(signal)
        if cfg.below == "frozen":
            self.encoder.requires_grad_(False)
        check_encoder(self.encoder, cfg.saccade)
        hold_statistics(self.encoder)
        grid = (*self.encoder.grid[1:], 1, 1)[:2]
        self.circuits = cfg.circuit.build(self.encoder.dim, grid)
        self.predictor = build_predictor(cfg, self.read_actions)
        if cfg.rule == "rfp":
            unroll.check_exact(self.circuits, self.below, cfg.approximate)

    @property
    def below(self) -> unroll.Below:
        """How the encoder learns; frozen if it has no parameters to learn."""
        learns = any(p.requires_grad for p in self.encoder.parameters())
        return self.cfg.below if learns else "frozen"

    @property
    def read_actions(self) -> int:
        """The number of action values that the predictor reads."""
        return self.signal.action_size * self.cfg.saccade

    @property
    def calibration_samples(self) -> int:
        """The number of samples that the circuit's standardisation is fitted to."""
        return CALIBRATION_SAMPLES if self.cfg.circuit.standardize else 0

    def calibrate(self, batch: Batch) -> None:
        """Fit the mean and deviation of the encoder's features, if the circuit standardises them."""
        self.circuits.fit(self.maps(self.normalize(batch.x)))

    def check(self, samples: int) -> None:
        """Raise ValueError if the traces of `samples` samples do not fit into memory."""
        if self.cfg.rule == "rfp":
            unroll.check_memory(self.circuits, self.encoder if self.below == "full" else None, samples, self.mean)

    def caution(self, samples: int) -> str:
        """A sentence on the memory of the encoder's traces, if rfp carries them."""
        traced = self.cfg.rule == "rfp" and self.below == "full"
        return unroll.trace_cost(self.circuits, self.encoder, samples) if traced else ""

    # --- from frames to states

    def maps(
        self, x: Float[Tensor, "b c ..."], apply: Callable[[Tensor], Tensor] | None = None
    ) -> Float[Tensor, "t b d h w"]:
        """The encoder's output (or that of `apply`) for every frame of normalised x, as maps; vectors are 1 x 1."""
        steps, *side = self.encoder.grid_of(x)
        tokens: Tensor = (apply or self.encoder)(x)
        return tokens.reshape(len(x), steps, *(*side, 1, 1)[:2], -1).permute(1, 0, 4, 2, 3)

    def states(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "t b p d"]:
        """The states after every frame of raw samples."""
        return unroll.through_time(self.circuits, self.maps(self.normalize(x)))[0]

    def predict(
        self, h: Float[Tensor, "t b p d"], action: Float[Tensor, "t b a"] | None = None
    ) -> Float[Tensor, "t b p d"]:
        """The prediction of every next state; without actions, a predictor that reads them takes zeros."""
        if self.read_actions:
            action = h.new_zeros(*h.shape[:2], self.read_actions) if action is None else action
            h = torch.cat([h, action[:, :, None].expand(-1, -1, h.shape[2], -1)], -1)
        pred: Tensor = self.predictor(h)
        return pred

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """The states (B, N, D) after every frame, ordered by frame, then by position."""
        return self.states(batch.x).transpose(0, 1).flatten(1, 2)

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The mean distance (B,) between the predictions from the states of `batch` and the next states of `other`.

        Actions are ignored, so that the energies of different runs can be compared.
        """
        h, target = (self.states(side.x) for side in (batch, other))
        return losses.elementwise(self.predict(h[:-1]), target[1:], self.cfg.distance).mean((0, 2, 3))

    # --- learning

    def forward(self, batch: Batch, rng: Rng) -> Terms:
        """The loss; padding comes after a sample's own steps, so it affects no state that counts."""
        return self.loss(batch, rng)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The prediction error, with its gradient by the chosen learning rule."""
        x = self.normalize(without_padding(batch))
        window = WindowLoss(self, batch, self.encoder.grid_of(x)[0])
        if self.cfg.rule == "rfp":
            rule = self.forward_rule(x, window)
            loss = gradients.known_gradient_loss(lambda: self.propagate_sequences(rule, x), rule.parameters)
        else:
            h, _ = unroll.through_time(self.circuits, self.maps(x), self.cfg.rule == "truncated")
            loss = window(h, 1)
        return window.terms(loss)

    def propagate_sequences(
        self, rule: unroll.ForwardPropagation, x: Float[Tensor, "b c ..."]
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss of whole sequences and its gradients, by traces from the first frame on."""
        traced = sum(p.numel() for p in rule.encoder) if rule.below == "full" else 0
        stream = unroll.start_stream(self.circuits, len(x), traced)
        total, found, _ = rule.run(stream, self.encoder.grid_of(x)[0], self.cfg.chunk)
        return total, found

    def forward_rule(self, x: Float[Tensor, "b c ..."], loss: unroll.Loss) -> unroll.ForwardPropagation:
        """Forward propagation of `loss` through encoder, circuits and predictor, over normalised x."""
        patch = self.encoder.patch[0]

        def frames(first: int, last: int) -> Tensor:
            return self.maps(x[:, :, first * patch : last * patch])

        def jacobian(t: int) -> Tensor:
            return self.encoder_jacobian(x[:, :, t * patch : (t + 1) * patch])

        trained = [p for p in self.encoder.parameters() if p.requires_grad]
        above = [p for p in self.predictor.parameters() if p.requires_grad]
        # Coupled units get traces as if they were not coupled, but the traces are still stored for whole blocks.
        diagonal = any(rfp.why_inexact(cell) for cell in self.circuits.cells)
        return unroll.ForwardPropagation(self.circuits, frames, loss, above, trained, self.below, jacobian, diagonal)

    def encoder_jacobian(self, frame: Float[Tensor, "b c ..."]) -> Float[Tensor, "r d f"]:
        """The derivative of the lowest circuit's input at one step by every trained parameter of the encoder."""
        names = [name for name, p in self.encoder.named_parameters() if p.requires_grad]
        values = tuple(p for p in self.encoder.parameters() if p.requires_grad)

        def rows(parameters: tuple[Tensor, ...], one: Tensor) -> Tensor:
            given = dict(zip(names, parameters, strict=True))
            seen = self.maps(one[None], lambda x: torch.func.functional_call(self.encoder, given, (x,)))
            return self.circuits.read(seen)[0]

        each = torch.func.vmap(torch.func.jacrev(rows), in_dims=(None, 0))(values, frame)
        return torch.cat([j.flatten(3) for j in each], -1).flatten(0, 1)

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """The balance of circuit and predictor; for an inexact gradient, its cosine to bptt's on the first sequence.

        A predictor that reads actions gets zeros here.
        """
        linear = balance.linear_layer(self.predictor)
        h = self.states(batch.x).flatten(0, 2) if linear else None
        found = {} if linear is None or h is None else balance.balance_metrics(self.circuits.top.cell, linear, h)
        if self.cfg.rule == "rfp" and unroll.why_approximate(self.circuits, self.below):
            found["rfp/cosine"] = self.gradient_cosine(Batch(batch.x[:1]))
        return found

    def gradient_cosine(self, batch: Batch) -> Float[Tensor, ""]:
        """The cosine between the whole gradients by forward propagation and by back-propagation through time."""
        x = self.normalize(without_padding(batch))
        steps = self.encoder.grid_of(x)[0]
        rule = self.forward_rule(x, WindowLoss(self, batch, steps))
        with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            h, _ = unroll.through_time(self.circuits, self.maps(x))
            trained = [p for p in rule.parameters if p.requires_grad]
            exact = torch.autograd.grad(WindowLoss(self, batch, steps)(h, 1), trained, allow_unused=True)
            _, found = self.propagate_sequences(rule, x)
        ours = [g for p, g in zip(rule.parameters, found, strict=True) if p.requires_grad]
        pairs = [(g, e) for g, e in zip(ours, exact, strict=True) if e is not None]
        one, other = (torch.cat([pair[k].flatten() for pair in pairs]) for k in (0, 1))
        return torch.nn.functional.cosine_similarity(one, other, dim=0).detach()

    # --- one frame after the other

    def start(self, obs: Float[Tensor, "b c ..."]) -> State:
        """The state after one frame."""
        return self._next_state(self.circuits.start(len(obs)), obs)

    def observe(self, state: State, obs: Float[Tensor, "b c ..."], action: Float[Tensor, "b a"] | None = None) -> State:
        """The state after a new frame; it does not depend on the action that led there."""
        return self._next_state(tuple(s.flatten(0, 1) for s in state.hidden), obs)

    def step(self, state: State, action: Float[Tensor, "b a"] | None = None, z: Tensor | None = None) -> State:
        """The state whose top level outputs the prediction after `action`; all other levels are unchanged."""
        pred = self.predict(state.tokens[None], None if action is None else action[None])[0]
        cell, top = self.circuits.top.cell, state.hidden[-1].clone()
        rows = pred.flatten(0, 1)
        shown = rows.reshape(len(rows), cell.blocks, -1) if cell.width == cell.blocks * cell.block else rows[..., None]
        top.flatten(0, 1)[..., : shown.shape[-1]] = shown
        return state._replace(tokens=pred, hidden=(*state.hidden[:-1], top))

    def _next_state(self, states: States, obs: Float[Tensor, "b c ..."]) -> State:
        axes = len(self.signal.size)
        frame = self.maps(self.normalize(obs[:, :, None] if obs.ndim == axes + 1 and axes > 1 else obs))
        check_frame(self.circuits, frame, states, obs)
        shown, states = unroll.through_time(self.circuits, frame, states=states)
        return State(shown[0], tuple(s.reshape(len(obs), -1, *s.shape[1:]) for s in states))


class WindowLoss:
    """The loss of windows of states (see unroll.Loss); stores the last compared tokens and how far states moved."""

    def __init__(self, method: RJEPA, batch: Batch, steps: int) -> None:
        self.method = method
        self.share = pair_shares(batch, steps, method.encoder.patch[0])
        self.action = None if batch.action is None else batch.action.nan_to_num().transpose(0, 1)
        self.pred = self.target = torch.empty(0)
        self.change = self.share.new_zeros(())

    def __call__(self, h: Float[Tensor, "k n p d"], t: int) -> Float[Tensor, ""]:
        """The loss of the states after the steps t … t + K − 1, counted from 1."""
        method, pairs = self.method, slice(t - 1, t + len(h) - 2)
        share = self.share[pairs]
        pred = method.predict(h[:-1], None if self.action is None else self.action[pairs])
        target = h[1:].detach() if method.cfg.stop_gradient else h[1:]
        real = share > 0
        self.pred, self.target = (s.detach()[real].flatten(0, 1) for s in (pred, target))
        moved = (h[1:] - h[:-1]).detach().square().mean((2, 3))
        self.change = self.change + (moved * share).sum()
        return (losses.elementwise(pred, target, method.cfg.distance).mean((2, 3)) * share).sum()

    def terms(self, loss: Float[Tensor, ""]) -> Terms:
        """The terms of a loss that this object computed."""
        return Terms({"prediction": loss}, {"change": self.change.sqrt()}, (self.pred, self.target))


def check_encoder(encoder: Encoder, saccade: bool) -> None:
    """Raise ValueError if an encoder does not read the signal time step by time step."""
    grid, patch = encoder.grid, encoder.patch
    if grid[0] < 2:
        raise ValueError(
            f"the encoder's patch {patch} covers the whole time in one step (grid {grid}), so there is nothing to "
            "predict; give a shorter first side of encoder.patch"
        )
    if encoder.mixes:
        raise ValueError("the encoder sees all times at once; give encoder.name cnn, mlp, pixels or resnet50")
    if saccade and patch[0] != 1:
        raise ValueError(f"saccade reads an action per frame, but a patch {patch} spans {patch[0]}; give (1, …)")


def check_frame(circuits: Circuits, frame: Float[Tensor, "t b d h w"], states: States, obs: Tensor) -> None:
    """Raise ValueError if the encoding of `obs` is not one step of the maps that the circuit reads."""
    steps, side, read = len(frame), tuple(frame.shape[-2:]), tuple(circuits.levels[0].grid_below)
    if steps != 1 or side != read:
        raise ValueError(
            f"the encoder turns a frame of shape {tuple(obs.shape)} into {steps} steps of {side} positions, but the "
            f"circuit reads 1 step of {read}; give one frame of the size that the run was trained on"
        )
    if len(states[-1]) != len(obs) * prod(circuits.grid):
        raise ValueError(
            f"the frame holds {len(obs)} samples, but the state {len(states[-1]) // prod(circuits.grid)}; give equal "
            "numbers, or start again"
        )


def hold_statistics(encoder: Encoder) -> None:
    """Freeze the statistics of BatchNorm: batch statistics would mix times, samples and padding."""
    for part in encoder.modules():
        if isinstance(part, BatchNorm):
            part.held = True
            part.eval()


def build_predictor(cfg: Config, action: int) -> nn.Module:
    """The predictor from a state and `action` action values to the next state. Raises ValueError if there is none."""
    kind, width, hidden = cfg.predictor, cfg.circuit.width, cfg.hidden
    if cfg.identity and kind != "linear":
        raise ValueError("identity needs a linear predictor; give predictor linear, or identity false")
    if kind == "none":
        if action:
            raise ValueError("predictor is none, which cannot read saccades; give linear or mlp, or saccade false")
        return nn.Identity()
    made = build_perceptron([width + action, *[hidden] * (kind == "mlp"), width], "none", nn.GELU)
    if cfg.identity:
        linear = cast(nn.Linear, made[0])
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    return made


def pair_shares(batch: Batch, steps: int, patch: int) -> Float[Tensor, "t b"]:
    """The weight of every pair of neighbouring steps in the loss: the pairs of a sample sum to 1 / B."""
    if batch.length is None:
        return batch.x.new_full((steps - 1, len(batch)), 1 / ((steps - 1) * len(batch)))
    pairs = batch.length // patch - 1
    real = torch.arange(steps - 1, device=batch.x.device)[:, None] < pairs
    return real / pairs.clamp(min=1) / len(batch)


def without_padding(batch: Batch) -> Float[Tensor, "b c ..."]:
    """The samples with zeros for padding: a NaN there would survive the multiplication by a zero gradient."""
    if batch.length is None:
        return batch.x
    time = torch.arange(batch.x.shape[2], device=batch.x.device).reshape(-1, *[1] * (batch.x.ndim - 3))
    return batch.x.where(time < batch.length.reshape(-1, *[1] * (batch.x.ndim - 1)), 0)
