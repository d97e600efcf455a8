"""The section on the eigenvalues of the features: how many directions the representation uses over training."""

from collections.abc import Sequence
from typing import Final

from ..figures import Figure, eigenvalue_figure, spectrum_figure
from ..section import Part, Section, View, figures_per_run

SECTION: Final = Section(
    30, "Eigenspectrum", "How many directions the representation uses, over time.", folds="for several runs"
)


def show(views: Sequence[View]) -> Part:
    """The eigenvalues of both encoders as spectra at some steps and as curves over training."""
    return figures_per_run(views, run_figures) or Part(notes=("The run logged no eigenspectrum.",))


def run_figures(view: View) -> tuple[list[Figure], str]:
    """The figures of one run."""
    makers = [
        maker(view.record, side) for side in ("target", "context") for maker in (spectrum_figure, eigenvalue_figure)
    ]
    return [figure for figure in makers if figure], ""
