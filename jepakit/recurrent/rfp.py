"""Recurrent forward propagation (RFP): the exact gradient of a recurrent circuit, computed as the input comes.

For a circuit whose blocks of b numbers have their own past alone (nn/gated.py), a weight that drives block i changes no
other block's state, ever. So its whole effect so far is one trace of b numbers, not n, and all traces together take
m b (q (d + 1) + r) floats per row, O(n²) for d = n, where the general rule (RTRL) takes O(n³):

    E_W ← D E_W + A ⊗ [x, 1],    E_own ← D E_own + A · ∂drive/∂own,    D = ∂s'/∂s, A = ∂s'/∂drive, per block
    dL/dW = Σ_t δ_t · E_W(t),    δ_t = ∂L_t/∂s_t through what lies above the circuit, which has no memory

Nothing of the past is kept but the traces, whatever the length. `chunk` steps are taken together: inside a chunk the
errors go back, λ_t = δ_t + D_{t+1}ᵀ λ_{t+1}, and dL/dW = λ_0 · E_W(0) + Σ λ_t A_t ⊗ [x_t, 1], so that the traces are
read and written once a chunk, in two matrix products. The sums are the same; chunk 1 is the rule as written above.

Exact where: each block's past enters it alone; x does not depend on traced weights through time; what lies above has no
memory; weights stand still in the sequence. `why_inexact` says where a circuit is none of those that pay.

Source: Velarde & Parra 2024, arXiv:2411.16695, for the name and the claim; its equations are our own derivation, with
Irie et al. 2023, arXiv:2305.19044 (element-wise recurrence). Chunks: Schmidhuber 1992, Neural Computation 4(2).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .cells import Cell
from .circuit import check_inputs
from .gradients import Added, add
from .gradients import SquaredError as SquaredError

CHUNK = 32
PART = 16  # steps at a time where all of a chunk's would be most of the memory

State = Float[Tensor, "n m b"]


class Traces(NamedTuple):
    """What every weight has done to the state: per row by (m, b) and by what it is multiplied with."""

    drive: Float[Tensor, "n m b q e"]  # e = d + 1: the input, and 1 for the bias
    own: Float[Tensor, "n m b r"]


class Passed(NamedTuple):
    """A chunk of K steps, gone through without a graph: states 0 … K, derivatives and inputs of steps 1 … K."""

    states: Float[Tensor, "k1 n m b"]
    by_state: Float[Tensor, "k n m b b"]
    by_drive: Float[Tensor, "k n m b q"]
    inputs: Float[Tensor, "k n e"]  # and 1 for the bias


class Sums(NamedTuple):
    """The circuit's gradient so far: by [weight, bias], as the traces have them, and by own."""

    drive: Float[Tensor, "m q e"]
    own: Float[Tensor, "m r"]


class Result(NamedTuple):
    """A loss and its exact gradients, in the order of the parameters asked for; where the circuit ends."""

    loss: Float[Tensor, ""]
    gradients: dict[str, Tensor]
    state: State
    traces: Traces


# (h, t) -> the loss of a window of a sequence, h (N, K, w) what the circuit shows after steps t … t + K - 1, counted
# from 1. A window begins with the last step of the one before, so that neighbours can be compared; the sum is the loss.
Loss = Callable[[Float[Tensor, "n k w"], int], Float[Tensor, ""]]
# (h(t - 1), h(t)) -> the loss of what is foretold from the first of the second, a constant, (N, w) each.
Foretold = Callable[[Float[Tensor, "n w"], Float[Tensor, "n w"]], Float[Tensor, ""]]


def start(cell: Cell, rows: int) -> Traces:
    """Traces before any input: zeros, in float32 or float64 as the weights are."""
    m, q, d = cell.weight.shape
    new = cell.weight.new_zeros
    return Traces(new(rows, m, cell.block, q, d + 1), new(rows, m, cell.block, cell.own.shape[1]))


def trace_floats(cell: Cell) -> int:
    """Numbers in the traces of one row."""
    m, q, d = cell.weight.shape
    return m * cell.block * (q * (d + 1) + int(cell.own.shape[1]))


def why_inexact(cell: Cell) -> str | None:
    """Why RFP is not for this circuit, as the end of a sentence; None where it is exact and takes O(n d)."""
    if cell.block > 1 and cell.blocks == 1:
        return (
            f"all {cell.width} units are coupled, so that a weight of one reaches every other a step later and exact "
            "traces take O(n³)"
        )
    return None


@torch.no_grad()
def go(cell: Cell, state: State, inputs: Float[Tensor, "k n d"], diagonal: bool = False) -> Passed:
    """Take K steps from `state`, keeping what the traces need. `diagonal` drops what couples units in a block."""
    return passed(*cell.run(state, cell.drive(inputs)), inputs, diagonal)


