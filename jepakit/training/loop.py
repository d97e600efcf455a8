"""The training loop: a step is a pure function of settings and previous state, so a resumed run repeats exactly."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from ..collapse import Verdict
from ..core import distributed
from ..core.progress import Interrupted, Progress, SilentProgress
from ..run import optim
from ..run.metrics import read_rows
from ..types import Batch, Terms
from . import rollback
from .monitor import Monitor
from .recorder import Recorder
from .session import Session
from .source import BatchSource, EpochSource
from .stream.source import StreamSource

FIRST_CHECK: Final = 100  # steps before the first measurement and checkpoint of a run of unknown length
MAX_PANEL_ROWS: Final = 400  # in a run of unknown length
IDLE_SECONDS: Final = 60.0  # between two checkpoints while no data arrive


class Step(NamedTuple):
    """One optimiser step: its terms, learning rate and gradient norm."""

    terms: Terms
    lr: float
    norm: Tensor


def train_session(session: Session, progress: Progress | None = None) -> dict[str, Any]:
    """Train from `session.step` to the end; write metrics.jsonl, checkpoints and summary.json; return the summary.

    The run ends after `length.steps` or, for a stream, when its data end. On a collapse, loop.on_collapse decides
    whether the run ends or rolls back. Raises Interrupted after saving, on SIGTERM or Ctrl-C; ValueError after saving,
    for a stream frame that must end the run; FloatingPointError if the loss is not finite and cannot be rolled back.
    """
    progress = progress or SilentProgress()
    if session.steps and session.step == session.steps:
        progress.note(f"nothing left to train: {session.out} is at step {session.step} of {session.steps}")
        return read_summary(session)
    source = open_source(session)
    recorder = Recorder(session, Monitor(session), progress)
    if not source.open_ended:
        panel, labelled = recorder.monitor.samples, recorder.online
        for note in (panel and panel.division, panel and panel.note, labelled and labelled.note):
            if note:
                progress.note(note)
    with stop_requests() as asked, recorder:
        training = Training(session, source, recorder, asked)
        if session.step == 0 and session.panel.start is None:
            training.record_start()
        while (lost := training.run_steps()) is not None:
            progress.note(rollback.roll_back(session, lost))
            recorder.go_back()
            training = Training(session, open_source(session), recorder, asked)
    return recorder.summary or read_summary(session)


def open_source(session: Session) -> BatchSource:
    """The batch source of a session: epochs or a stream."""
    return StreamSource(session) if session.run.from_stream else EpochSource(session)


@dataclass
class Training:
    """A training in progress; `asked` holds the stop signals received, `newest` is the last step taken."""

    session: Session
    source: BatchSource
    recorder: Recorder
    stop_signals: list[int]
    newest: Step | None = None

    def record_start(self) -> None:
        """Measure and save step 0."""
        self.measure_panel()
        self.recorder.score_encoder()
        self.save_checkpoint()

    def run_steps(self) -> Verdict | None:
        """Train to the end of the run, or to a collapse that must be rolled back; return that collapse's verdict."""
        session, source, began = self.session, self.source, self.session.step
        rates = rollback.reduced_rates(session.run.optim, len(session.rollbacks))
        try:
            for batch in source.batches(self.while_idle):
                try:
                    self.newest = take_step(session, source, batch, rates)
                except FloatingPointError as error:
                    if not rollback.may_roll_back(session):
                        raise
                    return Verdict("exploding", str(error).partition("; ")[0])
                action = self.follow_up()
                if action != "go on":
                    return self.recorder.verdict if action == "roll back" else None
        except ValueError as error:
            if not source.open_ended or session.step == began:
                raise
            self.save_everything()
            raise ValueError(f"{error}. Saved at step {session.step}; --resume continues from there") from None
        self.conclude_run(began)
        return None

    def follow_up(self) -> rollback.Action:
        """Measure, log and save what is due after a step. Returns how to continue; raises Interrupted."""
        session = self.session
        last, stopping = session.step == session.steps, is_stop_asked(self.stop_signals, session)
        action: rollback.Action = "go on"
        measuring = last or self.is_due(session.run.loop.panel_every)
        if measuring:
            self.measure_panel(last)
            action = rollback.decide_action(session, self.recorder.verdict)
        if action == "roll back":
            return action
        ended = last or action == "stop"
        self.write_records(ended, measuring, stopping)
        if action == "stop" and not last:
            self.recorder.progress.note(self.stop_note())
        elif stopping and not ended:
            raise self.interruption_error()
        self.pass_messages()
        return "stop" if ended else "go on"

    def write_records(self, ended: bool, measuring: bool, stopping: bool) -> None:
        """Write the row and the checkpoint that are due after a step."""
        loop, step = self.session.run.loop, self.session.step
        saving = ended or stopping or self.is_due(loop.save_every)
        if saving:
            self.recorder.score_encoder()
        if ended or step % loop.log_every == 0 or (self.source.has_pending_row and (measuring or stopping)):
            self.write_row()
        if saving:
            self.save_checkpoint(ended)

    def is_due(self, every: int | None) -> bool:
        """Whether an action with interval `every` is due at this step."""
        step, every = self.session.step, every or 1
        return is_early_check(step, every) if self.source.open_ended else step % every == 0

    def measure_panel(self, last: bool = False) -> None:
        """Measure the panel."""
        self.recorder.measure_panel(self.source.row_terms(), last)
        if self.source.open_ended:
            self.session.panel.thin_out(MAX_PANEL_ROWS)

    def write_row(self) -> None:
        """Write a row with the source's loss terms for the steps since the last row."""
        if self.newest and (terms := self.source.row_terms()):
            self.recorder.write_row(terms, self.newest.lr, self.newest.norm)
            self.source.clear_terms()

    def save_checkpoint(self, ended: bool = False) -> None:
        """Write a checkpoint."""
        self.source.store_state()
        self.recorder.save_checkpoint(ended)

    def save_everything(self, ended: bool = False) -> None:
        """Write a row for the steps that have none, and a checkpoint."""
        if self.source.has_pending_row:
            self.write_row()
        self.save_checkpoint(ended)

    def pass_messages(self) -> None:
        """Pass the source's messages on to the user."""
        for text in self.source.take_messages():
            self.recorder.progress.note(text)

    def while_idle(self) -> bool:
        """Save from time to time while no batch arrives. Returns whether to stop waiting."""
        self.pass_messages()
        if self.session.step > self.session.saved and time.monotonic() - self.recorder.saved_at > IDLE_SECONDS:
            self.save_checkpoint()
        return bool(self.stop_signals)

    def conclude_run(self, began: int) -> None:
        """Measure, log and save a last time after the last batch of an open-ended source."""
        session, source = self.session, self.source
        self.pass_messages()
        if self.stop_signals:
            self.save_everything()
            raise self.interruption_error()
        if session.step > began:
            self.measure_panel(last=True)
            self.save_everything(ended=True)
            return
        if not session.step:
            raise ValueError(source.empty)
        self.recorder.progress.note(f"nothing new{source.where}: {session.out} is at step {session.step}")
        if not (session.out / "summary.json").is_file():
            self.recorder.row = [row for row in read_rows(session.out) if row][-1]
            self.save_checkpoint(ended=True)

    def interruption_error(self) -> Interrupted:
        """The error to raise for a run that was asked to stop and has been saved."""
        where = f"step {self.session.step}{self.source.where}"
        return Interrupted(f"stopped at {where} and saved; continue with --resume")

    def stop_note(self) -> str:
        """The sentence about a run that ended because of a collapse."""
        session, verdict = self.session, self.recorder.verdict
        spent = f" {rollback.rollback_summary(session.rollbacks)}," if session.rollbacks else ""
        return (
            f"stopped at step {session.step}{self.source.where}{spent} and saved: the verdict is {verdict.name}, "
            f"{verdict.reason}; {verdict.advice}. --resume --on-collapse warn continues anyway"
        )


