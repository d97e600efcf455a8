"""Reproduce a published claim: trainings × seeds, a table beside the paper's, and a page."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa reproduce`."""
    add = parser.add_argument
    add("study", metavar="NAME", help="a study (jepa list)")
    add("--data", metavar="FOLDER", help="the folder of all data sets (default: JEPAKIT_DATA)")
    add(
        "--out", metavar="DIR", help="the folder to write (default: studies/NAME); an interrupted study continues there"
    )
    add("--seeds", type=int, metavar="N", help="number of trainings of each kind (default: 3 for most studies)")
    add("--steps", type=int, metavar="N", help="shorten every training to N steps, for a rehearsal")


def run(arguments: argparse.Namespace) -> None:
    """Run the study, then print its table and the path of its page."""
    from ... import api
    from ...core.progress import terminal_progress
    from .. import text

    a = arguments
    with terminal_progress() as progress:
        rows, page = api.reproduce(a.study, a.data, a.out, seeds=a.seeds, steps=a.steps, progress=progress)
    print(f"{text.describe_study(rows)}\nreport: {page}")
