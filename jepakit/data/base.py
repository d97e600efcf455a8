"""What every source of samples offers the loader, and the small pieces the sources share."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.utils.data import default_collate

from ..types import Rng, Size, unit
from .images.augment import Augment
from .images.box import Ask, check_size
from .series.augment import SeriesAugment

Split = Literal["all", "train", "test"]
Corrupt = Literal["skip", "fail"]


class Unreadable(Exception):  # noqa: N818 - the caller decides whether it is an error
    """An item that cannot be decoded: its name, and why."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name, self.why = name, why

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


@runtime_checkable
class Settings(Protocol):
    """What every data config holds."""

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of every sample; None: chosen from the data."""
        ...

    @property
    def augment(self) -> Augment | SeriesAugment:
        """How training samples are changed."""
        ...

    @property
    def corrupt(self) -> Corrupt:
        """What becomes of items that cannot be read."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """Items 0 … len - 1, each with a name and perhaps a label; items are decoded when asked for."""

    @property
    def channels(self) -> int:
        """How many channels every sample has."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; empty where there are no labels."""
        ...

    @property
    def native(self) -> Size | None:
        """The (H, W) all items share; None where they differ."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided when the data were opened, one sentence each."""
        ...

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """What the item is called where it lies."""
        ...

    def label(self, i: int) -> int:
        """The index into `classes`, -1 where there is none."""
        ...

    def raw(self, i: int) -> Float[Tensor, "c h w"]:
        """The item at its own size; pixels in [0, 1], float arrays in their own units. Raises Unreadable."""
        ...

    def crops(self, i: int, asks: Sequence[Ask]) -> list[Shaped[Tensor, "c h w"]]:
        """The pictures asked for, from one decoding: uint8 for 8-bit items, else float32. Raises Unreadable."""
        ...

    def fingerprint(self) -> str:
        """A hash that changes when items are added, removed, renamed or resized."""
        ...


@runtime_checkable
class Batched(Protocol):
    """A data set in memory, which cuts a whole batch at once."""

    def crop_batch(
        self, ids: Int64[np.ndarray, " b"], size: Size, boxes: Int64[np.ndarray, "b 5"]
    ) -> Shaped[Tensor, "b c h w"]:
        """Box b of item ids[b], resized to `size`: uint8 for 8-bit items, else float32."""
        ...


def stack(rows: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "b ..."]:
    """One tensor of at least one row: uint8 where all rows are 8-bit, else float32."""
    same = all(x.dtype == torch.uint8 for x in rows)
    # The DataLoader's own function stacks straight into shared memory when it runs in a worker.
    stacked: Tensor = default_collate(list(rows) if same else [unit(x) for x in rows])
    return stacked


def refuse(error: Unreadable, corrupt: Corrupt) -> None:
    """Raises ValueError where an item that cannot be read is to fail the run."""
    if corrupt == "fail":
        raise ValueError(f"cannot read {error}; remove or replace it, or set data.corrupt=skip") from None


def first_of(skipped: dict[str, str]) -> str:
    """One of the items that could not be read, as a part of a sentence."""
    name, why = next(iter(skipped.items()))
    return f"{name} ({why})"


class Names(Sequence[str]):
    """Many strings in one block of bytes: small, and never copied by a forked worker's reference counts."""

    def __init__(self, names: Iterable[str]) -> None:
        parts = [os.fsencode(name) for name in names]
        self._blob = b"".join(parts)
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> str:  # type: ignore[override]
        start = int(self._ends[i - 1]) if i else 0
        return os.fsdecode(self._blob[start : int(self._ends[i])])

    def digest(self) -> bytes:
        """A hash of all names, in order."""
        return hashlib.blake2b(self._blob + self._ends.tobytes(), digest_size=16).digest()


