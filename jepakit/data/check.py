"""Look at data before training: what is there, what cannot be read, what is there twice."""

import csv
import hashlib
import io
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from .base import Dataset, Unreadable
from .guess import guess
from .images import decode
from .images.files import Images
from .loader import dataloader
from .registry import KINDS
from .scanpaths import check as gaze
from .scanpaths.record import Timing
from .series import check as series

TINY = 16
LISTED = 1000
SHOWN = 10


class Problem(NamedTuple):
    """One item that deserves a look: "unreadable", "duplicate" or "tiny", and the detail."""

    name: str
    problem: str
    detail: str


class Range(NamedTuple):
    """Smallest, middle and largest value; zeros where nothing could be read."""

    low: int
    median: int
    high: int


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. `unreadable`, `duplicates` and `tiny` count items; `problems` lists up to 1,000 of each.

    `channels` and `classes` map a channel count or class name to how many items have it; `skew` is the largest class
    over the smallest non-empty one. `speed` is items decoded per second by one process.
    """

    path: str
    kind: str
    items: int
    readable: int
    unreadable: int
    duplicates: int
    tiny: int
    height: Range
    width: Range
    channels: dict[int, int]
    classes: dict[str, int]
    empty_classes: tuple[str, ...]
    skew: float
    speed: float
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) lines for printing; the last name the first problems."""
        channels = ", ".join(f"{n} with {c}" for c, n in sorted(self.channels.items()))
        few = sorted(self.classes.items(), key=lambda pair: -pair[1])
        classes = (
            f"{few[0][1]} ({few[0][0]}) to {few[-1][1]} ({few[-1][0]}), ratio {self.skew:.1f}" if few else "no labels"
        )
        more = self.unreadable + self.duplicates + self.tiny - SHOWN
        return [
            ("read as", self.kind),
            ("items", str(self.items)),
            ("readable", str(self.readable)),
            ("unreadable", str(self.unreadable)),
            ("exact duplicates", str(self.duplicates)),
            (f"smaller than {TINY} px", str(self.tiny)),
            ("height min / median / max", " / ".join(map(str, self.height))),
            ("width min / median / max", " / ".join(map(str, self.width))),
            ("channels", channels),
            ("classes", str(len(self.classes) + len(self.empty_classes))),
            ("items per class", classes),
            ("decoding, images/s per process", f"{self.speed:.0f}"),
            *(("note", note) for note in self.notes),
            *((p.name, f"{p.problem}: {p.detail}") for p in self.problems[:SHOWN]),
            *([("…", f"and {more} more (--csv FILE lists up to {LISTED:,} of a kind)")] if more > 0 else []),
        ]

    def dict(self) -> dict[str, object]:
        """Everything, as plain values for JSON."""
        return asdict(self)


