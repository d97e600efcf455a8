"""Intervals of measured proportions and means."""

from math import sqrt
from typing import Final

Z95: Final = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""


def wilson_interval(hits: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a proportion, `hits` of `n`: within [0, 1], and sensible at 0, at 1 and for small n.

    It covers only the draw of test samples, neither seeds nor training. Source: Wilson, JASA 22 (1927) 209.
    """
    p, spread = hits / n, z * z / n
    centre = (p + spread / 2) / (1 + spread)
    half = z * sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    # At 0 and n hits the formula gives exactly 0 and 1, but rounding may be off by 1e-17.
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == n else centre + half)
