"""Forecast every series of a table and write the next steps with intervals."""

import argparse
from typing import Final

from ..arguments import READING_NOTE, add_run, add_step

EPILOG: Final = READING_NOTE
TAKES_SETTINGS: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa forecast`."""
    add_run(parser, "the folder of a run trained on series")
    add = parser.add_argument
    add("--data", required=True, metavar="PATH", help="series to forecast, as for train")
    add("--horizon", required=True, type=int, metavar="N", help="number of steps to forecast")
    add("--out", required=True, metavar="FILE", help="FILE.csv or .parquet")
    add("--reader", metavar="NAME", help="the reader to use instead of the best, such as linear or representation")
    add("--plot", metavar="FILE", help="FILE.png with the first series and their forecasts")
    add_step(parser, "use")
    add("--overwrite", action="store_true", help="replace FILE and the details beside it")


def run(arguments: argparse.Namespace) -> None:
    """Forecast, and print the error of every reader and what is to be known of the choice."""
    from ... import api
    from ...core.progress import terminal_progress
    from ..text import describe_forecast

    a = arguments
    options = {name: getattr(a, name) for name in ("reader", "plot", "overwrite", "step", "settings")}
    with terminal_progress() as progress:
        done = api.forecast(a.run_folder, a.data, a.horizon, a.out, progress=progress, **options)
    print(describe_forecast(done))
