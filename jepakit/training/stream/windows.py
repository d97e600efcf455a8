"""Defines the position of learning in a stream, and cuts the stream into the frames of each step."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.collation import Unreadable
from ...data.stream import Frame, Place, Source
from ...recurrent import rfp, unroll
from ..session import SourceState


class Window(NamedTuple):
    """Frames (1, C, K + 1, *size), the first already seen unless `fresh`; the name and place of the last frame."""

    x: Float[Tensor, "one c k ..."]
    fresh: bool
    name: str
    place: Place


@dataclass
class StreamPosition:
    """The position of learning in a stream: states and traces, the last frame (C, *size), and the place after it."""

    stream: unroll.Stream | None = None
    last: Tensor | None = None
    place: Place = field(default_factory=Place)

    def tensors(self) -> dict[str, Tensor]:
        """The states, traces and last frame by name, to be saved; empty before the first step."""
        if self.stream is None or self.last is None:
            return {}
        s = self.stream
        named = {f"{name}.{i}": t for name, ts in (("state", s.states), ("before", s.before)) for i, t in enumerate(ts)}
        named |= {f"{name}.{i}": getattr(t, name) for i, t in enumerate(s.traces) for name in t._fields}
        whole = {**named, "below": s.below, "step": torch.tensor(s.step), "last": self.last}
        # Copies: two entries that share memory cannot be saved.
        return {name: t.detach().cpu().clone().contiguous() for name, t in whole.items()}

    @classmethod
    def from_state(cls, state: SourceState, like: Tensor) -> "StreamPosition":
        """The position from a checkpoint, in the precision and on the device of `like`."""
        tensors = state.tensors
        if not tensors:
            return cls()
        here = {k: v.to(like) for k, v in tensors.items() if k not in ("step", "last")}
        levels = range(sum(name.startswith("state.") for name in tensors))
        states, before = (tuple(here[f"{name}.{i}"] for i in levels) for name in ("state", "before"))
        traces = tuple(rfp.Traces(here[f"drive.{i}"], here[f"own.{i}"]) for i in levels)
        stream = unroll.Stream(states, before, traces, here["below"], int(tensors["step"]))
        return cls(stream, tensors["last"], Place(**state.place))


def frame_windows(frames: Iterator[Frame], source: Source, position: StreamPosition, size: int) -> Iterator[Window]:
    """`size` new frames at a time; with `reset` file, a window ends with its file and may be shorter."""
    kept = [] if position.last is None else [position.last]
    fresh, before = position.last is None, Frame(torch.empty(0), position.place.file, position.place)
    for frame in frames:
        if source.reset == "file" and before.place.file not in ("", frame.place.file):
            if len(kept) > 1:
                yield Window(torch.stack(kept, 1)[None], fresh, before.name, before.place)
            elif fresh:
                source.leave_out(Unreadable(before.name, "is alone in its file, and data.reset is file"))
            kept, fresh = [], True
        kept.append(frame.x)
        before = frame
        if len(kept) > size:
            yield Window(torch.stack(kept, 1)[None], fresh, frame.name, frame.place)
            kept, fresh = kept[-1:], False
