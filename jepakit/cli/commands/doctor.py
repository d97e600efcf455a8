"""Check this installation and machine, and how fast data can be read."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `jepa doctor` takes."""
    parser.add_argument("--data", help="measure reading this data against a training step")


def run(arguments: argparse.Namespace) -> None:
    """Diagnose and print the rows."""
    from ... import api
    from .. import text

    text.print_table(api.doctor(data=arguments.data))
