"""Files that are whole or not there: written beside their place, then renamed."""

import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def slug(label: str) -> str:
    """A label as part of a file's name: a to z, digits, and hyphens for all between them."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place when the block ends well and is gone when it does not.

    Raises ValueError where `path` is a folder.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it to write, as in {path / 'NAME'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_writable(path: Path, overwrite: bool, endings: Collection[str] = ()) -> None:
    """Raises ValueError where a file names none of the formats `endings`, or exists and may not be replaced."""
    if endings and path.suffix not in endings:
        raise ValueError(
            f"{path} ends in {path.suffix or 'nothing'!r}, which names no format; use {', '.join(endings)}"
        )
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already; give another name, or --overwrite to replace it")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never half of it."""
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """`write_text` of JSON, indented."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
