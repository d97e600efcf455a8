"""Study: which number of a world model predicts whether it plans?

Spearman's rank correlation, over all trainings of `two-rooms-ablation` and `two-rooms-data`, four of 50 to 400 steps
and three of the recipe, between the success at the end and each number that a user may look at first: those of `jepa
probe --kind dynamics`, which need no simulator, and those of `jepa plan`, which need one. All trainings share one
environment, with one wall. A number that only tells broken trainings from sound ones correlates as well as one that
tells good from best, so each is also correlated over the trainings with a success of half or more.

The trainings of the other studies count as finished if their folders `runs` are this study's.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from ...types import Rng
from ..correlations import Correlation, best_number, bootstrap_correlation, gather_runs
from ..study import Arm, Scores, Study
from . import plans
from .plans import SUCCESS, measure_rooms
from .two_rooms import whole_run
from .two_rooms_ablation import PROBE_OPTIONS, WHOLE, WITHOUT, short_run
from .two_rooms_data import PARTS

MIN_TRAININGS: Final = 8
MIN_SOUND_SUCCESS: Final = 0.5  # the success from which a training counts as sound


class Number(NamedTuple):
    """Where a number stands in the table of the study, and whether logs suffice to measure it, without a simulator."""

    metric: str
    from_logs: bool


NUMBERS: Final[Mapping[str, Number]] = {
    "open-loop error": Number("dynamics open-loop error over 8 steps", True),
    "state R², seen (x)": Number("dynamics R² of position 0", True),
    "state R², imagined (worst)": Number("dynamics lowest R² of a factor, imagined", True),
    "rank of the true action": Number("dynamics reciprocal rank of the true action of 32", True),
    "action recovery": Number("dynamics R² of the action found by planning", True),
    "energy and steps to go": Number("dynamics correlation of energy and steps to go", True),
    "effective rank": Number(plans.EFFECTIVE_RANK, True),
    "position error, seen": Number(plans.POSITION_ERROR_SEEN, False),
    "position error, imagined": Number(plans.POSITION_ERROR, False),
    "ghosting": Number(plans.GHOSTING, False),
    "metric rank − straight line": Number(plans.METRIC_RANK, False),
    "latent rank − straight line": Number(plans.LATENT_RANK, False),
    "greedy on the true dynamics": Number(plans.GREEDY_ON_TRUTH, False),
    "greedy on the model": Number(plans.GREEDY_ON_MODEL, False),
}
BRIEF: Final = tuple(
    Arm("Two Rooms", "all terms", short_run(0, steps), "", f"{steps} steps") for steps in (50, 100, 200, 400)
)
FULL: Final = tuple(
    Arm("Two Rooms", "recipe", whole_run(seed), "", f"seed {seed}, {whole_run().length.steps} steps")
    for seed in range(3)
)


def success_correlations(scores: Scores, least: float = 0.0) -> dict[str, Correlation]:
    """The correlation of every number with the success, over trainings with a success of at least `least`.

    In falling order. Left out are numbers that fewer than MIN_TRAININGS trainings have, and all if success is the same.
    """
    found = {}
    for name, number in NUMBERS.items():
        runs = gather_runs(scores, number.metric, SUCCESS)
        runs = runs.at(np.flatnonzero(runs.y >= least))
        if len(runs.x) >= MIN_TRAININGS and np.ptp(runs.y) > 0:
            found[name] = bootstrap_correlation(runs, Rng(0).fork("study", "plan-success"))
    return dict(sorted(found.items(), key=lambda item: -abs(item[1].value)))


def conclusions(scores: Scores) -> list[str]:
    """The best number of all, the best one without a simulator, and every number."""
    every, sound = success_correlations(scores), success_correlations(scores, MIN_SOUND_SUCCESS)
    if not every:
        return [f"No number was measured in {MIN_TRAININGS} trainings whose success differs."]
    logs = {name: one for name, one in every.items() if NUMBERS[name].from_logs}
    told = [best_number(every, "of all")]
    told += [best_number(logs, "without a simulator")] if logs else []
    beyond = {
        name: f"; over trainings with a success of {100 * MIN_SOUND_SUCCESS:.0f} % or more {one}"
        for name, one in sound.items()
    }
    numbers = [f"{name}: {one}{beyond.get(name, '')}." for name, one in every.items()]
    return [*told, describe_sound(scores), *numbers]


def describe_sound(scores: Scores) -> str:
    """How many trainings are sound, and the range of their success: where it is narrow, its order is chance."""
    success = [value for arm in scores.arms for value in scores.values.get((arm.label, SUCCESS), ())]
    sound = [value for value in success if value >= MIN_SOUND_SUCCESS]
    spread = f", from {100 * min(sound):.0f} to {100 * max(sound):.0f} %" if sound else ""
    return (
        f"{len(sound)} of {len(success)} trainings have a success of {100 * MIN_SOUND_SUCCESS:.0f} % or more{spread}. "
        f"Each is measured in {plans.EPISODES} episodes, so that close ones are in no sure order."
    )


STUDY = Study(
    title="Which number predicts that a world model plans",
    source="our own",
    claim="Some number that is cheaper than planning predicts which of two world models plans better.",
    arms=(WHOLE, *WITHOUT, *PARTS, *BRIEF, *FULL),
    conclusions=conclusions,
    kinds=("dynamics",),
    options=PROBE_OPTIONS,
    run_metrics=measure_rooms,
    seeds=1,
)