def uniform(rng: Rng, ids: Int64[np.ndarray, " b"], draws: int) -> Float[np.ndarray, "b draws"]:
    """Numbers in [0, 1) that depend on `rng` (not on its step's batch) and on each id alone, whoever asks.

    A counter-based generator: the key and the id are mixed by the splitmix64 finaliser, and so is each draw's index.
    Source: Steele, Lea & Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    key = np.uint64(rng.generator().initial_seed())
    rows = _mix(ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key)
    counters = np.arange(1, draws + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = _mix(rows[:, None] + counters) >> np.uint64(11)
    numbers: np.ndarray = bits * 2.0**-53
    return numbers


def _mix(x: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def check_part(size: Size | None, held_out: float, limit: int, contrast: float = 1.0) -> None:
    """What every data config checks when it is made. Raises ValueError."""
    check_size(size)
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}; give the fraction kept for the test part, e.g. held_out=0.1")
    if limit < 0:
        raise ValueError(f"limit is {limit}; give how many items to keep, or 0 for all of them")
    if not 0 < contrast < float("inf"):
        raise ValueError(f"contrast is {contrast:g}; give a factor above 0, 1 for the data as they are")


def select(names: Sequence[str], split: Split, held_out: float, limit: int) -> Int64[np.ndarray, " n"]:
    """The rows that belong to a part of the data, in their order; decided by a hash of each name alone.

    "test" is about the fraction `held_out`, "train" the rest. `limit` keeps that many, chosen by another hash; 0 all.
    Raises ValueError where nothing is left.
    """
    rows = np.arange(len(names), dtype=np.int64)
    if split != "all":
        test = np.array([_unit(names[i], b"split") < held_out for i in range(len(names))], dtype=bool)
        rows = rows[test if split == "test" else ~test]
    if 0 < limit < len(rows):
        keys = np.array([_unit(names[int(i)], b"limit") for i in rows])
        rows = np.sort(rows[np.argsort(keys, kind="stable")[:limit]])
    if not len(rows):
        raise ValueError(
            f"the {split} part of {len(names)} items is empty; raise held_out (now {held_out}) or use split=all"
        )
    return rows


def _unit(name: str, salt: bytes) -> float:
    """A hash of `name` as a number in [0, 1)."""
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8, person=salt).digest()
    return int.from_bytes(digest, "little") / 2.0**64


def encode_labels(values: Sequence[object]) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """Labels as indices, and the class names; None, NaN, empty texts and negative integers are no label, -1.

    Integers 0 … 9,999 stay what they are, so that two parts of one data set agree; anything else is sorted by name.
    Where negative integers leave one class, as in -1 and 1, they are classes themselves.
    """
    texts = ["" if value is None or value != value else str(value).strip() for value in values]
    if len({text for text in texts if text and not _negative(text)}) != 1:
        texts = ["" if _negative(text) else text for text in texts]
    numbers = {text: int(text) for text in set(texts) if text.isascii() and text.isdecimal()}
    if set(texts) - {""} != set(numbers) or max(numbers.values(), default=0) >= 10_000:
        return by_name(texts)
    labels = np.array([numbers.get(text, -1) for text in texts], dtype=np.int64)
    return labels, tuple(str(i) for i in range(labels.max(initial=-1) + 1))


def _negative(text: str) -> bool:
    return text[:1] == "-" and text[1:].isdecimal()


def by_name(texts: Sequence[str]) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """Labels as indices into the sorted names; -1 for ""."""
    classes = tuple(sorted(set(texts) - {""}))
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(text, -1) for text in texts], dtype=np.int64), classes


def spread(n: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 … n - 1, evenly spread."""
    return [int(i) for i in np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))]


def existing(path: str) -> Path:
    """The path, which must exist. Raises ValueError."""
    if not path:
        raise ValueError("no data given; name a folder, file or glob, e.g. --data.path photos/")
    found = Path(path).expanduser()
    if not found.exists():
        raise ValueError(f"no file or folder {path!r}; check the path (it is read relative to {Path.cwd()})")
    return found