def passed(states: Tensor, by_state: Tensor, by_drive: Tensor, inputs: Tensor, diagonal: bool) -> Passed:
    """Steps that were taken; see `go`."""
    if diagonal:
        by_state = torch.diag_embed(by_state.diagonal(dim1=-2, dim2=-1))
    return Passed(states, by_state, by_drive, F.pad(inputs, (0, 1), value=1.0))


def nothing(cell: Cell) -> Sums:
    """The gradient of no step."""
    m, q, d = cell.weight.shape
    return Sums(cell.weight.new_zeros(m, q, d + 1), torch.zeros_like(cell.own, requires_grad=False))


def collect(cell: Cell, passed: Passed, traces: Traces, errors: Float[Tensor, "k1 n m b"], sums: Sums) -> None:
    """Add the gradient of the chunk's loss, whose errors are those of `going_back`."""
    add(sums, [weighed(errors[0], trace) for trace in traces])
    drives = backward(errors[1:], passed.by_drive)
    rows = passed.inputs.flatten(0, 1)
    for by, to in zip(drives.movedim(-1, 0), sums.drive.unbind(1), strict=False):
        to.addmm_(by.flatten(0, 1).T, rows)
    for pulled in pull(cell, drives[..., None, :], passed.states):
        sums.own.add_(pulled.sum((0, 2)))


def split(sums: Sums) -> tuple[Float[Tensor, "m q d"], Float[Tensor, "m q"], Float[Tensor, "m r"]]:
    """By weight, bias and own."""
    return sums.drive[..., :-1].contiguous(), sums.drive[..., -1].contiguous(), sums.own


def advance(cell: Cell, passed: Passed, traces: Traces) -> Traces:
    """The traces at the end of the chunk, written into those at its beginning where they can be."""
    q = cell.weight.shape[1]
    whole, reach = reached(passed.by_state, passed.by_drive)
    drive, own = (carry(whole, old) for old in traces)
    k, n, m, b, _ = reach.shape
    if k == 1:
        drive.addcmul_(reach[0, ..., :q, None].contiguous(), passed.inputs[0, :, None, None, None])
        return Traces(drive, own.add_(cell.pull(reach[0], passed.states[0])))
    for by, to in zip(reach.movedim(-1, 0), drive.unbind(3), strict=False):
        # What belongs to one q lies apart in both, which a product takes as it is.
        to.view(n, m * b, -1).baddbmm_(by.permute(1, 2, 3, 0).flatten(1, 2), passed.inputs.transpose(0, 1))
    for pulled in pull(cell, reach, passed.states):
        own.add_(pulled)
    return Traces(drive, own)


def pull(cell: Cell, g: Float[Tensor, "k n m c q"], states: Float[Tensor, "k1 n m b"]) -> Iterator[Tensor]:
    """What adds up to the sum (n, m, c, r) of `cell.pull`, a few steps each: all at once is much of the memory."""
    for some, at in zip(torch.split(g, PART), torch.split(states[:-1], PART), strict=True):
        # Summed with r before the steps, as it lies in memory.
        yield cell.pull(some, at).movedim(-1, 0).sum(1).movedim(0, -1)


def weighed(error: Float[Tensor, "n m b"], trace: Float[Tensor, "n m b ..."]) -> Float[Tensor, "m ..."]:
    """The sum over rows and block of λ · E."""
    rows, m, b = error.shape
    if rows * b == 1:
        return trace[0, :, 0] * error.view(m, *[1] * (trace.ndim - 3))
    by, past = error.transpose(0, 1), trace.transpose(0, 1)
    return (by.reshape(m, 1, rows * b) @ past.reshape(m, rows * b, -1)).view(m, *trace.shape[3:])


def going_back(by_state: Float[Tensor, "k n m b b"], delta: Float[Tensor, "k1 n m b"]) -> Float[Tensor, "k1 n m b"]:
    """The errors λ_0 … λ_K: of each state, through all states of the chunk that follow."""
    errors = delta.clone(memory_format=torch.contiguous_format)
    each, single = errors.unbind(), by_state.shape[-1] == 1
    factors = (by_state[..., 0] if single else by_state).unbind()
    for by, before, after in zip(factors[::-1], each[-2::-1], each[:0:-1], strict=True):
        before.addcmul_(by, after) if single else before.add_(backward(after, by))
    return errors


def reached(
    by_state: Float[Tensor, "k n m b b"], by_drive: Float[Tensor, "k n m b q"]
) -> tuple[Float[Tensor, "n m b b"], Float[Tensor, "k n m b q"]]:
    """What the state before the chunk does to the last one, and what the drive of each of its steps does."""
    if len(by_state) == 1:
        return by_state[0], by_drive
    if by_state.shape[-1] == 1:
        after = by_state.new_ones(len(by_state) + 1, *by_state.shape[1:])
        torch.cumprod(by_state.flip(0), 0, out=after[1:])
        return after[-1], forward(after[:-1].flip(0), by_drive)
    products = [torch.eye(by_state.shape[-1]).to(by_state).expand_as(by_state[0])]
    for by in reversed(by_state.unbind()):
        products.append(products[-1] @ by)
    whole, *rest = products[::-1]
    return whole, forward(torch.stack(rest), by_drive)


