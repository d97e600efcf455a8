"""Read series from tables, CSV (gzipped or not) or parquet: one row is one step, one column is one channel."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from . import clock
from .clock import Clock
from .load_table import MISSING_WORDS, Table, is_number_or_missing, load_table
from .record import SeriesRecord

TIME_NAMES = ("time", "date", "timestamp", "datetime", "date_time", "ds")
ENTITY_NAMES = ("entity", "series", "series_id", "item_id", "unique_id")
LABEL_NAMES = ("label", "class")
NO_COLUMN = "none"


@dataclass(frozen=True)
class ColumnRequest:
    """The role of each column as the user named it; empty: the usual names, "none": there is none."""

    time: str = ""
    entity: str = ""
    label: str = ""
    columns: tuple[str, ...] = ()


def read_table(path: Path, asked: ColumnRequest) -> tuple[list[SeriesRecord], tuple[str, ...]]:
    """The series of a table, one per entity, and the decisions about its columns.

    Raises ValueError, with column and row, if a numeric column contains text, or if columns are missing.
    """
    import pyarrow as pa

    table = load_table(path)
    time = _find_column(table, asked.time, TIME_NAMES, "time")
    if not time and asked.time != NO_COLUMN:
        time = next((name for name, column in table.columns.items() if pa.types.is_temporal(column.type)), "")
    entity = _find_column(table, asked.entity, ENTITY_NAMES, "entity")
    label = _find_column(table, asked.label, LABEL_NAMES, "label")
    roles = {name for name in (time, entity, label) if name}
    channels, left_out = _channel_columns(table, asked.columns, roles)
    values = np.stack([_column_numbers(table, name) for name in channels])
    notes = [f"{path.name}: {len(table.rows)} rows, channels {', '.join(channels)}"]
    times = _column_times(table, time) if time else Clock(np.empty(0))
    notes += [f"time from column {time!r}{times.offset and f', {times.offset}'}"] if time else []
    notes += [f"series from column {entity!r}"] if entity else []
    notes += [f"labels from column {label!r}"] if label else []
    notes += [f"text columns are left out: {', '.join(left_out)}"] if left_out else []
    labels = np.array(table.columns[label].to_pylist(), dtype=object) if label else None
    records = [
        SeriesRecord(
            name=f"{path.name}/{name}" if entity else path.name,
            values=values[:, rows],
            channels=channels,
            label=() if labels is None else labels[rows].tolist(),
            time=times.time[rows] if time else None,
            time_name=time,
            offset=times.offset,
            place="row",
            rows=table.rows[rows],
        )
        for name, rows in _rows_by_entity(table, entity)
    ]
    return records, tuple(notes)


def _find_column(table: Table, asked: str, usual: Sequence[str], what: str) -> str:
    """The named column, or the first with a usual name, ignoring case; "" if there is none. Raises ValueError."""
    if asked == NO_COLUMN:
        return ""
    if asked and asked not in table.columns:
        raise ValueError(
            f"{str(table.path)!r} has no {what} column {asked!r}; its columns are {', '.join(table.columns)}: "
            f"set data.{what} to one of them"
        )
    return asked or next((name for name in table.columns if name.lower() in usual), "")


def _channel_columns(table: Table, asked: Sequence[str], roles: set[str]) -> tuple[tuple[str, ...], list[str]]:
    """The numeric columns, and a sentence on each text column left out, with its first text if it also holds numbers.

    Raises ValueError if there are no numeric columns, or if numbers have decimal commas.
    """
    if missing := [name for name in asked if name not in table.columns]:
        raise ValueError(
            f"{str(table.path)!r} has no column {missing[0]!r}, only {', '.join(table.columns)}; correct data.columns"
        )
    if asked:
        return tuple(asked), []
    rest = [name for name in table.columns if name not in roles]
    text = [name for name in rest if not _is_numeric(table.columns[name])]
    for name in text:
        _refuse_commas(table, name)
    channels = tuple(name for name in rest if name not in text)
    if not channels:
        raise ValueError(
            f"{str(table.path)!r} has no numeric column besides {', '.join(sorted(roles)) or 'text'}; "
            f"its columns are {', '.join(table.columns)}: give one numeric column per channel"
        )
    return channels, [_columns_left_out(table, name) for name in text]


def _refuse_commas(table: Table, name: str) -> None:
    """Raises ValueError, with the row, if the first cell of a text column is a number with a decimal comma."""
    row, cell = next(_filled_cells(table, name), (0, ""))
    if re.fullmatch(r"\s*[+-]?\d*,\d+(e[+-]?\d+)?\s*", cell, re.IGNORECASE):
        raise ValueError(
            f"{table.path.name}: column {name!r}, row {row} holds {cell!r}, a number with a comma; "
            "write numbers with a point, such as 1.5"
        )


def _columns_left_out(table: Table, name: str) -> str:
    """A column that is left out; if some of its cells are numbers, how many, and the first that is not."""
    cells = list(_filled_cells(table, name))
    text = [(row, cell) for row, cell in cells if not is_number_or_missing(cell)]
    if len(text) == len(cells) or not text:
        return name
    return f"{name} (row {text[0][0]} holds {text[0][1]!r}; {len(cells) - len(text)} of {len(cells)} are numbers)"


def _filled_cells(table: Table, name: str) -> Iterator[tuple[int, str]]:
    """The row and the content of each non-empty cell of a column."""
    cells = zip(table.rows.tolist(), table.columns[name].to_pylist(), strict=True)
    return ((row, str(cell)) for row, cell in cells if cell is not None)


def _is_numeric(column: Any) -> bool:
    """Whether a column is numeric, perhaps with some text in it by mistake."""
    import pyarrow as pa

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        kind = column.type
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)) or bool(
            pa.types.is_decimal(kind) or pa.types.is_null(kind)
        )
    cells = [value for value in column.to_pylist() if value is not None]
    return 2 * sum(map(is_number_or_missing, cells)) >= max(1, len(cells))


def _column_numbers(table: Table, name: str) -> Float64[np.ndarray, " n"]:
    """A column as numbers, NaN if a cell is empty. Raises ValueError, with the row, if one is not a number."""
    import pyarrow as pa

    column = table.columns[name]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        try:
            return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
        except pa.ArrowException:
            raise ValueError(f"{table.path.name}: column {name!r} holds {column.type}, not numbers") from None
    _refuse_commas(table, name)
    cells = column.to_pylist()
    for row, cell in zip(table.rows.tolist(), cells, strict=True):
        if not is_number_or_missing(cell):
            raise ValueError(
                f"{table.path.name}: column {name!r}, row {row} holds {cell!r}, which is not a number; "
                "correct it, leave the cell empty, or leave the column out with data.columns"
            )
    return np.array([float("nan" if cell is None or cell.strip() in MISSING_WORDS else cell) for cell in cells])


def _column_times(table: Table, name: str) -> Clock:
    """A column as datetimes or numbers. Raises ValueError, with the row, if a cell is neither."""
    import pyarrow as pa

    column = table.columns[name]
    if name in table.offsets:
        return clock.read_clock(np.asarray(column.to_numpy()), table.offsets[name])
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return Clock(np.asarray(column.to_numpy()))
    if not pa.types.is_string(column.type) and not pa.types.is_time(column.type):
        return Clock(_column_numbers(table, name))
    for row, cell in zip(table.rows.tolist(), column.to_pylist(), strict=True):
        if cell is not None and not re.match(r"\d{4}-\d\d-\d\d", str(cell)):
            raise ValueError(
                f"{table.path.name}: column {name!r}, row {row} holds {str(cell)!r}, which is not a time; "
                "write 2024-01-31 12:00:00 or a number, or set data.time=none if rows are equally spaced"
            )
    try:
        return clock.parse_times(column.to_pylist())
    except ValueError as error:
        raise ValueError(f"{table.path.name}: column {name!r}: {error}; write times as 2024-01-31 12:00:00") from None


def _rows_by_entity(table: Table, name: str) -> list[tuple[str, Int64[np.ndarray, " k"]]]:
    """The rows of each entity, in the order of their first row."""
    if not name:
        return [("", np.arange(len(table.rows), dtype=np.int64))]
    cells = [str(cell) for cell in table.columns[name].to_pylist()]
    number = {cell: k for k, cell in enumerate(dict.fromkeys(cells))}
    codes = np.array([number[cell] for cell in cells])
    order = np.argsort(codes, kind="stable").astype(np.int64)
    parts = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    return list(zip(number, parts, strict=True))
