"""Signed distances to the outlines of five plane shapes."""

import numpy as np
from jaxtyping import Float, Int64

SHAPES = ("disc", "square", "triangle", "ring", "cross")


def outline_distance(
    kind: Int64[np.ndarray, " n"],
    x: Float[np.ndarray, "n #h #w"],
    y: Float[np.ndarray, "n #h #w"],
    r: Float[np.ndarray, "n 1 1"],
) -> Float[np.ndarray, "n h w"]:
    """The distance of (x, y) outside the shape `kind` of radius about `r` around the origin; negative inside."""
    far = np.hypot(x, y)
    distance: np.ndarray = np.select(
        [kind[:, None, None] == k for k in range(len(SHAPES))],
        [
            far - r,
            np.maximum(np.abs(x), np.abs(y)) - 0.75 * r,
            np.maximum(np.maximum(-y, y / 2 + 0.866 * x), y / 2 - 0.866 * x) - 0.5 * r,
            np.abs(far - 0.75 * r) - 0.25 * r,
            np.maximum(np.minimum(np.abs(x), np.abs(y)) - 0.25 * r, far - r),
        ],
    )
    return distance
