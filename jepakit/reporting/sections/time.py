"""The section on methods that unfold in time: what the method predicts and remembers after each step of a sample."""

from collections.abc import Sequence
from typing import Final

from .. import paths
from ..figures import Figure
from ..section import Part, Section, View, figures_per_run

SECTION: Final = Section(
    50,
    "Through time",
    "What the method knows after each step of a sample that it was trained on.",
    folds="for several runs",
)


def show(views: Sequence[View]) -> Part | None:
    """Errors per step, paths of states, gates and scanpaths; None if no run's method unfolds in time."""
    return figures_per_run(views, run_figures)


def run_figures(view: View) -> tuple[Sequence[Figure], str]:
    """The figures of one run."""
    unfolded = view.look.unfolded
    return paths.time_figures(unfolded) if unfolded else (), view.look.notes.get("time", "")
