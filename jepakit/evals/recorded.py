"""Responses to the items of a data set that somebody recorded, beside the representations of the same items."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from ..data.base import existing
from .features import Features

FEWEST, FEWEST_UNITS = 5, 3
"""Items with a response, and units of each: fewer tell nothing about a correlation."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """Row i of `x` represents item `id[i]`, to which `responses[r, i]` came in repeat (or subject) r.

    `nan`, `flat` and `unread` count the items that are left out: a response is missing, does not vary over the units,
    or the item cannot be read.
    """

    x: Float32[np.ndarray, "n d"]
    responses: Float64[np.ndarray, "r n u"]
    id: Int64[np.ndarray, " n"]
    nan: int = 0
    flat: int = 0
    unread: int = 0

    @property
    def y(self) -> Int64[np.ndarray, " n"]:
        """No item needs a label."""
        return np.full(len(self), -1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.id)

    def where(self, rows: Bool[np.ndarray, " n"]) -> "Recorded":
        """The items where `rows` is true."""
        return replace(self, x=self.x[rows], responses=self.responses[:, rows], id=self.id[rows])

    def same(self, other: "Recorded") -> bool:
        """Whether both hold the same vectors."""
        return np.array_equal(self.x, other.x)

    def check(self) -> None:
        """Raises ValueError where a feature is not finite, or where too few items are left."""
        Features(self.x, self.y, self.id).check()
        if len(self) < FEWEST:
            raise ValueError(
                f"{len(self)} items have a representation and a response ({self.nan} left out for NaN, {self.flat} for "
                f"the same response by all units, {self.unread} cannot be read); {FEWEST} are needed: give more "
                "items, or leave out the units or repeats that are missing"
            )


def read(path: str, items: int) -> Float64[np.ndarray, "r n u"]:
    """The responses of a .npy file to all items, of shape (items, units) or (repeats, items, units).

    Raises ValueError where they are not numbers, not of so many items, infinite, or the same for every item.
    """
    if not path:
        raise ValueError(
            "no responses given; add --responses FILE.npy, of shape (items, units) or (repeats, items, units)"
        )
    found = _array(existing(path))
    if found.dtype.kind not in "biuf" or found.ndim not in (2, 3):
        raise ValueError(
            f"{path} holds an array of type {found.dtype} and shape {found.shape}; save one of numbers, of shape "
            "(items, units) or (repeats, items, units)"
        )
    if found.shape[-2] != items:
        raise ValueError(
            f"{path} holds responses to {found.shape[-2]} items (its shape is {found.shape}), but the data hold "
            f"{items}; give one row for each item, in the data's order"
        )
    responses = found.astype(np.float64).reshape(-1, *found.shape[-2:])
    _need_variety(responses, path)
    return responses


def joined(features: Mapping[str, Features], responses: Float64[np.ndarray, "r n u"]) -> dict[str, Recorded]:
    """Representations, which any encoder gives, and responses of the items that have both."""
    nan = np.isnan(responses).any((0, 2))
    flat = ~nan & (responses == responses[..., :1]).all(2).any(0)
    counts = {"nan": int(nan.sum()), "flat": int(flat.sum())}
    parts = {}
    for key, f in features.items():
        part = Recorded(f.x, responses[:, f.id], f.id, **counts, unread=len(nan) - len(f))
        parts[key] = part.where(~(nan | flat)[f.id])
        parts[key].check()
    return parts


def _array(file: Path) -> np.ndarray:
    try:
        found = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"cannot read {file} as an array of numbers ({error}); write it with numpy.save, no objects in it"
        ) from None
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{file} is an archive of arrays; save the one of the responses as a .npy file")
    return found


def _need_variety(responses: Float64[np.ndarray, "r n u"], path: str) -> None:
    count, items, units = responses.shape
    if not count or items < FEWEST or units < FEWEST_UNITS:
        raise ValueError(
            f"{path} holds {count} x {items} items x {units} units; give {FEWEST} items and {FEWEST_UNITS} units or "
            "more, since a correlation over fewer says nothing"
        )
    if np.isinf(responses).any():
        raise ValueError(f"{path} holds infinite responses; write NaN where none was recorded")
    for r in range(count):
        known = responses[r][~np.isnan(responses[r]).any(1)]
        if len(known) and (known == known[0]).all():
            raise ValueError(
                f"{path} holds constant responses, the same to each of {len(known)} items (repeat {r}, counted from "
                "0), so nothing tells the items apart; give responses that vary"
            )
