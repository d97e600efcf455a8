"""Read the frames in one file of a stream: an image is one frame, an array holds several, a table row is a vector.

.npy, .npz    (C,) a vector, (T, C) vectors, (C, H, W) a frame, (T, C, H, W) frames; a .npz gives every array, by name
.csv …        numbers between commas, semicolons, tabs or blanks; a first row of words is a header
.png, .jpg …  an image
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ...types import unit
from ..collation import Unreadable
from ..images import decode
from ..images.augment import centre_crop
from ..rows import is_number

ARRAY_ENDINGS = (".npy", ".npz")
TABLE_ENDINGS = (".csv", ".tsv", ".txt")
FRAME_ENDINGS = (*decode.EXTENSIONS, *ARRAY_ENDINGS, *TABLE_ENDINGS)
MAX_NATIVE_SIDE = 96


class Place(NamedTuple):
    """The read position of a stream: `done` frames of `file` are read; `passed` names up to that file were there."""

    file: str = ""
    done: int = 0
    passed: int = -1


class Frame(NamedTuple):
    """One frame (C,) or (C, H, W), its name, and the stream's read position after it."""

    x: Float[Tensor, "c ..."]
    name: str
    place: Place


Read = tuple[str, int, Shaped[Tensor, "c ..."]] | Unreadable
"""A frame with its name and its number in the file, from 0; or the reason there is none."""


def read_frames(path: Path, start: int, channels: int, size: tuple[int, int] | None) -> Iterator[Read]:
    """The frames of a file from number `start` on; images are converted to `channels` (0: their own)."""
    ending = path.suffix.lower()
    try:
        if ending in ARRAY_ENDINGS:
            yield from array_frames(path, start, size)
        elif ending in TABLE_ENDINGS:
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from table_frames(file, path.name, start)
        elif start == 0:
            yield path.name, 0, read_picture(path, channels, size)
    except Unreadable as error:
        yield error
    except (*decode.DECODING_ERRORS, zipfile.BadZipFile) as error:
        yield Unreadable(path.name, str(error) or type(error).__name__)


def read_picture(path: Path, channels: int, size: tuple[int, int] | None) -> Float[Tensor, "c h w"]:
    """An image with `channels` channels at `size`; without `size`, large images are reduced. Raises Unreadable."""
    data = path.read_bytes()
    height, width, own = decode.read_header(data, path.name)
    wanted = channels or (3 if own in (3, 4) else own)
    size = size or ((MAX_NATIVE_SIDE, MAX_NATIVE_SIDE) if max(height, width) > MAX_NATIVE_SIDE else None)
    if size is None:
        return unit(decode.decode_picture(data, path.name, wanted))
    return unit(decode.decode_crops(data, path.name, wanted, [centre_crop(size)])[0])


def array_frames(path: Path, start: int, size: tuple[int, int] | None) -> Iterator[Read]:
    """The frames of an array file; an .npy is read on demand, whatever its size."""
    if path.suffix.lower() == ".npy":
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
        yield from numbered_frames(path.name, whole, 0, start, size)
        return
    before = 0
    with np.load(path, allow_pickle=False) as members:
        for key in sorted(members.files):
            array = members[key]
            yield from numbered_frames(f"{path.name}:{key}", array, before, start, size)
            before += frame_count(array)


def frame_count(array: Shaped[np.ndarray, "..."]) -> int:
    """The number of frames in an array."""
    return len(array) if array.ndim in (2, 4) else 1


def numbered_frames(
    name: str, array: Shaped[np.ndarray, "..."], before: int, start: int, size: tuple[int, int] | None = None
) -> Iterator[Read]:
    """The frames of an array from number `start` on; the array's first frame has the number `before`."""
    several = array.ndim in (2, 4)
    check_array(name, array)
    for i in range(max(0, start - before), frame_count(array)):
        frame = torch.from_numpy(decode.scale_values(np.array(array[i] if several else array)))
        if size is not None and frame.ndim == 3:
            frame = decode.cut_all(frame, [centre_crop(size)])[0]
        yield (f"{name} frame {i}" if several else name), before + i, unit(frame)


def check_array(name: str, array: Shaped[np.ndarray, "..."]) -> None:
    """Raises Unreadable if an array holds no frames."""
    shape = tuple(array.shape)
    if array.ndim not in (1, 2, 3, 4) or array.dtype.kind not in "buif" or not array.size:
        raise Unreadable(
            name,
            f"an array {shape} of {array.dtype} holds no frames; give numbers (T, C) or (T, C, H, W), or one frame",
        )
    if array.ndim > 2 and shape[-1] <= 4 < shape[-3]:
        raise Unreadable(name, f"an array {shape} has its channels last; give (T, C, H, W), as x.transpose(0, 3, 1, 2)")


def table_frames(lines: Iterator[str], name: str, start: int = 0) -> Iterator[Read]:
    """The rows of a table as float32 vectors, from number `start` on."""
    index = 0
    for number, line in enumerate(lines, 1):
        parts = line_fields(line)
        if not parts or (number == 1 and not any(map(is_number, parts))):
            continue
        if index >= start:
            where = f"{name} line {number}"
            try:
                yield where, index, torch.tensor([float(part) for part in parts])
            except ValueError:
                word = next(part for part in parts if not is_number(part))
                yield Unreadable(where, f"{word!r} is not a number")
        index += 1


def line_fields(line: str) -> list[str]:
    """The fields of a line, separated by commas, semicolons, tabs or blanks; empty for an empty line."""
    text = line.strip()
    mark = next((mark for mark in (",", ";", "\t") if mark in text), None)
    return [part.strip() for part in text.split(mark)] if text else []
