"""Cut series into windows, so that no step is on both sides of a split."""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int64

from ..base import Split
from ..draws import spread_evenly
from .record import SeriesRecord

By = Literal["auto", "time", "entity"]
USUAL_WINDOW = 96
MIN_WINDOWS = 256
MAX_WHOLE_STEPS = 512
MIN_WHOLE_SERIES = 16


class Cut(NamedTuple):
    """Sample i covers `length[i]` steps from step `start[i]` of series `record[i]`."""

    start: Int64[np.ndarray, " n"]
    length: Int64[np.ndarray, " n"]
    record: Int64[np.ndarray, " n"]


class Windows(NamedTuple):
    """The length of a sample in steps, and the steps between the starts of two samples; size 0: the whole series."""

    size: int
    stride: int


def choose_windows(
    lengths: Sequence[int], many: bool, window: int | None, stride: int | None, held_out: float
) -> tuple[Windows, tuple[str, ...]]:
    """The window and stride to use, chosen here if the settings leave them open, and the reason.

    Whole series if a file holds many, or if there are 16 series or more of at most 512 steps. Else 96 steps,
    or fewer if the held-out part of the longest series would hold no window; windows start a quarter of a window
    apart, or closer if that gives fewer than 256 windows.
    """
    longest, notes = max(lengths), []
    if window is None:
        short = len(lengths) >= MIN_WHOLE_SERIES and longest <= MAX_WHOLE_STEPS
        window = 0 if many or short else max(8, min(USUAL_WINDOW, int(longest * held_out) // 8 * 8))
        window = min(window, longest)
        why = "every series is a sample" if not window else f"at most {USUAL_WINDOW}, to fit the held-out part"
        notes.append(f"data.window = {window} ({why})")
    if window and stride is None:
        room = sum(max(0, n - window) for n in lengths)
        stride = max(1, min(window // 4, room // MIN_WINDOWS))
        notes.append(f"data.stride = {stride} (a quarter of the window at most, for {MIN_WINDOWS} windows or more)")
    return Windows(window, stride or 1), tuple(notes)


def part_bounds(
    records: Sequence[SeriesRecord], split: Split, by: By, held_out: float, gap: int
) -> list[tuple[int, int]]:
    """The steps of each series that belong to a part, as (first, end) with end excluded.

    By "time", a part of all series ends where the other begins: at one moment if all have times, else after the
    fraction 1 - `held_out` of each; the test part begins `gap` steps later. By "entity", whole series are held out,
    those whose names hash lowest. Raises ValueError if there is only one.
    """
    whole = [(0, len(record)) for record in records]
    if split == "all":
        return whole
    if by == "entity":
        held = _held_out(records, held_out)
        return [b if (i in held) == (split == "test") else (0, 0) for i, b in enumerate(whole)]
    cuts = _first_held_out(records, held_out)
    if split == "train":
        return [(0, cut) for cut in cuts]
    return [(min(cut + gap, len(r)) if cut else 0, len(r)) for cut, r in zip(cuts, records, strict=True)]


def slide_windows(
    records: Sequence[SeriesRecord], parts: Sequence[tuple[int, int]], windows: Windows, split: Split
) -> Cut:
    """Every window that is wholly within its part. Raises ValueError if there is none."""
    found = []
    for k, (begin, end) in enumerate(parts):
        if windows.size:
            start = np.arange(begin, end - windows.size + 1, windows.stride, dtype=np.int64)
        else:
            start = np.full(int(end > begin), begin, dtype=np.int64)
        length = np.full(len(start), windows.size or end - begin, dtype=np.int64)
        found.append(Cut(start, length, np.full(len(start), k, dtype=np.int64)))
    cut = Cut(*(np.concatenate(column) for column in zip(*found, strict=True)))
    if not len(cut.start):
        raise ValueError(_too_long(records, max(end - begin for begin, end in parts), windows.size, split))
    return cut


def limit_samples(cut: Cut, limit: int) -> Cut:
    """At most `limit` samples, evenly spaced; all if it is 0."""
    if not 0 < limit < len(cut.start):
        return cut
    rows = spread_evenly(len(cut.start), limit)
    return Cut(*(column[rows] for column in cut))


def _too_long(records: Sequence[SeriesRecord], most: int, window: int, split: Split) -> str:
    """The error sentence if no window fits into any series, or into its part: `most` steps."""
    if split != "all":
        others = f" and {len(records) - 1} more series" if len(records) > 1 else ""
        return (
            f"the {split} part of {records[0].name}{others} holds {most} steps at most, so no window of "
            f"{window} fits; {shorter_advice(most)}, or give another data.held_out, or data.split=all"
        )
    longest = max(records, key=len)
    more = " and no other series has more" if len(records) > 1 else ""
    return f"{longest.name} has {most} steps{more}, fewer than the window of {window}; {shorter_advice(most)}"


def shorter_advice(steps: int) -> str:
    """The advice if series of this many steps hold no window, or only one."""
    return f"give longer series, or train with data.window={steps // 2} or less" if steps > 3 else "give longer series"


def _held_out(records: Sequence[SeriesRecord], held_out: float) -> set[int]:
    """The series that are held out: at least one, and not all."""
    if len(records) < 2:
        raise ValueError(
            f"there is only one series ({records[0].name}), so none can be held out; set data.by=time, "
            "or name the column that identifies series with data.entity"
        )
    digest = [hashlib.blake2b(r.name.encode(), digest_size=8, person=b"split").digest() for r in records]
    count = min(max(1, round(held_out * len(records))), len(records) - 1)
    return set(sorted(range(len(records)), key=digest.__getitem__)[:count])


def _first_held_out(records: Sequence[SeriesRecord], held_out: float) -> list[int]:
    """The first step of each series that is held out."""
    clocks = [record.time for record in records]
    kinds = {clock.dtype.kind if clock is not None else "" for clock in clocks}
    if len(kinds) > 1 or "" in kinds:
        return [len(r) - round(held_out * len(r)) for r in records]
    times = np.sort(np.concatenate([clock for clock in clocks if clock is not None]))
    moment = times[min(len(times) - 1, len(times) - round(held_out * len(times)))]
    return [int(np.searchsorted(clock, moment)) for clock in clocks if clock is not None]
