"""Let a world model act in an environment by planning, beside a random policy and an oracle."""

import argparse
from typing import Final

from ..arguments import add_run, add_step

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
    add("--planner", default="cem", metavar="NAME", help="the search (default: cem; jepa list shows all)")
    add("--episodes", type=int, default=50, metavar="N", help="number of episodes (default: 50)")
    add("--steps", type=int, metavar="N", help="steps of an episode (default: the environment's time limit)")
    add("--horizon", type=int, default=8, metavar="N", help="the model's actions in a plan (default: 8)")
    add("--replan", type=int, default=1, metavar="N", help="actions that are done before the next plan (default: 1)")
    add("--seed", type=int, default=0, metavar="N", help="seed of starts, goals and searches (default: 0)")
    energies = ("auto", "latent", "metric", "reward")
    add("--energy", choices=energies, default="auto", help="what plans are judged by (default: auto)")
    add("--distance", choices=("l2", "l1", "cosine"), default="l2", help="the latent distance to a goal")
    reductions = ("sum", "last", "discounted", "lowest")
    add("--reduce", choices=reductions, default="sum", help="how the steps of a path count (default: sum)")
    add("--no-diagnosis", action="store_true", help="leave out what tells why plans fail")
    add("--no-film", action="store_true", help="write no film")
    add_step(parser, "use")


def run(arguments: argparse.Namespace) -> None:
    """Plan, and print protocol, scores and what the model knows."""
    from ... import api
    from ...core.progress import terminal_progress
    from ..text import describe_plans

    a = arguments
    names = ("planner", "episodes", "steps", "horizon", "seed", "distance", "reduce", "step", "settings")
    options = {name: getattr(a, name) for name in names}
    options |= {"source": a.energy, "replan_every": a.replan, "diagnose": not a.no_diagnosis, "film": not a.no_film}
    with terminal_progress() as progress:
        done = api.plan_run(a.run_folder, a.env, progress=progress, **options)
    print(describe_plans(done))
