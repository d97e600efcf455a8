"""The section that shows which samples the encoder finds similar."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from .. import pictures
from ..figures import Figure
from ..section import Part, Section, View, figures_per_run

SECTION: Final = Section(
    90,
    "Nearest neighbours",
    "Which samples the encoder finds alike, among those that it was trained on.",
    folds="for several runs",
)


def show(views: Sequence[View]) -> Part | None:
    """A few images of every run, each with its nearest neighbours."""
    return figures_per_run(views, run_figures)


def run_figures(view: View) -> tuple[list[Figure], str]:
    """The figure of one run."""
    samples = view.look.samples
    if samples is None:
        return [], view.look.notes.get("neighbours", "")
    queries = np.arange(len(samples.images))
    return [
        pictures.neighbour_figure(samples.thumbs, samples.features, samples.names, samples.kinds, queries, samples.many)
    ], ""
