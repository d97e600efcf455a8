"""Compare several runs: the settings that differ, their numbers and probes, and one page on them all."""

import argparse

from ..arguments import add_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `jepa compare` takes."""
    add_runs(parser)
    parser.add_argument("--out", metavar="FILE", help="default: report.html beside the first run")


def run(arguments: argparse.Namespace) -> None:
    """Print the table and where the page is."""
    from ... import api
    from ...core.progress import terminal_progress
    from .. import text

    with terminal_progress() as progress:
        table, page = api.compare(*arguments.run_folders, out=arguments.out, progress=progress)
    print(f"{text.describe_comparison(table)}\nreport: {page}")
