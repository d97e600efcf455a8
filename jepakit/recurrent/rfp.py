"""Recurrent forward propagation (RFP): the exact gradient of a recurrent circuit, computed while the input arrives.

In a circuit whose blocks of b numbers depend only on their own past (cells.py), a weight that drives block i never
changes the state of another block. So its whole effect so far is one trace of b numbers, not n, and all traces together
take m b (q (d + 1) + r) floats per row: O(n²) for d = n, where the general rule (RTRL) takes O(n³).

    E_W ← D E_W + A ⊗ [x, 1],    E_own ← D E_own + A · ∂drive/∂own,    D = ∂s'/∂s, A = ∂s'/∂drive, per block
    dL/dW = Σ_t δ_t · E_W(t),    δ_t = ∂L_t/∂s_t through the layers above the circuit, which have no memory

Only the traces are kept from the past, whatever the length. `chunk` steps are taken together: inside a chunk,
errors propagate backwards, λ_t = δ_t + D_{t+1}ᵀ λ_{t+1}, and dL/dW = λ_0 · E_W(0) + Σ λ_t A_t ⊗ [x_t, 1], so that the
traces are read and written once per chunk, in two matrix products. The sums are the same; chunk 1 is the rule above.

The gradient is exact if each block's past enters only that block, x does not depend on traced weights through time, the
layers above have no memory, and the weights do not change within the sequence. `why_inexact` gives the reason if a
circuit does not qualify.

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
from .gradients import GradientAccumulator, add_in_place
from .gradients import SquaredError as SquaredError

CHUNK_STEPS = 32
PART_STEPS = 16  # steps at a time, where all steps of a chunk would take most of the memory

State = Float[Tensor, "n m b"]


class Traces(NamedTuple):
    """The effect of every weight on the state so far: for each row, block and number, by the weight's input."""

    drive: Float[Tensor, "n m b q e"]  # e = d + 1: the input, and 1 for the bias
    own: Float[Tensor, "n m b r"]


class Chunk(NamedTuple):
    """A chunk of K steps, computed without a graph: states 0 … K, and derivatives and inputs of steps 1 … K."""

    states: Float[Tensor, "k1 n m b"]
    by_state: Float[Tensor, "k n m b b"]
    by_drive: Float[Tensor, "k n m b q"]
    inputs: Float[Tensor, "k n e"]  # with a 1 for the bias


class Sums(NamedTuple):
    """The circuit's gradient so far: by [weight, bias], laid out as in the traces, and by own."""

    drive: Float[Tensor, "m q e"]
    own: Float[Tensor, "m r"]


class Result(NamedTuple):
    """A loss, its gradients by parameter name, and the circuit's final state and traces."""

    loss: Float[Tensor, ""]
    gradients: dict[str, Tensor]
    state: State
    traces: Traces


# (h, t) -> the loss of a window of a sequence; h (N, K, w) is the circuit's output after steps t … t + K - 1, counted
# from 1. A window begins with the last step of the previous one, so that neighbours can be compared; losses are summed.
Loss = Callable[[Float[Tensor, "n k w"], int], Float[Tensor, ""]]
# (h(t - 1), h(t)) -> the loss of predicting the second, a constant, from the first; (N, w) each.
NextStepLoss = Callable[[Float[Tensor, "n w"], Float[Tensor, "n w"]], Float[Tensor, ""]]


def start(cell: Cell, rows: int) -> Traces:
    """The traces before any input: zeros, in the weights' float32 or float64."""
    m, q, d = cell.weight.shape
    new = cell.weight.new_zeros
    return Traces(new(rows, m, cell.block, q, d + 1), new(rows, m, cell.block, cell.own.shape[1]))


def trace_floats(cell: Cell) -> int:
    """The count of numbers in the traces of one row."""
    m, q, d = cell.weight.shape
    return m * cell.block * (q * (d + 1) + int(cell.own.shape[1]))


def why_inexact(cell: Cell) -> str | None:
    """Why RFP does not suit this circuit, as the end of a sentence; None if RFP is exact and takes O(n d)."""
    if cell.block > 1 and cell.blocks == 1:
        return (
            f"all {cell.width} units are coupled, so a weight of one unit reaches every other unit a step later, and "
            "exact traces take O(n³)"
        )
    return None


@torch.no_grad()
def forward_chunk(cell: Cell, state: State, inputs: Float[Tensor, "k n d"], diagonal: bool = False) -> Chunk:
    """Take K steps from `state` and keep what the traces need. `diagonal` drops the coupling of units in a block."""
    return make_chunk(*cell.run(state, cell.drive(inputs)), inputs, diagonal)


def make_chunk(states: Tensor, by_state: Tensor, by_drive: Tensor, inputs: Tensor, diagonal: bool) -> Chunk:
    """A chunk from steps that were already computed; see `forward_chunk`."""
    if diagonal:
        by_state = torch.diag_embed(by_state.diagonal(dim1=-2, dim2=-1))
    return Chunk(states, by_state, by_drive, F.pad(inputs, (0, 1), value=1.0))


