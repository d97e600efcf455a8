"""From a request to a finished run: start or resume it, train, probe, report."""

from pathlib import Path
from typing import Any

import torch

from . import methods
from .core import devices, distributed, padding
from .core.progress import Progress, SilentProgress
from .evals.base import load_kind
from .evals.finding import read_finding
from .evals.runs import probe_run
from .evals.split import need_labels
from .methods.head import Head
from .reporting import write
from .reporting.facts import format_duration
from .run import checkpoint
from .run.settings import Run
from .training import estimate, loop, resume, session
from .training.monitor import online, samples
from .training.request import Request, asks_for_probes, renaming_notes, settings
from .training.stream.source import first_frames


def train_and_report(request: Request, progress: Progress) -> dict[str, Any]:
    """Train, probe and report as `request` says; returns folder, summary, probe files, their finding and the page."""
    return train_settings(settings(request), request, progress)


def train_settings(wanted: Run, request: Request, progress: Progress) -> dict[str, Any]:
    """As `run`, for given settings; `request` says in which folder, and whether to resume."""
    with distributed.process_group(devices.device_for(wanted.loop.device)) as dist:
        progress = progress if dist.main else SilentProgress()
        # The run folder is written anew when it is gone on with, with the names of today.
        renamed = renaming_notes(request)
        current = open_session(request, wanted, dist)
        for note in [*renamed, *current.notes]:
            progress.note(note)
        summary = loop.train_session(current, progress)
        if not dist.main:
            return {"folder": request.folder, "summary": summary, "probes": [], "finding": None, "page": None}
    probes = run_probes(current, progress)
    page = write([request.folder]) if current.run.evals.report else None
    found = {"probes": probes, "finding": read_finding(probes)}
    return {"folder": request.folder, "summary": summary, **found, "page": page}


def dry_run(request: Request) -> list[tuple[str, str]]:
    """Parameters, FLOPs, memory and time of the run, as rows; writes nothing."""
    wanted = settings(request)
    with distributed.process_group(devices.device_for(wanted.loop.device)) as dist:
        current = session.build_session(wanted, request.folder, dist)
        check_probes(current, request)
        session.read_weights(current)
        cost = estimate.estimate_cost(current, loop.open_source(current).example_batch())
    return [
        *((note.partition(" = ")[0], note.partition(" = ")[2]) for note in current.notes if " = " in note),
        ("samples", f"{len(current.dataset):,}"),
        ("parameters", f"{cost.parameters / 1e6:.2f} M, {cost.trainable / 1e6:.2f} M trained"),
        ("compute", f"{cost.gigaflops_per_step:.4g} GFLOP per step of {current.run.length.batch} samples"),
        ("memory", f"about {cost.memory_bytes / 2**30:.2f} GiB"),
        (
            "time",
            f"about {cost.seconds_per_step:.2g} s per step"
            + (f", {format_duration(cost.seconds)} for {current.steps} steps" if current.steps else ""),
        ),
    ]


def open_session(request: Request, wanted: Run, dist: distributed.Dist) -> session.Session:
    """A session, new or resumed, with its run folder. Raises ValueError before anything is written."""
    out = request.folder
    if request.resume and (request.init is not None or request.overwrite):
        other = "--init" if request.init is not None else "--overwrite"
        raise ValueError(f"--resume goes on with what is there and {other} begins anew; give one of them")
    resuming = request.resume is True or (request.resume == "auto" and bool(checkpoint.saved_steps(out)))
    if resuming:
        current = session.build_session(wanted, out, dist, dataset=first_frames(wanted, out))
        check_probes(current, request)
        resume.restore_checkpoint(current, request.allow_change)
        if dist.main:
            session.write_settings(current)
        return current
    if dist.main:
        session.check_free(out, replace=request.overwrite or request.resume == "auto")
    current = session.build_session(wanted, out, dist)
    check_probes(current, request)
    if wanted.evals.online:
        online.check_labels(current, wanted.evals.online)
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
    distributed.wait_for_all()
    return current


def calibrate_method(current: session.Session) -> None:
    """Fit the method's constants to samples before the first step; every rank takes the same ones."""
    if not current.method.calibration_samples:
        return
    found = samples.equal_length_samples(
        current.dataset, current.method.signal, current.method.calibration_samples, padding.patch_steps(current.method)
    )
    shown = found.to(current.dist.device, getattr(torch, current.run.loop.dtype))
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
    return [kind for kind in current.run.evals.kinds if load_kind(kind).labels]


def run_probes(current: session.Session, progress: Progress) -> list[Path]:
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
