"""A sequence gone through by recurrent circuits, and the gradient of a loss on what they show: two learning rules.

- back-propagation through time (`through_time`): the graph of all steps; `truncated` cuts it after every step
- recurrent forward propagation (`Forward`): traces instead of a graph, chunk by chunk (rfp.py)

For one level over constants both give the same gradient. Where several levels are stacked, where the level above feeds
back, or where what makes the maps learns from the error of its own step alone ("instant"), forward propagation leaves
out the effects that pass through another level's or the encoder's past: `inexact` says so, in words.
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

from ..core.distributed import world
from . import rfp
from .circuit import Circuits, States
from .gradients import Added, add

Rule = Literal["bptt", "rfp", "truncated"]
Below = Literal["frozen", "instant", "full"]

# (h, t) -> the loss of a window, h (K, N, P, w) what is shown after steps t … t + K - 1, counted from 1: see rfp.Loss.
Loss = Callable[[Float[Tensor, "k n p d"], int], Float[Tensor, ""]]
# (first, last) -> what the frames first … last - 1 are to the lowest level.
Frames = Callable[[int, int], Float[Tensor, "k n c h w"]]


def inexact(circuits: Circuits, below: Below) -> str | None:
    """Why forward propagation is not exact here, as the end of a sentence; None where it is."""
    above = any(cell.remembers for cell in circuits.cells[1:])
    reasons = {
        "the circuit above has a past, through which what lies below it acts on later steps too": above,
        "feedback carries what one unit does on to others": circuits.feedback,
        "the encoder learns from the error of each step alone (below instant)": below == "instant"
        and any(cell.remembers for cell in circuits.cells),
    }
    for cell in circuits.cells:
        reasons |= {rfp.why_inexact(cell) or "": rfp.why_inexact(cell) is not None}
    return next((why for why, so in reasons.items() if so), None)


def through_time(
    circuits: Circuits, frames: Float[Tensor, "t n c h w"], truncated: bool = False, states: States | None = None
) -> tuple[Float[Tensor, "t n p d"], States]:
    """What the circuits show after every frame, and where they end; `truncated` lets no gradient into earlier steps."""
    states = circuits.start(frames.shape[1]) if states is None else states
    shown = []
    for rows in circuits.read(frames).unbind():
        states, _ = circuits.step(states, rows)
        shown.append(circuits.shown(states[-1]))
        states = tuple(s.detach() for s in states) if truncated else states
    return torch.stack(shown), states


class Stream(NamedTuple):
    """Where a sequence stands: the states, those one step before, what each weight has done, and the steps so far.

    `below` holds what each parameter of the encoder has done to the lowest circuit, where that is traced.
    """

    states: States
    before: States
    traces: tuple[rfp.Traces, ...]
    below: Float[Tensor, "n m b f"]
    step: int


def begin(circuits: Circuits, samples: int, below: int = 0) -> Stream:
    """A sequence of `samples` before its first frame, with traces for `below` parameters of the encoder."""
    states = circuits.start(samples)
    traces = tuple(rfp.start(cell, len(s)) for cell, s in zip(circuits.cells, states, strict=True))
    return Stream(states, states, traces, states[0].new_zeros(*states[0].shape, below), 0)


@dataclass(frozen=True, eq=False)
class Forward:
    """Forward propagation of a loss whose own parameters are `above`; `encoder` are those that make the frames.

    `jacobian(t)` gives (N P, d, F), what the encoder's parameters do to what the lowest level reads of frame t;
    it is asked for where `below` is "full".
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
        """All that is trained, in the order of the gradients: circuits, above, encoder."""
        own = [p for cell in self.circuits.cells for p in (cell.weight, cell.bias, cell.own)]
        return [*own, *self.above, *self.encoder]

    @torch.no_grad()
    def run(self, stream: Stream, last: int, chunk: int = rfp.CHUNK) -> tuple[Tensor, list[Tensor], Stream]:
        """The loss of the frames from where the stream stands up to `last`, its gradients, and where it stands then."""
        sums = Gradient(self)
        total = stream.states[0].new_zeros(())
        while stream.step < last:
            part, stream = self.window(stream, min(stream.step + chunk, last), sums)
            total += part
        return total, sums.parts(), stream

    def window(self, stream: Stream, last: int, sums: "Gradient") -> tuple[Tensor, Stream]:
        """The loss of one chunk, whose gradients are added to `sums`, and where the stream stands then."""
        start = max(stream.step - 1, 0)
        with torch.set_grad_enabled(self.below != "frozen"):
            # With the last frame before the chunk, whose loss is known only now.
            rows = self.circuits.read(self.frames(start, last))
        passed = self.go(stream, rows.detach()[stream.step - start :])
        with torch.enable_grad():
            shown = self.shown(stream, passed, rows, stream.step == 0)
            with sums.above:
                part = self.loss(self.circuits.shown(shown[-1]), start + 1)
        errors = []
        for p, delta in zip(passed, sums.above.grad(part, shown), strict=True):
            full = torch.cat([torch.zeros_like(delta[:1]), delta]) if stream.step == 0 else delta
            errors.append(rfp.going_back(p.by_state, full))
        each = list(zip(self.circuits.cells, passed, stream.traces, strict=True))
        for of, error, own in zip(each, errors, sums.own, strict=True):
            rfp.collect(*of, error, own)
        below = stream.below
        if self.below == "full":
            traced, below = self.trace(stream, passed[0], rows, errors[0])
            add(sums.below, traced)
        traces = tuple(rfp.advance(*of) for of in each)
        # Copies, since views would keep the whole chunk.
        states, before = (tuple(p.states[k].clone() for p in passed) for k in (-1, -2))
        return part.detach(), Stream(states, before, traces, below, last)

    def go(self, stream: Stream, rows: Float[Tensor, "k r d"]) -> list[rfp.Passed]:
        """Every level's steps, without a graph."""
        cells = self.circuits.cells
        if len(cells) == 1:
            return [rfp.go(cells[0], stream.states[0], rows, self.diagonal)]
        path, seen = [stream.states], []
        for row in rows.unbind():
            states, read = self.circuits.step(path[-1], row)
            path.append(states)
            seen.append(read)
        found = []
        for i, cell in enumerate(cells):
            chain, inputs = (torch.stack([s[i] for s in each]) for each in (path, seen))
            local = cell.local(chain[:-1], cell.drive(inputs))
            found.append(rfp.passed(chain, local.by_state, local.by_drive, inputs, self.diagonal))
        return found

    def shown(self, stream: Stream, passed: list[rfp.Passed], rows: Tensor, begun: bool) -> list[Tensor]:
        """Every level's states after each frame, as nodes that hang together by what happens in one step alone."""
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

    def trace(self, stream: Stream, passed: rfp.Passed, rows: Tensor, errors: Tensor) -> tuple[list[Tensor], Tensor]:
        """The encoder's exact gradients in this chunk, and what its parameters have done to the circuit by its end."""
        assert self.jacobian is not None
        cell = self.circuits.cells[0]
        q, begun = cell.weight.shape[1], stream.step == 0
        by_drive = rfp.backward(errors[1:], passed.by_drive)[..., :q]
        by_rows = torch.einsum("knmq,mqd->knd", by_drive, cell.weight)
        by_rows = by_rows if begun else torch.cat([torch.zeros_like(by_rows[:1]), by_rows])
        found = torch.autograd.grad(rows, self.encoder, by_rows, allow_unused=True, materialize_grads=True)
        earlier = torch.einsum("nmb,nmbf->f", errors[0], stream.below)
        split = torch.split(earlier, [p.numel() for p in self.encoder])
        whole, reach = rfp.reached(passed.by_state, passed.by_drive)
        reach = torch.einsum("knmbq,mqd->knmbd", reach[..., :q], cell.weight)
        below = rfp.carry(whole, stream.below)
        # One step after another: a Jacobian is as large as the trace.
        for step, by in enumerate(reach, stream.step):
            below += torch.einsum("nmbd,ndf->nmbf", by, self.jacobian(step))
        return [g + e.view_as(g) for g, e in zip(found, split, strict=True)], below


