"""From a request to a finished run: start or resume it, train, probe, report, then train its heads."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .core import devices, distributed
from .core.progress import Interrupted, Progress, SilentProgress
from .core.words import count_text
from .evals.finding import read_finding
from .evals.runs import probe_run
from .nn.encoder import read_weights
from .reporting import write
from .reporting.facts import format_duration
from .run import folder
from .run.settings import HeadStage, Run
from .training import estimate, loop, stages
from .training.monitor import samples
from .training.request import Request, asks_for_probes, is_new, kind_note, renaming_notes, settings
from .training.resume import resume_session
from .training.session import Session, build_session
from .training.start import calibrate_method, start_session


def train_and_report(request: Request, progress: Progress) -> dict[str, Any]:
    """Train, probe and report as `request` says, then train the heads.

    Returns folder, summary, probe files, their finding and the page, and the summaries of the heads by name.
    """
    return train_settings(settings(request), request, progress)


def train_settings(wanted: Run, request: Request, progress: Progress) -> dict[str, Any]:
    """As `train_and_report`, for given settings; `request` gives the folder and whether to resume."""
    done, run = train_stage(wanted, request, progress, skip=heads_have_begun(wanted, request))
    return {**done, "heads": {head.name: train_head(head, run, request, progress) for head in run.heads}}


def heads_have_begun(wanted: Run, request: Request) -> bool:
    """Whether a request resumes a run at its heads: it has been probed already, and nothing asks to do it again."""
    begun = any((stages.head_folder(request.folder, head) / "config.yaml").is_file() for head in wanted.heads)
    return bool(request.resume) and begun and not asks_for_probes(request)


def train_stage(
    wanted: Run, request: Request, progress: Progress, skip: bool = False, notes: Sequence[str] = ()
) -> tuple[dict[str, Any], Run]:
    """Train, probe and report one run without its heads; `notes` are shown first.

    Returns folder, summary, probe files, finding and page; and the run, its auto settings resolved, without heads if it
    ended early. With `skip`, a run that was finished before is not probed and reported again.
    """
    with distributed.process_group(devices.device_for(wanted.loop.device)) as dist:
        progress = progress if dist.main else SilentProgress()
        # Resuming rewrites the run folder's settings under their current names.
        renamed = renaming_notes(request)
        with explained_errors(misfit := kind_note(request, wanted)):
            current = open_session(request, wanted, dist)
        for note in [*notes, *renamed, *([misfit] if misfit else []), *current.notes]:
            progress.note(note)
        idle = skip and current.step == current.steps > 0
        summary = loop.train_session(current, progress)
    run = current.run
    if run.heads and current.step < current.steps:
        progress.note(f"no heads ({', '.join(head.name for head in run.heads)}), as the run ended early")
        run = replace(run, heads=())
    done = {"folder": request.folder, "summary": summary, "probes": [], "finding": None, "page": None}
    if idle or not dist.main:
        return done, run
    probes = run_probes(request.folder, current.probes, progress)
    page = write([request.folder], progress=progress) if run.evals.report else None
    return {**done, "probes": probes, "finding": read_finding(probes), "page": page}, run


def train_head(head: HeadStage, run: Run, request: Request, progress: Progress) -> dict[str, Any]:
    """Train a head of the finished `run` of a request, or continue it; returns its summary."""
    folder, begun = stages.head_folder(request.folder, head), stages.has_begun(head, request.folder)
    # The folder of the run may have moved.
    allow = [key.removeprefix(f"heads.{head.name}.") for key in request.allow_change] + ["method.parents"]
    own = Request(out=folder, resume="auto" if begun else False, allow_change=allow, overwrite=not begun)
    notes = [f"{head.name}: a head on top of {request.folder}, in {folder}"]
    if not begun and (folder / "config.yaml").is_file():
        notes.append(f"{head.name}: the one in {folder} was trained on other weights and is replaced")
    try:
        done, _ = train_stage(stages.stage_run(head, run, request.folder), own, progress, skip=True, notes=notes)
    except (ValueError, FloatingPointError) as error:
        raise stages.explain_flags(error, head) from error
    except Interrupted as error:
        raise Interrupted(f"{head.name} {error}") from None
    summary: dict[str, Any] = done["summary"]
    return summary


def dry_run(request: Request) -> list[tuple[str, str]]:
    """Parameters, FLOPs, memory and time of the run and its heads, as rows, from some steps; leaves nothing behind."""
    wanted = settings(request)
    with (
        distributed.process_group(devices.device_for(wanted.loop.device)) as dist,
        tempfile.TemporaryDirectory(prefix="jepakit-") as scratch,
    ):
        with explained_errors(kind_note(request, wanted)):
            current = build_session(wanted, Path(scratch), dist, probes_required=asks_for_probes(request))
        run, rows = current.run, cost_rows(current)
        for head in run.heads:
            folder = stages.head_folder(Path(scratch), head)
            above = build_session(stages.stage_run(head, run, Path(scratch)), folder, dist, parents=(current.method,))
            rows += [(f"{head.name}: {name}", value) for name, value in cost_rows(above)]
    return rows


def cost_rows(current: Session) -> list[tuple[str, str]]:
    """The rows of a dry run on one session, which is of no use afterwards."""
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
