"""Read and measure every item; list broken, duplicate and unusual ones."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa check-data`."""
    add = parser.add_argument
    add("path", metavar="PATH")
    add("--test", metavar="PATH", help="a second set: count its items that are also in the first")
    add("--csv", metavar="FILE", help="also write a table with one row per problem")
    add("--image", default="", metavar="NAME", help="the column or array of images (data.image)")
    add("--label", default="", metavar="NAME", help="the column or array of labels (data.label)")
    add("--fixations", default="", metavar="FILE", help="scanpaths on the pictures (data.fixations)")
    add(
        "--timing",
        choices=("auto", "duration", "onset"),
        default="auto",
        help="the meaning of fixation times (data.timing)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Read all items and print the report."""
    from ... import api
    from ...core.progress import terminal_progress
    from .. import text

    a = arguments
    options = {name: getattr(a, name) for name in ("image", "label", "fixations", "timing")}
    with terminal_progress() as progress:
        rows = api.check_data(a.path, csv=a.csv, test=a.test, **options, progress=progress)
    text.print_table(rows)
