"""Recorded responses to the items of a data set (of neurons, say), beside the representations of the same items."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from ..data.paths import existing_path
from .features import Features
from .split import Unlabelled

MIN_ITEMS, MIN_UNITS = 5, 3
"""The fewest items with a response, and units per response, for which a correlation means something."""


@dataclass(frozen=True, eq=False)
class RecordedResponses(Unlabelled):
    """Row i of `x` represents item `id[i]`; `responses[r, i]` is the response to it in repeat (or subject) r.

    `nan`, `flat` and `unread` count the items left out because a response is missing, because it does not vary over the
    units, or because the item cannot be read.
    """

    x: Float32[np.ndarray, "n d"]
    responses: Float64[np.ndarray, "r n u"]
    id: Int64[np.ndarray, " n"]
    nan: int = 0
    flat: int = 0
    unread: int = 0

    def where(self, rows: Bool[np.ndarray, " n"]) -> "RecordedResponses":
        """The items where `rows` is true."""
        return replace(self, x=self.x[rows], responses=self.responses[:, rows], id=self.id[rows])

    def same(self, other: "RecordedResponses") -> bool:
        """Whether both hold equal vectors."""
        return np.array_equal(self.x, other.x)

    def check_values(self) -> None:
        """Raise ValueError if a feature is not finite, or if too few items are left."""
        Features(self.x, self.y, self.id).check_values()
        if len(self) < MIN_ITEMS:
            raise ValueError(
                f"{len(self)} items have a representation and a response ({self.nan} left out for NaN, {self.flat} for "
                f"the same response of all units, {self.unread} cannot be read); {MIN_ITEMS} are needed: give more "
                "items, or leave out the units or repeats that are missing"
            )


def read_responses(path: str, items: int) -> Float64[np.ndarray, "r n u"]:
    """The responses (repeats, items, units) in a .npy file of shape (items, units) or (repeats, items, units).

    Raises ValueError if they are not numbers, infinite, for another number of items, or the same for every item.
    """
    if not path:
        raise ValueError(
            "no responses given; add --responses FILE.npy, of shape (items, units) or (repeats, items, units)"
        )
    found = _load_array(existing_path(path))
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


def join_responses(
    features: Mapping[str, Features], responses: Float64[np.ndarray, "r n u"]
) -> dict[str, RecordedResponses]:
    """Per encoder, the representations and responses of the items that have both."""
    nan = np.isnan(responses).any((0, 2))
    flat = ~nan & (responses == responses[..., :1]).all(2).any(0)
    counts = {"nan": int(nan.sum()), "flat": int(flat.sum())}
    parts = {}
    for key, f in features.items():
        part = RecordedResponses(f.x, responses[:, f.id], f.id, **counts, unread=len(nan) - len(f))
        parts[key] = part.where(~(nan | flat)[f.id])
        parts[key].check_values()
    return parts


def _load_array(file: Path) -> np.ndarray:
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
    if not count or items < MIN_ITEMS or units < MIN_UNITS:
        raise ValueError(
            f"{path} holds {count} x {items} items x {units} units; give {MIN_ITEMS} items and {MIN_UNITS} units or "
            "more, because a correlation over fewer means nothing"
        )
    if np.isinf(responses).any():
        raise ValueError(f"{path} holds infinite responses; write NaN where none was recorded")
    for r in range(count):
        known = responses[r][~np.isnan(responses[r]).any(1)]
        if len(known) and (known == known[0]).all():
            raise ValueError(
                f"{path} holds constant responses, the same for each of {len(known)} items (repeat {r}, counted from "
                "0), so nothing tells the items apart; give responses that vary"
            )
