"""Write the steps that follow every series of a table, with intervals."""

import argparse
from typing import Final

from ..arguments import READING_NOTE, add_run, add_step

EPILOG: Final = READING_NOTE
TAKES_SETTINGS: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `jepa forecast` takes."""
    add_run(parser, "the folder that training on series wrote")
    add = parser.add_argument
    add("--data", required=True, metavar="PATH", help="series to continue: as for train")
    add("--horizon", required=True, type=int, metavar="N", help="how many steps")
    add("--out", required=True, metavar="FILE", help="FILE.csv or .parquet")
    add("--plot", metavar="FILE", help="FILE.png of the first series and what follows")
    add_step(parser, "use")
    add("--overwrite", action="store_true", help="replace FILE")


def run(arguments: argparse.Namespace) -> None:
    """Forecast and print the errors on held-out data."""
    from ... import api
    from ...core.progress import terminal_progress

    a = arguments
    options = {name: getattr(a, name) for name in ("plot", "overwrite", "step", "settings")}
    with terminal_progress() as progress:
        done = api.forecast(a.run_folder, a.data, a.horizon, a.out, progress=progress, **options)
    errors = ", ".join(f"{name} {error:.4g}" for name, error in done.errors.items())
    print(f"{done.out}: {done.horizon} steps of {done.series} series, read from {done.reader}")
    print(f"mean squared error on held-out data: {errors}")
