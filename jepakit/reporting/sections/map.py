"""The section with the embedding map: all representations in two dimensions."""

from collections.abc import Sequence
from typing import Final

from ..atlas import embedding_map
from ..figures import Figure
from ..section import Part, Section, View, figures_per_run

SECTION: Final = Section(
    100,
    "Embedding map",
    "All samples at once: those that the encoder finds alike lie together.",
    folds="for several runs",
)


def show(views: Sequence[View]) -> Part | None:
    """A map per run with one point per sample; hovering over a point shows its image."""
    return figures_per_run(views, run_figures)


def run_figures(view: View) -> tuple[list[Figure], str]:
    """The figure of one run."""
    samples = view.look.samples
    if samples is None:
        return [], view.look.notes.get("map", "")
    return [embedding_map(samples.features, samples.thumbs, samples.names, samples.kinds, samples.many)], ""
