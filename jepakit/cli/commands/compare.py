"""Compare several runs: differing settings, numbers and probes, and one page about all of them."""

import argparse

from ..arguments import add_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa compare`."""
    add_runs(parser)
    parser.add_argument("--out", metavar="FILE", help="the page to write (default: report.html beside the first run)")


def run(arguments: argparse.Namespace) -> None:
    """Print the table and the path of the page."""
    from ... import api
    from ...core.progress import terminal_progress
    from .. import text

    with terminal_progress() as progress:
        table, page = api.compare(*arguments.run_folders, out=arguments.out, progress=progress)
    print(f"{text.describe_comparison(table)}\nreport: {page}")
