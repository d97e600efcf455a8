"""The section that shows the representation of every patch of a few images as colours."""

from collections.abc import Sequence
from typing import Final

from .. import pictures
from ..figures import Figure
from ..section import Part, Section, View, figures_per_run

SECTION: Final = Section(
    70,
    "Patch maps",
    "What the encoder makes of each patch of a few samples that it was trained on.",
    folds="for several runs",
)


def show(views: Sequence[View]) -> Part | None:
    """A few images of every run beside the colours of their patches."""
    return figures_per_run(views, run_figures)


def run_figures(view: View) -> tuple[list[Figure], str]:
    """The figure of one run; none if the encoder gives no token per patch."""
    samples, grid = view.look.samples, view.look.map_grid
    if samples is None:
        return [], view.look.notes.get("patches", "")
    if grid is None:
        return [], ""
    return [pictures.patch_maps(samples.images, samples.tokens, grid, samples.names[: len(samples.images)])], ""
