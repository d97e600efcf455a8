"""Load a table file with Arrow, CSV and similar text (gzipped or not) or parquet, and read its columns."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from ..rows import is_number
from .clock import UTC_OFFSET, split_offset

NO_COLUMN = "none"
NO_NAMES = ("", "__index_level_0__")
"""The names of a column that nobody has named; pandas writes its index under them."""

MISSING_WORDS = ("", "NA", "N/A", "NaN", "nan", "null", "None", "?")


@dataclass(frozen=True, eq=False)
class Table:
    """Columns by name as Arrow arrays, and the 1-based file row of each table row.

    `offsets` are the written UTC offsets of each time column that Arrow converted to UTC. `nameless` columns have no
    name in the file; here, column k is called "column k".
    """

    path: Path
    columns: dict[str, Any]
    rows: Int64[np.ndarray, " n"]
    offsets: dict[str, set[str]]
    nameless: frozenset[str] = frozenset()


def load_table(path: Path) -> Table:
    """All columns of a table. Raises ValueError if it cannot be read, or has no row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            found = pq.read_table(path)
            rows = np.arange(1, found.num_rows + 1, dtype=np.int64)
            zones = {f.name: f.type.tz for f in found.schema if _has_zone(f.type)}
            # A zone that is named by a place changes its offset over the year, so its times stay in UTC.
            offsets = {name: {z if re.fullmatch(r"[+-]\d\d:\d\d", z) else UTC_OFFSET} for name, z in zones.items()}
        else:
            found, rows, offsets = _parse_csv(unpack_file(path))
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {str(path)!r} as a table: {error}; repair the file") from None
    nameless = {k: f"column {k + 1}" for k, name in enumerate(found.column_names) if name in NO_NAMES}
    names = [nameless.get(k, name) for k, name in enumerate(found.column_names)]
    offsets = {new: offsets[old] for old, new in zip(found.column_names, names, strict=True) if old in offsets}
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"{str(path)!r} has two columns {twice[0]!r}; give every column a unique name")
    if not found.num_rows:
        raise ValueError(f"{str(path)!r} has no rows; give a table with one row per time and one column per channel")
    columns = dict(zip(names, found.columns, strict=True))
    return Table(path, columns, rows, offsets, frozenset(nameless.values()))


def _has_zone(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) and kind.tz is not None)


def unpack_file(path: Path) -> bytes:
    """The content of a file, without its gzip. Raises OSError."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _parse_csv(data: bytes) -> tuple[Any, Int64[np.ndarray, " n"], dict[str, set[str]]]:
    """The table in a text, the line on which each row ends, and the offsets in its time columns."""
    from pyarrow import csv as arrow

    head = data[:65536].decode("utf-8-sig", errors="replace").lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
    mark = max(",;\t", key=head.count)
    named = not all(is_number_or_missing(cell) for cell in head.split(mark))
    count = head.count(mark) + 1
    # Only a single-threaded read reports the row that failed.
    options = arrow.ReadOptions(use_threads=False, column_names=None if named else [str(i) for i in range(count)])

    def read(**convert: Any) -> Any:
        missing = arrow.ConvertOptions(null_values=MISSING_WORDS, strings_can_be_null=True, **convert)
        return arrow.read_csv(io.BytesIO(data), options, arrow.ParseOptions(delimiter=mark), missing)

    found = read()
    aware = list(dict.fromkeys(field.name for field in found.schema if _has_zone(field.type)))
    # Arrow drops the offset of a time, so the column is read again as text.
    text = read(include_columns=aware, column_types=dict.fromkeys(aware, "string")) if aware else {}
    offsets = {name: {split_offset(cell)[1] for cell in text[name].to_pylist() if cell} for name in aware}
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    rows = np.arange(1 + named, found.num_rows + 1 + named, dtype=np.int64)
    return found, rows if lines == found.num_rows + named else _row_lines(data, mark)[int(named) :], offsets


def _row_lines(data: bytes, mark: str) -> Int64[np.ndarray, " n"]:
    """The line on which each row ends, even if some lines are empty or rows span several."""
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig")), delimiter=mark)
    return np.array([reader.line_num for row in reader if row], dtype=np.int64)


def is_number_or_missing(text: object) -> bool:
    """Whether a cell holds a number, or a marker for a missing value."""
    return is_number(str(text)) or str(text).strip() in MISSING_WORDS


def refuse_commas(table: Table, name: str) -> None:
    """Raises ValueError, with the row, if the first cell of a text column is a number with a decimal comma."""
    row, cell = next(filled_cells(table, name), (0, ""))
    if re.fullmatch(r"\s*[+-]?\d*,\d+(e[+-]?\d+)?\s*", cell, re.IGNORECASE):
        raise ValueError(
            f"{table.path.name}: column {name!r}, row {row} holds {cell!r}, a number with a comma; "
            "write numbers with a point, such as 1.5"
        )


def filled_cells(table: Table, name: str) -> Iterator[tuple[int, str]]:
    """The row and the content of each non-empty cell of a column."""
    cells = zip(table.rows.tolist(), table.columns[name].to_pylist(), strict=True)
    return ((row, str(cell)) for row, cell in cells if cell is not None)


def column_numbers(table: Table, name: str) -> Float64[np.ndarray, " n"]:
    """A column as numbers, NaN if a cell is empty. Raises ValueError, with the row, if one is not a number."""
    import pyarrow as pa

    column = table.columns[name]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        try:
            return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
        except pa.ArrowException:
            raise ValueError(f"{table.path.name}: column {name!r} holds {column.type}, not numbers") from None
    refuse_commas(table, name)
    cells = column.to_pylist()
    for row, cell in zip(table.rows.tolist(), cells, strict=True):
        if not is_number_or_missing(cell):
            raise ValueError(
                f"{table.path.name}: column {name!r}, row {row} holds {cell!r}, which is not a number; "
                "correct it, leave the cell empty, or leave the column out with data.columns"
            )
    return np.array([float("nan" if cell is None or cell.strip() in MISSING_WORDS else cell) for cell in cells])


def find_column(table: Table, asked: str, usual: Sequence[str], what: str) -> str:
    """The named column, or the first with a usual name, ignoring case; "" if there is none. Raises ValueError."""
    if asked == NO_COLUMN:
        return ""
    if asked and asked not in table.columns:
        raise ValueError(
            f"{str(table.path)!r} has no {what} column {asked!r}; its columns are {', '.join(table.columns)}: "
            f"set data.{what} to one of them"
        )
    return asked or next((name for name in table.columns if name.lower() in usual), "")
