"""What R-JEPA does with a sequence: frames to maps, the predictor, and the loss by each learning rule."""

from collections.abc import Callable
from math import prod
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import losses
from ..nn.encoder import Encoder
from ..nn.heads import BatchNorm
from ..nn.mlp import perceptron
from ..types import Batch, Signal, State, Terms
from . import balance, rfp, unroll
from . import gradients as precomputed
from .circuit import Circuits, States

# Samples that the features are standardised by.
FITTED = 256


@runtime_checkable
class Recurrent(Protocol):
    """What is asked of R-JEPA; `cfg` are its settings."""

    cfg: Any
    signal: Signal
    encoder: Encoder
    circuits: Circuits
    predictor: nn.Module

    @property
    def below(self) -> unroll.Below:
        """How the encoder learns."""
        ...

    def normalize(self, x: Tensor) -> Tensor:
        """Raw units to zero mean and unit variance per channel."""
        ...

    def predict(self, h: Tensor, action: Tensor | None = None) -> Tensor:
        """The next states."""
        ...


def check(encoder: Encoder, saccade: bool) -> None:
    """Raises ValueError where an encoder does not see the signal one time step after another."""
    grid, patch = encoder.grid, encoder.patch
    if grid[0] < 2:
        raise ValueError(
            f"the encoder's patch {patch} makes one step of the whole time (grid {grid}), and nothing follows; give a "
            "shorter first side of encoder.patch"
        )
    if encoder.mixes:
        raise ValueError("the encoder sees all times at once; give encoder.name cnn, mlp, pixels or resnet50")
    if saccade and patch[0] != 1:
        raise ValueError(f"saccade reads an action per frame, but a patch {patch} spans {patch[0]}; give (1, …)")


def predictor(cfg: Any, action: int) -> nn.Module:
    """From a state, and an action of so many features, to the next state. Raises ValueError where there is none."""
    kind, width, hidden = cfg.predictor, cfg.circuit.width, cfg.hidden
    if cfg.identity and kind != "linear":
        raise ValueError("identity is how a linear predictor begins; give predictor linear, or identity false")
    if kind == "none":
        if action:
            raise ValueError("predictor is none, which cannot read saccades; give linear or mlp, or saccade false")
        return nn.Identity()
    made = perceptron([width + action, *[hidden] * (kind == "mlp"), width], "none", nn.GELU)
    if cfg.identity:
        linear = cast(nn.Linear, made[0])
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    return made


def predict(
    module: nn.Module, h: Float[Tensor, "t b p d"], action: Float[Tensor, "t b a"] | None, features: int
) -> Float[Tensor, "t b p d"]:
    """The prediction of every next state; with action `features`, the action is read beside each position."""
    if features:
        action = h.new_zeros(*h.shape[:2], features) if action is None else action
        h = torch.cat([h, action[:, :, None].expand(-1, -1, h.shape[2], -1)], -1)
    out: Tensor = module(h)
    return out


def maps(
    encoder: Encoder, x: Float[Tensor, "b c ..."], apply: Callable[[Tensor], Tensor] | None = None
) -> Float[Tensor, "t b d h w"]:
    """What the encoder (or `apply` in its place) makes of every frame, as maps; vectors are 1 x 1."""
    steps, *side = encoder.grid_of(x)
    tokens: Tensor = (apply or encoder)(x)
    return tokens.reshape(len(x), steps, *(*side, 1, 1)[:2], -1).permute(1, 0, 4, 2, 3)


def hold_statistics(encoder: Encoder) -> None:
    """Batch statistics stay as they are: those of a batch would mix times, samples and padding."""
    for part in encoder.modules():
        if isinstance(part, BatchNorm):
            part.held = True
            part.eval()


def unrolled(method: Recurrent, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "t b p d"]:
    """The states after every frame of raw samples."""
    return unroll.through_time(method.circuits, maps(method.encoder, method.normalize(x)))[0]


def energy(method: Recurrent, x: Float[Tensor, "b c ..."], y: Float[Tensor, "b c ..."]) -> Float[Tensor, " b"]:
    """The mean distance from what the states of x predict to the next states of y; actions count as none."""
    h, target = (unrolled(method, side) for side in (x, y))
    return losses.elementwise(method.predict(h[:-1]), target[1:], method.cfg.distance).mean((0, 2, 3))


