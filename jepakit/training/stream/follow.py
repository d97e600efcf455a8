"""Continues recurrent forward propagation over new frames of a stream."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import losses
from ...methods.rjepa import RJEPA, WindowLoss
from ...recurrent import rfp, unroll
from ...types import Batch, Terms


class FollowResult(NamedTuple):
    """The loss terms of some frames, a gradient for each trained parameter, and the stream after these frames."""

    terms: Terms
    gradients: list[tuple[nn.Parameter, Tensor]]
    stream: unroll.Stream


@torch.no_grad()
def follow_frames(method: RJEPA, stream: unroll.Stream, batch: Batch) -> FollowResult:
    """Forward propagation over new frames of a stream. Overwrites the stream's traces.

    The batch starts with the newest frame that the stream has seen, if any. Weights may change between two calls:
    states and traces are kept, and the gradient is exact as long as the weights do not change.
    """
    if is_one_level(method) and stream.step and batch.x.shape[2] == 2 and batch.action is None:
        return _follow_next_frame(method, stream, batch.x[:, :, 1:])
    x = method.normalize(batch.x)
    steps, begun = method.encoder.grid_of(x)[0], min(stream.step, 1)
    window = WindowLoss(method, batch, steps)
    rule = method.forward_rule(x, window)
    at = stream._replace(step=begun)
    loss, found, end = rule.run(at, steps, method.cfg.chunk)
    pairs = [(p, g) for p, g in zip(rule.parameters, found, strict=True) if p.requires_grad]
    return FollowResult(window.terms(loss), pairs, end._replace(step=stream.step + steps - begun))


def is_one_level(method: RJEPA) -> bool:
    """Whether only the prediction of the newest frame has a gradient, and only for the circuit and the predictor."""
    return method.below == "frozen" and len(method.circuits.levels) == 1 and method.cfg.stop_gradient


def _follow_next_frame(method: RJEPA, stream: unroll.Stream, x: Float[Tensor, "n c one ..."]) -> FollowResult:
    """One new frame, whose state is a constant target, in few operations (`rfp.observe`)."""
    circuits, (cell,), (traces,) = method.circuits, method.circuits.cells, stream.traces
    (rows,) = circuits.read(method.maps(method.normalize(x)))
    above = [p for p in method.predictor.parameters() if p.requires_grad]

    def frame_loss(before: Tensor, now: Tensor) -> Tensor:
        return losses.elementwise(predict_next(method, before), now, method.cfg.distance).mean()

    (old,) = stream.states
    diagonal = rfp.why_inexact(cell) is not None
    found = rfp.observe(cell, rows, closed_form_loss(method) or frame_loss, above, old, traces, diagonal)
    trained = zip((cell.weight, cell.bias, cell.own, *above), found.gradients.values(), strict=True)
    before, now = cell.out(old), cell.out(found.state)
    log = {"change": (now - before).square().mean().sqrt()}
    terms = Terms({"prediction": found.loss}, log, (predict_next(method, before), now))
    end = unroll.Stream((found.state,), (old,), (found.traces,), stream.below, stream.step + 1)
    return FollowResult(terms, [(p, g) for p, g in trained if p.requires_grad], end)


def predict_next(method: RJEPA, before: Float[Tensor, "p d"]) -> Float[Tensor, "p d"]:
    """The predicted next state of one sample."""
    return method.predict(before[None, None])[0, 0]


def closed_form_loss(method: RJEPA) -> rfp.SquaredError | None:
    """The loss if it is the squared error of a fully trained linear layer; else None."""
    match list(method.predictor.children()):
        case [nn.Linear() as layer] if method.cfg.distance == "l2" and not method.cfg.saccade:
            return rfp.SquaredError(layer) if all(p.requires_grad for p in layer.parameters()) else None
    return None


def initial_stream(method: RJEPA) -> unroll.Stream:
    """A stream of one sample before its first frame."""
    traced = sum(p.numel() for p in method.encoder.parameters() if p.requires_grad) if method.below == "full" else 0
    return unroll.start_stream(method.circuits, 1, traced)
