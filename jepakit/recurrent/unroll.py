"""Unrolling recurrent circuits over a sequence, with two learning rules for the gradient of a loss on their outputs.

- back-propagation through time (`through_time`): the graph of all steps; `truncated` cuts it after every step
- recurrent forward propagation (`ForwardPropagation`): traces instead of a graph, chunk by chunk (rfp.py)

For one level over constant inputs, both give the same gradient. If several levels are stacked, if the level above feeds
back, or if the encoder learns from the error of each step alone ("instant"), forward propagation omits the effects that
pass through the past of another level or of the encoder; `why_approximate` then says why.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.distributed import world_size
from . import rfp
from .circuit import Circuits, States
from .gradients import GradientAccumulator, add_in_place

Rule = Literal["bptt", "rfp", "truncated"]
Below = Literal["frozen", "instant", "full"]

# (h, t) -> the loss of a window; h (K, N, P, w) is the output after steps t … t + K - 1, counted from 1: see rfp.Loss.
Loss = Callable[[Float[Tensor, "k n p d"], int], Float[Tensor, ""]]
# (first, last) -> frames first … last - 1 as maps for the lowest level.
Frames = Callable[[int, int], Float[Tensor, "k n c h w"]]


def why_approximate(circuits: Circuits, below: Below) -> str | None:
    """Why forward propagation is not exact here, as the end of a sentence; None if it is exact."""
    above = any(cell.remembers for cell in circuits.cells[1:])
    reasons = {
        "the circuit above has a past, through which lower levels also act on later steps": above,
        "feedback carries the effect of one unit to others": circuits.feedback,
        "the encoder learns from the error of each step alone (below instant)": below == "instant"
        and any(cell.remembers for cell in circuits.cells),
    }
    for cell in circuits.cells:
        reasons |= {rfp.why_inexact(cell) or "": rfp.why_inexact(cell) is not None}
    return next((why for why, so in reasons.items() if so), None)


def through_time(
    circuits: Circuits, frames: Float[Tensor, "t n c h w"], truncated: bool = False, states: States | None = None
) -> tuple[Float[Tensor, "t n p d"], States]:
    """The output after every frame, and the final states; with `truncated`, no gradient reaches earlier steps."""
    states = circuits.start(frames.shape[1]) if states is None else states
    shown = []
    for rows in circuits.read(frames).unbind():
        states, _ = circuits.step(states, rows)
        shown.append(circuits.shown(states[-1]))
        states = tuple(s.detach() for s in states) if truncated else states
    return torch.stack(shown), states


class Stream(NamedTuple):
    """The position in a sequence: the states, those one step before, the traces, and the number of steps so far.

    `below` traces the effect of each of the encoder's parameters on the lowest circuit, if that is wanted.
    """

    states: States
    before: States
    traces: tuple[rfp.Traces, ...]
    below: Float[Tensor, "n m b f"]
    step: int


def start_stream(circuits: Circuits, samples: int, below: int = 0) -> Stream:
    """The position before the first frame, for `samples` samples, with traces for `below` parameters of the encoder."""
    states = circuits.start(samples)
    traces = tuple(rfp.start(cell, len(s)) for cell, s in zip(circuits.cells, states, strict=True))
    return Stream(states, states, traces, states[0].new_zeros(*states[0].shape, below), 0)


@dataclass(frozen=True, eq=False)
class ForwardPropagation:
    """Forward propagation of a loss with its own parameters `above`, on frames made with the parameters `encoder`.

    `jacobian(t)` (N P, d, F) is the derivative of the lowest level's input at frame t by the encoder's parameters; it
    is needed only if `below` is "full".
    """

    circuits: Circuits
    frames: Frames
    loss: Loss
    above: Sequence[nn.Parameter] = ()
    encoder: Sequence[nn.Parameter] = ()
    below: Below = "frozen"
    jacobian: Callable[[int], Float[Tensor, "r d f"]] | None = None
    diagonal: bool = False

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters, in the order of the gradients: circuits, above, encoder."""
        own = [p for cell in self.circuits.cells for p in (cell.weight, cell.bias, cell.own)]
        return [*own, *self.above, *self.encoder]

    @torch.no_grad()
    def run(self, stream: Stream, last: int, chunk: int = rfp.CHUNK_STEPS) -> tuple[Tensor, list[Tensor], Stream]:
        """The loss of the frames from the stream's position up to `last`, its gradients, and the new position."""
        sums = GradientSums(self)
        total = stream.states[0].new_zeros(())
        while stream.step < last:
            part, stream = self.window(stream, min(stream.step + chunk, last), sums)
            total += part
        return total, sums.parts(), stream

    def window(self, stream: Stream, last: int, sums: "GradientSums") -> tuple[Tensor, Stream]:
        """The loss of one chunk, and the stream's new position; the gradients are added to `sums`."""
        start = max(stream.step - 1, 0)
        with torch.set_grad_enabled(self.below != "frozen"):
            # With the last frame before the chunk, because its loss is known only now.
            rows = self.circuits.read(self.frames(start, last))
        passed = self.forward_chunks(stream, rows.detach()[stream.step - start :])
        with torch.enable_grad():
            shown = self.shown(stream, passed, rows, stream.step == 0)
            with sums.above:
                part = self.loss(self.circuits.shown(shown[-1]), start + 1)
        errors = []
        for p, delta in zip(passed, sums.above.grad(part, shown), strict=True):
            full = torch.cat([torch.zeros_like(delta[:1]), delta]) if stream.step == 0 else delta
            errors.append(rfp.backpropagate(p.by_state, full))
        each = list(zip(self.circuits.cells, passed, stream.traces, strict=True))
        for of, error, own in zip(each, errors, sums.own, strict=True):
            rfp.accumulate(*of, error, own)
        below = stream.below
        if self.below == "full":
            traced, below = self.trace(stream, passed[0], rows, errors[0])
            add_in_place(sums.below, traced)
        traces = tuple(rfp.advance_traces(*of) for of in each)
        # Copies, because views would keep the whole chunk in memory.
        states, before = (tuple(p.states[k].clone() for p in passed) for k in (-1, -2))
        return part.detach(), Stream(states, before, traces, below, last)

    def forward_chunks(self, stream: Stream, rows: Float[Tensor, "k r d"]) -> list[rfp.Chunk]:
        """The steps of every level, without a graph."""
        cells = self.circuits.cells
        if len(cells) == 1:
            return [rfp.forward_chunk(cells[0], stream.states[0], rows, self.diagonal)]
        path, seen = [stream.states], []
        for row in rows.unbind():
            states, read = self.circuits.step(path[-1], row)
            path.append(states)
            seen.append(read)
        found = []
        for i, cell in enumerate(cells):
            chain, inputs = (torch.stack([s[i] for s in each]) for each in (path, seen))
            local = cell.local(chain[:-1], cell.drive(inputs))
            found.append(rfp.make_chunk(chain, local.by_state, local.by_drive, inputs, self.diagonal))
        return found

    def shown(self, stream: Stream, passed: list[rfp.Chunk], rows: Tensor, begun: bool) -> list[Tensor]:
        """The states of every level after each frame, as graph nodes connected only within each step."""
        skip = 1 if begun else 0
        before = [
            p.states[:-1] if begun else torch.cat([b[None], p.states[:-1]])
            for b, p in zip(stream.before, passed, strict=True)
        ]
        first = self.circuits.cells[0]
        if self.below == "instant":
            nodes = [first(before[0], first.drive(rows))]
        else:
            nodes = [passed[0].states[skip:].clone().requires_grad_()]
        steps = len(nodes[0])
        for i, level in enumerate(self.circuits.levels[1:], 1):
            lower = self.circuits.levels[i - 1].maps(nodes[-1].flatten(0, 1))
            past = tuple(b.flatten(0, 1) for b in before)
            read = self.circuits.inputs(i, level.read(lower), past)
            read = read.reshape(steps, -1, read.shape[-1])
            nodes.append(level.cell(before[i], level.cell.drive(read)))
        return nodes

    def trace(self, stream: Stream, passed: rfp.Chunk, rows: Tensor, errors: Tensor) -> tuple[list[Tensor], Tensor]:
        """The encoder's exact gradients in this chunk, and the traces of its parameters at the chunk's end."""
        assert self.jacobian is not None
        cell = self.circuits.cells[0]
        q, begun = cell.weight.shape[1], stream.step == 0
        by_drive = rfp.apply_backward(errors[1:], passed.by_drive)[..., :q]
        by_rows = torch.einsum("knmq,mqd->knd", by_drive, cell.weight)
        by_rows = by_rows if begun else torch.cat([torch.zeros_like(by_rows[:1]), by_rows])
        found = torch.autograd.grad(rows, self.encoder, by_rows, allow_unused=True, materialize_grads=True)
        earlier = torch.einsum("nmb,nmbf->f", errors[0], stream.below)
        split = torch.split(earlier, [p.numel() for p in self.encoder])
        whole, reach = rfp.propagate(passed.by_state, passed.by_drive)
        reach = torch.einsum("knmbq,mqd->knmbd", reach[..., :q], cell.weight)
        below = rfp.carry_traces(whole, stream.below)
        # Step by step, because a Jacobian is as large as the trace.
        for step, by in enumerate(reach, stream.step):
            below += torch.einsum("nmbd,ndf->nmbf", by, self.jacobian(step))
        return [g + e.view_as(g) for g, e in zip(found, split, strict=True)], below