def seen(method: Recurrent, states: States, obs: Float[Tensor, "b c ..."]) -> State:
    """The state after one more frame."""
    frame = maps(method.encoder, method.normalize(one(obs, method.signal)))
    fits(method.circuits, frame, states, obs)
    shown, states = unroll.through_time(method.circuits, frame, states=states)
    return State(shown[0], tuple(s.reshape(len(obs), -1, *s.shape[1:]) for s in states))


def fits(circuits: Circuits, frame: Float[Tensor, "t b d h w"], states: States, obs: Tensor) -> None:
    """Raises ValueError where what the encoder made of `obs` is not one step of the maps that the circuit reads."""
    steps, side, seen = len(frame), tuple(frame.shape[-2:]), tuple(circuits.levels[0].seen)
    if steps != 1 or side != seen:
        raise ValueError(
            f"a frame of shape {tuple(obs.shape)} is {steps} steps of {side} positions to the encoder, where the "
            f"circuit reads 1 step of {seen}; give one frame of the size that the run was trained on"
        )
    if len(states[-1]) != len(obs) * prod(circuits.grid):
        raise ValueError(
            f"the frame holds {len(obs)} samples, the state {len(states[-1]) // prod(circuits.grid)}; give as many, or "
            "start anew"
        )


def one(obs: Float[Tensor, "b c ..."], signal: Signal) -> Float[Tensor, "b c ..."]:
    """A single frame with its axis of time."""
    return obs[:, :, None] if obs.ndim == len(signal.size) + 1 and len(signal.size) > 1 else obs


def imagined(method: Recurrent, state: State, action: Float[Tensor, "1 b a"] | None) -> State:
    """The state in which the top shows what the predictor says, all else as it is."""
    pred = method.predict(state.tokens[None], action)[0]
    cell, top = method.circuits.top.cell, state.hidden[-1].clone()
    rows = pred.flatten(0, 1)
    shown = rows.reshape(len(rows), cell.blocks, -1) if cell.width == cell.blocks * cell.block else rows[..., None]
    top.flatten(0, 1)[..., : shown.shape[-1]] = shown
    return state._replace(tokens=pred, hidden=(*state.hidden[:-1], top))


def weights(batch: Batch, steps: int, patch: int) -> Float[Tensor, "t b"]:
    """The share of every pair of neighbouring steps in the loss: a sample's pairs share 1 / B among them."""
    if batch.length is None:
        return batch.x.new_full((steps - 1, len(batch)), 1 / ((steps - 1) * len(batch)))
    pairs = batch.length // patch - 1
    real = torch.arange(steps - 1, device=batch.x.device)[:, None] < pairs
    return real / pairs.clamp(min=1) / len(batch)


def visible(batch: Batch) -> Float[Tensor, "b c ..."]:
    """The samples with zeros for padding: a NaN there would survive the multiplication by a zero gradient."""
    if batch.length is None:
        return batch.x
    time = torch.arange(batch.x.shape[2], device=batch.x.device).reshape(-1, *[1] * (batch.x.ndim - 3))
    return batch.x.where(time < batch.length.reshape(-1, *[1] * (batch.x.ndim - 1)), 0)


class Compared:
    """The loss of windows of states, with what was compared in the last one."""

    def __init__(self, method: Recurrent, batch: Batch, steps: int) -> None:
        self.method = method
        self.share = weights(batch, steps, method.encoder.patch[0])
        self.action = None if batch.action is None else batch.action.nan_to_num().transpose(0, 1)
        self.pred = self.target = torch.empty(0)
        self.change = self.share.new_zeros(())

    def __call__(self, h: Float[Tensor, "k n p d"], t: int) -> Float[Tensor, ""]:
        """See unroll.Loss."""
        method, pairs = self.method, slice(t - 1, t + len(h) - 2)
        share = self.share[pairs]
        pred = method.predict(h[:-1], None if self.action is None else self.action[pairs])
        target = h[1:].detach() if method.cfg.stop_gradient else h[1:]
        real = share > 0
        self.pred, self.target = (s.detach()[real].flatten(0, 1) for s in (pred, target))
        moved = (h[1:] - h[:-1]).detach().square().mean((2, 3))
        self.change = self.change + (moved * share).sum()
        return (losses.elementwise(pred, target, method.cfg.distance).mean((2, 3)) * share).sum()


def learn(method: Recurrent, batch: Batch) -> Terms:
    """The terms of a batch, whose gradient comes by the rule of the method."""
    cfg = method.cfg
    x = method.normalize(visible(batch))
    compared = Compared(method, batch, method.encoder.grid_of(x)[0])
    if cfg.rule == "rfp":
        loss = forward(method, x, compared)
    else:
        h, _ = unroll.through_time(method.circuits, maps(method.encoder, x), cfg.rule == "truncated")
        loss = compared(h, 1)
    return Terms({"prediction": loss}, {"change": compared.change.sqrt()}, (compared.pred, compared.target))


