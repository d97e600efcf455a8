"""Measure a published claim again: trainings × seeds, a table beside the paper's, and a page."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `jepa reproduce` takes."""
    add = parser.add_argument
    add("study", metavar="NAME", help="a study (jepa list)")
    add("--data", metavar="FOLDER", help="the folder of all data sets (default: JEPAKIT_DATA)")
    add("--out", metavar="DIR", help="default: studies/NAME; an interrupted study continues there")
    add("--seeds", type=int, metavar="N", help="trainings of each kind (default: 3 for most studies)")
    add("--steps", type=int, metavar="N", help="shorten every training: a rehearsal")


def run(arguments: argparse.Namespace) -> None:
    """Run the study, then print its table and where the page is."""
    from ... import api
    from ...core.progress import terminal_progress
    from .. import text

    a = arguments
    with terminal_progress() as progress:
        rows, page = api.reproduce(a.study, a.data, a.out, seeds=a.seeds, steps=a.steps, progress=progress)
    print(f"{text.describe_study(rows)}\nreport: {page}")
