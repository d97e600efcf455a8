"""Series in tables: CSV and its relatives (gzipped or not) and parquet; one row is one step, one column a channel."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from .record import Record

TIME = ("time", "date", "timestamp", "datetime", "date_time", "ds")
ENTITY = ("entity", "series", "series_id", "item_id", "unique_id")
LABEL = ("label", "class")
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "None", "?")
NONE = "none"


@dataclass(frozen=True)
class Asked:
    """Which columns are what, as a person said it; empty means the usual names, "none" that there is none."""

    time: str = ""
    entity: str = ""
    label: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Table:
    """Columns by name as Arrow arrays, and the 1-based row of the file in which each stands."""

    path: Path
    columns: dict[str, Any]
    rows: Int64[np.ndarray, " n"]


def read_table(path: Path, asked: Asked) -> tuple[list[Record], tuple[str, ...]]:
    """The series of a table, one per entity, and what was decided about its columns.

    Raises ValueError, with column and row, where text stands in a column of numbers, and where columns are missing.
    """
    table = load(path)
    time = _found(table, asked.time, TIME, "time") or (_temporal(table) if asked.time != NONE else "")
    entity = _found(table, asked.entity, ENTITY, "entity")
    label = _found(table, asked.label, LABEL, "label")
    roles = {name for name in (time, entity, label) if name}
    channels, left_out = _channels(table, asked.columns, roles)
    values = np.stack([_numbers(table, name) for name in channels])
    notes = [f"{path.name}: {len(table.rows)} rows, channels {', '.join(channels)}"]
    notes += [f"{what} from column {name!r}" for what, name in (("time", time), ("series", entity)) if name]
    notes += [f"labels from column {label!r}"] if label else []
    notes += [f"columns of text are left out: {', '.join(left_out)}"] if left_out else []
    clock = _times(table, time) if time else None
    labels = np.array(table.columns[label].to_pylist(), dtype=object) if label else None
    records = [
        Record(
            name=f"{path.name}/{name}" if entity else path.name,
            values=values[:, rows],
            channels=channels,
            label=() if labels is None else labels[rows].tolist(),
            time=None if clock is None else clock[rows],
            time_name=time,
            place="row",
            rows=table.rows[rows],
        )
        for name, rows in _entities(table, entity)
    ]
    return records, tuple(notes)


def load(path: Path) -> Table:
    """All columns of a table. Raises ValueError where it cannot be read, or holds no row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            found = pq.read_table(path)
            rows = np.arange(1, found.num_rows + 1, dtype=np.int64)
        else:
            found, rows = _csv(unpacked(path))
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {str(path)!r} as a table: {error}; mend the file") from None
    names = found.column_names
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"{str(path)!r} has two columns {twice[0]!r}; give every column a name of its own")
    if not found.num_rows:
        raise ValueError(f"{str(path)!r} has no rows; give a table with one row per time and one column per channel")
    return Table(path, {name: found[name] for name in names}, rows)