def forward(method: Recurrent, x: Float[Tensor, "b c ..."], loss: unroll.Loss) -> Float[Tensor, ""]:
    """The loss by recurrent forward propagation."""
    rule = propagation(method, x, loss)
    return precomputed.differentiable(lambda: carried(method, rule, x), rule.parameters)


def carried(method: Recurrent, rule: unroll.Forward, x: Float[Tensor, "b c ..."]) -> tuple[Tensor, list[Tensor]]:
    """The loss of whole sequences and its gradients, by traces from their first frame on."""
    traced = sum(p.numel() for p in rule.encoder) if rule.below == "full" else 0
    stream = unroll.begin(method.circuits, len(x), traced)
    total, gradients, _ = rule.run(stream, method.encoder.grid_of(x)[0], method.cfg.chunk)
    return total, gradients


def propagation(method: Recurrent, x: Float[Tensor, "b c ..."], loss: unroll.Loss) -> unroll.Forward:
    """Forward propagation through a method's encoder, circuits and predictor."""
    encoder, patch = method.encoder, method.encoder.patch[0]

    def frames(first: int, last: int) -> Tensor:
        return maps(encoder, x[:, :, first * patch : last * patch])

    def jacobian(t: int) -> Tensor:
        return by_parameters(method, x[:, :, t * patch : (t + 1) * patch])

    below = method.below
    trained = [p for p in encoder.parameters() if p.requires_grad]
    above = [p for p in method.predictor.parameters() if p.requires_grad]
    # Coupled units get their own traces as if they were not. The traces are kept for whole blocks all the same.
    diagonal = any(rfp.why_inexact(cell) for cell in method.circuits.cells)
    return unroll.Forward(method.circuits, frames, loss, above, trained, below, jacobian, diagonal)


def by_parameters(method: Recurrent, frame: Float[Tensor, "b c ..."]) -> Float[Tensor, "r d f"]:
    """What every trained parameter of the encoder does to what the lowest circuit reads of one step."""
    encoder = method.encoder
    names = [name for name, p in encoder.named_parameters() if p.requires_grad]
    values = tuple(p for p in encoder.parameters() if p.requires_grad)

    def rows(parameters: tuple[Tensor, ...], one: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        seen = maps(encoder, one[None], lambda x: torch.func.functional_call(encoder, given, (x,)))
        return method.circuits.read(seen)[0]

    each = torch.func.vmap(torch.func.jacrev(rows), in_dims=(None, 0))(values, frame)
    return torch.cat([j.flatten(3) for j in each], -1).flatten(0, 1)


def watch(method: Recurrent, x: Float[Tensor, "b c ..."]) -> dict[str, Tensor]:
    """How circuit and predictor are balanced; of a gradient that is not exact, its cosine to bptt's on the first of x.

    Where the predictor reads saccades, it is told of none.
    """
    linear = balance.linear(method.predictor)
    found = balance.watch(method.circuits.top.cell, linear, unrolled(method, x).flatten(0, 2)) if linear else {}
    if method.cfg.rule == "rfp" and unroll.inexact(method.circuits, method.below):
        found["rfp/cosine"] = cosine(method, Batch(x[:1]))
    return found


def cosine(method: Recurrent, batch: Batch) -> Float[Tensor, ""]:
    """The cosine between the whole gradients by forward propagation and by back-propagation through time."""
    x = method.normalize(visible(batch))
    steps = method.encoder.grid_of(x)[0]
    rule = propagation(method, x, Compared(method, batch, steps))
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        h, _ = unroll.through_time(method.circuits, maps(method.encoder, x))
        trained = [p for p in rule.parameters if p.requires_grad]
        exact = torch.autograd.grad(Compared(method, batch, steps)(h, 1), trained, allow_unused=True)
        _, found = carried(method, rule, x)
    pairs = [
        (g, e)
        for p, g, e in zip(
            trained, [f for p, f in zip(rule.parameters, found, strict=True) if p.requires_grad], exact, strict=True
        )
        if e is not None
    ]
    one, other = (torch.cat([pair[k].flatten() for pair in pairs]) for k in (0, 1))
    return torch.nn.functional.cosine_similarity(one, other, dim=0).detach()
