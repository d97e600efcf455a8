"""Writes down what the loop does: rows, checkpoints and the summary; only the main process writes."""

import time
from types import TracebackType
from typing import Any

from torch import Tensor

from . import checkpoint, distributed
from .journal import Journal
from .monitor import Monitor
from .progress import Watch
from .session import Session
from .types import Terms


class Recorder:
    """One per training; `row` is the row last logged, `summary` what summary.json holds after the last step."""

    def __init__(self, session: Session, monitor: Monitor, watch: Watch) -> None:
        self.session, self.monitor, self.watch = session, monitor, watch
        self.row: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.journal = Journal(session.out, session.step) if session.dist.main else None
        self.begun = time.monotonic() - session.seconds
        self.mark = (time.monotonic(), session.step)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.journal:
            self.journal.close()

    def log(self, terms: Terms, lr: float, norm: Tensor) -> None:
        """Write the row of this step."""
        session = self.session
        metrics = {"grad_norm": float(norm), **self.monitor.loss(terms)}
        if self.journal is None:
            return
        now, (then, step) = time.monotonic(), self.mark
        self.mark = (now, session.step)
        pace = (session.step - step) / max(now - then, 1e-9)
        row = {
            "step": session.step,
            "loss": float(terms.total),
            "terms": {k: float(v) for k, v in (*terms.loss.items(), *terms.log.items())},
            "metrics": {
                **metrics,
                **self.monitor.take(),
                "throughput": pace * session.run.length.batch,
                "eta": (session.steps - session.step) / pace,
            },
            "lr": lr,
            "time": now - self.begun,
        }
        self.row = row
        self.journal.write(row)
        self.watch.row(row, session.steps)

    def save(self) -> None:
        """Write a checkpoint that a later process can go on from, to the bit; after the last step, summary.json first.

        In that order a run whose last checkpoint can be seen has its summary.
        """
        session = self.session
        session.seconds = time.monotonic() - self.begun
        session.skipped = distributed.merge(session.skipped)
        if not session.dist.main:
            return
        if session.step == session.steps:
            self.summary = self.summarise()
            checkpoint.write_json(session.out / "summary.json", self.summary)
        state = {
            "seconds": session.seconds,
            "data": session.dataset.fingerprint(),
            "panel": session.panel,
            "skipped": session.skipped,
        }
        checkpoint.save(session.out, session.step, session.method, session.optimizer, state, session.run.loop.keep)

    def summarise(self) -> dict[str, Any]:
        """The last row and the verdict, as summary.json holds them."""
        verdict = self.monitor.verdict
        return {
            "steps": self.session.step,
            "seconds": round(self.row["time"], 1),
            "loss": self.row["loss"],
            "verdict": verdict.name,
            "reason": verdict.reason,
            "advice": verdict.advice,
            "skipped": self.session.skipped,
        }