def zero_sums(cell: Cell) -> Sums:
    """The gradient after no step: zeros."""
    m, q, d = cell.weight.shape
    return Sums(cell.weight.new_zeros(m, q, d + 1), torch.zeros_like(cell.own, requires_grad=False))


def accumulate(cell: Cell, passed: Chunk, traces: Traces, errors: Float[Tensor, "k1 n m b"], sums: Sums) -> None:
    """Add the gradient of the chunk's loss to `sums`; `errors` come from `backpropagate`."""
    add_in_place(sums, [weigh_traces(errors[0], trace) for trace in traces])
    drives = apply_backward(errors[1:], passed.by_drive)
    rows = passed.inputs.flatten(0, 1)
    for by, to in zip(drives.movedim(-1, 0), sums.drive.unbind(1), strict=False):
        to.addmm_(by.flatten(0, 1).T, rows)
    for pulled in pull_in_parts(cell, drives[..., None, :], passed.states):
        sums.own.add_(pulled.sum((0, 2)))


def split_sums(sums: Sums) -> tuple[Float[Tensor, "m q d"], Float[Tensor, "m q"], Float[Tensor, "m r"]]:
    """The gradient by weight, bias and own."""
    return sums.drive[..., :-1].contiguous(), sums.drive[..., -1].contiguous(), sums.own


def advance_traces(cell: Cell, passed: Chunk, traces: Traces) -> Traces:
    """The traces at the end of the chunk; they overwrite those at its beginning if possible."""
    q = cell.weight.shape[1]
    whole, reach = propagate(passed.by_state, passed.by_drive)
    drive, own = (carry_traces(whole, old) for old in traces)
    k, n, m, b, _ = reach.shape
    if k == 1:
        drive.addcmul_(reach[0, ..., :q, None].contiguous(), passed.inputs[0, :, None, None, None])
        return Traces(drive, own.add_(cell.pull(reach[0], passed.states[0])))
    for by, to in zip(reach.movedim(-1, 0), drive.unbind(3), strict=False):
        # The entries of one q are not contiguous in either tensor, which a matrix product accepts.
        to.view(n, m * b, -1).baddbmm_(by.permute(1, 2, 3, 0).flatten(1, 2), passed.inputs.transpose(0, 1))
    for pulled in pull_in_parts(cell, reach, passed.states):
        own.add_(pulled)
    return Traces(drive, own)


def pull_in_parts(cell: Cell, g: Float[Tensor, "k n m c q"], states: Float[Tensor, "k1 n m b"]) -> Iterator[Tensor]:
    """Parts of the sum over steps (n, m, c, r) of `cell.pull`, a few steps at a time to save memory."""
    for some, at in zip(torch.split(g, PART_STEPS), torch.split(states[:-1], PART_STEPS), strict=True):
        # r moves to the front before steps are summed, the order in memory.
        yield cell.pull(some, at).movedim(-1, 0).sum(1).movedim(0, -1)


def weigh_traces(error: Float[Tensor, "n m b"], trace: Float[Tensor, "n m b ..."]) -> Float[Tensor, "m ..."]:
    """The sum of λ · E over rows and the numbers of a block."""
    rows, m, b = error.shape
    if rows * b == 1:
        return trace[0, :, 0] * error.view(m, *[1] * (trace.ndim - 3))
    by, past = error.transpose(0, 1), trace.transpose(0, 1)
    return (by.reshape(m, 1, rows * b) @ past.reshape(m, rows * b, -1)).view(m, *trace.shape[3:])


def backpropagate(by_state: Float[Tensor, "k n m b b"], delta: Float[Tensor, "k1 n m b"]) -> Float[Tensor, "k1 n m b"]:
    """The errors λ_0 … λ_K: the derivative by each state, through all later states of the chunk."""
    errors = delta.clone(memory_format=torch.contiguous_format)
    each, single = errors.unbind(), by_state.shape[-1] == 1
    factors = (by_state[..., 0] if single else by_state).unbind()
    for by, before, after in zip(factors[::-1], each[-2::-1], each[:0:-1], strict=True):
        before.addcmul_(by, after) if single else before.add_(apply_backward(after, by))
    return errors


def propagate(
    by_state: Float[Tensor, "k n m b b"], by_drive: Float[Tensor, "k n m b q"]
) -> tuple[Float[Tensor, "n m b b"], Float[Tensor, "k n m b q"]]:
    """The derivatives of the chunk's last state by the state before the chunk, and by the drive of each step."""
    if len(by_state) == 1:
        return by_state[0], by_drive
    if by_state.shape[-1] == 1:
        after = by_state.new_ones(len(by_state) + 1, *by_state.shape[1:])
        torch.cumprod(by_state.flip(0), 0, out=after[1:])
        return after[-1], apply_forward(after[:-1].flip(0), by_drive)
    products = [torch.eye(by_state.shape[-1]).to(by_state).expand_as(by_state[0])]
    for by in reversed(by_state.unbind()):
        products.append(products[-1] @ by)
    whole, *rest = products[::-1]
    return whole, apply_forward(torch.stack(rest), by_drive)


