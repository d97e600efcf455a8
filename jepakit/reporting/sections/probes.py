"""The section on probe scores, beside the scores of the untrained encoder and of the raw input."""

from collections.abc import Sequence
from typing import Final

from ..probes import probe_row
from ..section import Part, Section, View
from ..templates import fill_template

SECTION: Final = Section(
    10,
    "Probes",
    "Does the encoder know more than it did before training, and more than the raw input holds? A score counts only "
    "beside both.",
    folds="for several runs",
)


def show(views: Sequence[View]) -> Part:
    """A table with one row per score."""
    rows = [probe_row(entry, view.name) for view in views for entry in view.record.evals]
    if not rows:
        return Part(notes=("No probe was run; with labelled data: jepa probe RUN --kind knn",))
    return Part(body=fill_template("probes.html.j2", probes=rows, several=len(views) > 1))
