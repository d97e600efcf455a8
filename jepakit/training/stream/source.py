"""Provides batches from a stream: new frames as they arrive, each seen once, with gradients by forward propagation."""

from collections.abc import Generator, Iterator
from math import isfinite
from pathlib import Path
from typing import Final, cast

import torch

from ...core import files
from ...data.paths import existing_path
from ...data.stream import Config, FirstFrames, Frame
from ...methods.rjepa import RJEPA
from ...recurrent import unroll
from ...run import optim
from ...run.settings import Run
from ...types import Batch, Terms
from ..session import Session, SourceState
from ..source import BatchSource, Idle, keep_waiting
from .follow import follow_frames, initial_stream
from .recent import Recent
from .windows import StreamPosition, Window, frame_windows

FRAMES_FILE: Final = "frames.safetensors"


def first_frames(run: Run, out: Path) -> FirstFrames | None:
    """The first frames of a run on a stream that is resumed in `out`; None if its data are a set of samples.

    Raises ValueError if they or the stream are missing.
    """
    if not run.from_stream:
        return None
    cfg = cast(Config, run.data)
    if cfg.path != "-":
        existing_path(cfg.path)
    return FirstFrames.load(out / FRAMES_FILE, cfg.window)


class StreamSource(BatchSource):
    """The frames of a stream. States and traces carry over from step to step, so memory does not grow with the stream.

    `session.state` holds both, the last frame, and the position in the stream, so a resumed run continues exactly.
    """

    open_ended = True
    empty = "no two frames are consecutive, so there is nothing to learn; if data.reset is file, set it to never"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.method = cast(RJEPA, session.method)
        self.first = cast(FirstFrames, session.dataset)
        self.trained = [p for p in session.method.parameters() if p.requires_grad]
        self.recent, self.norm = Recent(), torch.tensor(0.0)
        self.position = StreamPosition.from_state(session.state, session.method.mean)
        shape = tuple(self.first.frames.shape[1:])
        self.frames = self.first.source or cast(Config, session.run.data).source(shape, self.position.place)
        self.window: Window

    def batches(self, idle: Idle = keep_waiting) -> Generator[Batch]:
        """`length.batch` new frames at a time, preceded by the last frame before them.

        Raises ValueError for an unreadable frame if `data.corrupt` is fail.
        """
        self.frames.stop = idle
        for window in frame_windows(self._arriving_frames(), self.frames, self.position, self.session.run.length.batch):
            self.window = window
            yield Batch(window.x.to(self.session.method.mean))

    def _arriving_frames(self) -> Iterator[Frame]:
        """The frames read before step 1, then new frames as they arrive."""
        yield from self.first.frames_read
        yield from self.frames

    def example_batch(self) -> Batch:
        """The first two frames."""
        x = self.first.raw(0)[None, :, :2]
        return Batch(x, id=torch.zeros(1, dtype=torch.int64)).to(self.session.dist.device)

    def gradients(self, batch: Batch) -> tuple[Terms, torch.Tensor]:
        """Set the gradients by forward propagation; the norm is computed only if it is logged or clipped.

        Raises FloatingPointError if the loss is not finite.
        """
        session, window = self.session, self.window
        fresh = window.fresh or self.position.stream is None
        stream = initial_stream(self.method) if fresh else cast(unroll.Stream, self.position.stream)
        done = follow_frames(self.method, stream, batch)
        for p, gradient in done.gradients:
            p.grad = gradient
        clip = session.run.optim.clip
        if clip > 0 or (session.step + 1) % session.run.loop.log_every == 0:
            self.norm = optim.clip_gradients(self.trained, clip)
        loss = float(done.terms.loss["prediction"])
        if not isfinite(loss + float(self.norm)):
            raise FloatingPointError(
                f"the loss is {loss} at step {session.step}, up to {window.name}; the last checkpoint is of step "
                f"{session.saved}. Lower --optim.lr, set --optim.clip 1, or look at those frames"
            )
        self.position = StreamPosition(done.stream, window.x[0, :, -1], window.place)
        return done.terms, self.norm

    def feedback(self, terms: Terms) -> None:
        """Add the step to the means for the next row."""
        self.recent.add_step(terms)

    @property
    def progress(self) -> float:
        """Always 0: the length of a stream is unknown, so the schedules do not advance."""
        return 0.0

    @property
    def where(self) -> str:
        """The last frame, such as " after frame 3 of a.npy"."""
        place = self.position.place
        return f" after frame {place.done} of {place.file}" if place.file else ""

    @property
    def has_pending_row(self) -> bool:
        """Whether there was a step since the last row."""
        return self.recent.count > 0

    def row_terms(self) -> Terms | None:
        """The means since the last row, and the newest predictions; None before the first step."""
        return self.recent.mean_terms() if self.recent.pairs else None

    def clear_terms(self) -> None:
        """Start new means."""
        self.recent.clear()

    def take_messages(self) -> list[str]:
        """The messages of the stream, for example on frames left out."""
        return self.frames.take_notes()

    def store_state(self) -> None:
        """Store states, traces, the last frame and the position; also the frames left out.

        The first frames are stored in their own file, because a stream cannot be read again.
        """
        session, frames = self.session, self.frames
        if not (session.out / FRAMES_FILE).is_file():
            with files.replace_file(session.out / FRAMES_FILE) as part:
                part.write_bytes(self.first.to_bytes())
        session.state = SourceState(self.position.tensors(), self.position.place._asdict())
        session.skipped |= frames.skipped
        if (more := frames.lost - len(frames.skipped)) > 0:
            session.skipped["others"] = f"{more} frames, not named"
