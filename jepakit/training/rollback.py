"""Reacts to a collapse: `warn` does nothing, `stop` ends the run, `rollback` returns to the last healthy checkpoint.

After a rollback, the learning rate is halved. Only the verdicts `full` and `exploding` count. `dimensional` does not,
because a rank may recover and its threshold depends on the panel's size. A loss that is not finite ends a run that does
not roll back, whatever the setting.

A rollback, like a step, is a pure function of the run so far. A process that is killed before, during or after a
rollback and then resumed computes the same losses: the checkpoints of the collapse are deleted last, and resuming from
one of them leads to the same rollback.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

import torch

from .. import collapse
from ..collapse import Verdict
from ..collapse.judge import std_sentence
from ..core import distributed
from ..core.words import count_text, percent
from ..run import checkpoint
from ..run.optim import Optim
from .panel_memory import PanelMemory
from .session import Session, SourceState

MAX_ROLLBACKS: Final = 3
COLLAPSE_VERDICTS: Final = ("full", "exploding")
CLEAR_SPREAD: Final = 2 * collapse.FULL_STD_RATIO  # the least spread, relative to step 0, of a checkpoint to go back to
Action = Literal["go on", "stop", "roll back"]


def reduced_rates(optim: Optim, rollbacks: int) -> Optim:
    """The schedules after this number of rollbacks: each rollback halves every learning rate."""
    factor = 0.5**rollbacks
    return replace(optim, lr=optim.lr * factor, start_lr=optim.start_lr * factor, final_lr=optim.final_lr * factor)


def triggers_action(session: Session, verdict: Verdict) -> bool:
    """Whether a verdict ends the run or rolls it back."""
    return session.run.loop.on_collapse != "warn" and verdict.name in COLLAPSE_VERDICTS


def mark_healthy(session: Session, verdict: Verdict) -> None:
    """After a healthy panel row: mark the newest regular checkpoint as the one to go back to.

    Skips checkpoints whose spread is already near the collapse threshold, whatever the verdict.
    """
    if verdict.name == "healthy" and smallest_spread(session)[1] > CLEAR_SPREAD:
        every = session.run.loop.save_every or 1
        session.healthy = session.step - session.step % every


def smallest_spread(session: Session) -> tuple[str, float]:
    """The encoder with the smaller spread in the last row, and that spread relative to step 0; inf if unknown.

    A head has no spread: its representations are its parent's and do not change.
    """
    rows = session.panel.rows or [{}]  # only the main process has rows
    found = {key: value for key, value in rows[-1].items() if key.startswith("std_ratio_")}
    lowest = min(found, key=found.__getitem__, default="")
    return lowest.removeprefix("std_ratio_"), found.get(lowest, math.inf)


def confirm_after_rollback(session: Session, verdict: Verdict, settings: Mapping[str, Any]) -> Verdict:
    """The verdict; after a rollback, "healthy" becomes "drifting" if the spread is not well above the threshold.

    A run that has collapsed before and is just above the threshold is likely to collapse again.
    """
    side, ratio = smallest_spread(session)
    if not session.rollbacks or verdict.name != "healthy" or ratio > CLEAR_SPREAD:
        return verdict
    reason = f"{std_sentence(side, ratio, 1)}; after a rollback, {percent(CLEAR_SPREAD)} or more is healthy"
    return Verdict("drifting", reason, collapse.advise("full", settings))


def rollback_summary(rollbacks: Sequence[Mapping[str, Any]]) -> str:
    """A phrase on the rollbacks of a run, such as "after 2 rollbacks, at 0.25 of the learning rate"; "" for none."""
    if not rollbacks:
        return ""
    return f"after {count_text(len(rollbacks), 'rollback')}, at {rollbacks[-1]['lr_factor']:g} of the learning rate"


def steps_to_keep(session: Session) -> tuple[int, ...]:
    """The steps whose checkpoints a rollback may need: the healthy one and the next candidate."""
    if session.run.loop.on_collapse != "rollback":
        return ()
    return session.healthy, session.step - session.step % (session.run.loop.save_every or 1)


def decide_action(session: Session, verdict: Verdict) -> Action:
    """The action that follows from a verdict. Every rank gets the main process's answer, which alone has a verdict."""
    wanted = session.run.loop.on_collapse
    if wanted == "warn":
        return "go on"
    lost = float(session.dist.main and triggers_action(session, verdict))
    if not distributed.all_reduce_sum(torch.tensor(lost, device=session.dist.device)):
        return "go on"
    return "roll back" if wanted == "rollback" and _may_help(session) else "stop"


def may_roll_back(session: Session) -> bool:
    """Whether a non-finite loss leads to a rollback."""
    return session.run.loop.on_collapse == "rollback" and len(session.rollbacks) < MAX_ROLLBACKS


def _may_help(session: Session) -> bool:
    """Whether a rollback can help; it cannot if the first row shows that all samples are the same."""
    rows = session.panel.rows
    hopeless = float(bool(rows) and collapse.is_constant(rows[0]))
    hopeless = float(distributed.all_reduce_sum(torch.tensor(hopeless, device=session.dist.device)))
    return may_roll_back(session) and not hopeless


def roll_back(session: Session, verdict: Verdict) -> str:
    """Go back to the healthy checkpoint, or to step 0 if there is none; return a sentence about it.

    Raises ValueError if that checkpoint cannot be read.
    """
    saved = checkpoint.load_checkpoint(session.out, _step_to_restore(session))
    event: dict[str, Any] = {
        "step": session.step,
        "to": saved.step,
        "verdict": verdict.name,
        "reason": verdict.reason,
        "lr_factor": 0.5 ** (len(session.rollbacks) + 1),
    }
    checkpoint.load_tensors(session.method, saved.model, f"{session.out} at step {saved.step}")
    session.optimizer.zero_grad(set_to_none=True)
    session.optimizer.state.clear()
    checkpoint.load_optimizer(session.method, session.optimizer, saved.optim)
    # The run's own list, not the checkpoint's, which may come from an earlier attempt at this same rollback.
    session.rollbacks = [*session.rollbacks, event]
    session.step, session.healthy = saved.step, saved.step
    session.panel = PanelMemory.from_json(saved.state["panel"])
    session.state = SourceState(saved.source, saved.state.get("place", {}))
    if session.dist.main:
        told = {"healthy": session.healthy, "rollbacks": session.rollbacks}
        checkpoint.go_back(session.out, saved.step, told)
    distributed.wait_for_all()
    return (
        f"{event['verdict']} at step {event['step']}: {event['reason']}; back to step {saved.step} with "
        f"{event['lr_factor']:g} of the learning rate (rollback {len(session.rollbacks)} of {MAX_ROLLBACKS})"
    )


def _step_to_restore(session: Session) -> int:
    """The healthy checkpoint; if a changed interval or `keep` has removed it, the newest one before it."""
    # Only the main process measures, so it decides for all.
    known = float(session.healthy) if session.dist.main else 0.0
    one = torch.tensor(known, dtype=torch.float64, device=session.dist.device)
    healthy = int(distributed.all_reduce_sum(one))
    return max((step for step in checkpoint.saved_steps(session.out) if step <= healthy), default=healthy)
