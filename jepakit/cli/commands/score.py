"""Write how unusual every step of series is to a trained model, and in which channel."""

import argparse
from typing import Final

from ..arguments import READING_NOTE, add_run, add_step

EPILOG: Final = READING_NOTE
TAKES_SETTINGS: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa score`."""
    add_run(parser)
    add = parser.add_argument
    add("--data", required=True, metavar="PATH", help="series to score, as for train")
    add("--out", required=True, metavar="FILE", help="FILE.csv or .parquet, a row per step")
    add("--causal", action="store_true", help="predict the last token of each window from those before it")
    add("--stride", type=int, metavar="N", help="steps between two windows (default: one token)")
    add("--quantile", type=float, default=0.999, metavar="Q", help="share of normal steps below the threshold")
    add("--plot", metavar="FILE", help="FILE.png with series and scores")
    add_step(parser, "score with")
    add("--batch", type=int, default=256, metavar="N", help="windows at a time (default: 256)")
    add("--overwrite", action="store_true", help="replace FILE")


def run(arguments: argparse.Namespace) -> None:
    """Score and print the number of steps above the threshold."""
    from ... import api
    from ...core.progress import terminal_progress

    a = arguments
    names = ("causal", "stride", "quantile", "plot", "batch", "overwrite", "step", "settings")
    options = {name: getattr(a, name) for name in names}
    with terminal_progress() as progress:
        done = api.score(a.run_folder, data=a.data, out=a.out, progress=progress, **options)
    print(f"{done.out}: {done.anomalous} of {done.scored} scored steps above {done.reference.threshold:.4g}")
    print(done.reference.false_alarm_text())
    if done.short:
        few = "are shorter than the shortest training window and were not scored"
        print(f"{len(done.short)} series {few}, among them {done.short[0]}")
