"""The report of `jepa check-data` as data: rows, notes and problems."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .base import Dataset

Progress = Callable[[int, int], None] | None
MAX_PROBLEMS_LISTED, MAX_PROBLEMS_SHOWN = 1000, 10


class Problem(NamedTuple):
    """A problem with an item: which item, the kind of mistake, where it is, and how to fix it."""

    name: str
    problem: str
    detail: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}; {self.fix}"


class Report(NamedTuple):
    """The report of `jepa check-data`: (what, value) rows that end with the first problems, and all problems."""

    rows: list[tuple[str, str]]
    problems: tuple[Problem, ...]


def finish_report(
    rows: Sequence[tuple[str, str]], notes: Sequence[str], problems: Sequence[Problem], more: str, count: int = -1
) -> Report:
    """A report that ends with the notes and the first of `count` problems (-1: as many as given); see `more`."""
    rest = (len(problems) if count < 0 else count) - MAX_PROBLEMS_SHOWN
    shown = [
        (p.name, f"{p.problem}: {p.detail}" + (f"; {p.fix}" if p.fix else "")) for p in problems[:MAX_PROBLEMS_SHOWN]
    ]
    end = [("…", f"and {rest} more ({more})")] if rest > 0 else []
    return Report([*rows, *(("note", note) for note in notes), *shown, *end], tuple(problems))


def range_text(values: Sequence[int]) -> str:
    """The smallest, the median and the largest of whole numbers; zeros if there are none."""
    return f"{min(values)} / {int(np.median(values))} / {max(values)}" if len(values) else "0 / 0 / 0"


def report_items(dataset: "Dataset", progress: Progress = None) -> Report:
    """Counts of readable items and of classes, the size, and every unreadable item; reads every item once."""
    problems, total, size = list[Problem](), len(dataset), dataset.sample_size()
    for i in range(total):
        found = dataset.read(np.array([i], dtype=np.int64), size)
        problems += [Problem(name, "unreadable", why) for name, why in found.skipped.items()]
        if progress:
            progress(i + 1, total)
    counts = np.bincount([k for i in range(total) if (k := dataset.label(i)) >= 0], minlength=len(dataset.classes))
    classes = ", ".join(f"{name}: {n}" for name, n in zip(dataset.classes, counts.tolist(), strict=True) if n)
    rows = [
        (dataset.words.many, str(total)),
        ("readable", str(total - len(problems))),
        ("unreadable", str(len(problems))),
        ("size", " x ".join(map(str, size))),
        ("channels", str(dataset.channels)),
        (f"{dataset.words.many} per class", classes or "no labels"),
    ]
    return finish_report(rows, dataset.notes, problems, "--csv FILE lists them")
