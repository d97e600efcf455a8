"""One series as its file states it, its problems, and how missing values are filled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from ..report import Problem

SEVERAL_SERIES_ADVICE = (
    "where they are of several series, name their column by data.entity; data.time=none takes the rows as they stand"
)


@dataclass(frozen=True, eq=False)
class SeriesRecord:
    """T steps of C channels, NaN if a value is missing.

    `place` and `rows` locate a step in its file, as "row" and 2, 3, …; empty rows: 0, 1, …. `time` is as in the
    file, `offset` its written UTC offset, `time_name` its column. `label` holds one entry per step, or one for the
    whole series.
    """

    name: str
    values: Float[np.ndarray, "c t"]
    channels: tuple[str, ...]
    label: Sequence[object] = ()
    time: Shaped[np.ndarray, " t"] | None = None
    time_name: str = ""
    offset: str = ""
    place: str = "index"
    rows: Int64[np.ndarray, " _"] | None = None

    def __len__(self) -> int:
        return int(self.values.shape[1])

    @property
    def row_numbers(self) -> Int64[np.ndarray, " t"]:
        """The row of each step in its file."""
        return np.arange(len(self), dtype=np.int64) if self.rows is None else self.rows

    def where(self, t: int) -> str:
        """The location of step t in its file, as text."""
        return f"{self.place} {int(self.row_numbers[t])}"

    def step_time(self, t: int) -> str:
        """The time of step t, if there are times."""
        return "" if self.time is None else f"{self.time[t]}{self.offset}"


@dataclass(frozen=True, eq=False)
class Found:
    """The content of a file: the series, the classes it declares, whether it holds many series, and decisions made."""

    records: list[SeriesRecord]
    classes: tuple[str, ...] = ()
    many: bool = False
    named: bool = False
    notes: tuple[str, ...] = ()


def record_problems(record: SeriesRecord, fill: int) -> Iterator[Problem]:
    """The problems that prevent reading a series: its times, infinite values, and over `fill` missing in a row.

    One entry per kind of mistake and channel, for the first occurrence.
    """
    if record.time is not None:
        yield from _time_problems(record, record.time)
    for channel, values in zip(record.channels, record.values, strict=True):
        named = f"column {channel!r}"
        if (bad := np.flatnonzero(np.isinf(values))).size:
            detail = f"{named}, {record.where(int(bad[0]))} is infinite"
            yield Problem(record.name, "infinite", detail, "replace it, or leave the cell empty")
        start, run = longest_run(np.isnan(values))
        if run > fill:
            detail = (
                f"{named} holds no number from {record.where(start)} to {record.where(start + run - 1)}, {run} in a row"
            )
            fix = f"fill them, leave the column out with data.columns, or repeat the last value with data.fill={run}"
            yield Problem(record.name, "missing", detail, fix)


def _time_problems(record: SeriesRecord, time: Shaped[np.ndarray, " t"]) -> Iterator[Problem]:
    """The first step without a time, the first out of order, and the first that repeats a time."""
    named = f"column {record.time_name!r}"
    if (empty := np.flatnonzero(np.isnan(time))).size:
        yield Problem(
            record.name, "no time", f"{named}, {record.where(int(empty[0]))} is empty", "give every row a time"
        )
        return
    step = np.diff(time)
    zero = np.zeros(1, step.dtype)[0]
    if (back := np.flatnonzero(step < zero)).size:
        t = int(back[0])
        later, earlier = (f"{record.where(k)} ({record.step_time(k)})" for k in (t + 1, t))
        detail = f"{named}, {later} is before {earlier}"
        fix = f"sort the rows by {record.time_name!r} or, {SEVERAL_SERIES_ADVICE}"
        yield Problem(record.name, "unsorted", detail, fix)
    order = np.argsort(time, kind="stable")
    if (same := np.flatnonzero(np.diff(time[order]) == zero)).size:
        first, again = (int(order[same[0] + k]) for k in (0, 1))
        detail = f"{named}, {record.where(again)} repeats the time of {record.where(first)} ({record.step_time(first)})"
        fix = f"keep one row per time or, {SEVERAL_SERIES_ADVICE}"
        yield Problem(record.name, "duplicate time", detail, fix)


def time_gaps(record: SeriesRecord) -> Int64[np.ndarray, " k"]:
    """The steps followed by a time gap of more than one and a half times the median gap."""
    if record.time is None or len(record) < 3:
        return np.empty(0, dtype=np.int64)
    step = np.diff(record.time).astype(np.float64)
    return np.flatnonzero(step > 1.5 * np.median(step)).astype(np.int64)


def longest_run(mask: Bool[np.ndarray, " t"]) -> tuple[int, int]:
    """The start and the length of the longest run of true; (0, 0) if nothing is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    if not edges.size:
        return 0, 0
    lengths = edges[1::2] - edges[::2]
    k = int(np.argmax(lengths))
    return int(edges[2 * k]), int(lengths[k])


def fill_missing(values: Float[np.ndarray, "c t"]) -> Float[np.ndarray, "c t"]:
    """Every missing value replaced by the last known value of its channel.

    Missing values at the start of a channel take the first value that follows.
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    last = np.maximum.accumulate(np.where(missing, -1, np.arange(values.shape[1])), axis=1)
    first = np.argmax(~missing, axis=1)
    return np.take_along_axis(values, np.where(last < 0, first[:, None], last), axis=1)


def select_columns(records: Sequence[SeriesRecord], columns: Sequence[str]) -> list[SeriesRecord]:
    """The records with the channels `columns`, in that order; all channels if it is empty. Raises ValueError."""
    if not columns:
        return list(records)
    have = records[0].channels
    if missing := [name for name in columns if name not in have]:
        raise ValueError(
            f"{records[0].name} has no column {missing[0]!r}, only {', '.join(have)}; correct data.columns"
        )
    index = [have.index(name) for name in columns]
    return [replace(r, values=r.values[index], channels=tuple(columns)) for r in records]
