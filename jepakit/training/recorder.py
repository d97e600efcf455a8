"""Writes rows, checkpoints and the summary of a run; only the main process writes."""

import time
from bisect import insort
from statistics import median
from types import TracebackType
from typing import Any

from torch import Tensor

from ..collapse import Verdict
from ..core import distributed, files
from ..core.progress import Progress
from ..run import checkpoint
from ..run.metrics import Journal
from ..run.own_data import absolute_path
from ..types import Terms
from . import rollback
from .monitor import Monitor, online
from .session import Session


class Recorder:
    """The records of one training; `row` is the newest row, `summary` the content of summary.json after the end."""

    def __init__(self, session: Session, monitor: Monitor, progress: Progress) -> None:
        self.session, self.monitor, self.progress = session, monitor, progress
        self.row: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.last_verdict = ""
        self.rates: list[float] = []  # samples per second of every row, ascending
        # Computed once: it takes seconds for a million pictures, and data that change later are no longer the run's.
        self.data = session.dataset.fingerprint() if session.dist.main else ""
        self.path = absolute_path(session.run.data)
        wanted = session.run.evals.online if session.dist.main else 0
        self.online = online.choose_labelled(session, wanted) if wanted else None
        self.journal = Journal(session.out, session.step) if session.dist.main else None
        self.begun = time.monotonic() - session.seconds
        self.mark = (time.monotonic(), session.step)
        self.saved_at = time.monotonic()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.journal:
            self.journal.close()

    def go_back(self) -> None:
        """After a rollback: drop the rows of the undone steps, and restart the throughput clock."""
        self.mark, self.monitor.fresh = (time.monotonic(), self.session.step), {}
        if self.journal:
            self.journal.close()
            self.journal = Journal(self.session.out, self.session.step)

    def measure_panel(self, terms: Terms | None = None, last: bool = False) -> None:
        """Measure the panel; report a bad verdict once, unless the loop acts on it and reports that."""
        self.monitor.observe(terms, last)
        verdict = self.verdict
        rollback.mark_healthy(self.session, verdict)
        if verdict.name not in ("healthy", "unknown", self.last_verdict) and not rollback.triggers_action(
            self.session, verdict
        ):
            advice = f"; {verdict.advice}" if verdict.advice else ""
            self.progress.note(f"{verdict.name} at step {self.session.step}: {verdict.reason}{advice}")
        self.last_verdict = verdict.name

    @property
    def verdict(self) -> Verdict:
        """The verdict on the rows so far, stricter after a rollback."""
        return rollback.confirm_after_rollback(self.session, self.monitor.verdict, self.monitor.settings)

    @property
    def knn_scores(self) -> dict[str, float]:
        """The kNN score of every checkpoint so far, by step; a rollback drops the scores of undone steps."""
        return self.session.panel.knn

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint with the highest score, the latest on a tie; None if there is no score."""
        return max(map(int, self.knn_scores), key=lambda step: (self.knn_scores[str(step)], step), default=None)

    def score_encoder(self) -> None:
        """Score the encoder, before a checkpoint is written."""
        if self.online:
            score = self.online.judge(self.session.method)
            self.session.panel.knn = {**self.knn_scores, str(self.session.step): score}
            self.monitor.fresh["knn"] = score

    def write_row(self, terms: Terms, lr: float, norm: Tensor) -> None:
        """Write the row of this step."""
        session = self.session
        metrics = {"grad_norm": float(norm), **self.monitor.loss(terms)}
        if self.journal is None:
            return
        now, (then, step) = time.monotonic(), self.mark
        self.mark = (now, session.step)
        pace = (session.step - step) / max(now - then, 1e-9)
        rate = pace * session.run.length.batch
        insort(self.rates, rate)
        row: dict[str, Any] = {
            "step": session.step,
            "loss": float(terms.total),
            "terms": {k: float(v) for k, v in terms.loss.items()},
            "watched": {**{k: float(v) for k, v in terms.log.items()}, **self.monitor.said()},
            "metrics": {
                **metrics,
                **self.monitor.take(),
                "verdict": self.verdict.name,
                **({"rollbacks": len(session.rollbacks)} if session.rollbacks else {}),
                "throughput": rate,
                "eta": (session.steps - session.step) / pace if session.steps else None,
            },
            "lr": lr,
            "time": now - self.begun,
        }
        self.row = row
        self.journal.write(row)
        # The usual rate, as in the report: that of one row depends on what else was done since the last one.
        usual = {**row["metrics"], "throughput": median(self.rates)}
        self.progress.row({**row, "metrics": usual}, session.steps)

    def save_checkpoint(self, ended: bool = False) -> None:
        """Write a checkpoint from which a later process continues bit-exactly; at the end, write summary.json first.

        In this order, every run with its last checkpoint also has its summary.
        """
        session = self.session
        session.seconds = time.monotonic() - self.begun
        session.skipped = distributed.merge_ranks(session.skipped)
        if not session.dist.main:
            return
        if ended:
            self.summary = self.summary_entries()
            files.write_json(session.out / "summary.json", self.summary)
        state = {
            "seconds": session.seconds,
            "data": self.data,
            "source": self.path,
            "left_out": self.monitor.samples.left_out if self.monitor.samples else "",
            "test_part_seen": session.test_part_seen,
            "panel": session.panel.to_json(),
            "skipped": session.skipped,
            "healthy": session.healthy,
            "rollbacks": session.rollbacks,
            "place": session.state.place,
        }
        needed = (*rollback.steps_to_keep(session), *([] if self.best_step is None else [self.best_step]))
        keep, optimizer = session.run.loop.keep, session.optimizer
        checkpoint.save_checkpoint(
            session.out, session.step, session.method, optimizer, state, keep, needed, session.state.tensors
        )
        session.saved, self.saved_at = session.step, time.monotonic()

    def summary_entries(self) -> dict[str, Any]:
        """The last row, the verdict with its numbers and the rollbacks, in the form of summary.json."""
        verdict = self.verdict
        best = (
            {}
            if self.best_step is None
            else {"best": {"step": self.best_step, "knn": self.knn_scores[str(self.best_step)]}}
        )
        return {
            **best,
            "steps": self.session.step,
            "seconds": round(self.row["time"], 1),
            "loss": self.row["loss"],
            "verdict": verdict.name,
            "reason": verdict.reason,
            "advice": verdict.advice,
            "panel": self.monitor.last,
            "stopped": self.session.step < self.session.steps,
            "rollbacks": self.session.rollbacks,
            "skipped": self.session.skipped,
        }
