"""The `jepa check-data` report on images: sizes, classes, and unreadable, duplicate or tiny items."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from ..base import Dataset
from ..collation import Unreadable
from ..report import MAX_PROBLEMS_LISTED, Problem, Progress, Report, finish_report, range_text

MIN_SIDE = 16


class Content(NamedTuple):
    """The bytes that identify duplicates of an item, and its own channels, height and width."""

    data: bytes
    channels: int
    height: int
    width: int


def report_pictures(dataset: Dataset, content: Callable[[int], Content], progress: Progress = None) -> Report:
    """Sizes, channels, classes, and unreadable, duplicate or tiny items. Memory grows by 33 bytes per item.

    `content` decodes an item and raises Unreadable if it cannot.
    """
    n = len(dataset)
    numbers, seconds, problems = np.zeros((n, 4), dtype=np.int64), 0.0, list[Problem]()
    for i in range(n):
        begin = time.perf_counter()
        try:
            found = content(i)
            digest = int.from_bytes(hashlib.blake2b(found.data, digest_size=8).digest(), "little", signed=True)
            numbers[i] = found.height, found.width, found.channels, digest
        except Unreadable as error:
            problems.append(Problem(dataset.name(i), "unreadable", error.why or "unknown"))
        seconds += time.perf_counter() - begin
        if progress:
            progress(i + 1, n)
    good = numbers[:, 2] > 0
    twins = _duplicates(numbers, good)
    tiny = np.flatnonzero(good & (numbers[:, :2].min(axis=1) < MIN_SIDE)).tolist()
    listed = [
        *problems[:MAX_PROBLEMS_LISTED],
        *_problems_of(dataset, "duplicate", [(i, f"same content as {dataset.name(j)}") for i, j in twins]),
        *_problems_of(dataset, "tiny", [(i, f"{numbers[i, 1]} x {numbers[i, 0]} px") for i in tiny]),
    ]
    channels = zip(*np.unique(numbers[good, 2], return_counts=True), strict=True)
    rows = [
        ("items", str(n)),
        ("readable", str(int(good.sum()))),
        ("unreadable", str(len(problems))),
        ("exact duplicates", str(len(twins))),
        (f"smaller than {MIN_SIDE} px", str(len(tiny))),
        ("height min / median / max", range_text(numbers[good, 0].tolist())),
        ("width min / median / max", range_text(numbers[good, 1].tolist())),
        ("channels", ", ".join(f"{count} with {c}" for c, count in channels)),
        ("classes", str(len(dataset.classes))),
        ("items per class", _class_range(dataset)),
        ("decoding, images/s per process", f"{n / seconds if seconds else 0.0:.0f}"),
    ]
    more = f"--csv FILE lists up to {MAX_PROBLEMS_LISTED:,} of a kind"
    return finish_report(rows, dataset.notes, listed, more, len(problems) + len(twins) + len(tiny))


def _problems_of(dataset: Dataset, problem: str, found: list[tuple[int, str]]) -> list[Problem]:
    return [Problem(dataset.name(i), problem, detail) for i, detail in found[:MAX_PROBLEMS_LISTED]]


def _class_range(dataset: Dataset) -> str:
    """The largest and the smallest class among those that have items."""
    counts = Counter(label for i in range(len(dataset)) if (label := dataset.label(i)) >= 0)
    few = sorted(((counts[k], name) for k, name in enumerate(dataset.classes) if counts[k]), key=lambda pair: -pair[0])
    if not few:
        return "no labels"
    (most, first), (least, last) = few[0], few[-1]
    return f"{most} ({first}) to {least} ({last}), ratio {most / least:.1f}"


def _duplicates(numbers: Int64[np.ndarray, "n 4"], good: Bool[np.ndarray, " n"]) -> list[tuple[int, int]]:
    """Each readable item that duplicates an earlier one, paired with that one."""
    rows = np.flatnonzero(good)
    _, first, inverse = np.unique(numbers[rows, 3], return_index=True, return_inverse=True)
    earliest = rows[first[inverse]]
    return [(int(i), int(j)) for i, j in zip(rows, earliest, strict=True) if i != j]
