"""The interface `Store`: the bytes of encoded item i, whatever file holds them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64


@runtime_checkable
class Store(Protocol):
    """Encoded items in a fixed order."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the items."""
        ...

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """Indices into `classes`, -1 if an item has no label; empty if there are no labels."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; empty if there are no labels."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """The decisions made on opening the store, one sentence each."""
        ...

    def read(self, i: int) -> bytes:
        """The bytes of item i. Raises OSError."""
        ...

    def length(self, i: int) -> int:
        """The number of bytes of item i, without reading it; -1 if it is missing."""
        ...


NO_LABELS: Int64[np.ndarray, " 0"] = np.empty(0, dtype=np.int64)
