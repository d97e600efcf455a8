"""From a request to a finished run: start or resume it, train, probe, report."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from .core import devices, distributed
from .core.progress import Progress, SilentProgress
from .core.words import count_text
from .evals.finding import read_finding
from .evals.runs import probe_run
from .nn.encoder import read_weights
from .reporting import write
from .reporting.facts import format_duration
from .run import folder
from .run.settings import Run
from .training import estimate, loop
from .training.monitor import samples
from .training.request import Request, asks_for_probes, is_new, kind_note, renaming_notes, settings
from .training.resume import resume_session
from .training.session import Session, build_session
from .training.start import calibrate_method, start_session


def train_and_report(request: Request, progress: Progress) -> dict[str, Any]:
    """Train, probe and report as `request` says; returns folder, summary, probe files, their finding and the page."""
    return train_settings(settings(request), request, progress)


def train_settings(wanted: Run, request: Request, progress: Progress) -> dict[str, Any]:
    """As `train_and_report`, for given settings; `request` gives the folder and whether to resume."""
    with distributed.process_group(devices.device_for(wanted.loop.device)) as dist:
        progress = progress if dist.main else SilentProgress()
        # Resuming rewrites the run folder's settings under their current names.
        renamed = renaming_notes(request)
        with explained_errors(misfit := kind_note(request, wanted)):
            current = open_session(request, wanted, dist)
        for note in [*renamed, *([misfit] if misfit else []), *current.notes]:
            progress.note(note)
        summary = loop.train_session(current, progress)
        if not dist.main:
            return {"folder": request.folder, "summary": summary, "probes": [], "finding": None, "page": None}
    probes = run_probes(request.folder, current.probes, progress)
    page = write([request.folder], progress=progress) if current.run.evals.report else None
    found = {"probes": probes, "finding": read_finding(probes)}
    return {"folder": request.folder, "summary": summary, **found, "page": page}


def dry_run(request: Request) -> list[tuple[str, str]]:
    """Parameters, FLOPs, memory and time of the run, as rows, from some steps of it; leaves nothing behind."""
    wanted = settings(request)
    with (
        distributed.process_group(devices.device_for(wanted.loop.device)) as dist,
        tempfile.TemporaryDirectory(prefix="jepakit-") as scratch,
    ):
        with explained_errors(kind_note(request, wanted)):
            current = build_session(wanted, Path(scratch), dist, probes_required=asks_for_probes(request))
        read_weights(current.method)
        calibrate_method(current)
        run, steps = current.run, current.steps
        held, _ = (None, "") if run.from_stream else samples.test_part(run.data, current.method.signal)
        cost = estimate.estimate_cost(current, loop.open_source(current).example_batch())
        current.optimizer.zero_grad(set_to_none=True)
        time = [("time", f"about {cost.seconds_per_step:.2g} s per step")]
        # A stream has no second pass, and a batch that does not fit leaves the other rows to print.
        with suppress(torch.OutOfMemoryError):
            if steps and not run.from_stream:
                time = time_rows(run, estimate.time_run(current, cost.seconds_per_step), current.probes)
    return [
        *((note.partition(" = ")[0], note.partition(" = ")[2]) for note in current.notes if " = " in note),
        ("samples", samples.describe_division(current.dataset, held)),
        ("parameters", f"{cost.parameters / 1e6:.2f} M, {cost.trainable / 1e6:.2f} M trained"),
        ("compute", f"{cost.gigaflops_per_step:.4g} GFLOP per step of {count_text(run.length.batch, 'sample')}"),
        ("memory", f"about {cost.memory_bytes / 2**30:.2f} GiB"),
        *time,
    ]


@contextmanager
def explained_errors(cause: str) -> Iterator[None]:
    """Put the sentence `cause`, if there is one, before the message of a ValueError raised inside."""
    try:
        yield
    except ValueError as error:
        if not cause:
            raise
        raise ValueError(f"{cause} ({error})") from error


def time_rows(run: Run, timing: estimate.Timing, probes: Sequence[str]) -> list[tuple[str, str]]:
    """The rows of a dry run on the time of a training, what is in it and what is not."""
    per_step, whole = f"about {timing.seconds_per_step:.2g} s per step", format_duration(timing.seconds)
    parts = {
        "steps": timing.steps,
        "panel": timing.panel,
        "records": timing.records,
        "start": timing.start,
    }
    workers = count_text(run.loop.workers, "worker") if run.loop.workers else "no workers"
    how = (
        f"timed over {count_text(timing.timed, 'step')} with {workers}"
        if timing.timed
        else "a guess from a few samples, as a step takes more than a minute"
    )
    after = [f"probe {kind}" for kind in probes] + ["the report"] * run.evals.report
    return [
        ("time", f"{per_step}, {whole} for {count_text(run.length.steps or 0, 'step')}"),
        ("time for", ", ".join(f"{what} {format_duration(t)}" for what, t in parts.items() if t >= 0.5) or "steps"),
        ("time from", how + (f"; not in it: {', '.join(after)}" if after else "")),
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