def unpacked(path: Path) -> bytes:
    """The content of a file, without its gzip. Raises OSError."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _csv(data: bytes) -> tuple[Any, Int64[np.ndarray, " n"]]:
    """The table in a text, and the line on which each row ends."""
    from pyarrow import csv as arrow

    head = data[:65536].decode("utf-8-sig", errors="replace").lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
    mark = max(",;\t", key=head.count)
    named = not all(_is_number(cell) for cell in head.split(mark))
    count = head.count(mark) + 1
    found = arrow.read_csv(
        io.BytesIO(data),
        # Only a single thread tells in which row it failed.
        read_options=arrow.ReadOptions(
            use_threads=False, column_names=None if named else [str(i) for i in range(count)]
        ),
        parse_options=arrow.ParseOptions(delimiter=mark),
        convert_options=arrow.ConvertOptions(null_values=MISSING, strings_can_be_null=True),
    )
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    rows = np.arange(1 + named, found.num_rows + 1 + named, dtype=np.int64)
    return found, rows if lines == found.num_rows + named else _lines(data, mark)[int(named) :]


def _lines(data: bytes, mark: str) -> Int64[np.ndarray, " n"]:
    """The line on which each row ends, where some are empty or rows go over several."""
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig")), delimiter=mark)
    return np.array([reader.line_num for row in reader if row], dtype=np.int64)


def _is_number(text: object) -> bool:
    try:
        float(str(text))
    except ValueError:
        return str(text).strip() in MISSING
    return True


def _found(table: Table, asked: str, usual: Sequence[str], what: str) -> str:
    """The column asked for, or the first of a usual name, in any case; "" where there is none. Raises ValueError."""
    if asked == NONE:
        return ""
    if asked and asked not in table.columns:
        raise ValueError(
            f"{str(table.path)!r} has no {what} column {asked!r}; its columns are {', '.join(table.columns)}: "
            f"set data.{what} to one of them"
        )
    return asked or next((name for name in table.columns if name.lower() in usual), "")


def _temporal(table: Table) -> str:
    """The first column of dates or times."""
    import pyarrow as pa

    return next((name for name, column in table.columns.items() if pa.types.is_temporal(column.type)), "")


def _channels(table: Table, asked: Sequence[str], roles: set[str]) -> tuple[tuple[str, ...], list[str]]:
    """The columns of numbers, and those of text that are left out. Raises ValueError where there is no number."""
    if missing := [name for name in asked if name not in table.columns]:
        raise ValueError(
            f"{str(table.path)!r} has no column {missing[0]!r}, only {', '.join(table.columns)}; data.columns says "
            "what is read"
        )
    if asked:
        return tuple(asked), []
    rest = [name for name in table.columns if name not in roles]
    text = [name for name in rest if not _numeric(table.columns[name])]
    channels = tuple(name for name in rest if name not in text)
    if not channels:
        raise ValueError(
            f"{str(table.path)!r} has no column of numbers beside {', '.join(sorted(roles)) or 'text'}; "
            f"its columns are {', '.join(table.columns)}: give one column of numbers per channel"
        )
    return channels, text


def _numeric(column: Any) -> bool:
    """Whether a column is one of numbers, perhaps with some text in it by mistake."""
    import pyarrow as pa

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        kind = column.type
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)) or bool(
            pa.types.is_decimal(kind) or pa.types.is_null(kind)
        )
    cells = [value for value in column.to_pylist() if value is not None]
    return 2 * sum(map(_is_number, cells)) >= max(1, len(cells))


def _numbers(table: Table, name: str) -> Float64[np.ndarray, " n"]:
    """A column as numbers, NaN where a cell is empty. Raises ValueError, with the row, where one is no number."""
    import pyarrow as pa

    column = table.columns[name]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        try:
            return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
        except pa.ArrowException:
            raise ValueError(f"{table.path.name}: column {name!r} holds {column.type}, no numbers") from None
    cells = column.to_pylist()
    for row, cell in zip(table.rows.tolist(), cells, strict=True):
        if not _is_number(cell):
            raise ValueError(
                f"{table.path.name}: column {name!r}, row {row} holds {cell!r}, which is no number; "
                "correct it, leave the cell empty, or leave the column out by data.columns"
            )
    return np.array([float("nan" if cell is None or cell.strip() in MISSING else cell) for cell in cells])


def _times(table: Table, name: str) -> Shaped[np.ndarray, " n"]:
    """A column as times: datetimes, or numbers. Raises ValueError, with the row, where one is neither."""
    import pyarrow as pa

    column = table.columns[name]
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return np.asarray(column.to_numpy())
    if not pa.types.is_string(column.type) and not pa.types.is_time(column.type):
        return _numbers(table, name)
    for row, cell in zip(table.rows.tolist(), column.to_pylist(), strict=True):
        if cell is not None and not re.match(r"\d{4}-\d\d-\d\d", str(cell)):
            raise ValueError(
                f"{table.path.name}: column {name!r}, row {row} holds {str(cell)!r}, no time; "
                "write 2024-01-31 12:00:00 or a number, or set data.time=none where rows are equally spaced"
            )
    try:
        return np.array([np.datetime64("NaT") if cell is None else cell for cell in column.to_pylist()], "M8[us]")
    except ValueError as error:
        raise ValueError(f"{table.path.name}: column {name!r}: {error}; write times as 2024-01-31 12:00:00") from None


def _entities(table: Table, name: str) -> list[tuple[str, Int64[np.ndarray, " k"]]]:
    """The rows of each entity, in the order of their first row."""
    if not name:
        return [("", np.arange(len(table.rows), dtype=np.int64))]
    cells = [str(cell) for cell in table.columns[name].to_pylist()]
    number = {cell: k for k, cell in enumerate(dict.fromkeys(cells))}
    codes = np.array([number[cell] for cell in cells])
    order = np.argsort(codes, kind="stable").astype(np.int64)
    parts = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    return list(zip(number, parts, strict=True))
