"""Find the time column of a table, and read its times: datetimes with or without an offset, dates, or numbers."""

import re

import numpy as np

from .clock import Clock, parse_times, read_clock
from .load_table import NO_COLUMN, Table, column_numbers, find_column

TIME_NAMES = ("time", "date", "timestamp", "datetime", "date_time", "ds")


def find_time_column(table: Table, asked: str) -> str:
    """The named column; otherwise the first with a usual name, or the first of datetimes; "" if there is none."""
    import pyarrow as pa

    found = find_column(table, asked, TIME_NAMES, "time")
    if found or asked == NO_COLUMN:
        return found
    return next((name for name, column in table.columns.items() if pa.types.is_temporal(column.type)), "")


def read_time_column(table: Table, name: str) -> Clock:
    """A column as datetimes or numbers. Raises ValueError, with the row, if a cell is neither."""
    import pyarrow as pa

    column = table.columns[name]
    if name in table.offsets:
        return read_clock(np.asarray(column.to_numpy()), table.offsets[name])
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return Clock(np.asarray(column.to_numpy()))
    if not pa.types.is_string(column.type) and not pa.types.is_time(column.type):
        return Clock(column_numbers(table, name))
    for row, cell in zip(table.rows.tolist(), column.to_pylist(), strict=True):
        if cell is not None and not re.match(r"\d{4}-\d\d-\d\d", str(cell)):
            raise ValueError(
                f"{table.path.name}: column {name!r}, row {row} holds {str(cell)!r}, which is not a time; "
                "write 2024-01-31 12:00:00 or a number, or set data.time=none if rows are equally spaced"
            )
    try:
        return parse_times(column.to_pylist())
    except ValueError as error:
        raise ValueError(f"{table.path.name}: column {name!r}: {error}; write times as 2024-01-31 12:00:00") from None
