"""Read series from tables, CSV (gzipped or not) or parquet: one row is one step, one column is one channel."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from .clock import Clock
from .load_table import (
    Table,
    column_numbers,
    filled_cells,
    find_column,
    is_number_or_missing,
    load_table,
    refuse_commas,
)
from .record import SeriesRecord
from .time_column import find_time_column, read_time_column

ENTITY_NAMES = ("entity", "series", "series_id", "item_id", "unique_id")
LABEL_NAMES = ("label", "class")


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
    table = load_table(path)
    time = find_time_column(table, asked.time)
    entity = find_column(table, asked.entity, ENTITY_NAMES, "entity")
    label = find_column(table, asked.label, LABEL_NAMES, "label")
    roles = {name for name in (time, entity, label) if name}
    counters = {name for name in table.nameless - roles if _is_increasing(table, name)}
    channels, left_out = _channel_columns(table, asked.columns, roles | counters)
    values = np.stack([column_numbers(table, name) for name in channels])
    notes = [f"{path.name}: {len(table.rows)} rows, channels {', '.join(channels)}"]
    times = read_time_column(table, time) if time else Clock(np.empty(0))
    notes += [f"time from column {time!r}{times.offset and f', {times.offset}'}"] if time else []
    notes += [f"series from column {entity!r}"] if entity else []
    notes += [f"labels from column {label!r}"] if label else []
    notes += [f"text columns are left out: {', '.join(left_out)}"] if left_out else []
    notes += [
        f"{name} has no name and numbers the rows, so it is left out" for name in sorted(counters - set(channels))
    ]
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
        refuse_commas(table, name)
    channels = tuple(name for name in rest if name not in text)
    if not channels:
        raise ValueError(
            f"{str(table.path)!r} has no numeric column besides {', '.join(sorted(roles)) or 'text'}; "
            f"its columns are {', '.join(table.columns)}: give one numeric column per channel"
        )
    return channels, [_columns_left_out(table, name) for name in text]


def _columns_left_out(table: Table, name: str) -> str:
    """A column that is left out; if some of its cells are numbers, how many, and the first that is not."""
    cells = list(filled_cells(table, name))
    text = [(row, cell) for row, cell in cells if not is_number_or_missing(cell)]
    if len(text) == len(cells) or not text:
        return name
    return f"{name} (row {text[0][0]} holds {text[0][1]!r}; {len(cells) - len(text)} of {len(cells)} are numbers)"


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


def _is_increasing(table: Table, name: str) -> bool:
    """Whether a column holds whole numbers, each larger than the one before."""
    import pyarrow as pa

    column = table.columns[name]
    return bool(pa.types.is_integer(column.type)) and not column.null_count and bool((np.diff(column) > 0).all())


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
