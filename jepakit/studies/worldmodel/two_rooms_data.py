"""Study: how many trajectories does a world model of Two Rooms need, so that one can plan with it?

The trainings are those of `two-rooms-ablation` with all terms, on evenly spaced trajectories of the 90,000 that the
recipe trains on. All take 1,000 steps of 64 trajectories: of 900 trajectories each is seen 71 times, of all less than
once. The metric on top of each model is trained on the same trajectories as the model; the probes score those that all
trainings leave out.
"""

from typing import Final

from ..claims import Ranking, Rises, Statement
from ..study import Arm, Study
from .plans import SUCCESS, measure_rooms
from .two_rooms_ablation import PROBE_OPTIONS, WHOLE, short_run

NUM_TRAJECTORIES: Final = 90_000
SHARES: Final = (1, 3, 10, 30)


def part_arm(percent: int) -> Arm:
    """The training on so many per cent of the trajectories."""
    run = short_run(NUM_TRAJECTORIES * percent // 100)
    return Arm("Two Rooms", "all terms", run, "", f"{percent} % of the data")


PARTS: Final = tuple(part_arm(percent) for percent in SHARES)


def claims() -> tuple[Statement, ...]:
    """Success rises with the number of trajectories; and the order of all trainings."""
    cells = tuple((arm.label, SUCCESS) for arm in (*PARTS, WHOLE))
    return Rises(cells), Ranking(cells)


STUDY = Study(
    title="Two Rooms with fewer trajectories",
    source="our own; the recipe two-rooms-fixed",
    claim="With fewer trajectories, fewer episodes arrive.",
    arms=(*PARTS, WHOLE),
    claims=claims(),
    kinds=("dynamics",),
    options=PROBE_OPTIONS,
    run_metrics=measure_rooms,
    seeds=1,
)
