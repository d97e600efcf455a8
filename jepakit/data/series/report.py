"""The `jepa check-data` report on series: counts, lengths, missing, constant and out-of-order values."""

from collections.abc import Iterator

import numpy as np

from ..report import MAX_PROBLEMS_LISTED, Problem, Report, finish_report, range_text
from .dataset import join_records
from .record import Found, SeriesRecord, longest_run, record_problems, time_gaps


def report_series(found: Found, fill: int, samples: str) -> Report:
    """The facts of all series, and one problem per mistake and channel; `samples` is what training would read.

    Up to `fill` missing values in a row are not a mistake.
    """
    records = found.records
    listed = [problem for record in records for problem in record_problems(record, fill)]
    constant = [c for c in range(len(records[0].channels)) if _is_constant(records, c)]
    listed += [_constant_problem(records[0], c) for c in constant]
    listed += [problem for record in records for problem in _gap_problems(record)]
    listed += list(_duplicate_problems(records))
    steps, classes = join_records(records, found.classes)
    counts = np.bincount(steps.label[steps.label >= 0], minlength=len(classes)).tolist()
    channels = records[0].channels
    few = ", ".join(f"{name}: {n}" for name, n in zip(classes, counts, strict=True) if n)
    rows = [
        ("series", str(len(records))),
        ("steps min / median / max", range_text([len(record) for record in records])),
        ("channels", f"{len(channels)}: {', '.join(channels)}"),
        ("missing values", _missing_values(records) or "none"),
        ("constant channels", ", ".join(channels[c] for c in constant) or "none"),
        ("times", _time_range(records)),
        ("steps per class", few or "no labels"),
        ("training would read", samples),
    ]
    return finish_report(rows, found.notes, listed[:MAX_PROBLEMS_LISTED], "--csv FILE lists them")


def _missing_values(records: list[SeriesRecord]) -> str:
    """The number of missing values per channel, and the longest run of them."""
    parts = []
    for c, name in enumerate(records[0].channels):
        gone = [np.isnan(record.values[c]) for record in records]
        if count := sum(int(mask.sum()) for mask in gone):
            parts.append(f"{count} of {name!r} ({max(longest_run(mask)[1] for mask in gone)} in a row)")
    return ", ".join(parts)


def _is_constant(records: list[SeriesRecord], c: int) -> bool:
    known = [record.values[c][~np.isnan(record.values[c])] for record in records]
    low = min((v.min() for v in known if v.size), default=0.0)
    high = max((v.max() for v in known if v.size), default=0.0)
    return bool(low == high)


def _constant_problem(first: SeriesRecord, c: int) -> Problem:
    detail = f"column {first.channels[c]!r} is {first.values[c, 0]:g} in every row, from {first.where(0)} on"
    return Problem(first.name, "constant", detail, "leave it out with data.columns")


def _gap_problems(record: SeriesRecord) -> Iterator[Problem]:
    """The first time gap that is longer than usual, and the number of such gaps."""
    found = time_gaps(record)
    if len(found) and record.time is not None:
        t = int(found[0])
        detail = (
            f"column {record.time_name!r} jumps in {len(found)} places, first from {record.step_time(t)} to "
            f"{record.step_time(t + 1)} at {record.where(t + 1)}"
        )
        yield Problem(record.name, "gap", detail, "steps are treated as equally spaced: fill the rows, or split there")


def _duplicate_problems(records: list[SeriesRecord]) -> Iterator[Problem]:
    """Series that duplicate an earlier one."""
    seen: dict[bytes, str] = {}
    for record in records:
        key = record.values.tobytes()
        if key in seen:
            yield Problem(record.name, "duplicate", f"the same values as {seen[key]}", "keep one of them")
        seen.setdefault(key, record.name)


def _time_range(records: list[SeriesRecord]) -> str:
    """The first and the last time, and the interval between steps."""
    with_time = [record for record in records if record.time is not None]
    if not with_time:
        return "none: steps are treated as equally spaced"
    if len({record.time.dtype.kind for record in with_time if record.time is not None}) > 1:
        return "of several kinds"
    times = [record.time for record in with_time if record.time is not None]
    begin, end = min(t.min() for t in times), max(t.max() for t in times)
    longest = max(times, key=len)
    step = f", a step of {np.sort(np.diff(longest))[len(longest) // 2 - 1]}" if len(longest) > 1 else ""
    offset = with_time[0].offset
    return f"{begin}{offset} to {end}{offset} (column {with_time[0].time_name!r}){step}"
