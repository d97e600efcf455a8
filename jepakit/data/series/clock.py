"""Times as a table shows them, with their UTC offset, so that output tables use the same clock."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from .record import SeriesRecord

UTC_OFFSET = "+00:00"
OFFSET_PATTERN = re.compile(r"(?<=:\d\d)(\.\d+)? ?(Z|[+-]\d\d(?::?\d\d)?)$")


class Clock(NamedTuple):
    """Times (datetimes or numbers), and the UTC `offset` of the clock that shows them; "" if none is written."""

    time: Shaped[np.ndarray, " n"]
    offset: str = ""


def split_offset(text: str) -> tuple[str, str]:
    """A time without its offset, and the offset as +02:00; "" if it has none."""
    found = OFFSET_PATTERN.search(text)
    if not found:
        return text, ""
    digits = found[2].replace(":", "")
    offset = UTC_OFFSET if digits == "Z" else f"{digits[:3]}:{digits[3:] or '00'}"
    return text[: found.start()] + (found[1] or ""), offset


def read_clock(moments: Shaped[np.ndarray, " n"], offsets: Collection[str]) -> Clock:
    """UTC moments as the clock with the written offset shows them; with several offsets, as UTC."""
    offset = next(iter(offsets)) if len(offsets) == 1 else UTC_OFFSET
    return Clock(moments + _offset_delta(offset), offset)


def parse_times(cells: Sequence[str | None]) -> Clock:
    """Times in text. Raises ValueError if one is not a time, or if only some of them have an offset."""
    parts = [split_offset(cell) if cell else ("NaT", "") for cell in cells]
    offsets = {offset for cell, (_, offset) in zip(cells, parts, strict=True) if cell}
    time = np.array([text for text, _ in parts], "M8[us]")
    if len(offsets) < 2:
        return Clock(time, *offsets)
    if "" in offsets:
        bare = next(cell for cell, (_, offset) in zip(cells, parts, strict=True) if cell and not offset)
        raise ValueError(f"{bare} has no offset from UTC, and others have {max(offsets)}")
    ahead = np.array([_offset_delta(offset or UTC_OFFSET) for _, offset in parts])
    return Clock(time - ahead, UTC_OFFSET)


def align_offsets(records: Sequence[SeriesRecord]) -> list[SeriesRecord]:
    """The records with all times on one clock: UTC if they have several offsets.

    Raises ValueError if some times lack an offset, because their clock is then unknown.
    """
    by = {record.offset: record for record in records if record.time is not None and record.time.dtype.kind == "M"}
    if len(by) < 2:
        return list(records)
    if "" in by:
        bare, other = by.pop(""), by[max(by)]
        raise ValueError(
            f"{bare.name} has times without an offset from UTC and {other.name} has {other.offset}; "
            "write all of them with an offset, or all without"
        )
    return [
        record
        if record.time is None
        else replace(record, time=record.time - _offset_delta(record.offset), offset=UTC_OFFSET)
        for record in records
    ]


def time_texts(time: Shaped[np.ndarray, " n"], offset: str = "") -> list[str]:
    """Times as 2024-01-31 12:00:00+02:00, in pandas' format, in whole seconds if all are; numbers as numbers."""
    if time.dtype.kind != "M":
        return [f"{value:.15g}" for value in time.tolist()]
    if np.datetime_data(time.dtype)[0] != "D" and (time.astype("M8[s]") == time).all():
        time = time.astype("M8[s]")
    return [text.replace("T", " ") + offset for text in np.datetime_as_string(time).tolist()]


def arrow_times(time: Shaped[np.ndarray, " n"], offset: str = "") -> Any:
    """The times as an Arrow array; with an offset, as timestamps of that zone."""
    import pyarrow as pa

    if not offset:
        return pa.array(time)
    return pa.array(time - _offset_delta(offset), pa.timestamp(np.datetime_data(time.dtype)[0], offset))


def _offset_delta(offset: str) -> np.timedelta64:
    hours, minutes = offset[1:].split(":") if offset else ("0", "0")
    return np.timedelta64(int(f"{offset[:1]}1") * (60 * int(hours) + int(minutes)), "m")
