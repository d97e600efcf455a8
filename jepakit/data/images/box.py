"""Crop boxes and crop requests of an image."""

from collections.abc import Callable
from typing import NamedTuple

from ...types import Size


class Box(NamedTuple):
    """A rectangle in pixels, flipped left to right if `flip` is 1."""

    left: int
    top: int
    width: int
    height: int
    flip: int = 0


class CropRequest(NamedTuple):
    """One crop wanted from an item: `place(height, width)` gives the box, `size` (H, W) the output size."""

    size: Size
    place: Callable[[int, int], Box]


def check_size(size: Size | None) -> None:
    """Raises ValueError if a configured size is not a height and a width."""
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size is {size}; give a height and a width of at least 1, e.g. (224, 224)")
