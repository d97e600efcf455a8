"""The section on world models: what they imagine, what that knows, and where the energy leads."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...evals.finding import least_known
from .. import imagination
from ..figures import Figure
from ..section import Part, Section, View, figures_per_run

SECTION: Final = Section(
    45,
    "Dynamics",
    "What the world model imagines from one frame and the actions, beside what happened.",
    folds="for several runs",
)
NO_PROBE: Final = "No curve of errors: the dynamics were not probed; run jepa probe RUN --kind dynamics"


def show(views: Sequence[View]) -> Part | None:
    """Errors by horizon, true quantities, films and energies; None if no run is a world model."""
    return figures_per_run([view for view in views if is_world_model(view)], run_figures)


def is_world_model(view: View) -> bool:
    """Whether there is anything to say of a run's dynamics."""
    return view.look.imagined is not None or "dynamics" in view.look.notes or bool(dynamics_results(view))


def dynamics_results(view: View) -> list[Mapping[str, Any]]:
    """The newest results of the probe of dynamics."""
    found = [entry for entry in view.record.evals if entry.get("kind") == "dynamics"]
    newest = max((entry.get("step") or 0 for entry in found), default=0)
    return [entry for entry in found if (entry.get("step") or 0) == newest]


def run_figures(view: View) -> tuple[list[Figure], str]:
    """The figures of one run."""
    results = dynamics_results(view)
    errors = [f for entry in results if (f := imagination.error_figure(entry))]
    known = imagination.factor_figure([entry for entry in results if str(entry.get("name")).startswith("factor-")])
    drawn = [*errors[:1], *([known] if known else [])]
    if view.look.imagined is not None:
        drawn += imagination.imagination_figures(view.look.imagined)
    notes = [view.look.notes.get("dynamics", ""), "" if errors else NO_PROBE, unknown_note(results)]
    return drawn, " ".join(note for note in notes if note)


def unknown_note(results: Sequence[Mapping[str, Any]]) -> str:
    """What the model knows too little of after imagination, though its error may be small; "" if nothing."""
    name, value = least_known(results)
    return f"After imagination, {name} is read with an R² of {value:.2f}: the model does not know it." if name else ""
