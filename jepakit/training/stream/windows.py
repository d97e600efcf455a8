"""Where learning from a stream stands, and the frames that it takes at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.base import Unreadable
from ...data.stream import Frame, Place, Source
from ...recurrent import rfp, unroll


class Window(NamedTuple):
    """Frames (1, C, K + 1, *size), the first of them seen before unless `fresh`; the last one's name and place."""

    x: Float[Tensor, "one c k ..."]
    fresh: bool
    name: str
    place: Place


@dataclass
class Standing:
    """Where learning stands: states and traces, the last frame (C, *size), and the place in the stream."""

    stream: unroll.Stream | None = None
    last: Tensor | None = None
    place: Place = field(default_factory=Place)

    def packed(self) -> dict[str, Tensor]:
        """As tensors with names, to be saved; nothing before the first step."""
        if self.stream is None or self.last is None:
            return {}
        s = self.stream
        named = {f"{name}.{i}": t for name, ts in (("state", s.states), ("before", s.before)) for i, t in enumerate(ts)}
        named |= {f"{name}.{i}": getattr(t, name) for i, t in enumerate(s.traces) for name in t._fields}
        whole = {**named, "below": s.below, "step": torch.tensor(s.step), "last": self.last}
        # Copies: two entries that share memory cannot be saved.
        return {name: t.detach().cpu().clone().contiguous() for name, t in whole.items()}

    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], place: Mapping[str, Any], like: Tensor) -> "Standing":
        """The reverse, with numbers as `like`."""
        if not tensors:
            return cls()
        here = {k: v.to(like) for k, v in tensors.items() if k not in ("step", "last")}
        levels = range(sum(name.startswith("state.") for name in tensors))
        states, before = (tuple(here[f"{name}.{i}"] for i in levels) for name in ("state", "before"))
        traces = tuple(rfp.Traces(here[f"drive.{i}"], here[f"own.{i}"]) for i in levels)
        stream = unroll.Stream(states, before, traces, here["below"], int(tensors["step"]))
        return cls(stream, tensors["last"], Place(**place))


def windows(frames: Iterator[Frame], source: Source, standing: Standing, size: int) -> Iterator[Window]:
    """`size` further frames at a time; with `reset` file, those of a file alone, of which the last may be fewer."""
    kept = [] if standing.last is None else [standing.last]
    fresh, before = standing.last is None, Frame(torch.empty(0), standing.place.file, standing.place)
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
