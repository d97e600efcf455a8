"""From a request to a finished run: begin it or take it up, train, probe, report."""

from pathlib import Path
from typing import Any

from . import checkpoint, distributed, prepare, session, training
from .config import Run
from .evals.runs import probe_run
from .methods.head import Head
from .progress import Silent, Watch
from .reporting import write
from .request import Request, settings


def run(request: Request, watch: Watch) -> dict[str, Any]:
    """Train, probe and report as `request` says; returns the folder, the summary, the probe files and the page."""
    return carry_out(settings(request), request, watch)


def carry_out(wanted: Run, request: Request, watch: Watch) -> dict[str, Any]:
    """As `run`, with settings that are made already; of `request` the folder counts, and how to begin."""
    with distributed.setup(prepare.device_for(wanted.loop.device)) as dist:
        watch = watch if dist.main else Silent()
        current = begin(request, wanted, dist)
        for note in current.notes:
            watch.note(note)
        summary = training.train(current, watch)
        if not dist.main:
            return {"folder": request.folder, "summary": summary, "probes": [], "page": None}
    probes = after(current, watch) if current.dataset.classes else []
    page = write([request.folder]) if current.run.evals.report else None
    return {"folder": request.folder, "summary": summary, "probes": probes, "page": page}


def begin(request: Request, wanted: Run, dist: distributed.Dist) -> session.Session:
    """A session, new or resumed; the run folder exists from here on."""
    out = request.folder
    if request.resume and (request.init is not None or request.overwrite):
        other = "--init" if request.init is not None else "--overwrite"
        raise ValueError(f"--resume goes on with what is there and {other} begins anew; give one of them")
    resuming = request.resume is True or (request.resume == "auto" and bool(checkpoint.steps(out)))
    if resuming:
        current = session.build(wanted, out, dist)
        session.restore(current, request.allow_change)
        if dist.main:
            session.write_settings(current)
        return current
    if dist.main:
        session.check_free(out, replace=request.overwrite or request.resume == "auto")
    current = session.build(wanted, out, dist)
    if request.init is not None and not isinstance(current.method, Head):
        session.start_from(current, Path(request.init))
    if dist.main:
        session.clear(out)
        session.write_settings(current)
    distributed.barrier()
    return current


def after(current: session.Session, watch: Watch) -> list[Path]:
    """The probes that follow the last step, in one pass over the data; a kind that cannot judge them becomes a note."""
    kinds = current.run.evals.kinds
    if not kinds:
        return []
    watch.note(f"probing: {', '.join(kinds)}")

    def refused(kind: str, error: ValueError) -> None:
        watch.note(f"no {kind}: {error}")

    try:
        return probe_run(current.out, kinds, refused=refused, watch=watch)
    except ValueError as error:
        refused("probes", error)
        return []
