"""Look at scanpaths before training: how many and how long, what does not fit the pictures, which cannot be read."""

from collections.abc import Sequence

import numpy as np

from ..base import Problem, Progress, Report, Unreadable
from ..report import PROBLEMS_LISTED, finished_report
from .settings import Config, Looked, build, look


def report_scanpaths(cfg: Config, progress: Progress = None) -> Report:
    """All fixations and every picture that was looked at, one problem per scanpath and kind of mistake.

    Durations are in the file's unit of time, saccades in sides of a crop. Raises ValueError where there is nothing to
    read.
    """
    looked = look(cfg)
    broken = _unreadable(looked, progress)
    tracks = [] if looked.found is None else looked.found.tracks
    per = np.unique(looked.image, return_counts=True)[1] if looked.image else np.zeros(0)
    made = len(looked.source) * cfg.viewers if looked.found is None else len(tracks)
    lengths = [len(track.xy) for track in tracks] or [cfg.count]
    times = np.concatenate([track.duration for track in tracks]) if tracks else np.full(1, np.nan)
    samples, saccade, notes = _samples(cfg, looked)
    problems = (*looked.problems, *broken)[:PROBLEMS_LISTED]
    rows = [
        ("pictures looked at", str(len(looked.source) if looked.found is None else len(per))),
        ("unreadable pictures", str(len(broken))),
        ("scanpaths", str(made)),
        ("subjects", str(cfg.viewers if looked.found is None else len({track.subject for track in tracks}))),
        ("fixations min / median / max", _range(lengths)),
        ("scanpaths per picture", _range([int(n) for n in per] or [cfg.viewers])),
        ("median duration", f"{np.nanmedian(times):g}" if np.isfinite(times).any() else "unknown"),
        ("median saccade, crop sides", f"{saccade:.2f}"),
        ("scanpaths with mistakes", str(sum(p.problem != "unreadable" for p in problems))),
        ("training would read", samples),
    ]
    return finished_report(rows, notes, problems, f"--csv FILE lists up to {PROBLEMS_LISTED:,}")


def _unreadable(looked: Looked, progress: Progress) -> list[Problem]:
    """The pictures, of those looked at, that cannot be decoded."""
    used = sorted(set(looked.image)) if looked.found is not None else range(len(looked.source))
    found = []
    for k, i in enumerate(used, 1):
        try:
            looked.source.raw(i)
        except Unreadable as error:
            found.append(Problem(error.name, "unreadable", error.why or "unknown", "remove or replace it"))
        if progress:
            progress(k, len(used))
    return found


def _samples(cfg: Config, looked: Looked) -> tuple[str, float, tuple[str, ...]]:
    """What training would read, the middle length of a saccade, and what was decided."""
    if looked.problems:
        return f"nothing: {looked.problems[0]}", float("nan"), looked.found.notes if looked.found else ()
    try:
        data = build(cfg, looked)
        some = [data.clip(int(i), data.native).action for i in np.linspace(0, len(data) - 1, min(len(data), 256))]
    except (ValueError, Unreadable) as error:
        return f"nothing: {error}", float("nan"), looked.source.notes
    lengths = np.concatenate([action.norm(dim=1).numpy() for action in some])
    height, width = data.view.size
    kind = f"up to {data.steps} crops of {data.channels} x {height} x {width}"
    return f"{len(data)} samples: {kind}", float(np.median(lengths)), data.notes


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)} / {int(np.median(counts))} / {max(counts)}"
