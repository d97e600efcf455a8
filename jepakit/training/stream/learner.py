"""The loop over a stream: a step for every few frames, rows, checkpoints, and what to do while nothing comes."""

import time
from collections.abc import Iterator
from math import isfinite
from typing import Final, cast

import torch
from torch import Tensor

from ...core.progress import Interrupted, Watch
from ...data.stream import Config, First, Frame
from ...methods.rjepa import RJEPA
from ...recurrent import unroll
from ...run import optim
from ...run.rows import read_rows
from ...types import Batch
from .. import rollback
from ..loop import stopped
from ..monitor import Monitor
from ..recorder import Recorder
from ..session import Session
from .follow import beginning, follow
from .recent import Recent
from .windows import Standing, Window, windows

FIRST_ROWS: Final = 100  # steps before the first measurement and checkpoint after step 0
ROWS: Final = 400  # panel rows that are kept
IDLE: Final = 60.0  # seconds between two checkpoints while nothing comes


def due(step: int, every: int) -> bool:
    """Whether it is time at a step: every `every` steps, and at 100, 200, 400 … before the first of them."""
    part, rest = divmod(step, FIRST_ROWS)
    return step % every == 0 or (step < every and rest == 0 and part & (part - 1) == 0)


class Learner:
    """One training on a stream."""

    def __init__(self, session: Session, watch: Watch, asked: list[int]) -> None:
        self.session, self.watch, self.asked = session, watch, asked
        self.method = cast(RJEPA, session.method)
        self.recorder = Recorder(session, Monitor(session), watch)
        self.first = cast(First, session.dataset)
        self.standing = Standing.unpacked(session.stream, session.place, session.method.mean)
        cfg = cast(Config, session.run.data)
        shape = tuple(self.first.frames.shape[1:])
        self.source = self.first.source or cfg.source(shape, self.standing.place)
        self.source.stop = self.idle
        self.trained = [p for p in session.method.parameters() if p.requires_grad]
        self.recent, self.norm = Recent(), torch.tensor(0.0)
        self.began, self.saved, self.at = session.step, session.step, time.monotonic()
        self.lr = optim.set_schedule(session.optimizer, session.run.optim, 0.0)

    def frames(self) -> Iterator[Frame]:
        """What was read before step 1, and what comes."""
        yield from self.first.begun
        yield from self.source

    def run(self) -> None:
        """To the end of the stream, of the steps, or as asked. Raises Interrupted, ValueError, FloatingPointError."""
        try:
            for window in windows(self.frames(), self.source, self.standing, self.session.run.length.batch):
                self.advance(window)
                if self.after():
                    return
                self.tell()
        except ValueError as error:
            if self.session.step == self.began:
                raise
            self.leave()
            raise ValueError(f"{error}. Saved at step {self.session.step}; --resume goes on from there") from None
        self.tell()
        if self.asked:
            self.stop()
        self.finish()

    def advance(self, window: Window) -> None:
        """One optimiser step. Raises FloatingPointError."""
        session = self.session
        fresh = window.fresh or self.standing.stream is None
        stream = beginning(self.method) if fresh else self.standing.stream
        done = follow(self.method, cast(unroll.Stream, stream), Batch(self.moved(window.x)))
        for p, gradient in done.gradients:
            p.grad = gradient
        clip, coming = session.run.optim.clip, session.step + 1
        if clip > 0 or coming % session.run.loop.log_every == 0:
            self.norm = optim.clip_gradients(self.trained, clip)
        loss = float(done.terms.loss["prediction"])
        if not isfinite(loss + float(self.norm)):
            raise FloatingPointError(
                f"the loss is {loss} at step {session.step}, up to {window.name}; the last checkpoint is of step "
                f"{self.saved}. Lower --optim.lr, set --optim.clip 1, or look at those frames"
            )
        session.optimizer.step()
        for p in self.trained:
            p.grad = None
        session.step = coming
        self.standing = Standing(done.stream, window.x[0, :, -1], window.place)
        self.recent.add(done.terms, loss)

    def moved(self, x: Tensor) -> Tensor:
        """Frames where the method is, in its precision."""
        return x.to(self.session.method.mean)

    def after(self) -> bool:
        """Measure, log and save what is due after a step; whether the run ends there."""
        session, loop = self.session, self.session.run.loop
        last = session.step == session.steps
        measured = due(session.step, loop.panel_every or 1)
        if measured or last:
            self.observe(last)
        lost = measured and rollback.decide(session, self.recorder.verdict) == "stop"
        ended = last or lost
        if session.step % loop.log_every == 0 or measured or ended:
            self.log()
        if ended or due(session.step, loop.save_every or 1):
            self.keep(ended)
        if lost and not last:
            self.watch.note(stopped(session, self.recorder.verdict))
        if self.asked and not ended:
            self.stop()
        return ended

    def observe(self, last: bool = False) -> None:
        """Let the panel measure."""
        panel = self.session.panel
        self.recorder.observe(self.recent.terms() if self.recent.pairs else None, last)
        rows = panel.get("rows", [])
        if len(rows) > ROWS:
            # The first row is what the others are compared with, the last ones tell what happens now.
            rows[:] = [rows[0], *rows[1:-20:2], *rows[-20:]]

    def log(self) -> None:
        """A row, of the means since the last one."""
        self.recorder.log(self.recent.terms(), self.lr, self.norm)
        self.recent.forget()

    def keep(self, ended: bool = False) -> None:
        """Write a checkpoint."""
        session = self.session
        session.stream, session.place = self.standing.packed(), self.standing.place._asdict()
        session.skipped |= self.source.skipped
        if (more := self.source.lost - len(self.source.skipped)) > 0:
            session.skipped["others"] = f"{more} frames, not named"
        self.recorder.save(ended)
        self.saved, self.at = session.step, time.monotonic()

    def leave(self, ended: bool = False) -> None:
        """Save what there is, its row first."""
        if self.recent.count:
            self.log()
        self.keep(ended)

    def idle(self) -> bool:
        """While nothing comes: whether to stop. Meanwhile what was learnt is saved."""
        self.tell()
        if self.session.step > self.saved and time.monotonic() - self.at > IDLE:
            self.keep()
        return bool(self.asked)

    def tell(self) -> None:
        """What the stream has to say."""
        for text in self.source.told():
            self.watch.note(text)

    def stop(self) -> None:
        """Save, and raise Interrupted."""
        self.leave()
        place = self.standing.place
        where = f" after frame {place.done} of {place.file}" if place.file else ""
        raise Interrupted(f"stopped at step {self.session.step}{where} and saved; go on with --resume")

    def finish(self) -> None:
        """The end of the stream: the last measurement and the summary."""
        session = self.session
        if session.step > self.began:
            self.observe(last=True)
            return self.leave(ended=True)
        if not session.step:
            raise ValueError("no frame follows another, so there is nothing to learn; with data.reset file, give never")
        self.watch.note(f"nothing new after {self.standing.place.file}: {session.out} stands at step {session.step}")
        if not (session.out / "summary.json").is_file():
            self.recorder.row = [row for row in read_rows(session.out) if row][-1]
            self.keep(ended=True)
        return None
