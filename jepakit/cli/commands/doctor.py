"""Check this installation, this machine, and how fast data can be read."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa doctor`."""
    parser.add_argument("--data", help="compare the time to read these data with that of a training step")


def run(arguments: argparse.Namespace) -> None:
    """Print the results of all checks."""
    from ... import api
    from .. import text

    text.print_table(api.doctor(data=arguments.data))
