"""The frames of all episodes as one block: read once, or left in their files where these allow it."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, Shaped

from ...types import Size
from .columns import as_rows
from .keys import Chosen
from .record import Column, Episode

# Frames above the first limit stay in their files if these allow it; copies above the second lie in a temporary file.
MAX_READ_BYTES, MAX_MEMORY_BYTES = 2**30, 2**32
MAX_MAPS = 10_000


@dataclass(frozen=True, eq=False)
class Block:
    """The frames of all episodes: `whole`, one array with episode k from row `first[k]` on, or `parts`, one each."""

    first: Int64[np.ndarray, " e"]
    whole: Shaped[np.ndarray, "n ..."] | None
    parts: Sequence[Shaped[np.ndarray, "_ ..."]] = ()

    @property
    def dtype(self) -> type:
        """The type of the frames as they are read: 8-bit, or float32."""
        found = self.parts[0] if self.whole is None else self.whole
        return np.uint8 if found.dtype == np.uint8 else np.float32

    def rows(self, episode: Int64[np.ndarray, " b"], at: Int64[np.ndarray, "b f"]) -> Shaped[np.ndarray, "b f ..."]:
        """Frames `at` of each episode."""
        if self.whole is not None:
            taken: np.ndarray = np.take(self.whole, self.first[episode][:, None] + at, axis=0)
            return taken
        found = np.empty((*at.shape, *self.parts[0].shape[1:]), dtype=self.dtype)
        for b, k in enumerate(episode.tolist()):
            found[b] = self.parts[k][at[b]]
        return found

    def of(self, k: int, length: int) -> Shaped[np.ndarray, "t ..."]:
        """The first `length` frames of episode k, in place."""
        if self.whole is None:
            return self.parts[k][:length]
        return self.whole[self.first[k] : self.first[k] + length]


class FrameReader(NamedTuple):
    """How the frames of an episode become rows of a block: `read`, or in place if `single` names a column as it is."""

    read: Callable[[Episode], Shaped[np.ndarray, "t ..."]]
    layout: str
    channels: int
    size: Size
    names: tuple[str, ...]
    single: bool
    notes: tuple[str, ...] = ()


def frame_reader(episodes: Sequence[Episode], chosen: Chosen, size: tuple[int, int] | None) -> FrameReader:
    """How the chosen observations of an episode are read. Raises ValueError if `size` does not fit them."""
    columns = {key: episodes[0].observations[key] for key in chosen.keys}
    if chosen.pictures:
        return _picture_reader(columns, size)
    if size is not None:
        raise ValueError(f"data.size is {list(size)} but {', '.join(columns)} are vectors; leave data.size out")
    widths = {key: prod(column.shape[1:]) for key, column in columns.items()}
    names = tuple(f"{key} {i}" for key, width in widths.items() for i in range(width))

    def read_vectors(episode: Episode) -> Float32[np.ndarray, "t d"]:
        parts = [as_rows(episode.observations[key].read()) for key in columns]
        return np.concatenate(parts, axis=1).astype(np.float32)

    return FrameReader(read_vectors, "", sum(widths.values()), (), names, False)


def _picture_reader(columns: Mapping[str, Column], size: tuple[int, int] | None) -> FrameReader:
    layouts = {key: frame_layout(column.shape[1:], key) for key, column in columns.items()}
    sides = {key: _sides(column.shape[1:], layouts[key]) for key, column in columns.items()}
    channels = {key: _channels(column.shape[1:], layouts[key]) for key, column in columns.items()}
    first, own = next(iter(sides.items()))
    target = own if size is None else (int(size[0]), int(size[1]))
    if size is None and len(set(sides.values())) > 1:
        raise ValueError(f"the pictures {', '.join(columns)} differ in size; give data.size, or one of data.keys")
    names = tuple(f"{key} {i}" if len(columns) > 1 else str(i) for key in columns for i in range(channels[key]))

    def read_stored(episode: Episode) -> Shaped[np.ndarray, "t ..."]:
        return plain_values(episode.observations[first].read())

    def read_pictures(episode: Episode) -> Shaped[np.ndarray, "t c h w"]:
        parts = [
            resize_frames(channels_first(plain_values(episode.observations[key].read()), layouts[key]), target)
            for key in columns
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    if len(columns) == 1 and target == own:
        return FrameReader(read_stored, layouts[first], channels[first], target, names, True)
    note = f"pictures are resized from {own[0]} x {own[1]} to {target[0]} x {target[1]} px" if target != own else ""
    return FrameReader(read_pictures, "CHW", sum(channels.values()), target, names, False, (note,) if note else ())


def frame_layout(shape: tuple[int, ...], key: str) -> str:
    """The axes of a picture: the shortest one is the channels. Raises ValueError if it is the middle one."""
    if len(shape) == 2:
        return "HW"
    if shape[2] <= min(shape[:2]):
        return "HWC"
    if shape[0] <= min(shape[1:]):
        return "CHW"
    raise ValueError(f"{key!r} has frames of shape {shape}; give pictures (H, W, C) or (C, H, W)")


def _sides(shape: tuple[int, ...], layout: str) -> tuple[int, int]:
    return (shape[1], shape[2]) if layout == "CHW" else (shape[0], shape[1])


def _channels(shape: tuple[int, ...], layout: str) -> int:
    return {"HW": 1, "CHW": shape[0], "HWC": shape[-1]}[layout]


def plain_values(values: Shaped[np.ndarray, "t ..."]) -> Shaped[np.ndarray, "t ..."]:
    """8-bit values as they are, 16-bit ones in [0, 1], all others as float32."""
    if values.dtype == np.uint8:
        return values
    return (values / 65535).astype(np.float32) if values.dtype == np.uint16 else values.astype(np.float32)


def channels_first(values: Shaped[np.ndarray, "t ..."], layout: str) -> Shaped[np.ndarray, "t c h w"]:
    """Pictures with the channels before the sides."""
    if layout == "HW":
        return values[:, None]
    return np.moveaxis(values, -1, 1) if layout == "HWC" else values


def resize_frames(values: Shaped[np.ndarray, "t c h w"], size: tuple[int, int]) -> Shaped[np.ndarray, "t c _ _"]:
    """Pictures at `size`, resized with antialiasing."""
    if values.shape[2:] == size:
        return values
    found = np.empty((*values.shape[:2], *size), dtype=values.dtype)
    for begin in range(0, len(values), 256):
        wide = torch.from_numpy(np.ascontiguousarray(values[begin : begin + 256])).float()
        part = F.interpolate(wide, size=size, mode="bilinear", antialias=True)
        found[begin : begin + 256] = (part.round_().clamp_(0, 255) if values.dtype == np.uint8 else part).numpy()
    return found


def frame_block(
    episodes: Sequence[Episode], chosen: Chosen, reader: FrameReader, first: Int64[np.ndarray, " e"]
) -> Block:
    """The frames of all episodes: in their files if they are many and these allow it, else read once."""
    columns = [episode.observations[chosen.keys[0]] for episode in episodes]
    total = sum(prod(column.shape) * column.dtype.itemsize for column in columns)
    # 16-bit pictures are scaled, which only reading can do.
    in_place = reader.single and all(column.mapped and column.dtype != np.uint16 for column in columns)
    if in_place and total > MAX_READ_BYTES and len(columns) <= MAX_MAPS:
        return Block(first, None, [np.asarray(column.mapped()) for column in columns if column.mapped])
    whole: Shaped[np.ndarray, "n ..."] | None = None
    for k, episode in enumerate(episodes):
        values = reader.read(episode)
        if whole is None:
            whole = new_block((int(first[-1]) + episodes[-1].steps + 1, *values.shape[1:]), values.dtype)
        whole[first[k] : first[k] + episode.steps + 1] = values
    return Block(first, whole)


def new_block(shape: tuple[int, ...], dtype: np.dtype) -> Shaped[np.ndarray, "n ..."]:
    """An array to fill: in memory, or in a temporary file that ends with the process if it is large."""
    if prod(shape) * np.dtype(dtype).itemsize <= MAX_MEMORY_BYTES:
        return np.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile(prefix="jepakit-") as file:
        return np.asarray(np.memmap(file, dtype, "w+", 0, shape))
