"""Choices of items that depend on nothing but their number."""

import numpy as np


def spread_evenly(n: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 … n - 1, evenly spaced."""
    return [int(i) for i in np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))]
