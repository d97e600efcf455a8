"""From a request to a finished run: start or resume it, train, probe, report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .core import devices, distributed
from .core.progress import Progress, SilentProgress
from .evals.runs import probe_run
from .nn.encoder import read_weights
from .reporting import write
from .reporting.facts import format_duration
from .run import folder
from .run.settings import Run
from .training import estimate, loop
from .training.request import Request, asks_for_probes, is_new, renaming_notes, settings
from .training.resume import resume_session
from .training.session import Session, build_session
from .training.start import start_session


def train_and_report(request: Request, progress: Progress) -> dict[str, Any]:
    """Train, probe and report as `request` says; return the folder, the summary, the probe files and the page."""
    return train_settings(settings(request), request, progress)


def train_settings(wanted: Run, request: Request, progress: Progress) -> dict[str, Any]:
    """As `train_and_report`, for given settings; `request` gives the folder and whether to resume."""
    with distributed.process_group(devices.device_for(wanted.loop.device)) as dist:
        progress = progress if dist.main else SilentProgress()
        # Resuming rewrites the run folder's settings under their current names.
        renamed = renaming_notes(request)
        current = open_session(request, wanted, dist)
        for note in [*renamed, *current.notes]:
            progress.note(note)
        summary = loop.train_session(current, progress)
        if not dist.main:
            return {"folder": request.folder, "summary": summary, "probes": [], "page": None}
    probes = run_probes(request.folder, current.probes, progress)
    page = write([request.folder], progress=progress) if current.run.evals.report else None
    return {"folder": request.folder, "summary": summary, "probes": probes, "page": page}


def dry_run(request: Request) -> list[tuple[str, str]]:
    """Parameters, FLOPs, memory and time of the run, as rows; writes nothing."""
    wanted = settings(request)
    with distributed.process_group(devices.device_for(wanted.loop.device)) as dist:
        current = build_session(wanted, request.folder, dist, probes_required=asks_for_probes(request))
        read_weights(current.method)
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


def open_session(request: Request, wanted: Run, dist: distributed.Dist) -> Session:
    """A session, new or resumed, with its settings written. Raises ValueError before anything is written."""
    current = start_session(wanted, request, dist) if is_new(request) else resume_session(wanted, request, dist)
    if dist.main:
        folder.write_settings(request.folder, current.run)
    distributed.wait_for_all()
    return current


def run_probes(out: Path, kinds: Sequence[str], progress: Progress) -> list[Path]:
    """Run the probes after the last step, in one pass over the data; probes that the data do not allow become notes."""
    if not kinds:
        return []
    progress.note(f"probing: {', '.join(kinds)}")

    def note_refusal(kind: str, error: ValueError) -> None:
        progress.note(f"no {kind}: {error}")

    try:
        return probe_run(out, kinds, refused=note_refusal, progress=progress)
    except ValueError as error:
        note_refusal("probes", error)
        return []
