"""Segmentation masks: the class of every pixel, in a file beside the image.

The mask of `a.jpg` is `a.mask.png` in the same folder: one 8-bit channel, grey or palette (the index counts), of
the same size as the image. Its values are class ids 0 … 254; 255 means unknown. In a folder of films every
sub-folder is one film, and its files, sorted by name, are the frames.
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from ...types import Size
from ..base import NO_MASKS
from ..collation import Unreadable
from .augment import centre_box
from .decode import read_header
from .folder import MASK_SUFFIX, Files
from .store import Store

UNKNOWN_CLASS = 255


def mask_beside(store: Store, i: int) -> UInt8[np.ndarray, "h w"]:
    """The class ids of item i of a store, at its own size; all unknown if the image cannot be read.

    Raises ValueError, with the remedy, if there is no mask.
    """
    files, name = _files_of(store), store.names[i]
    try:
        found = read_header(files.read(i), name)
    except (OSError, Unreadable):
        return np.full((1, 1), UNKNOWN_CLASS, np.uint8)
    return read_mask(Path(files.root) / Path(name).with_suffix(MASK_SUFFIX), name, (found.height, found.width))


def folder_of(store: Store, i: int) -> str:
    """The folder of item i of a store. Raises ValueError if the items are not files."""
    return str(Path(_files_of(store).names[i]).parent)


def _files_of(store: Store) -> Files:
    if not isinstance(store, Files):
        raise ValueError(NO_MASKS)
    return store


def read_mask(path: Path, image: str, size: Size) -> UInt8[np.ndarray, "h w"]:
    """The class ids in a mask. Raises ValueError if it is missing, not a mask, or not of its image's `size`."""
    if not path.is_file():
        raise ValueError(f"{image} has no mask; put {path.name} beside it, a PNG of 8-bit class ids of the same size")
    try:
        with Image.open(path) as opened:
            mode, ids = opened.mode, np.array(opened)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise ValueError(f"the mask {path} cannot be read ({error}); write it again as a PNG of 8-bit ids") from None
    if mode not in ("L", "P", "1"):
        held = "16-bit values" if mode.startswith("I") else f"{mode} colours"
        raise ValueError(
            f"the mask {path} holds {held}, not class ids of 8 bits; save ids 0 … 254 (255: unknown) as a grey or "
            "palette PNG"
        )
    if ids.shape != tuple(size):
        shapes = f"{ids.shape[1]} x {ids.shape[0]}", f"{size[1]} x {size[0]}"
        raise ValueError(f"the mask {path} is {shapes[0]}, but its image {shapes[1]}; make it as large as the image")
    return ids.astype(np.uint8)


def resize_mask(ids: UInt8[np.ndarray, "h w"], size: Size) -> UInt8[np.ndarray, "_ _"]:
    """A mask cropped and resized like its image: centre crop, each pixel the nearest class id."""
    left, top, width, height, _ = centre_box(ids.shape[0], ids.shape[1], size)
    down = top + (np.arange(size[0]) + 0.5) * height / size[0]
    across = left + (np.arange(size[1]) + 0.5) * width / size[1]
    cut: np.ndarray = ids[down.astype(np.int64)[:, None], across.astype(np.int64)]
    return cut
