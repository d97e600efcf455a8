"""Look at series before training: how many and how long, what is missing, constant, out of order."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from .dataset import join
from .generated import COLUMNS, SYSTEMS, generate
from .generated import Config as DynamicsConfig
from .record import Record, Trouble, gaps, longest_run, problems
from .settings import Config, Found, build, read, refuse

LISTED = 1000
SHOWN = 10


@dataclass(frozen=True)
class SeriesReport:
    """What `check` found in series: what holds of all of them, and one problem per mistake and channel.

    `missing` and `longest_gap` are values missing, and most in a row, per channel; `samples` says what training would
    read, or why it would read nothing.
    """

    path: str
    kind: str
    series: int
    steps: tuple[int, int, int]
    columns: tuple[str, ...]
    missing: dict[str, int]
    longest_gap: dict[str, int]
    constant: tuple[str, ...]
    times: str
    classes: dict[str, int]
    samples: str
    notes: tuple[str, ...]
    problems: tuple[Trouble, ...]

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) lines for printing; the last name the first problems."""
        missing = ", ".join(f"{n} of {c!r} ({self.longest_gap[c]} in a row)" for c, n in self.missing.items() if n)
        few = ", ".join(f"{name}: {n}" for name, n in self.classes.items() if n)
        shown = [(p.name, f"{p.problem}: {p.detail}; {p.fix}") for p in self.problems[:SHOWN]]
        more = len(self.problems) - SHOWN
        return [
            ("read as", self.kind),
            ("series", str(self.series)),
            ("steps min / median / max", " / ".join(map(str, self.steps))),
            ("channels", f"{len(self.columns)}: {', '.join(self.columns)}"),
            ("missing values", missing or "none"),
            ("constant channels", ", ".join(self.constant) or "none"),
            ("times", self.times),
            ("steps per class", few or "no labels"),
            ("training would read", self.samples),
            *(("note", note) for note in self.notes),
            *shown,
            *([("…", f"and {more} more (--csv FILE lists them)")] if more > 0 else []),
        ]

    def dict(self) -> dict[str, object]:
        """Everything, as plain values for JSON."""
        return asdict(self)


def check(path: str, why: str, array: str = "", label: str = "") -> SeriesReport:
    """Read every series at `path`; `array` and `label` are as in `settings.Config`.

    Raises ValueError where nothing can be read, with column and row.
    """
    cfg = Config(path=path, array=array, label=label)
    found = _generated(path) if path in SYSTEMS else read(cfg)
    records = found.records
    listed = [trouble for record in records for trouble in problems(record, cfg.fill)]
    constant = tuple(name for c, name in enumerate(records[0].channels) if _constant(records, c))
    listed += [_constant_trouble(records[0], name) for name in constant]
    listed += [trouble for record in records for trouble in _jumps(record)]
    listed += list(_twins(records))
    lengths = np.array([len(record) for record in records])
    steps, classes = join(records, found.classes)
    counts = np.bincount(steps.label[steps.label >= 0], minlength=len(classes))
    runs = {name: max(longest_run(np.isnan(r.values[c]))[1] for r in records) for c, name in _channels(records)}
    return SeriesReport(
        path=path,
        kind=f"series ({why})",
        series=len(records),
        steps=(int(lengths.min()), int(np.median(lengths)), int(lengths.max())),
        columns=records[0].channels,
        missing={name: sum(int(np.isnan(r.values[c]).sum()) for r in records) for c, name in _channels(records)},
        longest_gap=runs,
        constant=constant,
        times=_clock(records),
        classes={name: int(n) for name, n in zip(classes, counts, strict=True)},
        samples=_samples(found, cfg),
        notes=found.notes,
        problems=tuple(listed[:LISTED]),
    )


def _generated(path: str) -> Found:
    """The series that a system's default settings generate."""
    settings = DynamicsConfig(path=path)
    x = generate(settings, np.arange(settings.count, dtype=np.int64))
    return Found([Record(f"{path}[{i}]", values, COLUMNS[path]) for i, values in enumerate(x)], many=True)


def _channels(records: list[Record]) -> list[tuple[int, str]]:
    return list(enumerate(records[0].channels))


def _constant(records: list[Record], c: int) -> bool:
    seen = [record.values[c][~np.isnan(record.values[c])] for record in records]
    low = min((v.min() for v in seen if v.size), default=0.0)
    high = max((v.max() for v in seen if v.size), default=0.0)
    return bool(low == high)


def _constant_trouble(first: Record, name: str) -> Trouble:
    value = first.values[first.channels.index(name), 0]
    detail = f"column {name!r} is {value:g} in every row, from {first.where(0)} on"
    return Trouble(first.name, "constant", detail, "leave it out by data.columns")


def _jumps(record: Record) -> Iterator[Trouble]:
    """The first and the number of the places where more time passes than usual."""
    found = gaps(record)
    if len(found) and record.time is not None:
        t = int(found[0])
        detail = (
            f"column {record.time_name!r} jumps in {len(found)} places, first from {record.when(t)} to "
            f"{record.when(t + 1)} at {record.where(t + 1)}"
        )
        yield Trouble(record.name, "gap", detail, "steps are taken as equally spaced: fill the rows, or split there")


def _twins(records: list[Record]) -> Iterator[Trouble]:
    """Series whose values an earlier one has."""
    seen: dict[bytes, str] = {}
    for record in records:
        key = record.values.tobytes()
        if key in seen:
            yield Trouble(record.name, "duplicate", f"the same values as {seen[key]}", "keep one of them")
        seen.setdefault(key, record.name)


def _clock(records: list[Record]) -> str:
    """From when to when, and how often."""
    with_time = [record for record in records if record.time is not None]
    if not with_time:
        return "none: steps are taken as equally spaced"
    if len({record.time.dtype.kind for record in with_time if record.time is not None}) > 1:
        return "of several kinds"
    times = [record.time for record in with_time if record.time is not None]
    begin, end = min(t.min() for t in times), max(t.max() for t in times)
    longest = max(times, key=len)
    step = f", a step of {np.sort(np.diff(longest))[len(longest) // 2 - 1]}" if len(longest) > 1 else ""
    offset = with_time[0].offset
    return f"{begin}{offset} to {end}{offset} (column {with_time[0].time_name!r}){step}"


def _samples(found: Found, cfg: Config) -> str:
    try:
        refuse(found, cfg.fill)
        series = build(found, cfg)
        signal = series.fit(cfg)
    except ValueError as error:
        return f"nothing: {error}"
    kind = f"windows of {series.window} steps, {series.stride} apart" if series.window else "whole series"
    padded = f", of {int(series.cut.length.min())} to {signal.size[0]} steps (data.unequal)" if series.padded else ""
    return f"{len(series)} samples: {kind}{padded}"
