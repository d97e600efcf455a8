"""Read the `.ts` text format of the UCR/UEA archive: a header of @ lines, then one series per line.

@problemName Name · @timeStamps false · @univariate true · @equalLength true · @classLabel true a b
@data
1.0,2.0,?,4.0:5.0,6.0,7.0,8.0:a          colons separate channels, the label is last, ? means missing
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from .load_table import unpack_file
from .record import SeriesRecord


def read_ts(path: Path) -> tuple[list[SeriesRecord], tuple[str, ...], tuple[str, ...]]:
    """The series of a file, its class labels, and notes. Raises ValueError, with line and value."""
    try:
        lines = unpack_file(path).decode().splitlines()
    except (OSError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {str(path)!r} as text: {error}; copy it again") from None
    head, first = _read_header(lines, path)
    if head.get("timestamps", ["false"])[0].lower() == "true":
        raise ValueError(
            f"{path.name} has @timeStamps true, which is not supported; write only the values, or use a table"
        )
    label = head.get("classlabel", ["false"])
    records = [
        _read_series(line, number, path, labelled=label[0].lower() == "true")
        for number, line in enumerate(lines[first:], first + 1)
        if line.strip() and not line.startswith("#")
    ]
    if not records:
        raise ValueError(f"{path.name} holds no series after @data; give one per line")
    for record in records:
        if len(record.channels) != len(records[0].channels):
            raise ValueError(
                f"{record.name} has {len(record.channels)} channels but {records[0].name} has "
                f"{len(records[0].channels)}; give every line the same number, separated by colons"
            )
    lengths = sorted({len(record) for record in records})
    note = f"{path.name}: {len(records)} series, {len(records[0].channels)} channels, lengths {lengths[0]}"
    return records, tuple(label[1:]), (note + (f" to {lengths[-1]}" if len(lengths) > 1 else ""),)


def _read_header(lines: list[str], path: Path) -> tuple[dict[str, list[str]], int]:
    """The words after each @ name, in lower case, and the line after @data. Raises ValueError."""
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines):
        words = line.split()
        if words and words[0].lower() == "@data":
            return found, number + 1
        if words and words[0].startswith("@"):
            found[words[0][1:].lower()] = words[1:]
    raise ValueError(f"{path.name} has no line @data; give a .ts file of the UCR/UEA archive")


def _read_series(line: str, number: int, path: Path, labelled: bool) -> SeriesRecord:
    """The series on one line."""
    parts = line.strip().split(":")
    label = [parts.pop().strip()] if labelled else []
    name = f"{path.name} line {number}"
    if not parts:
        raise ValueError(f"{name} holds no values; write value,value,…:label")
    channels = [_read_numbers(part, f"{name}, channel {c}") for c, part in enumerate(parts)]
    if len({len(values) for values in channels}) > 1:
        sizes = ", ".join(str(len(values)) for values in channels)
        raise ValueError(
            f"{name} has channels of different lengths ({sizes}); give every channel the same number of values"
        )
    names = tuple(str(c) for c in range(len(parts)))
    rows = np.arange(1, len(channels[0]) + 1, dtype=np.int64)
    return SeriesRecord(name, np.stack(channels), names, label, place="value", rows=rows)


def _read_numbers(text: str, where: str) -> Float64[np.ndarray, " t"]:
    cells = text.split(",")
    try:
        return np.array([float("nan" if cell.strip() == "?" else cell) for cell in cells])
    except ValueError:
        pass
    for k, cell in enumerate(cells, 1):
        try:
            float("nan" if cell.strip() == "?" else cell)
        except ValueError:
            raise ValueError(f"{where}, value {k} is {cell!r}, not a number; write ? for a missing value") from None
    raise AssertionError(where)
