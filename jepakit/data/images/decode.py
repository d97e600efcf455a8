"""Decode image bytes (JPEG, PNG, WebP, TIFF, .npy …) at the requested size.

Pillow crops and resizes 8-bit images with one or three channels, and decodes JPEG at a reduced scale if the box
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
from ..collation import Unreadable
from . import tiff
from .box import Box, CropRequest

EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".npy")
# The exceptions that Pillow and numpy raise for broken files.
DECODING_ERRORS = (
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
_PLAIN_CHANNELS = {"L": 1, "RGB": 3}
_LUMA_WEIGHTS = (0.299, 0.587, 0.114)


class Header(NamedTuple):
    """The facts known before the pixels are read."""

    height: int
    width: int
    channels: int


def read_header(data: bytes, name: str) -> Header:
    """The displayed size (EXIF orientation applied) and channels. Raises Unreadable."""
    with _named_errors(name):
        if (bands := _bands_of(data, name)) is not None:
            channels, height, width = bands.shape
            return Header(height, width, channels)
        with _open_image(data) as image:
            width, height = image.size
            if _exif_orientation(image) >= 5:
                width, height = height, width
            return Header(height, width, _count_bands(image))


def decode_picture(data: bytes, name: str, channels: int) -> Shaped[Tensor, "c h w"]:
    """The whole image with `channels` channels: uint8 for 8-bit images, else float32. Raises Unreadable."""
    with _named_errors(name):
        if (bands := _bands_of(data, name)) is not None:
            return convert_channels(torch.from_numpy(bands), channels, name)
        with _open_image(data) as image:
            return _all_bands(_turn_upright(image), channels, name)


def decode_crops(data: bytes, name: str, channels: int, asks: Sequence[CropRequest]) -> list[Shaped[Tensor, "c h w"]]:
    """The requested crops, from one decoding: uint8 for 8-bit images, else float32. Raises Unreadable."""
    with _named_errors(name):
        if (bands := _bands_of(data, name)) is not None:
            return cut_all(convert_channels(torch.from_numpy(bands), channels, name), asks)
        with _open_image(data) as image:
            if _can_resize(image, channels):
                return _resize_boxes(image, channels, asks)
            return cut_all(_all_bands(_turn_upright(image), channels, name), asks)


def cut_all(x: Shaped[Tensor, "c h w"], asks: Sequence[CropRequest]) -> list[Shaped[Tensor, "c _ _"]]:
    """The requested crops of an array."""
    return [cut_box(x, ask.place(*x.shape[1:]), ask.size) for ask in asks]


def cut_box(x: Shaped[Tensor, "c h w"], box: Box, size: Size) -> Shaped[Tensor, "c _ _"]:
    """A box of an array, resized with antialiasing; keeps the dtype."""
    left, top, width, height, flip = box
    part = x[:, top : top + height, left : left + width]
    if (height, width) != tuple(size):
        wide = part[None].float()
        part = F.interpolate(wide, size=tuple(size), mode="bilinear", antialias=True)[0]
        part = part.round_().clamp_(0, 255).to(torch.uint8) if x.dtype == torch.uint8 else part
    return part.flip(-1) if flip else part


def convert_channels(x: Shaped[Tensor, "c h w"], channels: int, name: str) -> Shaped[Tensor, "k h w"]:
    """The image with `channels` channels: converts grey ↔ colour or drops a fourth band. Raises Unreadable."""
    have = len(x)
    if have == channels:
        return x
    if channels == 3 and have in (1, 2):
        return x[:1].expand(3, -1, -1)
    if channels == 3 and have == 4:
        return x[:3]
    if channels == 1 and have in (3, 4):
        grey = torch.einsum("chw,c->hw", x[:3].float(), torch.tensor(_LUMA_WEIGHTS))[None]
        return grey.round().to(torch.uint8) if x.dtype == torch.uint8 else grey
    raise Unreadable(name, f"has {have} channels where the data set has {channels}")


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turn any decoding error into one Unreadable, and silence Pillow's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except DECODING_ERRORS as error:
            # Pillow names its buffer by address, which would differ from run to run.
            why = re.sub(r" ?<_io\.BytesIO[^>]*>", "", str(error))
            raise Unreadable(name, why or type(error).__name__) from None


def _open_image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def _exif_orientation(image: Image.Image) -> int:
    # Pillow rotates TIFF files itself, and reading EXIF of images without it costs time.
    if image.format == "TIFF" or "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except DECODING_ERRORS:  # the pixels may still be whole
        return 1


def _turn_upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if _exif_orientation(image) > 1 else image


def _count_bands(image: Image.Image) -> int:
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    mode = image.mode
    if mode == "RGBA":
        return 4 * pages
    return pages if mode in ("L", "1", "LA", "La", "F") or mode.startswith("I") else 3 * pages


def _can_resize(image: Image.Image, channels: int) -> bool:
    # Pillow multiplies by the fourth channel before it resizes RGBA, which would destroy a band that is not alpha.
    if getattr(image, "n_frames", 1) > 1 and image.format == "TIFF":
        return False
    return channels in (1, 3) and not image.mode.startswith(("I", "F"))


def _resize_boxes(image: Image.Image, channels: int, asks: Sequence[CropRequest]) -> list[Shaped[Tensor, "c _ _"]]:
    """Draft, rotate, crop and resize in Pillow; boxes refer to the full-size, upright image."""
    turned = _exif_orientation(image)
    full = image.size[::-1] if turned >= 5 else image.size
    placed = [ask.place(full[1], full[0]) for ask in asks]
    if image.format == "JPEG":
        reduce = min(min(b.width / a.size[1], b.height / a.size[0]) for a, b in zip(asks, placed, strict=True))
        if reduce >= 2:
            image.draft(image.mode, (int(image.width / reduce), int(image.height / reduce)))
    mode = "L" if channels == 1 else "RGB"
    plain = image if image.mode in _PLAIN_CHANNELS else image.convert(mode)
    plain = _turn_upright(plain) if turned > 1 else plain
    return [_to_tensor(_cut_image(plain, box, ask.size, full, mode)) for ask, box in zip(asks, placed, strict=True)]


def _cut_image(image: Image.Image, box: Box, size: Size, full: tuple[int, int], mode: str) -> Image.Image:
    left, top, width, height, flip = box
    fx, fy = image.width / full[0], image.height / full[1]
    edges = (left * fx, top * fy, min((left + width) * fx, image.width), min((top + height) * fy, image.height))
    out = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=edges)
    out = out if out.mode == mode else out.convert(mode)
    return out.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else out


def _all_bands(image: Image.Image, channels: int, name: str) -> Shaped[Tensor, "c h w"]:
    """All bands of all pages, converted to `channels`."""
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    parts = []
    for page in range(pages):
        if pages > 1:
            image.seek(page)
        parts.append(_to_tensor(_plain_mode(image)))
    return convert_channels(torch.cat(parts) if len(parts) > 1 else parts[0], channels, name)


def _plain_mode(image: Image.Image) -> Image.Image:
    """The image in a mode whose array holds one value per band."""
    if image.mode in ("L", "RGB", "RGBA", "F") or image.mode.startswith("I"):
        return image
    return image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")


def _to_tensor(image: Image.Image) -> Shaped[Tensor, "c h w"]:
    # Read-only, which saves a copy; the tensor keeps Pillow's memory alive.
    array = np.asarray(image)
    if image.mode.startswith("I"):
        array = (array / np.float32(65535)).astype(np.float32)
    # Transposed while it is in the cache, so that gathering a batch is a plain copy.
    array = array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
    return torch.from_numpy(array)


def _bands_of(data: bytes, name: str) -> Shaped[np.ndarray, "c h w"] | None:
    """The bands of files that Pillow cannot read: .npy, or TIFF with more than four bands; None for anything else."""
    if data[:6] == b"\x93NUMPY":
        return _read_npy(data, name)
    at = tiff.read_layout(data)
    return None if at is None else scale_values(tiff.read_bands(data, at))


def _read_npy(data: bytes, name: str) -> Shaped[np.ndarray, "c h w"]:
    """One .npy image: (H, W), (H, W, C) or (C, H, W); the shortest axis is the channels."""
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim == 2:
        array = array[None]
    elif array.ndim != 3:
        raise Unreadable(name, f"an array of shape {array.shape} is no picture")
    elif array.shape[-1] < array.shape[0]:
        array = np.ascontiguousarray(array.transpose(2, 0, 1))
    return scale_values(array)


def scale_values(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """uint8 unchanged; uint16 as float32 in [0, 1]; anything else as float32 in its own units."""
    if array.dtype == np.uint8:
        return array
    return array.astype(np.float32) / np.float32(65535) if array.dtype == np.uint16 else array.astype(np.float32)
