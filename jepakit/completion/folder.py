"""A folder that is there as a whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = "completions.json"


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