class Gradient:
    """What a rule's gradients have added up to: the circuits' by level, and by what lies above and below."""

    def __init__(self, rule: Forward) -> None:
        self.own = [rfp.nothing(cell) for cell in rule.circuits.cells]
        self.above = Added([*rule.above, *(rule.encoder if rule.below == "instant" else ())])
        apart = () if rule.below == "instant" else rule.encoder
        self.below = [torch.zeros_like(p, requires_grad=False) for p in apart]

    def parts(self) -> list[Tensor]:
        """In the order of the rule's parameters."""
        return [*(g for own in self.own for g in rfp.split(own)), *self.above.sums, *self.below]


def refuse(circuits: Circuits, below: Below, approximate: bool) -> None:
    """Raises ValueError where forward propagation would not be exact and that was not asked for."""
    why = inexact(circuits, below)
    if below == "full" and len(circuits.levels) > 1:
        raise ValueError("the encoder's traces end at the first circuit; with levels, give below instant or frozen")
    if why and not approximate:
        raise ValueError(
            f"rule rfp is not exact here: {why}; give rule bptt, or --method.approximate true to train by it all the "
            "same, with its cosine to bptt watched"
        )


def trace_bytes(circuits: Circuits, encoder: nn.Module | None, samples: int) -> int:
    """Bytes that the traces for so many samples take; `encoder` is one whose parameters are traced too."""
    first = circuits.levels[0]
    own = sum(prod(level.grid) * rfp.trace_floats(level.cell) for level in circuits.levels)
    traced = sum(p.numel() for p in encoder.parameters() if p.requires_grad) if encoder else 0
    # The Jacobian of one step beside the traces, and a copy of it while it is made.
    own += prod(first.grid) * (first.cell.blocks * first.cell.block + 2 * first.cell.weight.shape[2]) * traced
    return samples * own * circuits.levels[0].cell.weight.element_size()


