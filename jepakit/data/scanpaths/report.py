"""The `jepa check-data` report on scanpaths: counts, lengths, misplaced fixations and unreadable images."""

from typing import NamedTuple

import numpy as np

from ..collation import Unreadable
from ..report import MAX_PROBLEMS_LISTED, Problem, Progress, Report, finish_report, range_text
from .record import Looked


class Training(NamedTuple):
    """What training would read, the median saccade length in crop sides, and decisions made."""

    samples: str
    saccade: float
    notes: tuple[str, ...]


def report_scanpaths(looked: Looked, training: Training, viewers: int, count: int, progress: Progress = None) -> Report:
    """The report on all fixations and every image looked at, one problem per scanpath and kind of mistake.

    Synthetic scanpaths have `count` fixations, by `viewers` viewers per image. Durations are in the file's time unit.
    """
    broken = _unreadable_pictures(looked, progress)
    tracks = [] if looked.found is None else looked.found.tracks
    per = np.unique(looked.image, return_counts=True)[1] if looked.image else np.zeros(0)
    made = len(looked.source) * viewers if looked.found is None else len(tracks)
    lengths = [len(track.xy) for track in tracks] or [count]
    times = np.concatenate([track.duration for track in tracks]) if tracks else np.full(1, np.nan)
    problems = (*looked.problems, *broken)[:MAX_PROBLEMS_LISTED]
    rows = [
        ("pictures looked at", str(len(looked.source) if looked.found is None else len(per))),
        ("unreadable pictures", str(len(broken))),
        ("scanpaths", str(made)),
        ("subjects", str(viewers if looked.found is None else len({track.subject for track in tracks}))),
        ("fixations min / median / max", range_text(lengths)),
        ("scanpaths per picture", range_text([int(n) for n in per] or [viewers])),
        ("median duration", f"{np.nanmedian(times):g}" if np.isfinite(times).any() else "unknown"),
        ("median saccade, crop sides", f"{training.saccade:.2f}"),
        ("scanpaths with mistakes", str(sum(p.problem != "unreadable" for p in problems))),
        ("training would read", training.samples),
    ]
    return finish_report(rows, training.notes, problems, f"--csv FILE lists up to {MAX_PROBLEMS_LISTED:,}")


def _unreadable_pictures(looked: Looked, progress: Progress) -> list[Problem]:
    """The images looked at that cannot be decoded."""
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
