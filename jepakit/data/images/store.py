"""Where encoded items lie: a `Store` hands out the bytes of item i, whatever file they are in."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64


@runtime_checkable
class Store(Protocol):
    """Encoded items in a fixed order."""

    @property
    def names(self) -> Sequence[str]:
        """What the items are called."""
        ...

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """Indices into `classes`, -1 where there is none; empty where there are no labels."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; empty where there are no labels."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided when the store was opened."""
        ...

    def read(self, i: int) -> bytes:
        """The bytes of item i. Raises OSError."""
        ...

    def length(self, i: int) -> int:
        """How many bytes item i has, without reading it; -1 where it is gone."""
        ...


NO_LABELS: Int64[np.ndarray, " 0"] = np.empty(0, dtype=np.int64)
