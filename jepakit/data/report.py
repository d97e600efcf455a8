"""What `jepa check-data` prints: the items of any data set, and how a report ends."""

from collections.abc import Sequence

import numpy as np

from .base import Dataset, Problem, Progress, Report

PROBLEMS_LISTED, PROBLEMS_SHOWN = 1000, 10


def report_items(dataset: Dataset, progress: Progress) -> Report:
    """How many items there are and can be read, which cannot, and how many each class has."""
    problems, readable, total = list[Problem](), 0, len(dataset)
    for i in range(total):
        found = dataset.read(np.array([i], dtype=np.int64), dataset.sample_size())
        readable += len(found.id)
        problems += [Problem(name, "unreadable", why) for name, why in found.skipped.items()]
        if progress:
            progress(i + 1, total)
    size = " x ".join(map(str, dataset.sample_size()))
    counts = np.bincount([k for i in range(total) if (k := dataset.label(i)) >= 0], minlength=len(dataset.classes))
    classes = ", ".join(f"{name}: {n}" for name, n in zip(dataset.classes, counts.tolist(), strict=True) if n)
    rows = [
        (dataset.words.many, str(total)),
        ("readable", str(readable)),
        ("unreadable", str(total - readable)),
        ("size", size),
        ("channels", str(dataset.channels)),
        (f"{dataset.words.many} per class", classes or "no labels"),
    ]
    return finished_report(rows, dataset.notes, problems, "--csv FILE lists them")


def finished_report(
    rows: Sequence[tuple[str, str]], notes: Sequence[str], problems: Sequence[Problem], more: str, count: int = -1
) -> Report:
    """A report that ends with the notes and the first problems, of `count` (-1: as many as there are); see `more`."""
    rest = (len(problems) if count < 0 else count) - PROBLEMS_SHOWN
    shown = [(p.name, f"{p.problem}: {p.detail}" + (f"; {p.fix}" if p.fix else "")) for p in problems[:PROBLEMS_SHOWN]]
    end = [("…", f"and {rest} more ({more})")] if rest > 0 else []
    return Report([*rows, *(("note", note) for note in notes), *shown, *end], tuple(problems))
