"""Atomic file writing: a file is written under a temporary name and then renamed, so it is complete or absent."""

import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def file_slug(label: str) -> str:
    """A label as part of a file name: lower-case letters and digits, joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; it replaces `path` if the block succeeds and is deleted if it fails.

    Raises ValueError if `path` is a folder.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file to write, such as {path / 'NAME'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_writable(path: Path, overwrite: bool, endings: Collection[str] = (), main: Path | None = None) -> None:
    """Raise ValueError if the suffix of `path` is none of `endings`, or if the file exists and `overwrite` is false.

    `main` is the file that the user named, if `path` is written beside it.
    """
    if endings and path.suffix not in endings:
        raise ValueError(
            f"{path} ends in {path.suffix or 'nothing'!r}, which names no format; use {', '.join(endings)}"
        )
    if path.exists() and not overwrite:
        beside = f", and {main} comes with a file of that name" if main else ""
        raise ValueError(f"{path} exists already{beside}; give another name, or --overwrite to replace it")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees either the old content or the new, never a part of it."""
    with replace_file(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, in the same way as `write_text`."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
