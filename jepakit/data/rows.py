"""The names, labels and splits of a data set's rows."""

import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from .base import Split


class Names(Sequence[str]):
    """Many strings in one block of bytes: compact, and never copied by a forked worker's reference counts."""

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


def select_part(names: Sequence[str], split: Split, held_out: float, limit: int) -> Int64[np.ndarray, " n"]:
    """The rows of one part of the data, in order; a hash of each name decides.

    "test" is about the fraction `held_out`, at least one row of two or more; "train" is the rest. `limit` keeps that
    many, chosen by another hash; 0: all.
    Raises ValueError if nothing is left.
    """
    rows = np.arange(len(names), dtype=np.int64)
    if split != "all":
        test = _test_rows(np.array([_unit_hash(names[i], b"split") for i in range(len(names))]), held_out)
        rows = rows[test if split == "test" else ~test]
    if 0 < limit < len(rows):
        keys = np.array([_unit_hash(names[int(i)], b"limit") for i in rows])
        rows = np.sort(rows[np.argsort(keys, kind="stable")[:limit]])
    if not len(rows):
        raise ValueError(
            f"the {split} part of {len(names)} items is empty; raise held_out (now {held_out}) or use split=all"
        )
    return rows


def _test_rows(hashes: Float64[np.ndarray, " n"], held_out: float) -> Bool[np.ndarray, " n"]:
    """The rows to hold out: those whose hash is below `held_out`; if these are none or all, the lowest few."""
    test: np.ndarray = hashes < held_out
    if len(hashes) > 1 and test.all() == test.any():
        count = min(max(1, round(held_out * len(hashes))), len(hashes) - 1)
        test = np.isin(np.arange(len(hashes)), np.argsort(hashes, kind="stable")[:count])
    return test


def _unit_hash(name: str, salt: bytes) -> float:
    """A hash of `name` as a number in [0, 1)."""
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8, person=salt).digest()
    return int.from_bytes(digest, "little") / 2.0**64


def encode_labels(values: Sequence[object]) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """Labels as indices, and the class names; None, NaN, empty text and negative integers mean no label, -1.

    Integers 0 … 9,999 keep their value, so that two parts of one data set agree; anything else is sorted by name.
    If dropping negative integers would leave one class, as in -1 and 1, they are classes too.
    """
    texts = ["" if value is None or value != value else str(value).strip() for value in values]
    if len({text for text in texts if text and not _is_negative(text)}) != 1:
        texts = ["" if _is_negative(text) else text for text in texts]
    numbers = {text: int(text) for text in set(texts) if text.isascii() and text.isdecimal()}
    if set(texts) - {""} != set(numbers) or max(numbers.values(), default=0) >= 10_000:
        return encode_by_name(texts)
    labels = np.array([numbers.get(text, -1) for text in texts], dtype=np.int64)
    return labels, tuple(str(i) for i in range(labels.max(initial=-1) + 1))


def _is_negative(text: str) -> bool:
    return text[:1] == "-" and text[1:].isdecimal()


def is_number(text: str) -> bool:
    """Whether a cell of a table holds a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def generated_part(
    count: int, split: Split, held_out: float, limit: int, noun: str, group: int = 1
) -> tuple[Int64[np.ndarray, " n"], int]:
    """The ids of a part of `count` generated samples, and the first id that is for testing; no part cuts a `group`.

    Raises ValueError, with the `noun` of the samples, if the part is empty.
    """
    cut = (count - round(count * held_out)) // group * group
    first, last = {"all": (0, count), "train": (0, cut), "test": (cut, count)}[split]
    if first == last:
        raise ValueError(f"the {split} part of {count} {noun} is empty; raise count or use split=all")
    return np.arange(first, min(last, first + limit) if limit else last, dtype=np.int64), cut


def encode_by_name(texts: Sequence[str]) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """Labels as indices into the sorted names; -1 for ""."""
    classes = tuple(sorted(set(texts) - {""}))
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(text, -1) for text in texts], dtype=np.int64), classes