def check_memory(circuits: Circuits, encoder: nn.Module | None, samples: int, like: Tensor) -> None:
    """Raises ValueError, with what would fit, where the traces of `samples` are more than the memory that is free."""
    samples = -(-samples // world())
    needed, free = trace_bytes(circuits, encoder, samples), free_bytes(like.device)
    if needed <= free:
        return
    fits = int(free // trace_bytes(circuits, encoder, 1)) * world()
    traced = ", the encoder's among them: below frozen or instant leaves those out" if encoder else ""
    fix = f"at most {fits} at a time (length.batch / length.accumulate) fit"
    if not fits:
        fix = f"even one sample needs a method.circuit.width of {widest(circuits, encoder, free)} at most"
    raise ValueError(
        f"the traces of rfp take {needed / 2**30:.1f} GiB for {samples} samples and {free / 2**30:.1f} GiB are free; "
        f"{fix}{traced}"
    )


def dear(circuits: Circuits, encoder: nn.Module, samples: int) -> str:
    """What an encoder's traces take where rfp carries them, too: all of it is read and written at every step."""
    samples = -(-samples // world())
    gib = trace_bytes(circuits, encoder, samples) / 2**30
    return (
        f"rule rfp carries traces of the encoder, too: {gib:.2g} GiB for {samples} samples, all of it gone through at "
        "every step of a sequence; below frozen leaves them out, and rule bptt needs none"
    )


def widest(circuits: Circuits, encoder: nn.Module | None, free: int) -> int:
    """The largest width, up to that of `circuits`, at which the traces of a sample take `free` bytes or less; or 0."""
    cfg, step = circuits.cfg, circuits.cfg.block

    def needed(blocks: int) -> int:
        with torch.device("meta"):
            like = Circuits(replace(cfg, width=blocks * step, rank=0), *circuits.reads).to(circuits.mean.dtype)
        return trace_bytes(like, encoder, 1)

    return step * bisect_right(range(1, cfg.width // step + 1), free, key=needed)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device, for one of the processes that share it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    if info.is_file():
        found = [line.split()[1] for line in info.read_text().splitlines() if line.startswith("MemAvailable")]
        return int(found[0]) * 1024 // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
