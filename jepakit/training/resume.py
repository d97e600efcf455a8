"""Resumes a run: builds its session, loads its newest checkpoint, and refuses changed settings or data."""

from collections.abc import Sequence
from dataclasses import replace

from ..core.distributed import Dist
from ..run import checkpoint, parse, write
from ..run.checkpoint import Checkpoint
from ..run.own_data import absolute_path, at_source
from ..run.settings import Run
from . import stages
from .panel_memory import PanelMemory
from .request import Request, asks_for_probes
from .session import Session, SourceState, build_session, with_hash
from .stream.source import first_frames

# Settings that a resumed run may change because they affect no result. The panel still keeps its first size.
RESUMABLE_KEYS = (
    *("loop.device", "loop.workers", "loop.log_every", "loop.save_every", "loop.keep", "evals."),
    *("loop.panel_", "loop.views_every", "loop.on_collapse", "data.wait", "data.settle"),
)


def resume_session(run: Run, request: Request, dist: Dist) -> Session:
    """The session of the run in the request's folder, at its newest readable checkpoint. Writes nothing.

    Raises ValueError, listing the differences, if settings or data differ from the run's and the request does not allow
    it.
    """
    out, allow = request.folder, request.allow_change
    saved, stored = checkpoint.load_checkpoint(out), parse.from_yaml(out / "config.yaml")
    run, stored = with_own_path(run, stored, saved, request)
    session = build_session(run, out, dist, first_frames(run, out), asks_for_probes(request))
    if run.data.test_part() is not None and saved.state["data"] != session.dataset.fingerprint():
        # Few items once had an empty test part: such a run was trained on all of them.
        all_data = build_session(replace(run, data=run.data.whole()), out, dist, None, asks_for_probes(request))
        if saved.state["data"] == all_data.dataset.fingerprint():
            session, stored = all_data, replace(stored, data=stored.data.whole())
    session.run = with_hash(session.run, getattr(getattr(stored.method, "encoder", None), "weights_hash", ""))
    # On a stream the learning rate is constant, so the run may end anywhere.
    old, new = stages.shared_heads(stored, session.run, out)
    refuse_changes(old, new, [*allow, "length.steps"] if run.from_stream else allow)
    if saved.state["data"] != session.dataset.fingerprint() and "data" not in allow:
        raise ValueError(
            f"the data of {out} have changed since it was saved (files added, removed or resized); "
            "restore them, or continue with --allow-change data"
        )
    if saved.step > session.steps > 0:
        raise ValueError(f"{out} is already at step {saved.step}; give --steps {saved.step} or more")
    stages.check_folders(session.run, out, goes_on=saved.step != session.steps)
    restore_checkpoint(session, saved)
    session.test_part_seen = bool(saved.state.get("test_part_seen")) or (
        saved.state["data"] != session.dataset.fingerprint() and session.run.data.test_part() is not None
    )
    return session


def with_own_path(run: Run, stored: Run, saved: Checkpoint, request: Request) -> tuple[Run, Run]:
    """The run and its `stored` settings with the path of its data that is valid in this folder.

    Both are unchanged if the request names other data, or if the path leads to where the training found them.
    """
    found = at_source(run.data, saved.state)
    if request.data is not None or run.data.path != stored.data.path or absolute_path(run.data) == found.path:
        return run, stored
    return replace(run, data=found), replace(stored, data=stored.data.at(found.path))


def restore_checkpoint(session: Session, saved: Checkpoint) -> None:
    """Restore the session to the state of the checkpoint."""
    checkpoint.load_tensors(session.method, saved.model, f"{session.out} at step {saved.step}")
    checkpoint.load_optimizer(session.method, session.optimizer, saved.optim)
    session.step, session.saved, session.seconds = saved.step, saved.step, saved.state["seconds"]
    session.panel, session.skipped = PanelMemory.from_json(saved.state["panel"]), saved.state["skipped"]
    session.state = SourceState(saved.source, saved.state.get("place", {}))
    session.healthy, session.rollbacks = saved.state.get("healthy", 0), saved.state.get("rollbacks", [])
    of = f" of {session.steps}" if session.steps else ""
    session.notes += [*saved.warnings, f"resumed from step {saved.step}{of}"]


def refuse_changes(old: Run, new: Run, allow: Sequence[str]) -> None:
    """Raise ValueError with a diff if settings differ that are neither in RESUMABLE_KEYS nor in `allow`."""
    allowed = [parse.current_path(path) for path in allow]
    changed = {
        key: values
        for key, values in write.settings_difference(old, new).items()
        if not key.startswith(RESUMABLE_KEYS) and not any(key == a or key.startswith(f"{a}.") for a in allowed)
    }
    if not changed:
        return
    shown = "; ".join(f"{key}: {a!r} → {b!r}" for key, (a, b) in changed.items())
    advice = " ".join(f"--allow-change {key}" for key in changed)
    longer = "length.steps" in changed and len(changed) == 1
    why = (
        "the schedules were computed for the old length, so the learning rate would jump to the new schedule"
        if longer
        else "it would no longer be the same run"
    )
    raise ValueError(f"the settings differ from the run's: {shown}; {why}. Give the old values, or {advice}")
