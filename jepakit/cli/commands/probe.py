"""Evaluate a trained encoder beside an untrained one and the raw input."""

import argparse
from pathlib import Path
from typing import Final

from ..arguments import add_run, add_step, add_weights

EPILOG: Final = (
    "Settings of a probe are given as --KIND.KEY VALUE, such as --linear.pool flat or --knn.k 5 (docs/probes.md)."
)
TAKES_SETTINGS: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa probe`."""
    add_run(parser)
    add = parser.add_argument
    add("--kind", required=True, help="knn, linear, attentive, lowshot, finetune, dense, … (jepa list)")
    add("--data", metavar="PATH", help="labelled data to fit on (default: the run's own)")
    add("--test", metavar="PATH", help="labelled data to score on (default: a fifth of the data, held out)")
    add("--responses", metavar="FILE", help="recorded responses, .npy, for --kind rsa")
    add_weights(parser)
    add_step(parser, "judge")
    add("--name", help="a name for the result file: evals/KIND-NAME.json")
    add("--no-cache", action="store_true", help="do not read or write cached features in the run folder")


def run(arguments: argparse.Namespace) -> None:
    """Probe and print the table."""
    from ... import api
    from ...core.progress import terminal_progress
    from .. import text

    a = arguments
    if a.responses:
        if a.kind != "rsa":
            raise ValueError(f"--kind {a.kind} does not use --responses; give --kind rsa, or leave it out")
        a.settings["rsa.responses"] = a.responses
    options = (a.data, a.test, a.weights, a.name, a.settings, a.step)
    with terminal_progress() as progress:
        paths = api.probe_run(Path(a.run_folder), (a.kind,), *options, cache=not a.no_cache, progress=progress)
    print(text.describe_probes(paths))
