"""A part of a picture."""

from collections.abc import Callable
from typing import NamedTuple

from ...types import Size


class Box(NamedTuple):
    """A rectangle in pixels, mirrored left to right where `flip` is 1."""

    left: int
    top: int
    width: int
    height: int
    flip: int = 0


class CropRequest(NamedTuple):
    """One picture wanted from an item: `place(height, width)` says which box of it, `size` (H, W) how large."""

    size: Size
    place: Callable[[int, int], Box]


def check_size(size: Size | None) -> None:
    """Raises ValueError where a size asked for is not a height and a width."""
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size is {size}; give a height and a width of at least 1, e.g. (224, 224)")
