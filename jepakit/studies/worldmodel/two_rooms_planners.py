"""Study: how do planners compare on one world model, and what do their knobs change?

The model is that of the recipe `two-rooms-fixed` with a metric (`studies/worldmodel/plans.py`). Every planner plans 8
actions of 2 steps and does 4 of them before it plans again, in the same 20 episodes of 200 steps. Beside it stands the
same search on the true dynamics, by the true distance. Seconds depend on the load of the machine.

The energies over iterations are those of a first plan from 20 starts, each relative to that of standing still.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...inference.plan import HORIZON, choose_planner
from ...inference.world import open_world
from ...planning.plan import start_plan
from ...planning.rollout import rollout_cost
from ...reporting.charts import Line, line_chart
from ...reporting.figures import Figure
from ...run import checkpoint
from ...types import Rng
from ..claims import Numbers, Ranking, Statement
from ..study import Study
from .plans import REPLAN_EVERY, SUCCESS, SUCCESS_EVER, load_or_plan
from .two_rooms import RECIPE
from .two_rooms_ablation import PROBE_OPTIONS

EPISODES: Final = 20
ORACLE_SUCCESS: Final = "success on the true dynamics"
ENERGY: Final = "energy of the first plan"
SECONDS: Final = "seconds per action"


@dataclass(frozen=True)
class Search:
    """A planner by name, with the knobs that are changed."""

    planner: str
    settings: Mapping[str, Any] = field(default_factory=dict)


SEARCHES: Final[Mapping[str, Search]] = {
    "random": Search("random"),
    "cem": Search("cem"),
    "icem": Search("icem"),
    "mppi": Search("mppi"),
    "gradient": Search("gradient"),
    "cem-gradient": Search("cem-gradient"),
    "cem, 16 samples": Search("cem", {"cem.samples": 16, "cem.elites": 4}),
    "cem, 256 samples": Search("cem", {"cem.samples": 256, "cem.elites": 32}),
    "gradient, step 0.03": Search("gradient", {"gradient.lr": 0.03}),
    "gradient, step 0.3": Search("gradient", {"gradient.lr": 0.3}),
    "gradient, 1 start": Search("gradient", {"gradient.starts": 1}),
}
DRAWN_SEARCHES: Final = ("cem", "icem", "mppi", "gradient", "cem-gradient")


def measure_search(run: Path, search: Search) -> Mapping[str, float]:
    """How a search plans on a finished run."""
    options = {"episodes": EPISODES, "replan_every": REPLAN_EVERY, "diagnose": False}
    result = load_or_plan(run, search.planner, settings=dict(search.settings), **options)
    return {
        SUCCESS: result["success_end"],
        SUCCESS_EVER: result["success_ever"],
        ORACLE_SUCCESS: result["oracle"],
        ENERGY: first_energies(run, search)[-1],
        SECONDS: result["seconds_per_action"],
    }


def first_energies(run: Path, search: Search) -> Sequence[float]:
    """The lowest energy so far after every iteration of a first plan, as a share of that of standing still."""
    world = open_world(checkpoint.load_run(run), run)
    env, energies = world.env, world.energies
    start, goal = env.tasks(np.arange(EPISODES), Rng(0).fork("studies", "starts"))
    state = energies.method.start(energies.form.stack_frames(env.observe(start)[:, None]).to(energies.method.mean))
    cost = rollout_cost(energies.method.step, world.energy_of(goal), state)
    begin = start_plan(EPISODES, HORIZON, energies.spec, device=energies.method.mean.device)
    planner = choose_planner(search.planner, dict(search.settings))
    plan = planner(cost, begin, energies.spec, Rng(0).fork("studies", "search"))
    still = cost(begin.mean[:, None])[:, 0]
    shares: list[float] = (plan.energy / still).mean(1).tolist()
    return shares


def draw_energies(folders: Mapping[str, Path]) -> Sequence[tuple[str, Figure]]:
    """The energies over the iterations of every kind of planner."""
    (run,) = folders.values()
    lines = []
    for k, name in enumerate(DRAWN_SEARCHES):
        found = np.array(first_energies(run, SEARCHES[name]))
        lines.append(Line(name, np.arange(len(found), dtype=np.float64), found, k))
    title = "Energy over the iterations of a search"
    caption = (
        "The lowest energy so far of a first plan, as a share of that of standing still, over 20 starts. One "
        "iteration of CEM tries 64 plans, of MPPI 128, of gradient planning 8, with their gradients."
    )
    return [("energies", Figure(title, line_chart(lines, title, x_label="iteration"), caption))]


def claims() -> tuple[Statement, ...]:
    """Success and energy of all searches."""
    rows = tuple(f"{RECIPE.label} · {name}" for name in SEARCHES)
    return (
        Ranking(tuple((row, SUCCESS) for row in rows)),
        Ranking(tuple((row, ENERGY) for row in rows), lower=True),
        Numbers(rows, (ORACLE_SUCCESS, SECONDS)),
    )


STUDY = Study(
    title="Planners on one world model",
    source="our own",
    claim="Searches that sample plan better than gradients alone.",
    arms=(RECIPE,),
    claims=claims(),
    kinds=("dynamics",),
    options=PROBE_OPTIONS,
    parts={name: partial(measure_search, search=search) for name, search in SEARCHES.items()},
    figures=draw_energies,
    seeds=1,
)
