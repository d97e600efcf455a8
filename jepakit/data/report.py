"""The report of `jepa check-data` as data: rows, notes and problems."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

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
