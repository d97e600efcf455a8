"""The settings of series data, and how files become samples."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, cast

import numpy as np

from ...core.notes import Note
from ...types import Size
from ..base import Dataset
from ..config import DataConfig, shared_last
from ..paths import expand_pattern, file_ending, first_file, split_key
from ..report import Progress, Report
from .array import Layout, read_array
from .augment import SeriesAugment
from .clock import align_offsets
from .dataset import Series, Unequal, commonest_labels, join_records
from .recognise import ARRAY_ENDINGS, TABLE_ENDINGS, TEXT_ENDINGS, can_hold, files_in, why_series
from .record import Found, SeriesRecord, record_problems, select_columns, time_gaps
from .report import report_series
from .table import ColumnRequest, read_table
from .ts_file import read_ts
from .windows import By, choose_windows, limit_samples, part_bounds, slide_windows


@shared_last(by="split", gap="held_out")
@dataclass(frozen=True)
class Config(DataConfig):
    """Series in tables (.csv, .tsv, .txt, .parquet), arrays (.npy, .npz) or .ts files, or a folder or glob of them.

    `time`, `entity`, `label` name a table's columns (empty: the usual names, "none": there is none), `columns` its
    channels (empty: all numeric columns). `array` names the array in a .npz, like file.npz:array; `layout` its axes.
    A sample has `window` steps; samples begin `stride` steps apart. 0: a whole series; None: chosen from the data.
    `unequal` says how lengths become equal. A missing value takes the last known one, over at most `fill` steps.
    `split` holds out the fraction `held_out`; `by` chooses the last times or whole series ("auto": whole series only
    if samples are whole series); `gap` steps between the parts belong to neither. The rest is as in `DataConfig`.
    """

    time: str = ""
    entity: str = ""
    label: str = ""
    columns: tuple[str, ...] = ()
    array: str = ""
    layout: Layout = "auto"
    window: int | None = None
    stride: int | None = None
    unequal: Unequal = "pad"
    fill: int = 8
    by: By = "auto"
    gap: int = 0
    augment: SeriesAugment = field(default_factory=SeriesAugment, kw_only=True)

    axes: ClassVar[tuple[int, ...]] = (1,)
    holds: ClassVar[str] = "series"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("window", 0), ("stride", 1), ("fill", 0), ("gap", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f"{key} is {value}; give a number of steps, {least} or more")
        if twice := [name for i, name in enumerate(self.columns) if name in self.columns[:i]]:
            raise ValueError(f"columns names {twice[0]!r} twice; name every channel once")
        if self.window == 1:
            raise ValueError("window is 1, a sample of a single step; give 2 steps or more, or 0 for whole series")

    @classmethod
    def recognises(cls, path: str) -> str:
        """The reason to read a path as series: it names an array of a .npz, or the head of the file says so."""
        file, key = split_key(path)
        found = first_file(file)
        if found is None:
            return ""
        return f"array {key!r} of {found.name}" if key else why_series(found)

    def claims(self, kind: str, path: str) -> bool:
        """A run on series reads a file as series if it may hold series."""
        return kind in ("arrays", "images") and can_hold(Path(split_key(path)[0]))

    @property
    def overlapping(self) -> bool:
        """Whether samples are, or may be, windows of series."""
        return self.window != 0

    def with_names(self, image: str, label: str) -> "Config":
        """The same settings with these names for the arrays of values and labels; empty names change nothing."""
        return replace(self, array=image or self.array, label=label or self.label)

    def uncut(self) -> "Config":
        """The same settings for whole series."""
        return replace(self, window=0, stride=None)

    def without_overlap(self) -> "Config":
        """The same settings with consecutive windows that do not overlap."""
        return replace(self, stride=self.window) if self.window else self

    def resolve(
        self, dataset: Dataset, needs: frozenset[str], method: str, patch: Size | None = None
    ) -> tuple["Config", list[Note]]:
        """Also resolves the window, the stride and the channels, so that other data are read the same way."""
        cfg, notes = super().resolve(dataset, needs, method, patch)
        assert isinstance(dataset, Series)
        columns = dataset.columns if dataset.named else self.columns
        return replace(cast(Config, cfg), window=dataset.window, stride=dataset.stride, columns=columns), notes

    def report(self, progress: Progress = None) -> Report:
        """The report on all series with the problems of each, even if they cannot be trained on."""
        found = read_series(self)
        return report_series(found, self.fill, what_training_reads(found, self))

    def open(self) -> Series:
        """Read the series into memory. Raises ValueError, with column, row and remedy."""
        found = read_series(self)
        refuse_problems(found, self.fill)
        return build_series(found, self)


def read_series(cfg: Config) -> Found:
    """The series at a path, as their files state them. Raises ValueError."""
    path, key = split_key(cfg.path)
    cfg = replace(cfg, array=key or cfg.array)
    files = [file for found in expand_pattern(path) for file in (files_in(found) if found.is_dir() else [found])]
    if not files:
        raise ValueError(f"no series in {cfg.path!r}; give a folder with .csv, .parquet, .ts, .npy or .npz files")
    parts = [_read_file(file, cfg) for file in files]
    records = [record for part in parts for record in part.records]
    for record in records:
        if record.channels != records[0].channels:
            raise ValueError(
                f"{record.name} has the columns {', '.join(record.channels)} but {records[0].name} has "
                f"{', '.join(records[0].channels)}; give files with the same columns, or set "
                "data.columns"
            )
    if max(map(len, records)) < 2:
        longest = "" if len(records) == 1 else ", and no other series has more"
        raise ValueError(f"{records[0].name} has 1 {records[0].place}{longest}; give 2 or more, one per step")
    records = align_offsets(records)
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    notes = [note for part in parts for note in part.notes]
    if len(notes) > 8:
        notes = [*notes[:8], f"… and so on, {len(files)} files"]
    return Found(records, classes, any(p.many for p in parts), parts[0].named, tuple(notes))


def _read_file(path: Path, cfg: Config) -> Found:
    kind = file_ending(path)
    if kind in TABLE_ENDINGS:
        records, notes = read_table(path, ColumnRequest(cfg.time, cfg.entity, cfg.label, cfg.columns))
        return Found(records, named=True, notes=notes)
    if kind in TEXT_ENDINGS:
        records, classes, notes = read_ts(path)
        return Found(select_columns(records, cfg.columns), classes, True, notes=notes)
    if kind in ARRAY_ENDINGS:
        records, many, notes = read_array(path, cfg.array, cfg.label, cfg.layout)
        return Found(select_columns(records, cfg.columns), (), many, notes=notes)
    raise ValueError(f"cannot read series from {str(path)!r}; give .csv, .tsv, .txt, .parquet, .ts, .npy or .npz files")


def refuse_problems(found: Found, fill: int) -> None:
    """Raises ValueError if a problem prevents reading a series; up to `fill` missing values in a row do not."""
    for record in found.records:
        for problem in record_problems(record, fill):
            raise ValueError(str(problem))


def build_series(found: Found, cfg: Config) -> Series:
    """The samples of the chosen part. Raises ValueError if there are none."""
    records = found.records
    lengths = [len(record) for record in records]
    windows, notes = choose_windows(lengths, found.many, cfg.window, cfg.stride, cfg.held_out)
    by = ("time" if windows.size else "entity") if cfg.by == "auto" else cfg.by
    if by == "time" and not windows.size and cfg.split != "all":
        raise ValueError("whole series cannot be divided in time; give a data.window, or set data.by=entity")
    cut = limit_samples(
        slide_windows(records, part_bounds(records, cfg.split, by, cfg.held_out, cfg.gap), windows, cfg.split),
        cfg.limit,
    )
    steps, classes = join_records(records, found.classes)
    series = Series(
        steps=steps,
        cut=cut,
        labels=commonest_labels(steps, cut, len(classes)),
        classes=classes,
        columns=records[0].channels,
        window=windows.size,
        stride=windows.stride,
        unequal=cfg.unequal,
        notes=(*found.notes, *notes, *_notes_on(records, windows.size)),
        named=found.named,
        cfg=cfg,
    )
    return series


def _notes_on(records: Sequence[SeriesRecord], window: int) -> list[str]:
    """Notes for the user on readable series."""
    notes = []
    lengths = np.array([len(record) for record in records])
    if short := int((lengths < window).sum()):
        notes.append(f"{short} of {len(records)} series are shorter than the window and are left out")
    if not window and lengths.min() != lengths.max():
        notes.append(f"series have {lengths.min()} to {lengths.max()} steps")
    if filled := sum(int(np.isnan(record.values).sum()) for record in records):
        notes.append(f"{filled} missing values take the last value before them")
    if jumps := sum(len(time_gaps(record)) for record in records):
        notes.append(f"times jump in {jumps} places; steps are treated as equally spaced (jepa check-data shows where)")
    return notes


def what_training_reads(found: Found, cfg: Config) -> str:
    """A description of the samples that the settings make of these series, or why there are none."""
    try:
        refuse_problems(found, cfg.fill)
        series = build_series(found, cfg)
        signal = series.signal()
    except ValueError as error:
        return f"nothing: {error}"
    kind = f"windows of {series.window} steps, {series.stride} apart" if series.window else "whole series"
    padded = (
        f", of {int(series.cut.length.min())} to {signal.size[0]} steps (data.unequal)" if series.has_padding else ""
    )
    return f"{len(series)} samples: {kind}{padded}"
