"""The folder of completions: written whole or not at all, with a file name of its own for every item."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from ..data import Dataset
from ..evals.metrics.generation import Tally

SUMMARY_FILE: Final = "completions.json"
"""The file that marks a folder of completions."""
GRID_FILE: Final = "grid.png"


@contextmanager
def new_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write beside `out`, which replaces `out` when the block succeeds and is deleted when it fails.

    Raises ValueError as `check_folder` does.
    """
    check_folder(out, overwrite)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_folder(out: Path, overwrite: bool) -> None:
    """Raises ValueError if `out` is a file or not empty; with `overwrite`, only if it holds no completions."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give --out a folder")
    if not overwrite:
        raise ValueError(f"{out} is not empty; give another --out, or --overwrite to replace it")
    if not (out / SUMMARY_FILE).is_file():
        raise ValueError(f"{out} is not deleted, as it holds no completions (no {SUMMARY_FILE}); give another --out")


def free_path(folder: Path, name: str, ending: str) -> Path:
    """A path in `folder` named after the item, with the item's own folders, that no other item has.

    The folders are created; the ending replaces that of a picture.
    """
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..")]
    *above, last = parts or ["item"]
    suffix = PurePosixPath(last).suffix
    stem = last.removesuffix(suffix) if suffix.lower() in Image.registered_extensions() else last
    names = chain((stem, last), (f"{last}-{k}" for k in count(2)))
    paths = (folder.joinpath(*above, f"{name}{ending}") for name in names)
    path = next(path for path in paths if not path.exists() and path != folder / GRID_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class Chunk(NamedTuple):
    """Some items: their numbers, their completions and the truth; raw units, on the CPU."""

    id: list[int]
    made: Float[Tensor, "b c ..."]
    true: Float[Tensor, "b c ..."]


WriteChunks = Callable[[Iterator[Chunk], Path, Dataset, Bool[Tensor, "..."], Tensor, int], Tally]
"""Writes all chunks to a folder, given which values of a sample (*size) are hidden, the standard deviation of each
channel, and the number of items; returns how far the completions are from the truth."""
