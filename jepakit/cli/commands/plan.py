"""Let a world model act in an environment by planning, beside a random policy and an oracle."""

import argparse
from typing import Final

from ..arguments import add_run, add_search, add_step, search_options

EPILOG: Final = (
    "Settings of the planner are written --PLANNER.KEY VALUE, such as --cem.samples 300, "
    "those of the environment --env.KEY VALUE. --oracle.KEY VALUE gives the oracle another search than the model's: "
    "knobs, --oracle.horizon N or --oracle.planner NAME."
)
TAKES_SETTINGS: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa plan`."""
    add_run(parser, "the folder of a run of a world model")
    add = parser.add_argument
    add("--env", metavar="NAME", help="the environment (default: that of the run's data)")
    add("--episodes", type=int, default=50, metavar="N", help="number of episodes (default: 50)")
    add("--steps", type=int, metavar="N", help="steps of an episode (default: the environment's time limit)")
    add("--seed", type=int, default=0, metavar="N", help="seed of starts, goals and searches (default: 0)")
    add_search(parser)
    add("--no-diagnosis", action="store_true", help="leave out what tells why plans fail")
    add("--no-film", action="store_true", help="write no film")
    add_step(parser, "use")


def run(arguments: argparse.Namespace) -> None:
    """Plan, and print protocol, scores and what the model knows."""
    from ... import api
    from ...core.progress import terminal_progress
    from ..text import describe_plans

    a = arguments
    options = {name: getattr(a, name) for name in ("episodes", "steps", "seed", "step", "settings")}
    options |= {**search_options(a), "diagnose": not a.no_diagnosis, "film": not a.no_film}
    with terminal_progress() as progress:
        done = api.plan_run(a.run_folder, a.env, progress=progress, **options)
    print(describe_plans(done))
