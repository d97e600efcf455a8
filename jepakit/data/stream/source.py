"""Read a stream: its valid frames in order, with notes on the frames left out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...types import Size
from ..collation import Corrupt, Unreadable, refuse_unreadable
from . import folder, pipe
from .frames import Frame, Place, Read, read_frames

Reset = Literal["never", "file"]
MAX_NAMED_LOSSES = 100
BEGINNING = Place()


def never_stop() -> bool:
    """The default `stop` question: always keep waiting."""
    return False


@dataclass
class Source:
    """The frames of a stream from `place` on. `shape` defaults to that of the first frame.

    The first fields are settings; see `Config`.

    `stop` is asked while no data arrive. `notes` are sentences not yet reported, `skipped` maps the first
    MAX_NAMED_LOSSES frames left out to the reason, `lost` counts all of them.
    """

    path: str
    size: tuple[int, int] | None
    wait: float
    settle: float
    reset: Reset
    corrupt: Corrupt
    shape: Size = ()
    place: Place = BEGINNING
    stop: folder.StopQuestion = never_stop
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    lost: int = 0
    rest: Iterator[Frame] | None = None

    def __iter__(self) -> Iterator[Frame]:
        """The frames; always the same iterator. Raises ValueError if a bad frame ends the run."""
        self.rest = self.rest or self._accepted_frames()
        return self.rest

    def first(self, count: int) -> list[Frame]:
        """The next `count` frames, or fewer if the stream ends."""
        return list(islice(iter(self), count))

    @property
    def skip_reasons(self) -> str:
        """The frames left out and the reasons, as part of a sentence."""
        return "; ".join(f"{name} {why}" for name, why in [*self.skipped.items()][:3])

    def _accepted_frames(self) -> Iterator[Frame]:
        for place, found in self._all_frames():
            if isinstance(found, Unreadable):
                self.leave_out(found)
                continue
            name, index, x = found
            if why := self.why_wrong(x):
                self.leave_out(Unreadable(name, why))
                continue
            self.shape = self.shape or tuple(x.shape)
            yield Frame(x.float(), name, place._replace(done=index + 1))

    def _all_frames(self) -> Iterator[tuple[Place, Read]]:
        """All frames, including bad ones, each with the place of its file."""
        if self.path == "-":
            for part, found in pipe.pipe_frames(0, self.wait, lambda: self.stop(), self.size):
                yield Place(part), found
            return
        for name in self._files():
            start = self.place.done if name.file == self.place.file else 0
            path = Path(self.path).expanduser()
            at = Place(name.file, start, name.passed)
            for found in read_frames(path / name.file if path.is_dir() else path, start, self.channels, self.size):
                yield at, found

    def _files(self) -> Iterator[folder.Name]:
        path, place = Path(self.path).expanduser(), self.place
        if not path.is_dir():
            yield folder.Name(path.name, 0)
            return
        if place.file and (path / place.file).is_file():
            # A previous run may have stopped in the middle of this file.
            yield folder.Name(place.file, place.passed)
        for found in folder.following_files(path, place, self.wait, self.settle, lambda: self.stop()):
            if isinstance(found, str):
                self.notes.append(found)
            else:
                yield found

    @property
    def channels(self) -> int:
        """The number of channels of all images; 0 before the first frame."""
        return self.shape[0] if self.shape else 0

    def why_wrong(self, x: Float[Tensor, "c ..."]) -> str:
        """The reason a frame does not belong to the stream; "" if it does."""
        shape: Any = tuple(x.shape)
        if self.shape and shape != self.shape:
            fix = "; --data.size resizes all pictures to one shape" if len(shape) == 3 else ""
            return f"has shape {shape}, but the stream has {self.shape}{fix}"
        return "" if bool(torch.isfinite(x).all()) else "holds values that are not finite"

    def leave_out(self, error: Unreadable) -> None:
        """Record a bad frame, or raise ValueError."""
        refuse_unreadable({error.name: error.why}, self.corrupt)
        self.lost += 1
        if self.lost <= MAX_NAMED_LOSSES:
            self.skipped[error.name] = error.why
            more = "; further ones are counted, not named" if self.lost == MAX_NAMED_LOSSES else ""
            self.notes.append(f"left out {error}{more}")

    def take_notes(self) -> list[str]:
        """The notes not yet reported; clears them."""
        notes, self.notes = self.notes, []
        return notes
