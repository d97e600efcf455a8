"""Resolve a data path: one file, one folder, or all files that match a pattern."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path


def existing_path(path: str) -> Path:
    """The path as a Path. Raises ValueError if it does not exist."""
    if not path:
        raise ValueError("no data given; name a folder, file or glob, e.g. --data.path photos/")
    found = Path(path).expanduser()
    if not found.exists():
        raise ValueError(f"no file or folder {path!r}; check the path (it is read relative to {Path.cwd()})")
    return found


def expand_pattern(path: str) -> list[Path]:
    """The files that a path, glob or brace pattern matches, sorted within each pattern. Raises ValueError."""
    if not any(mark in path for mark in "*?[{") or Path(path).expanduser().exists():
        return [existing_path(path)]
    from braceexpand import braceexpand

    parts = [str(Path(part).expanduser()) for part in braceexpand(path)]
    found = [Path(name) for part in parts for name in sorted(glob.glob(part, recursive=True))]
    if not found:
        raise ValueError(f"no file matches {path!r}; check the pattern (it is read relative to {Path.cwd()})")
    missing = [part for part in parts if not glob.glob(part, recursive=True)]
    if missing:
        raise ValueError(f"{path!r} names {missing[0]!r}, which is not there; narrow the braces to the shards you have")
    return list(dict.fromkeys(found))


def distinct_names(files: Sequence[Path]) -> list[str]:
    """The names of the files or, if two are equal, their paths below the folder that holds all of them."""
    names = [file.name for file in files]
    if len(set(names)) == len(names):
        return names
    paths = [os.path.abspath(file) for file in files]
    top = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, top) for path in paths]


def first_file(path: str) -> Path | None:
    """The first file or folder that a path matches; None if there is none."""
    try:
        return expand_pattern(path)[0]
    except ValueError:
        return None


def file_name(path: str) -> str:
    """The lower-case name of the first file that a path matches; "" if there is none or it is a folder."""
    file = first_file(path)
    return "" if file is None or file.is_dir() else file.name.lower()


def short_path(path: str) -> str:
    """The last part of a path, for display: `photos` of `/data/photos/`; with its folder if it is a pattern."""
    parts = [part for part in path.split("/") if part]
    if len(parts) < 2:
        return path
    return "/".join(parts[-2:]) if any(mark in parts[-1] for mark in "*?[{") else parts[-1]


def file_ending(path: Path) -> str:
    """The lower-case suffix, ignoring that of gzip."""
    return (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()


def split_key(path: str) -> tuple[str, str]:
    """The file and the array of `file.npz:array`; the path itself and "" if it names no array."""
    file, mark, key = path.rpartition(".npz:")
    return (f"{file}.npz", key) if mark else (path, "")
