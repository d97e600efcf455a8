"""Study: does the recipe `two-rooms-fixed` give a world model that plans, and what does the model know?

Three trainings of 4,000 steps, each with a metric on top (2,000 steps), about ten minutes each; episodes are planned as
in `two-rooms-ablation`. The numbers beside the success say which part fails if plans do: greedy on the true dynamics
judges the energy, greedy on the model the model within one action, and pushes through the wall the model over 8
actions.
"""

from dataclasses import replace
from typing import Final

from ...recipes.worlds import two_rooms_fixed
from ...run.settings import Run
from ..claims import AtLeast, Numbers, Statement
from ..study import Arm, Study
from . import plans
from .plans import SUCCESS, measure_rooms
from .two_rooms_ablation import PAPER_SUCCESS, PROBE_OPTIONS

MIN_SUCCESS: Final = 0.9


def whole_run(seed: int = 0) -> Run:
    """The recipe, with a seed."""
    run = two_rooms_fixed()
    return replace(run, seed=seed, loop=replace(run.loop, workers=0))


RECIPE: Final = Arm("Two Rooms", "recipe", whole_run(), "", "", {SUCCESS: PAPER_SUCCESS})
REPORTED_METRICS: Final = (
    plans.SUCCESS_EVER,
    plans.GREEDY_ON_TRUTH,
    plans.GREEDY_ON_MODEL,
    plans.GHOSTING,
    plans.POSITION_ERROR,
    plans.METRIC_RANK,
    plans.EFFECTIVE_RANK,
)


def claims() -> tuple[Statement, ...]:
    """Success of every seed, and what the model knows."""
    return AtLeast((RECIPE.label,), SUCCESS, MIN_SUCCESS), Numbers((RECIPE.label,), REPORTED_METRICS)


STUDY = Study(
    title="Planning in Two Rooms",
    source="EB-JEPA, arXiv:2602.03604 (fixed wall, 3,120 steps of 384 trajectories on an H100)",
    claim="98 % of the episodes end at the goal in the other room.",
    arms=(RECIPE,),
    claims=claims(),
    kinds=("dynamics",),
    options=PROBE_OPTIONS,
    run_metrics=measure_rooms,
)
