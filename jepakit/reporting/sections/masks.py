"""The section on masks: what the encoder sees and what the predictor has to predict."""

from collections.abc import Sequence
from typing import Final

from .. import figures, pictures
from ..figures import Figure
from ..samples import Look, MaskerSamples
from ..section import Part, Section, View, figures_per_run

SECTION: Final = Section(103, "Masks", "What the encoder sees and what the predictor has to predict.")


def show(views: Sequence[View]) -> Part | None:
    """The coverage of every masker, and some of its masks drawn over pictures."""
    return figures_per_run(views, run_figures)


def run_figures(view: View) -> tuple[list[Figure], str]:
    """The figures of one run."""
    found = [figure for drawn in view.look.masks for figure in mask_figures(drawn, view.look)]
    return found, view.look.notes.get("masks", "")


def mask_figures(drawn: MaskerSamples, look: Look) -> list[Figure]:
    """Figures of how often each cell is context and target, and, for pictures, of example masks."""
    found = [figures.coverage_figure(drawn.context, drawn.target, f"Coverage of {drawn.name}", drawn.count)]
    if look.samples and len(look.grid) == 2:
        count = min(len(look.samples.images), len(drawn.examples))
        images, cells, names = look.samples.images[:count], drawn.examples[:count], look.samples.names[:count]
        grid = (look.grid[0], look.grid[1])
        found.append(pictures.mask_examples(images, cells, grid, names, f"Examples of {drawn.name}"))
    return found
