"""The base class `Store`: the bytes of encoded item i, whatever file holds them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True, eq=False)
class Store:
    """Encoded items in a fixed order, by their `names`.

    `labels` are indices into `classes`, -1 if an item has none; both are empty if there are no labels. `notes` are the
    decisions made on opening the store, one sentence each.
    """

    names: Sequence[str]
    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    def read(self, i: int) -> bytes:
        """The bytes of item i. Raises OSError."""
        raise NotImplementedError

    def length(self, i: int) -> int:
        """The number of bytes of item i, without reading it; -1 if it is missing."""
        raise NotImplementedError


NO_LABELS: Int64[np.ndarray, " 0"] = np.empty(0, dtype=np.int64)
