"""Detect whether a path holds series, from its suffix and, if that is not enough, from the head of the file."""

import gzip
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..images.folder import IMAGE_COLUMNS
from ..paths import file_ending
from ..rows import is_number
from .array import ARRAY_KEYS

TABLE_ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".pq")
TEXT_ENDINGS = (".ts",)
ARRAY_ENDINGS = (".npy", ".npz")
PICTURE_ENDINGS = (".tar", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def files_in(folder: Path) -> list[Path]:
    """The files of a folder that can hold series, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_file() and can_hold(path))


def why_series(path: Path) -> str:
    """The reason to read a path as series; "" if there is none. Reads only the head of the file."""
    if path.is_dir():
        return _why_folder(path)
    kind = file_ending(path)
    if kind in TEXT_ENDINGS:
        return ".ts holds series"
    try:
        if kind in (".parquet", ".pq"):
            return _why_parquet(path)
        if kind in TABLE_ENDINGS:
            return _why_table(path)
        return _why_array(path) if kind in ARRAY_ENDINGS else ""
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return ""  # the reader reports what is wrong with the file


def _why_folder(path: Path) -> str:
    """The reason to read a folder as tables or .ts files; "" if it holds images or sub-folders."""
    tables = []
    with os.scandir(path) as entries:
        for entry in entries:
            kind = file_ending(Path(entry.name))
            if kind in PICTURE_ENDINGS or (os.path.isdir(entry.path) and not entry.name.startswith(".")):
                return ""
            if kind in (".csv", ".tsv", *TEXT_ENDINGS):
                tables.append(Path(entry.path))
    return "a folder of series" if any(map(why_series, sorted(tables))) else ""


def can_hold(path: Path) -> bool:
    """Whether a file with this suffix can hold series."""
    return file_ending(path) in (*TABLE_ENDINGS, *TEXT_ENDINGS, *ARRAY_ENDINGS)


def _why_table(path: Path) -> str:
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        head = file.readline(65536).decode("utf-8-sig").strip()
        second = file.readline(65536).decode().strip()
    columns = [cell.strip(" \"'").lower() for cell in head.replace(";", ",").replace("\t", ",").split(",")]
    if not second or set(columns) & set(IMAGE_COLUMNS):
        return ""
    cells = second.replace(";", ",").replace("\t", ",").split(",")
    return "a table of numbers" if any(map(is_number, cells)) and not any(map(_names_picture, cells)) else ""


def _names_picture(cell: str) -> bool:
    return file_ending(Path(cell.strip(" \"'"))) in PICTURE_ENDINGS


def _why_parquet(path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except pa.ArrowException:
        return ""
    plain = all(pa.types.is_primitive(f.type) or pa.types.is_string(f.type) for f in schema)
    numbers = any(pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in schema)
    pictures = {name.lower() for name in schema.names} & set(IMAGE_COLUMNS)
    return "a table of numbers" if plain and numbers and not pictures else ""


def _why_array(path: Path) -> str:
    """The reason to read an array as series: images are 8- or 16-bit, or have two equal sides or three axes each."""
    shapes = dict(_array_headers(path))
    usual = next((name for name in (*ARRAY_KEYS, "images", "image") if name in shapes), None)
    shape, kind = shapes[usual] if usual else max(shapes.values(), key=lambda found: len(found[0]))
    square = len(shape) == 3 and shape[1] == shape[2]
    small = kind.kind == "b" or (kind.kind == "u" and kind.itemsize <= 2)
    if len(shape) > 3 or (len(shape) == 3 and (square or small)) or not shape or kind.kind not in "uifb":
        return ""
    return f"an array {shape} of {kind}"


def _array_headers(path: Path) -> list[tuple[str, tuple[tuple[int, ...], np.dtype]]]:
    """The name, shape and dtype of each array in a file; reads only the headers. Raises ValueError."""
    if path.suffix == ".npy":
        with open(path, "rb") as file:
            return [("x", _read_header(file))]
    found = []
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            with file.open(name) as member:
                found.append((name.removesuffix(".npy"), _read_header(member)))
    return found


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    return shape, kind
