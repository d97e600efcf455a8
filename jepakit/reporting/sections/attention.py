"""The section that shows which parts of an image the encoder attends to."""

from collections.abc import Sequence
from typing import Final

from .. import pictures
from ..figures import Figure
from ..samples import Look
from ..section import Part, Section, View, figures_per_run

SECTION: Final = Section(106, "Attention", "Where the encoder takes its information from.")


def show(views: Sequence[View]) -> Part | None:
    """A few images of every run, bright where the last block attends."""
    return figures_per_run(views, lambda view: attention_figures(view.look))


def attention_figures(look: Look) -> tuple[list[Figure], str]:
    """The attention figure of one run, or none and, if the data were not read, why; none for an encoder without it."""
    samples, grid = look.samples, look.map_grid
    if samples is None:
        return [], look.notes.get("attention", "")
    if grid is None or samples.attention is None:
        return [], ""
    names = samples.names[: len(samples.images)]
    return [pictures.attention_maps(samples.images, samples.attention, grid, names)], ""
