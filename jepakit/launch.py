"""From a request to a finished run: start or resume it, train, probe, report."""

from pathlib import Path
from typing import Any

import torch

from . import methods
from .core import devices, distributed, padding
from .core.progress import Silent, Watch
from .evals.base import load
from .evals.runs import probe_run
from .evals.split import need_labels
from .methods.head import Head
from .reporting import write
from .reporting.facts import duration
from .run import checkpoint
from .run.settings import Run
from .training import estimate, loop, session
from .training.monitor import online, samples
from .training.request import Request, asks_for_probes, renaming_notes, settings
from .training.stream.source import first_frames
from .types import Batch


def run(request: Request, progress: Watch) -> dict[str, Any]:
    """Train, probe and report as `request` says; returns the folder, the summary, the probe files and the page."""
    return carry_out(settings(request), request, progress)


def carry_out(wanted: Run, request: Request, progress: Watch) -> dict[str, Any]:
    """As `run`, for given settings; `request` says in which folder, and whether to resume."""
    with distributed.setup(devices.device_for(wanted.loop.device)) as dist:
        progress = progress if dist.main else Silent()
        # The run folder is written anew when it is gone on with, with the names of today.
        renamed = renaming_notes(request)
        current = begin(request, wanted, dist)
        for note in [*renamed, *current.notes]:
            progress.note(note)
        summary = loop.train(current, progress)
        if not dist.main:
            return {"folder": request.folder, "summary": summary, "probes": [], "page": None}
    probes = run_probes(current, progress)
    page = write([request.folder]) if current.run.evals.report else None
    return {"folder": request.folder, "summary": summary, "probes": probes, "page": page}


def dry_run(request: Request) -> list[tuple[str, str]]:
    """Parameters, FLOPs, memory and time of the run, as rows; writes nothing."""
    wanted = settings(request)
    with distributed.setup(devices.device_for(wanted.loop.device)) as dist:
        current = session.build(wanted, request.folder, dist)
        check_probes(current, request)
        session.read_weights(current)
        cost = estimate.estimate(current, loop.open_source(current).example_batch())
    return [
        *((note.partition(" = ")[0], note.partition(" = ")[2]) for note in current.notes if " = " in note),
        ("samples", f"{len(current.dataset):,}"),
        ("parameters", f"{cost.parameters / 1e6:.2f} M, {cost.trainable / 1e6:.2f} M trained"),
        ("compute", f"{cost.gigaflops_per_step:.4g} GFLOP per step of {current.run.length.batch} samples"),
        ("memory", f"about {cost.memory_bytes / 2**30:.2f} GiB"),
        (
            "time",
            f"about {cost.seconds_per_step:.2g} s per step"
            + (f", {duration(cost.seconds)} for {current.steps} steps" if current.steps else ""),
        ),
    ]


def begin(request: Request, wanted: Run, dist: distributed.Dist) -> session.Session:
    """A session, new or resumed, with its run folder. Raises ValueError before anything is written."""
    out = request.folder
    if request.resume and (request.init is not None or request.overwrite):
        other = "--init" if request.init is not None else "--overwrite"
        raise ValueError(f"--resume goes on with what is there and {other} begins anew; give one of them")
    resuming = request.resume is True or (request.resume == "auto" and bool(checkpoint.steps(out)))
    if resuming:
        current = session.build(wanted, out, dist, dataset=first_frames(wanted, out))
        check_probes(current, request)
        session.restore_checkpoint(current, request.allow_change)
        if dist.main:
            session.write_settings(current)
        return current
    if dist.main:
        session.check_free(out, replace=request.overwrite or request.resume == "auto")
    current = session.build(wanted, out, dist)
    check_probes(current, request)
    if wanted.evals.online:
        online.check(current, wanted.evals.online)
    if request.init is not None and not isinstance(current.method, Head):
        whole = session.start_from(current, Path(request.init))
    else:
        session.read_weights(current)
        whole = False
    if not whole:
        calibrate_method(current)
    if dist.main:
        session.clear_folder(out)
        session.write_settings(current)
    distributed.barrier()
    return current


def calibrate_method(current: session.Session) -> None:
    """Fit the method's constants to samples before the first step; every rank takes the same ones."""
    if not current.method.calibration_samples:
        return
    x = samples.equal(
        current.dataset, current.method.signal, current.method.calibration_samples, padding.stride(current.method)
    )
    shown = Batch(x).to(current.dist.device, getattr(torch, current.run.loop.dtype))
    current.method.calibrate(shown)
    current.notes.append(f"constants of {methods.name_of(current.run.method)} fitted to {len(shown)} samples")


def check_probes(current: session.Session, request: Request) -> None:
    """Note the probes that are left out, as the data have no labels of two classes.

    Raises ValueError, before step 1, where the request itself asks for them rather than its recipe.
    """
    if not (blind := kinds_without_labels(current)):
        return
    try:
        need_labels(current.dataset.classes)
    except ValueError as error:
        if asks_for_probes(request):
            raise ValueError(f"evals.kinds asks for {', '.join(blind)}, but {error}, or --evals.kinds '[]'") from None
        current.notes.append(f"no {', '.join(blind)} after the last step: {error}")


def kinds_without_labels(current: session.Session) -> list[str]:
    """The kinds of probe that need labels, where the data have none."""
    if len(current.dataset.classes) > 1:
        return []
    return [kind for kind in current.run.evals.kinds if load(kind).labels]


def run_probes(current: session.Session, progress: Watch) -> list[Path]:
    """Run the probes after the last step, in one pass over the data; those that the data do not allow become notes."""
    blind = kinds_without_labels(current)
    kinds = [kind for kind in current.run.evals.kinds if kind not in blind]
    if not kinds:
        return []
    progress.note(f"probing: {', '.join(kinds)}")

    def note_refusal(kind: str, error: ValueError) -> None:
        progress.note(f"no {kind}: {error}")

    try:
        return probe_run(current.out, kinds, refused=note_refusal, progress=progress)
    except ValueError as error:
        note_refusal("probes", error)
        return []
