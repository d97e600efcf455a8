"""Write one page about one or several runs."""

import argparse

from ..arguments import add_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa report`."""
    add_runs(parser)
    parser.add_argument("--out", metavar="FILE", help="the page to write (default: RUN/report.html)")


def run(arguments: argparse.Namespace) -> None:
    """Write the page and print its path."""
    from ... import api
    from ...core.progress import terminal_progress

    with terminal_progress() as progress:
        page = api.report(*arguments.run_folders, out=arguments.out, progress=progress)
    print(page)
