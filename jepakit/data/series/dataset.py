"""The data set of series in memory: one block of all values, and the steps that each sample covers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor

from ...core.draws import uniform_draws
from ...types import Ids, Rng, Samples, Signal, Size
from ..base import Dataset, Words
from ..config import DataConfig
from ..report import Progress, Report
from ..rows import encode_labels
from .augment import SeriesAugment, change_values, crop_steps, draws_for
from .clock import time_texts
from .record import SeriesRecord, fill_missing
from .windows import Cut, shorter_advice

Unequal = Literal["pad", "stretch", "cut"]
WORDS = Words(
    "series",
    "series",
    "steps",
    "train with data.unequal=stretch or data.unequal=cut, or with a data.window",
    "name the column of labels with data.label; the probe forecast needs none",
)
# The automatic patch gives half of the series this many patches, and the shortest one at least the minimum.
PATCHES_PER_SERIES, MIN_PATCHES = 7, 4


class Steps(NamedTuple):
    """Every step of all series, concatenated: values, the mask of filled-in values, and each step's origin.

    `row` is the step's row in its file, `time` its time if all series have times; `first` is the first step of each
    series, `name` its name, `place` the noun for rows, `offset` the UTC offset written after times (clock.py).
    """

    values: Float32[np.ndarray, "c t"]
    missing: Bool[np.ndarray, "c t"]
    label: Int64[np.ndarray, " t"]
    row: Int64[np.ndarray, " t"]
    time: Shaped[np.ndarray, " t"] | None
    first: Int64[np.ndarray, " k"]
    name: tuple[str, ...]
    place: str
    offset: str = ""


class Version(NamedTuple):
    """One version of a sample: its length, the share of the time it shows, and its random stream."""

    size: int
    crop: tuple[float, float]
    stream: str


def _default_config() -> DataConfig:
    return DataConfig(augment=SeriesAugment())


@dataclass(frozen=True, eq=False)
class Series(Dataset):
    """Samples (C, T) of series: `cut` holds their steps. `window` and `stride` made the cut.

    `unequal` says how samples of different lengths become equal: padded at the end to the longest (`Batch.length`),
    stretched to the longest by linear interpolation, or cut to the shortest. `columns` are the channel names; `named`
    says whether they come from a table.
    """

    steps: Steps
    cut: Cut
    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    window: int
    stride: int
    unequal: Unequal
    notes: tuple[str, ...]
    named: bool = False
    cfg: Any = field(default_factory=_default_config, kw_only=True)

    words = WORDS

    @property
    def channels(self) -> int:
        """The number of channels of every sample."""
        return len(self.columns)

    @property
    def native(self) -> Size:
        """(T,), the common length of samples."""
        length = self.cut.length
        return (int(length.min() if self.unequal == "cut" else length.max()),)

    @property
    def has_padding(self) -> bool:
        """Whether some samples are padded."""
        return self.unequal == "pad" and bool((self.cut.length != self.cut.length[0]).any())

    @property
    def lengths(self) -> Int64[np.ndarray, " n"] | None:
        """The number of steps of each sample; None if all are brought to one length."""
        return self.cut.length if self.unequal == "pad" else None

    def can_lengthen(self, size: Size) -> bool:
        """Whether samples can be read at more steps than `size` has, because they are padded or stretched anyway."""
        return self.unequal == "stretch" or super().can_lengthen(size)

    @property
    def augment(self) -> SeriesAugment:
        """How training samples are augmented."""
        return cast(SeriesAugment, self.cfg.augment)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The channel names."""
        return self.columns

    def __len__(self) -> int:
        return len(self.cut.start)

    def name(self, i: int) -> str:
        """The series' name and, if it is cut into windows, the steps, counted from 0."""
        name, begin, end = self.span(i)
        return f"{name}[{begin}:{end}]" if self.window else name

    def span(self, i: int) -> tuple[str, int, int]:
        """The source series of a sample, its first step, and the step after its last."""
        begin = int(self.cut.start[i])
        return self.steps.name[int(self.cut.record[i])], begin, begin + int(self.cut.length[i])

    def times(self, i: int) -> Shaped[np.ndarray, " t"] | None:
        """The time of each step of a sample, if the data have times."""
        begin = int(self.begin[i])
        return None if self.steps.time is None else self.steps.time[begin : begin + int(self.cut.length[i])]

    def label(self, i: int) -> int:
        """The index into `classes` of the most common label of its steps, -1 if there is none."""
        return int(self.labels[i])

    @property
    def begin(self) -> Int64[np.ndarray, " n"]:
        """The position of each sample's first step among the steps of all series."""
        place: np.ndarray = self.steps.first[self.cut.record] + self.cut.start
        return place

    def raw(self, i: int) -> Float[Tensor, "c t"]:
        """The sample at its own length, in its own units."""
        begin = int(self.begin[i])
        return torch.from_numpy(self.steps.values[:, begin : begin + int(self.cut.length[i])].copy())

    def part(
        self, ids: Ids, offset: Int64[np.ndarray, " b"], count: Int64[np.ndarray, " b"], size: int
    ) -> Float[Tensor, "b c {size}"]:
        """`count` steps of each sample from its step `offset` on, stretched to `size` by linear interpolation.

        Both end values are kept; if `count` is `size`, all values are.
        """
        at = np.arange(size) * ((count[:, None] - 1) / max(size - 1, 1))
        low = np.minimum(np.floor(at).astype(np.int64), count[:, None] - 1)
        high = np.minimum(low + 1, count[:, None] - 1)
        first = (self.begin[ids] + offset)[:, None]
        weight = (at - low).astype(np.float32)
        x = self.steps.values[:, first + low]
        if weight.any():
            x = x * (1 - weight) + self.steps.values[:, first + high] * weight
        return torch.from_numpy(np.ascontiguousarray(x.transpose(1, 0, 2)))

    def whole(self, ids: Ids, size: Size) -> tuple[Float[Tensor, "b c _"], Int64[Tensor, " b"] | None]:
        """Samples (B, C, T), T = size[0], changed only to equalise their lengths; their lengths if padded.

        Padding is 0. Raises ValueError if samples are longer than the model accepts, or must not be padded.
        """
        length, start = self.cut.length[ids], np.zeros(len(ids), dtype=np.int64)
        if self.unequal == "stretch" or (length == size[0]).all():
            return self.part(ids, start, length, size[0]), None
        if self.unequal == "cut" and (length >= size[0]).all():
            return self.part(ids, start, np.full(len(ids), size[0], dtype=np.int64), size[0]), None
        if self.unequal != "pad" or (length > size[0]).any():
            raise ValueError(
                f"{self.name(int(ids[np.argmax(length != size[0])]))} has {int(length[length != size[0]][0])} steps "
                f"but the model takes {size[0]}; set data.unequal=stretch, or data.window={size[0]}"
            )
        at = np.minimum(np.arange(size[0]), length[:, None] - 1) + self.begin[ids][:, None]
        x = np.where(np.arange(size[0]) < length[:, None], self.steps.values[:, at], np.float32(0))
        return torch.from_numpy(np.ascontiguousarray(x.transpose(1, 0, 2))), torch.from_numpy(length.copy())

    def read(self, ids: Ids, size: Size) -> Samples:
        """Samples `ids` at a length of size[0]; see `whole`."""
        x, length = self.whole(ids, size)
        return Samples(x, torch.from_numpy(ids), {}, self.labels_of(ids), length=length)

    def read_beginnings(self, ids: Ids, size: Size) -> Samples:
        """The first size[0] steps of every sample that has at least that many."""
        x = self.part(ids, np.zeros_like(ids), np.full_like(ids, size[0]), size[0])
        return Samples(x, torch.from_numpy(ids), {}, self.labels_of(ids))

    def draw(self, ids: Ids, rng: Rng, signal: Signal, include_x: bool = True) -> Samples:
        """Samples `ids` and their views, augmented as drawn for each; see `Dataset.draw`."""
        x, length = self._draw_x(ids, rng, signal) if include_x else (None, None)
        views = []
        for g, group in enumerate(self.augment.views):
            size = group.size_for(signal.size)[0]
            streams = [f"view {g} {v}" for v in range(group.count)]
            each = [self.version(ids, rng, signal, Version(size, group.crop, stream)) for stream in streams]
            views.append(torch.stack(each, 1))
        return Samples(x, torch.from_numpy(ids.copy()), {}, self.labels_of(ids), tuple(views), length=length)

    def _draw_x(self, ids: Ids, rng: Rng, signal: Signal) -> tuple[Float[Tensor, "b c _"], Int64[Tensor, " b"] | None]:
        """The sample itself, cropped only if the settings say so; otherwise padding stays padding."""
        if self.augment.crop != (1.0, 1.0):
            return self.version(ids, rng, signal, Version(signal.size[0], self.augment.crop, "x")), None
        x, length = self.whole(ids, signal.size)
        y = self._changed(x, ids, rng, signal, "x")
        if length is not None:
            y = torch.where(torch.arange(y.shape[2]) < length[:, None, None], y, 0.0)
        return y, length

    def version(self, ids: Ids, rng: Rng, signal: Signal, v: Version) -> Float[Tensor, "b c _"]:
        """A random crop of each sample's time at the wanted length, augmented; it never includes padding."""
        offset, count = crop_steps(self.cut.length[ids], uniform_draws(rng.fork("box", v.stream), ids, 2), v.crop)
        return self._changed(self.part(ids, offset, count, v.size), ids, rng, signal, v.stream)

    def _changed(
        self, x: Float[Tensor, "b c t"], ids: Ids, rng: Rng, signal: Signal, stream: str
    ) -> Float[Tensor, "b c t"]:
        augment = self.augment
        if not (augment.scale or augment.jitter or augment.drop):
            return x
        u = uniform_draws(rng.fork("series", stream), ids, draws_for(*x.shape[1:]))
        return change_values(x, u, augment, signal.mean, signal.std)

    def versions(self, ids: Int64[np.ndarray, " n"], count: int, signal: Signal) -> Float[Tensor, "n q c _"]:
        """`count` versions of each sample, augmented like its first views, or like the sample if it has no views."""
        group = self.augment.views[0] if self.augment.views else None
        size = (group.size_for(signal.size) if group else signal.size)[0]
        v = Version(size, (group or self.augment).crop, "view")
        return torch.stack([self.version(ids, Rng(0).fork("panel", k), signal, v) for k in range(count)], 1)

    def subset(self, rows: Int64[np.ndarray, " k"], labels: Int64[np.ndarray, " k"] | None = None) -> "Series":
        """The samples `rows`, with their own labels or with `labels`."""
        cut = Cut(*(column[rows] for column in self.cut))
        return replace(self, cut=cut, labels=self.labels[rows] if labels is None else labels)

    def auto_patch(self, cells: int) -> tuple[tuple[int, ...], str] | None:
        """A patch that gives half of the series several patches and the shortest one some; None without padding."""
        if not self.has_padding:
            return None
        length = self.cut.length
        steps = max(1, min(16, int(np.median(length)) // PATCHES_PER_SERIES, int(length.min()) // MIN_PATCHES))
        return (steps,), f"{PATCHES_PER_SERIES} patches or more in half of the series"

    def report(self, progress: Progress = None) -> Report:
        """The report on all series of this data path, with the problems of each."""
        report: Report = self.cfg.report(progress)
        return report

    def as_series(self) -> "Series":
        """This data set."""
        return self

    def step_span(self, i: int) -> tuple[int, int]:
        """The first step of a sample in its series, and the step after its last."""
        return self.span(i)[1:]

    def step_times(self, i: int) -> list[str] | None:
        """The time of each step of a sample, as its table writes it; None if the data have no times."""
        times = self.times(i)
        return None if times is None else time_texts(times, self.steps.offset)

    def covered_steps(self) -> Bool[np.ndarray, " t"]:
        """Whether any sample covers each step of all series."""
        edges = np.zeros(self.steps.values.shape[1] + 1, dtype=np.int64)
        np.add.at(edges, self.begin, 1)
        np.add.at(edges, self.begin + self.cut.length, -1)
        inside: np.ndarray = np.cumsum(edges)[:-1] > 0
        return inside

    def signal(self) -> Signal:
        """The signal: mean and deviation of every channel over the steps that samples cover, each step counted once.

        Filled-in values and padding are excluded. Raises ValueError if a channel is constant or was
        never measured, or if there is only one sample.
        """
        if len(self) == 1:
            name, steps = self.steps.name[int(self.cut.record[0])], int(self.cut.length[0])
            raise ValueError(
                f"{name} makes a single sample of {steps} steps, too little to train on; {shorter_advice(steps)}"
            )
        inside = self.covered_steps()
        mean, std = zip(*[self._moments_of(c, inside) for c in range(self.channels)], strict=True)
        return self.as_signal(self.native, mean, tuple(value / self.cfg.contrast for value in std))

    def _moments_of(self, c: int, inside: Bool[np.ndarray, " t"]) -> tuple[float, float]:
        rows = np.flatnonzero(inside & ~self.steps.missing[c])
        values = self.steps.values[c, rows].astype(np.float64)
        named, advice = f"column {self.columns[c]!r}", "leave it out with data.columns"
        if not len(rows):
            raise ValueError(f"{named} holds no number in the training part; {advice}")
        mean, std = float(values.mean()), float(values.std())
        if std <= 1e-7 * max(1.0, abs(mean)):
            ends = " to ".join(f"{self.steps.place} {self.steps.row[row]}" for row in (rows[0], rows[-1]))
            raise ValueError(
                f"{named} is constant, {values[0]:g} from {ends}, in all {len(rows)} steps of the training part; "
                f"{advice}"
            )
        return mean, std

    def fingerprint(self) -> str:
        """A hash of all values, the labels, and the steps that samples cover."""
        digest = hashlib.blake2b(repr((self.columns, self.classes, self.unequal)).encode(), digest_size=8)
        for column in (self.steps.values, *self.cut, self.labels):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def join_records(records: Sequence[SeriesRecord], classes: Sequence[str] = ()) -> tuple[Steps, tuple[str, ...]]:
    """The steps of all records, filled, and the class names; `classes` are those that a file declares."""
    lengths = [len(record) for record in records]
    label, names = _step_labels(records, lengths, classes)
    clocks = [record.time for record in records if record.time is not None]
    same = len(clocks) == len(records) and len({clock.dtype.kind for clock in clocks}) == 1
    steps = Steps(
        values=np.concatenate([fill_missing(r.values).astype(np.float32) for r in records], axis=1),
        missing=np.concatenate([np.isnan(r.values) for r in records], axis=1),
        label=label,
        row=np.concatenate([record.row_numbers for record in records]),
        time=np.concatenate(clocks) if same else None,
        first=np.cumsum([0, *lengths[:-1]]).astype(np.int64),
        name=tuple(record.name for record in records),
        place=records[0].place,
        offset=records[0].offset,
    )
    return steps, names


def _step_labels(
    records: Sequence[SeriesRecord], lengths: Sequence[int], classes: Sequence[str]
) -> tuple[Int64[np.ndarray, " t"], tuple[str, ...]]:
    """The label of every step, -1 if there is none, and the class names."""
    given = [record.label for record in records]
    codes, names = encode_labels([*(value for label in given for value in label), *classes])
    if not any(given):
        return np.full(sum(lengths), -1, dtype=np.int64), ()
    parts = np.split(codes, np.cumsum([len(label) for label in given]))[: len(given)]
    full = [
        part if len(part) == n else np.full(n, part[0] if len(part) else -1, dtype=np.int64)
        for part, n in zip(parts, lengths, strict=True)
    ]
    return np.concatenate(full), names


def commonest_labels(steps: Steps, cut: Cut, classes: int) -> Int64[np.ndarray, " n"]:
    """The most common label of each sample's steps, the smaller of two on a tie; -1 if no step has one."""
    begin = steps.first[cut.record] + cut.start
    best, label = np.zeros(len(begin), dtype=np.int64), np.full(len(begin), -1, dtype=np.int64)
    for k in range(classes):
        total = np.concatenate([[0], np.cumsum(steps.label == k)])
        count = total[begin + cut.length] - total[begin]
        label, best = np.where(count > best, k, label), np.maximum(best, count)
    return label
