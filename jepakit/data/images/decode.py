"""Encoded bytes (JPEG, PNG, WebP, TIFF, .npy …) to pictures, at the size asked for.

8-bit images with one or three channels are cut and resized by Pillow, JPEG files at a reduced scale where the box
allows it. Everything else (16-bit, float, multi-page or many-band TIFF, .npy, four channels) becomes an array first.
"""

import io
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from PIL import Image, ImageOps
from torch import Tensor

from ...types import Size
from ..base import Unreadable
from . import tiff
from .box import Ask, Box

EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".npy")
# What Pillow and numpy raise for broken files.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    tokenize.TokenError,
    Image.DecompressionBombError,
)
_PLAIN = {"L": 1, "RGB": 3}
_LUMA = (0.299, 0.587, 0.114)


class Header(NamedTuple):
    """What is known before the pixels are read."""

    height: int
    width: int
    channels: int


def header(data: bytes, name: str) -> Header:
    """Size as seen (EXIF orientation applied) and channels. Raises Unreadable."""
    with _reading(name):
        if (bands := _bands_of(data, name)) is not None:
            channels, height, width = bands.shape
            return Header(height, width, channels)
        with _open(data) as image:
            width, height = image.size
            if _orientation(image) >= 5:
                width, height = height, width
            return Header(height, width, _bands(image))


def raw(data: bytes, name: str, channels: int) -> Shaped[Tensor, "c h w"]:
    """The whole picture with `channels` channels: uint8 for 8-bit images, else float32. Raises Unreadable."""
    with _reading(name):
        if (bands := _bands_of(data, name)) is not None:
            return convert(torch.from_numpy(bands), channels, name)
        with _open(data) as image:
            return _pixels(_upright(image), channels, name)


def crops(data: bytes, name: str, channels: int, asks: Sequence[Ask]) -> list[Shaped[Tensor, "c h w"]]:
    """The pictures asked for, from one decoding: uint8 for 8-bit images, else float32. Raises Unreadable."""
    with _reading(name):
        if (bands := _bands_of(data, name)) is not None:
            return cut_all(convert(torch.from_numpy(bands), channels, name), asks)
        with _open(data) as image:
            if _resizable(image, channels):
                return _resized(image, channels, asks)
            return cut_all(_pixels(_upright(image), channels, name), asks)


def cut_all(x: Shaped[Tensor, "c h w"], asks: Sequence[Ask]) -> list[Shaped[Tensor, "c _ _"]]:
    """The pictures asked for, from an array."""
    return [cut(x, ask.place(*x.shape[1:]), ask.size) for ask in asks]


def cut(x: Shaped[Tensor, "c h w"], box: Box, size: Size) -> Shaped[Tensor, "c _ _"]:
    """A box of an array, resized with antialiasing; keeps the type."""
    left, top, width, height, flip = box
    part = x[:, top : top + height, left : left + width]
    if (height, width) != tuple(size):
        wide = part[None].float()
        part = F.interpolate(wide, size=tuple(size), mode="bilinear", antialias=True)[0]
        part = part.round_().clamp_(0, 255).to(torch.uint8) if x.dtype == torch.uint8 else part
    return part.flip(-1) if flip else part


def convert(x: Shaped[Tensor, "c h w"], channels: int, name: str) -> Shaped[Tensor, "k h w"]:
    """The same picture with another number of channels: grey ↔ colour, without its fourth band. Raises Unreadable."""
    have = len(x)
    if have == channels:
        return x
    if channels == 3 and have in (1, 2):
        return x[:1].expand(3, -1, -1)
    if channels == 3 and have == 4:
        return x[:3]
    if channels == 1 and have in (3, 4):
        grey = torch.einsum("chw,c->hw", x[:3].float(), torch.tensor(_LUMA))[None]
        return grey.round().to(torch.uint8) if x.dtype == torch.uint8 else grey
    raise Unreadable(name, f"has {have} channels where the data set has {channels}")


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Whatever is wrong with a file becomes one Unreadable; Pillow's warnings about it add nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except BROKEN as error:
            # Pillow names the buffer it reads from by its address, which would differ from run to run.
            why = re.sub(r" ?<_io\.BytesIO[^>]*>", "", str(error))
            raise Unreadable(name, why or type(error).__name__) from None


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def _orientation(image: Image.Image) -> int:
    # Pillow turns TIFF files itself, and asking other images without EXIF costs time.
    if image.format == "TIFF" or "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except BROKEN:  # the pixels may still be whole
        return 1


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if _orientation(image) > 1 else image