class GradientSums:
    """The sums of a rule's gradients: of the circuits by level, of the parameters above, and of the encoder below."""

    def __init__(self, rule: ForwardPropagation) -> None:
        self.own = [rfp.zero_sums(cell) for cell in rule.circuits.cells]
        self.above = GradientAccumulator([*rule.above, *(rule.encoder if rule.below == "instant" else ())])
        apart = () if rule.below == "instant" else rule.encoder
        self.below = [torch.zeros_like(p, requires_grad=False) for p in apart]

    def parts(self) -> list[Tensor]:
        """The sums in the order of the rule's parameters."""
        return [*(g for own in self.own for g in rfp.split_sums(own)), *self.above.sums, *self.below]


def check_exact(circuits: Circuits, below: Below, approximate: bool) -> None:
    """Raise ValueError if forward propagation would not be exact here and `approximate` is false."""
    why = why_approximate(circuits, below)
    if below == "full" and len(circuits.levels) > 1:
        raise ValueError("the encoder's traces end at the first circuit; with levels, set below to instant or frozen")
    if why and not approximate:
        raise ValueError(
            f"rule rfp is not exact here: {why}; give rule bptt, or --method.approximate true to use it all the same "
            "and log its cosine to bptt"
        )


def trace_bytes(circuits: Circuits, encoder: nn.Module | None, samples: int) -> int:
    """The bytes that the traces of `samples` samples take, with those of the parameters of `encoder` if it is given."""
    first = circuits.levels[0]
    own = sum(prod(level.grid) * rfp.trace_floats(level.cell) for level in circuits.levels)
    traced = sum(p.numel() for p in encoder.parameters() if p.requires_grad) if encoder else 0
    # Beside the traces, the Jacobian of one step, and a copy of it while it is made.
    own += prod(first.grid) * (first.cell.blocks * first.cell.block + 2 * first.cell.weight.shape[2]) * traced
    return samples * own * circuits.levels[0].cell.weight.element_size()