def as_csv(problems: Sequence[Any]) -> str:
    """Problems, each with a `name`, a `problem` and a `detail`, as a table with a row each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("item", "problem", "detail"), *((p.name, p.problem, p.detail) for p in problems)])
    return text.getvalue()


class _Record(NamedTuple):
    """One item: size, channels, a hash of its content, seconds to decode, and why it could not be."""

    height: int
    width: int
    channels: int
    digest: int
    seconds: float
    why: str


def check(
    path: str,
    *,
    image: str = "",
    label: str = "",
    fixations: str = "",
    timing: Timing = "auto",
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport | series.SeriesReport | gaze.GazeReport:
    """Decode every item of the data at `path` once. Memory grows by 33 bytes per item.

    `image`, `label`, `fixations` and `timing` are as in the data's config; `progress` is told (done, all). Raises
    ValueError where there is nothing to read at all.
    """
    kind, why = guess(path)
    if fixations or kind == "scanpaths":
        cfg = KINDS["scanpaths"](path=path, fixations=fixations, timing=timing)
        return gaze.check(cfg, f"fixations in {fixations}" if fixations else why, progress)
    if kind in ("series", "dynamics"):
        return series.check(path, why, image, label)
    fields = {name: value for name, value in (("image", image), ("label", label)) if value}
    dataset = KINDS[kind](path=path, **fields).open()
    n = len(dataset)
    numbers, seconds = np.zeros((n, 4), dtype=np.int64), 0.0
    problems: list[Problem] = []
    items: DataLoader[_Record] = dataloader(_Records(dataset), 0, n, workers)
    for i, record in enumerate(items):
        numbers[i] = record[:4]
        seconds += record.seconds
        if record.why and len(problems) < LISTED:
            problems.append(Problem(dataset.name(i), "unreadable", record.why))
        if progress:
            progress(i + 1, n)
    return _report(path, f"{kind} ({why})", dataset, numbers, seconds, problems)


@dataclass(frozen=True, eq=False)
class _Records(TorchDataset[_Record]):
    """Item i is the record of item i."""

    dataset: Dataset

    def __getitem__(self, i: int) -> _Record:
        begin = time.perf_counter()
        try:
            if isinstance(self.dataset, Images):
                data, name = self.dataset.bytes(i), self.dataset.name(i)
                height, width, channels = decode.header(data, name)
                decode.raw(data, name, self.dataset.channels)
            else:
                x = self.dataset.raw(i)
                data = x.numpy().tobytes()
                channels, height, width = x.shape
        except Unreadable as error:
            return _Record(0, 0, 0, 0, time.perf_counter() - begin, error.why or "unknown")
        seconds = time.perf_counter() - begin
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)
        return _Record(height, width, channels, digest, seconds, "")


def _report(
    path: str,
    kind: str,
    dataset: Dataset,
    numbers: Int64[np.ndarray, "n 4"],
    seconds: float,
    problems: list[Problem],
) -> CheckReport:
    good = numbers[:, 2] > 0
    sizes = numbers[good]
    twins = _twins(numbers, good)
    tiny = np.flatnonzero(good & (numbers[:, :2].min(axis=1) < TINY))
    found = [
        *problems,
        *(Problem(dataset.name(i), "duplicate", f"same content as {dataset.name(j)}") for i, j in twins[:LISTED]),
        *(Problem(dataset.name(int(i)), "tiny", f"{numbers[i, 1]} x {numbers[i, 0]} px") for i in tiny[:LISTED]),
    ]
    counts = Counter(dataset.label(i) for i in range(len(dataset))) if dataset.classes else Counter[int]()
    classes = {name: counts[k] for k, name in enumerate(dataset.classes) if counts[k]}
    return CheckReport(
        path=path,
        kind=kind,
        items=len(numbers),
        readable=int(good.sum()),
        unreadable=int((~good).sum()),
        duplicates=len(twins),
        tiny=len(tiny),
        height=_range(sizes[:, 0]),
        width=_range(sizes[:, 1]),
        channels={int(c): int(k) for c, k in zip(*np.unique(sizes[:, 2], return_counts=True), strict=True)},
        classes=classes,
        empty_classes=tuple(name for k, name in enumerate(dataset.classes) if not counts[k]),
        skew=max(classes.values()) / min(classes.values()) if classes else 0.0,
        speed=len(numbers) / seconds if seconds else 0.0,
        notes=dataset.notes,
        problems=tuple(found),
    )


def _twins(numbers: Int64[np.ndarray, "n 4"], good: np.ndarray) -> list[tuple[int, int]]:
    """Each readable item whose content an earlier one has, with that one."""
    rows = np.flatnonzero(good)
    _, first, inverse = np.unique(numbers[rows, 3], return_index=True, return_inverse=True)
    earliest = rows[first[inverse]]
    return [(int(i), int(j)) for i, j in zip(rows, earliest, strict=True) if i != j]


def _range(values: Int64[np.ndarray, " n"]) -> Range:
    return Range(int(values.min()), int(np.median(values)), int(values.max())) if len(values) else Range(0, 0, 0)
