"""Recurrent forward propagation along a stream: from where it stands over some further frames."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import losses, rfp, sequences, unroll
from ..types import Batch, Terms


class Followed(NamedTuple):
    """The terms of some frames, their gradients by the parameters that are trained, and where the stream stands."""

    terms: Terms
    gradients: list[tuple[nn.Parameter, Tensor]]
    stream: unroll.Stream


@torch.no_grad()
def follow(method: sequences.Recurrent, stream: unroll.Stream, batch: Batch) -> Followed:
    """Forward propagation over some further frames of a stream.

    Of a stream that has begun, the batch starts with the frame that it stands at. Weights may change between two calls:
    states and traces go on as they are, the gradient is exact for as long as they stand still. The stream's traces are
    written over.
    """
    if plain(method) and stream.step and batch.x.shape[2] == 2 and batch.action is None:
        return single(method, stream, batch.x[:, :, 1:])
    x = method.normalize(batch.x)
    steps, begun = method.encoder.grid_of(x)[0], min(stream.step, 1)
    compared = sequences.Compared(method, batch, steps)
    rule = sequences.propagation(method, x, compared)
    at = stream._replace(step=begun)
    # A single chunk is not summed.
    one = steps - begun <= method.cfg.chunk
    loss, found, end = rule.window(at, steps) if one else rule.run(at, steps, method.cfg.chunk)
    terms = Terms({"prediction": loss}, {"change": compared.change.sqrt()}, compared.pred, compared.target)
    pairs = [(p, g) for p, g in zip(rule.parameters, found, strict=True) if p.requires_grad]
    return Followed(terms, pairs, end._replace(step=stream.step + steps - begun))


def plain(method: sequences.Recurrent) -> bool:
    """Whether only the prediction made before a frame came has a gradient, and only by circuit and predictor."""
    return method.below == "frozen" and len(method.circuits.levels) == 1 and method.cfg.stop_gradient


def single(method: sequences.Recurrent, stream: unroll.Stream, x: Float[Tensor, "n c one ..."]) -> Followed:
    """One frame more, in as few operations as that takes: its state is a constant target, so that

        dL/dW = δ · E(t − 1),    δ = ∂L/∂h_{t−1} through the predictor,

    which is what `unroll` comes to where the errors of the frame itself are none.
    """
    circuits, (cell,), (traces,) = method.circuits, method.circuits.cells, stream.traces
    rows = circuits.read(sequences.maps(method.encoder, method.normalize(x)))
    passed = rfp.go(cell, stream.states[0], rows, rfp.why_inexact(cell) is not None)
    before, now = circuits.shown(passed.states).unbind()
    above = [p for p in method.predictor.parameters() if p.requires_grad]
    with torch.enable_grad():
        leaf = stream.states[0].detach().requires_grad_()
        pred = method.predict(circuits.shown(leaf)[None])[0]
        loss = losses.elementwise(pred, now, method.cfg.distance).mean()
        delta, *found = torch.autograd.grad(loss, [leaf, *above], allow_unused=True, materialize_grads=True)
    drive, own = (weighed(delta, trace) for trace in traces)
    pairs = [(cell.weight, drive[..., :-1].contiguous()), (cell.bias, drive[..., -1].contiguous()), (cell.own, own)]
    trained = [(p, g) for p, g in (*pairs, *zip(above, found, strict=True)) if p.requires_grad]
    change = (now - before).square().mean().sqrt()
    terms = Terms({"prediction": loss.detach()}, {"change": change}, pred.detach().flatten(0, 1), now.flatten(0, 1))
    end = (rfp.advance(cell, passed, traces),)
    states, last = passed.states[1], passed.states[0]
    return Followed(terms, trained, unroll.Stream((states,), (last,), end, stream.below, stream.step + 1))


def weighed(delta: Float[Tensor, "n m b"], trace: Float[Tensor, "n m b ..."]) -> Float[Tensor, "m ..."]:
    """The sum over rows and blocks of δ · E."""
    each = delta.reshape(*delta.shape, *[1] * (trace.ndim - 3)) * trace
    return each[0, :, 0] if each.shape[0] == each.shape[2] == 1 else each.sum((0, 2))


def beginning(method: sequences.Recurrent) -> unroll.Stream:
    """A stream of one sample before its first frame."""
    traced = sum(p.numel() for p in method.encoder.parameters() if p.requires_grad) if method.below == "full" else 0
    return unroll.begin(method.circuits, 1, traced)
