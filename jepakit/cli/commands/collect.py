"""Let a policy act in an environment and write the episodes."""

import argparse
from typing import Final

from ..arguments import add_search, exit_with_error, search_options

EPILOG: Final = (
    "Settings of the environment are written --env.KEY VALUE, such as --env.size 65, "
    "those of a run's planner --PLANNER.KEY VALUE, such as --cem.samples 300."
)
TAKES_SETTINGS: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa collect`."""
    add = parser.add_argument
    add("environment", metavar="ENV", help="an environment that jepa list shows, or gym:ID")
    add(
        "--out",
        required=True,
        metavar="FOLDER",
        help="the folder of the episodes; one with a part of them is continued",
    )
    add("--episodes", required=True, type=int, metavar="N", help="number of episodes")
    add(
        "--policy",
        default="random",
        metavar="NAME|RUN",
        help="who acts: a policy, or a run that plans (default: random)",
    )
    add("--steps", type=int, metavar="N", help="steps of an episode (default: the environment's time limit)")
    add("--hold", type=int, default=1, metavar="N", help="steps for which each action is held (default: 1)")
    add("--format", choices=("npz", "minari"), default="npz", help="a .npz file per episode, or one HDF5 file")
    add("--seed", type=int, default=0, metavar="N", help="seed of starts and policy (default: 0)")
    add("--workers", type=int, default=1, metavar="N", help="number of processes (default: 1)")
    add_search(parser)
    add("--noise", type=float, metavar="X", help="share of a run's actions that are random (default: 0)")


def run(arguments: argparse.Namespace) -> None:
    """Collect and print the folder."""
    from ... import api
    from ...core.progress import terminal_progress

    a = arguments
    names = ("policy", "steps", "hold", "format", "seed", "workers", "settings")
    options = {name: getattr(a, name) for name in names}
    options["planning"] = search_options(a) | ({} if a.noise is None else {"noise": a.noise})
    try:
        with terminal_progress() as progress:
            folder = api.collect(a.environment, a.out, a.episodes, progress=progress, **options)
    except KeyboardInterrupt:
        exit_with_error("interrupted; the same command continues where it stopped", 130)
    print(f"{folder}: {a.episodes} episodes of {a.environment}")
