"""Count, measure and read every item; list what is broken, duplicated or odd."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `jepa check-data` takes."""
    add = parser.add_argument
    add("path", metavar="PATH")
    add("--test", metavar="PATH", help="a second set: count its items that are also in the first")
    add("--csv", metavar="FILE", help="also write a row per problem")
    add("--image", default="", metavar="NAME", help="the column or array of images (data.image)")
    add("--label", default="", metavar="NAME", help="the column or array of labels (data.label)")
    add("--fixations", default="", metavar="FILE", help="scanpaths on the pictures (data.fixations)")
    add("--timing", choices=("auto", "duration", "onset"), default="auto", help="what the times of fixations are")


def run(arguments: argparse.Namespace) -> None:
    """Read everything and print what was found."""
    from ... import api
    from ...core.progress import terminal_progress
    from .. import text

    a = arguments
    options = {name: getattr(a, name) for name in ("image", "label", "fixations", "timing")}
    with terminal_progress() as progress:
        rows = api.check_data(a.path, csv=a.csv, test=a.test, **options, progress=progress)
    text.print_table(rows)
