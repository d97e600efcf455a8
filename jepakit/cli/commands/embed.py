"""Write the representation of every item of a data set."""

import argparse
from typing import Final

from ..arguments import READING_NOTE, add_run, add_step, add_weights, exit_with_error

EPILOG: Final = READING_NOTE
TAKES_SETTINGS: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa embed`."""
    add_run(parser)
    add = parser.add_argument
    add("--data", required=True, metavar="PATH", help="data to embed, as for train")
    add(
        "--out",
        required=True,
        metavar="FILE",
        help="FILE.parquet, .npy, .safetensors or .csv; labels too, if there are any",
    )
    add("--tokens", action="store_true", help="one vector per patch instead of their mean")
    add_weights(parser)
    add_step(parser, "embed with")
    add("--batch", type=int, default=64, metavar="N", help="items at a time (default: 64)")
    add("--workers", type=int, metavar="N", help="number of reading processes (default: as in training)")
    add("--overwrite", action="store_true", help="replace FILE")


def run(arguments: argparse.Namespace) -> None:
    """Embed and print the shape of the result."""
    from ... import api
    from ...core.progress import terminal_progress

    a = arguments
    names = ("tokens", "weights", "step", "batch", "workers", "overwrite", "settings")
    options = {name: getattr(a, name) for name in names}
    try:
        with terminal_progress() as progress:
            done = api.embed(a.run_folder, data=a.data, out=a.out, progress=progress, **options)
    except KeyboardInterrupt:
        exit_with_error("interrupted; the same command continues where it stopped", 130)
    print(f"{done.out}: {' × '.join(map(str, done.shape))}")
    if done.missing:
        print(f"{len(done.missing)} unreadable items have a row of NaN, among them {done.missing[0]}")
