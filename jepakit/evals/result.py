"""What every classification probe reports: accuracy, its confidence interval, recall per class."""

from collections.abc import Iterator
from math import sqrt

import numpy as np
from jaxtyping import Int

Value = str | float | list[float | None]

Z95 = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""


def wilson(hits: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of a proportion, `hits` of `n`: never outside [0, 1], sensible at 0 and 1 and for small n.

    Covers the draw of the test samples only, neither seeds nor training. Source: Wilson, JASA 22 (1927) 209.
    """
    p, spread = hits / n, z * z / n
    centre = (p + spread / 2) / (1 + spread)
    half = z * sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    # Rounding may leave 1e-17 beyond the ends, which the formula reaches exactly at 0 and n hits.
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == n else centre + half)


def accuracy(pred: Int[np.ndarray, " n"], y: Int[np.ndarray, " n"], classes: int) -> Iterator[tuple[str, Value]]:
    """`metric`, `value`, `low`, `high` (95 %, Wilson) and `per_class`, the recall of each class.

    All are fractions in [0, 1]; the recall of a class without a test sample is None.
    """
    hit = pred == y
    low, high = wilson(int(hit.sum()), len(y))
    total = np.bincount(y, minlength=classes)
    found = np.bincount(y[hit], minlength=classes)
    yield "metric", "accuracy"
    yield "value", float(hit.mean())
    yield "low", low
    yield "high", high
    yield "per_class", [float(f / t) if t else None for f, t in zip(found, total, strict=True)]
