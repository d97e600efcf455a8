"""The folder that completions are written to: whole or not there, and what is called how in it."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from ..data import Dataset
from ..evals.metrics.generation import Tally

MARK = "completions.json"


GRID = "grid.png"


@contextmanager
def new_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write beside `out`, which takes its place when the block ends well and is gone when it does not.

    Raises ValueError where `out` is a file or not empty; with `overwrite` only where it holds no completions.
    """
    check_out(out, overwrite)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_out(out: Path, overwrite: bool) -> None:
    """Raises ValueError where `out` may not become a folder of completions."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give --out a folder")
    if not overwrite:
        raise ValueError(f"{out} is not empty; give another --out, or --overwrite to replace it")
    if not (out / MARK).is_file():
        raise ValueError(f"{out} is not deleted, as it holds no completions (no {MARK}); give another --out")


def free(folder: Path, name: str, ending: str) -> Path:
    """A path in `folder` that is named like the item, folders of its own included, and that no other item has.

    The folders are made; the ending takes the place of that of a picture.
    """
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..")]
    *above, last = parts or ["item"]
    suffix = PurePosixPath(last).suffix
    stem = last.removesuffix(suffix) if suffix.lower() in Image.registered_extensions() else last
    names = chain((stem, last), (f"{last}-{k}" for k in count(2)))
    paths = (folder.joinpath(*above, f"{found}{ending}") for found in names)
    path = next(path for path in paths if not path.exists() and path != folder / GRID)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class Chunk(NamedTuple):
    """Which items they are, what was made of them, and what they are in truth; raw units, on the CPU."""

    id: list[int]
    made: Float[Tensor, "b c ..."]
    true: Float[Tensor, "b c ..."]


Write = Callable[[Iterator[Chunk], Path, Dataset, Bool[Tensor, "..."], Tensor, int], Tally]


"""Writes all chunks to a folder, knowing what of a sample (*size) is hidden, the deviations of the channels, and how
many items there are."""