def _bands(image: Image.Image) -> int:
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    mode = image.mode
    if mode == "RGBA":
        return 4 * pages
    return pages if mode in ("L", "1", "LA", "La", "F") or mode.startswith("I") else 3 * pages


def _resizable(image: Image.Image, channels: int) -> bool:
    # Pillow multiplies by the fourth channel before it resizes RGBA, which would destroy a band that is not alpha.
    if getattr(image, "n_frames", 1) > 1 and image.format == "TIFF":
        return False
    return channels in (1, 3) and not image.mode.startswith(("I", "F"))


def _resized(image: Image.Image, channels: int, asks: Sequence[Ask]) -> list[Shaped[Tensor, "c _ _"]]:
    """Draft, turn, cut and resize in Pillow; boxes are placed in the full-size, upright picture."""
    turned = _orientation(image)
    full = image.size[::-1] if turned >= 5 else image.size
    placed = [ask.place(full[1], full[0]) for ask in asks]
    if image.format == "JPEG":
        reduce = min(min(b.width / a.size[1], b.height / a.size[0]) for a, b in zip(asks, placed, strict=True))
        if reduce >= 2:
            image.draft(image.mode, (int(image.width / reduce), int(image.height / reduce)))
    mode = "L" if channels == 1 else "RGB"
    plain = image if image.mode in _PLAIN else image.convert(mode)
    plain = _upright(plain) if turned > 1 else plain
    return [_to_tensor(_cut(plain, box, ask.size, full, mode)) for ask, box in zip(asks, placed, strict=True)]


def _cut(image: Image.Image, box: Box, size: Size, full: tuple[int, int], mode: str) -> Image.Image:
    left, top, width, height, flip = box
    fx, fy = image.width / full[0], image.height / full[1]
    edges = (left * fx, top * fy, min((left + width) * fx, image.width), min((top + height) * fy, image.height))
    out = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=edges)
    out = out if out.mode == mode else out.convert(mode)
    return out.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else out


def _pixels(image: Image.Image, channels: int, name: str) -> Shaped[Tensor, "c h w"]:
    """All bands of all pages, with the channels asked for."""
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    parts = []
    for page in range(pages):
        if pages > 1:
            image.seek(page)
        parts.append(_to_tensor(_plain(image)))
    return convert(torch.cat(parts) if len(parts) > 1 else parts[0], channels, name)


def _plain(image: Image.Image) -> Image.Image:
    """A mode whose array holds one value per band."""
    if image.mode in ("L", "RGB", "RGBA", "F") or image.mode.startswith("I"):
        return image
    return image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")


def _to_tensor(image: Image.Image) -> Shaped[Tensor, "c h w"]:
    # Read-only, so one copy less; Pillow's own memory is kept alive by the tensor.
    array = np.asarray(image)
    if image.mode.startswith("I"):
        array = (array / np.float32(65535)).astype(np.float32)
    # Turned while it is in the cache: to gather a batch is then plain copying.
    array = array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
    return torch.from_numpy(array)


def _bands_of(data: bytes, name: str) -> Shaped[np.ndarray, "c h w"] | None:
    """What Pillow cannot read: an .npy file, or a TIFF of more than four bands; None for anything else."""
    if data[:6] == b"\x93NUMPY":
        return _array(data, name)
    at = tiff.layout(data)
    return None if at is None else scaled(tiff.read(data, at))


def _array(data: bytes, name: str) -> Shaped[np.ndarray, "c h w"]:
    """One .npy picture: (H, W), (H, W, C) or (C, H, W), the shortest axis being the channels."""
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim == 2:
        array = array[None]
    elif array.ndim != 3:
        raise Unreadable(name, f"an array of shape {array.shape} is no picture")
    elif array.shape[-1] < array.shape[0]:
        array = np.ascontiguousarray(array.transpose(2, 0, 1))
    return scaled(array)


def scaled(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """uint8 as it is; uint16 as float32 in [0, 1]; anything else as float32 in its own units."""
    if array.dtype == np.uint8:
        return array
    return array.astype(np.float32) / np.float32(65535) if array.dtype == np.uint16 else array.astype(np.float32)