def check_memory(circuits: Circuits, encoder: nn.Module | None, samples: int, like: Tensor) -> None:
    """Raise ValueError, naming what would fit, if the traces of `samples` samples exceed the free memory."""
    samples = -(-samples // world_size())
    needed, free = trace_bytes(circuits, encoder, samples), free_bytes(like.device)
    if needed <= free:
        return
    fits = int(free // trace_bytes(circuits, encoder, 1)) * world_size()
    traced = ", including the encoder's, which below frozen or instant avoids" if encoder else ""
    fix = f"at most {fits} at a time (length.batch / length.accumulate) fit"
    if not fits:
        fix = f"even one sample needs a method.circuit.width of at most {max_width(circuits, encoder, free)}"
    raise ValueError(
        f"the traces of rfp take {needed / 2**30:.1f} GiB for {samples} samples and {free / 2**30:.1f} GiB are free; "
        f"{fix}{traced}"
    )


def trace_cost(circuits: Circuits, encoder: nn.Module, samples: int) -> str:
    """A sentence about the cost of tracing the encoder too: all its traces are read and written at every step."""
    samples = -(-samples // world_size())
    gib = trace_bytes(circuits, encoder, samples) / 2**30
    return (
        f"rule rfp also carries traces of the encoder: {gib:.2g} GiB for {samples} samples, all of it read and written "
        "at every step of a sequence; below frozen avoids them, and rule bptt needs none"
    )


def max_width(circuits: Circuits, encoder: nn.Module | None, free: int) -> int:
    """The largest width, up to that of `circuits`, at which one sample's traces fit in `free` bytes; 0 if none does."""
    cfg, step = circuits.cfg, circuits.cfg.block

    def needed(blocks: int) -> int:
        with torch.device("meta"):
            like = Circuits(replace(cfg, width=blocks * step, rank=0), *circuits.reads).to(circuits.mean.dtype)
        return trace_bytes(like, encoder, 1)

    return step * bisect_right(range(1, cfg.width // step + 1), free, key=needed)


def free_bytes(device: torch.device) -> int:
    """The free memory of a device in bytes, for one of the processes that share it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    if info.is_file():
        found = [line.split()[1] for line in info.read_text().splitlines() if line.startswith("MemAvailable")]
        return int(found[0]) * 1024 // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
