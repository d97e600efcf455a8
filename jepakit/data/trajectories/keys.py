"""Which observations make x, and which one is the proprioception."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .record import Column, Episode

MIN_PICTURE_SIDE = 16
PICTURE_KEYS = ("pixels", "image", "images", "rgb", "observations")
VECTOR_KEYS = ("observations", "observation", "state")
PROPRIO_KEYS = ("proprio", "agent_pos")


class Request(NamedTuple):
    """The observations to read: keys and proprioception as in the settings, and the size of pictures."""

    keys: tuple[str, ...] | None = None
    proprio: str | None = None
    size: tuple[int, int] | None = None


class Chosen(NamedTuple):
    """The keys that make x, the key of the proprioception ("": none), whether x is pictures, and notes."""

    keys: tuple[str, ...]
    proprio: str
    pictures: bool
    notes: tuple[str, ...]


def shared_columns(episodes: Sequence[Episode]) -> Mapping[str, Column]:
    """The observations that all episodes have, as in the first. Raises ValueError if one differs in shape."""
    first = episodes[0]
    keys = [key for key in first.observations if all(key in episode.observations for episode in episodes)]
    for episode in episodes:
        for key in keys:
            own, other = episode.observations[key], first.observations[key]
            if own.shape[1:] != other.shape[1:]:
                raise ValueError(
                    f"{key!r} of {episode.name} has the shape {own.shape[1:]} but that of {first.name} "
                    f"{other.shape[1:]}; give episodes of one shape"
                )
    return {key: first.observations[key] for key in keys}


def is_picture(column: Column) -> bool:
    """Whether a column's rows are pictures: three axes, or two that are 8-bit or long."""
    axes = column.shape[1:]
    return len(axes) == 3 or (len(axes) == 2 and (column.dtype == np.uint8 or min(axes) >= MIN_PICTURE_SIDE))


def choose_keys(columns: Mapping[str, Column], request: Request) -> Chosen:
    """The observations that make x, and the proprioception. Raises ValueError for unknown keys or a mixture.

    Without a request: the pictures of the usual name, or the first ones; if there are none, the vectors of the usual
    name, or all of them.
    """
    held = ", ".join(columns) or "none that all episodes have"
    for key in (*(request.keys or ()), *([request.proprio] if request.proprio else [])):
        if key not in columns:
            raise ValueError(f"no observation {key!r}, only {held}; set data.keys and data.proprio to these")
    pictures = [key for key, column in columns.items() if is_picture(column)]
    vectors = [key for key in columns if key not in pictures]
    proprio = request.proprio
    if proprio is None:
        proprio = next((key for key in PROPRIO_KEYS if key in vectors), "") if pictures else ""
        proprio = "" if request.keys and proprio in request.keys else proprio
    keys = request.keys
    if not keys:
        usual = next((key for key in (PICTURE_KEYS if pictures else VECTOR_KEYS) if key in (pictures or vectors)), None)
        keys = (usual,) if usual else tuple(pictures[:1] or vectors)
    if not keys:
        raise ValueError("the episodes share no observation; give each of them the same keys")
    kinds = {key in pictures for key in keys}
    if len(kinds) > 1 or (proprio and proprio in pictures):
        raise ValueError(
            f"data.keys = {', '.join(keys)} with data.proprio = {proprio!r} mixes pictures ({', '.join(pictures)}) and "
            "vectors; put pictures in data.keys and one vector in data.proprio"
        )
    rest = [key for key in columns if key not in (*keys, proprio)]
    notes = []
    if len(columns) > 1:
        left = f"; {', '.join(rest)} not read" if rest else ""
        notes.append(f"data.keys = [{', '.join(keys)}], data.proprio = {proprio or 'none'}{left}")
    return Chosen(tuple(keys), proprio, kinds == {True}, tuple(notes))