def apply_forward(by_state: Float[Tensor, "*n b b"], v: Float[Tensor, "*n b q"]) -> Float[Tensor, "*n b q"]:
    """D v, per block."""
    return by_state * v if by_state.shape[-1] == 1 else by_state @ v


def apply_backward(error: Float[Tensor, "*n b"], by: Float[Tensor, "*n b q"]) -> Float[Tensor, "*n q"]:
    """λᵀ J, per block."""
    return error * by[..., 0, :] if by.shape[-2] == 1 else (error[..., None, :] @ by)[..., 0, :]


def carry_traces(by_state: Float[Tensor, "n m b b"], trace: Float[Tensor, "n m b ..."]) -> Float[Tensor, "n m b ..."]:
    """D E, in place if a block is a single number."""
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
    chunk: int = CHUNK_STEPS,
    state: State | None = None,
    traces: Traces | None = None,
    diagonal: bool = False,
) -> Result:
    """A loss over a sequence and its gradients by the circuit's `weight`, `bias` and `own`, and by `parameters`.

    `inputs` (N, T, d) are constants. `loss` sees the circuit's outputs window by window (see `Loss`) and uses
    `parameters`. A stream continues from `state` and `traces` (default: zeros); the result holds the final ones, and
    `traces` is overwritten. `diagonal` is the approximation that drops the coupling between units (Murray 2019's RFLO).
    Raises ValueError if there is no step, or if inputs do not fit the circuit; see `check_inputs`.
    """
    check_inputs(cell, inputs)
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; give 1 step or more")
    state = cell.start(len(inputs)) if state is None else state
    fresh = traces is None
    traces = start(cell, len(inputs)) if traces is None else traces
    steps, total = inputs.transpose(0, 1), inputs.new_zeros(())
    own, above = zero_sums(cell), GradientAccumulator(parameters)
    for first in range(0, len(steps), chunk):
        gone = forward_chunk(cell, state, steps[first : first + chunk], diagonal)
        part, delta = window_gradient(cell, gone, loss, above, first, first == 0 and fresh)
        total = total + part
        errors = backpropagate(gone.by_state, delta)
        del delta
        accumulate(cell, gone, traces, errors, own)
        del errors
        traces = advance_traces(cell, gone, traces)
        # A copy, because a view would keep the whole chunk in memory.
        state = gone.states[-1].clone()
        del gone
    return Result(total, by_name(split_sums(own), above.sums), state, traces)


@torch.no_grad()
def observe(
    cell: Cell,
    x: Float[Tensor, "n d"],
    loss: NextStepLoss,
    parameters: Sequence[nn.Parameter],
    state: State,
    traces: Traces,
    diagonal: bool = False,
) -> Result:
    """Learn online from one more observation: the loss of its prediction, and the gradient through the whole past.

        L(t) = loss(h(t − 1), sg h(t)),    dL/dW = δ · E_W(t − 1),    δ = ∂L/∂h(t − 1)

    This equals `gradients` of such a loss, one step at a time, in fewer operations; `traces` is overwritten.
    """
    gone = forward_chunk(cell, state, x[None], diagonal)
    now = cell.out(gone.states[1])
    if isinstance(loss, SquaredError):
        found, by_out, above = loss.known(cell.out(state), now)
        delta = cell.state_gradient(by_out)
    else:
        with torch.enable_grad():
            leaf = state.detach().requires_grad_()
            found, wanted = loss(cell.out(leaf), now), [leaf, *parameters]
            delta, *above = torch.autograd.grad(found, wanted, allow_unused=True, materialize_grads=True)
    own = split_sums(Sums(*(weigh_traces(delta, trace) for trace in traces)))
    return Result(found.detach(), by_name(own, above), gone.states[1], advance_traces(cell, gone, traces))


def by_name(own: Sequence[Tensor], above: Sequence[Tensor]) -> dict[str, Tensor]:
    """Gradients by name: the circuit's, then those of the parameters above it, numbered from 0."""
    return dict(zip(("weight", "bias", "own", *map(str, range(len(above)))), (*own, *above), strict=True))


def window_gradient(
    cell: Cell, gone: Chunk, loss: Loss, above: GradientAccumulator, first: int, begun: bool
) -> tuple[Float[Tensor, ""], Float[Tensor, "k1 n m b"]]:
    """A window's loss and its gradient by the states; with `begun`, no state precedes the window."""
    with torch.enable_grad(), above:
        leaf = gone.states.detach().requires_grad_()
        part = loss(cell.out(leaf[1:] if begun else leaf).transpose(0, 1), first + begun)
    (delta,) = above.grad(part, [leaf])
    return part.detach(), delta
