"""Hide one side of every sample and write the model's completion of it."""

import argparse
from typing import Final

from ..arguments import READING_NOTE, add_run

EPILOG: Final = READING_NOTE
TAKES_SETTINGS: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa complete`."""
    add_run(parser)
    add = parser.add_argument
    add("--data", required=True, metavar="PATH", help="data to complete, as for train")
    sides = "right, left, top or bottom of pictures; past or future of series; any of these for clips"
    add("--hide", required=True, metavar="SIDE", help=sides)
    add("--out", required=True, metavar="DIR", help="the folder to write")
    add("--limit", type=int, metavar="N", help="complete the first N items (default: all)")
    steps = "training steps of the decoder, if it is not trained yet (default: 2000)"
    add("--steps", type=int, metavar="N", help=steps)
    add("--overwrite", action="store_true", help="replace a folder of completions")


def run(arguments: argparse.Namespace) -> None:
    """Complete and print the error and the sharpness."""
    from ... import api
    from ...core.progress import terminal_progress

    a = arguments
    options = {name: getattr(a, name) for name in ("hide", "limit", "steps", "overwrite", "settings")}
    with terminal_progress() as progress:
        done = api.complete(a.run_folder, data=a.data, out=a.out, progress=progress, **options)
    alike = "" if done.ssim is None else f", SSIM {done.ssim:.3f}"
    print(f"{done.out}: {done.items} items, MSE {done.mse:.4g}{alike}, sharpness {done.sharpness:.3g}")
    if done.skipped:
        print(f"skipped {len(done.skipped)} unreadable items, among them {next(iter(done.skipped))}")
