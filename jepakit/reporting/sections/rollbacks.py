"""The section on rollbacks: collapses that the training undid."""

from collections.abc import Sequence
from typing import Final

from ..facts import run_rollbacks
from ..section import Part, Section, View
from ..templates import fill_template

SECTION: Final = Section(
    40,
    "Rollbacks",
    "Collapses that were undone: training went back to a checkpoint from before, at half the learning rate.",
    folds="for several runs",
)


def show(views: Sequence[View]) -> Part | None:
    """A table of rollbacks, or None if there were none."""
    rows = [(view.name, event) for view in views for event in run_rollbacks(view.record)]
    return Part(body=fill_template("rollbacks.html.j2", rows=rows, several=len(views) > 1)) if rows else None
