"""The section with the training curves: logged metrics over the steps."""

from collections.abc import Sequence
from typing import Final

from .. import figures
from ..section import Part, Section, View

SECTION: Final = Section(
    20,
    "Curves",
    "What was logged along the way. Long curves are averaged over equal stretches; point at one for its values.",
    folds="never",
)


def show(views: Sequence[View]) -> Part:
    """One figure per curve, with all runs on the same axes."""
    found = figures.curve_figures([view.record for view in views], [view.name for view in views])
    if not found:
        return Part(notes=("The run has no metrics.jsonl with rows, so there is nothing to draw.",))
    return Part(tuple(found))