def take_step(session: Session, source: BatchSource, batch: Batch, rates: optim.Optim) -> Step:
    """Take one optimiser step. Raises FloatingPointError if the loss is not finite; the weights are then unchanged."""
    progress = source.progress
    lr = optim.set_schedule(session.optimizer, rates, progress)
    terms, norm = source.gradients(batch)
    session.optimizer.step()
    for group in session.optimizer.param_groups:
        for p in group["params"]:
            p.grad = None
    session.method.after_step(progress)
    session.step += 1
    source.feedback(terms)
    return Step(terms, lr, norm)


def is_early_check(step: int, every: int) -> bool:
    """Whether a check is due at a step: every `every` steps, and before that at 100, 200, 400 …"""
    part, rest = divmod(step, FIRST_CHECK)
    return step % every == 0 or (step < every and rest == 0 and part & (part - 1) == 0)


def read_summary(session: Session) -> dict[str, Any]:
    """The summary of a finished run."""
    if not session.dist.main:
        return {}
    path = session.out / "summary.json"
    if not path.is_file():
        raise ValueError(
            f"{session.out} is finished but {path} is missing; restore it, or train again with --overwrite"
        )
    summary: dict[str, Any] = json.loads(path.read_text())
    return summary


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that collects the signals SIGTERM and SIGINT; a second Ctrl-C interrupts at once."""
    asked: list[int] = []

    def note_signal(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    old = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            old[number] = signal.signal(number, note_signal)
    except ValueError:
        pass  # Outside the main thread, signals belong to the host program.
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def is_stop_asked(asked: list[int], session: Session) -> bool:
    """Whether any rank was asked to stop; the same answer on every rank."""
    if session.dist.world == 1:
        return bool(asked)
    return bool(distributed.all_reduce_sum(torch.tensor(float(len(asked)), device=session.dist.device)))