def forward(by_state: Float[Tensor, "*n b b"], v: Float[Tensor, "*n b q"]) -> Float[Tensor, "*n b q"]:
    """D v, per block."""
    return by_state * v if by_state.shape[-1] == 1 else by_state @ v


def backward(error: Float[Tensor, "*n b"], by: Float[Tensor, "*n b q"]) -> Float[Tensor, "*n q"]:
    """λᵀ J, per block."""
    return error * by[..., 0, :] if by.shape[-2] == 1 else (error[..., None, :] @ by)[..., 0, :]


def carry(by_state: Float[Tensor, "n m b b"], trace: Float[Tensor, "n m b ..."]) -> Float[Tensor, "n m b ..."]:
    """D E, in place where a block is one number."""
    if by_state.shape[-1] == 1:
        return trace.mul_(by_state.reshape(*by_state.shape[:3], *[1] * (trace.ndim - 3)))
    return (by_state @ trace.flatten(3)).view_as(trace)


@torch.no_grad()
def gradients(
    cell: Cell,
    inputs: Float[Tensor, "n t d"],
    loss: Loss,
    parameters: Sequence[nn.Parameter] = (),
    *,
    chunk: int = CHUNK,
    state: State | None = None,
    traces: Traces | None = None,
    diagonal: bool = False,
) -> Result:
    """A loss over a sequence and its gradients: by the circuit's `weight`, `bias` and `own`, and by `parameters`.

    `inputs` are constants. `loss` sees the circuit's outputs window by window (see `Loss`); `parameters` are those it
    uses. `state` and `traces`, by default zeros, are what a stream goes on from; the result's are where it ends, and
    `traces` is written over. `diagonal` is the approximation that drops coupling between units (Murray 2019's RFLO).
    Raises ValueError where there is no step, or inputs are not what the circuit reads; see `check_inputs`.
    """
    check_inputs(cell, inputs)
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; give 1 step or more")
    state = cell.start(len(inputs)) if state is None else state
    fresh = traces is None
    traces = start(cell, len(inputs)) if traces is None else traces
    steps, total = inputs.transpose(0, 1), inputs.new_zeros(())
    own, above = nothing(cell), Added(parameters)
    for first in range(0, len(steps), chunk):
        gone = go(cell, state, steps[first : first + chunk], diagonal)
        part, delta = instant(cell, gone, loss, above, first, first == 0 and fresh)
        total = total + part
        errors = going_back(gone.by_state, delta)
        del delta
        collect(cell, gone, traces, errors, own)
        del errors
        traces = advance(cell, gone, traces)
        # A copy, since a view would keep the whole chunk.
        state = gone.states[-1].clone()
        del gone
    return Result(total, named(split(own), above.sums), state, traces)


@torch.no_grad()
def observe(
    cell: Cell,
    x: Float[Tensor, "n d"],
    loss: Foretold,
    parameters: Sequence[nn.Parameter],
    state: State,
    traces: Traces,
    diagonal: bool = False,
) -> Result:
    """One observation more, for learning online: what was foretold of it, and its gradient by all that came before.

        L(t) = loss(h(t − 1), sg h(t)),    dL/dW = δ · E_W(t − 1),    δ = ∂L/∂h(t − 1)

    As `gradients` of such a loss with one step at a time, in fewer operations; `traces` is written over.
    """
    gone = go(cell, state, x[None], diagonal)
    now = cell.out(gone.states[1])
    if isinstance(loss, SquaredError):
        found, by_out, above = loss.known(cell.out(state), now)
        delta = cell.under(by_out)
    else:
        with torch.enable_grad():
            leaf = state.detach().requires_grad_()
            found, wanted = loss(cell.out(leaf), now), [leaf, *parameters]
            delta, *above = torch.autograd.grad(found, wanted, allow_unused=True, materialize_grads=True)
    own = split(Sums(*(weighed(delta, trace) for trace in traces)))
    return Result(found.detach(), named(own, above), gone.states[1], advance(cell, gone, traces))


def named(own: Sequence[Tensor], above: Sequence[Tensor]) -> dict[str, Tensor]:
    """Gradients by name: those of the circuit, then those above it, counted."""
    return dict(zip(("weight", "bias", "own", *map(str, range(len(above)))), (*own, *above), strict=True))


def instant(
    cell: Cell, gone: Passed, loss: Loss, above: Added, first: int, begun: bool
) -> tuple[Float[Tensor, ""], Float[Tensor, "k1 n m b"]]:
    """A window's loss and its gradient by the states; no state precedes what has `begun`."""
    with torch.enable_grad(), above:
        leaf = gone.states.detach().requires_grad_()
        part = loss(cell.out(leaf[1:] if begun else leaf).transpose(0, 1), first + begun)
    (delta,) = above.grad(part, [leaf])
    return part.detach(), delta
