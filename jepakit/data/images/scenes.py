"""Generated scenes with exact segmentation masks: moving shapes over a background.

Frames come in films of 8. In a film three different shapes move in straight lines, bounce off the edges, turn and
hide each other; a shape's colour is independent of its kind. The mask is computed from the same
outlines as the image: a pixel belongs to the front shape whose outline contains its centre.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, UInt8

from ...core.draws import uniform_draws
from ...types import Rng, Size
from .arrays import Arrays
from .masks import resize_mask

SHAPES = ("disc", "square", "triangle", "ring", "cross")
FRAMES_PER_FILM = 8
NUM_OBJECTS = 3
_DRAWS_PER_OBJECT = 10
_NUM_DRAWS = len(SHAPES) + NUM_OBJECTS * _DRAWS_PER_OBJECT + 7


@dataclass(frozen=True, eq=False)
class Scenes(Arrays):
    """Images (N, C, H, W), the mask of class ids of each (0: background, k: shape k - 1), and its film."""

    masks: UInt8[np.ndarray, "n h w"]
    films: Int64[np.ndarray, " n"]

    def mask(self, i: int, size: Size) -> UInt8[np.ndarray, "_ _"]:
        """The class ids of item i, cropped and resized like the image."""
        return resize_mask(self.masks[self.rows[i]], size)

    def film(self, i: int) -> str:
        """The film that item i is a frame of."""
        return str(self.films[self.rows[i]])


def films_of(ids: Int64[np.ndarray, " n"], cut: int) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """The film of each frame and its position in it; frames from `cut` on are for testing and begin a new film."""
    test = ids >= cut
    place = np.where(test, ids - cut, ids)
    return place // FRAMES_PER_FILM + np.where(test, -(-cut // FRAMES_PER_FILM), 0), place % FRAMES_PER_FILM


def draw_scenes(
    ids: Int64[np.ndarray, " n"], cut: int, size: tuple[int, int], seed: int
) -> tuple[UInt8[np.ndarray, "n 3 h w"], UInt8[np.ndarray, "n h w"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Images, masks, the film of each image, and its label: the kind of its front shape."""
    films, time = films_of(ids, cut)
    u = uniform_draws(Rng(seed).fork("synthetic", "scenes"), films, _NUM_DRAWS)
    kinds = np.argsort(u[:, : len(SHAPES)], axis=1, kind="stable")[:, :NUM_OBJECTS]
    picture = _striped_ground(u[:, -7:], size)
    mask = np.zeros((len(ids), *size), np.uint8)
    for k in range(NUM_OBJECTS):
        first = len(SHAPES) + k * _DRAWS_PER_OBJECT
        own = u[:, first : first + _DRAWS_PER_OBJECT]
        distance = _outline_distance(kinds[:, k], own, time, size)
        alpha = np.clip(0.5 - distance, 0, 1)[:, None]
        picture += alpha * (0.35 + 0.65 * own[:, 7:10, None, None] - picture)
        mask = np.where(distance < 0, kinds[:, k, None, None] + 1, mask).astype(np.uint8)
    return np.rint(255 * picture).astype(np.uint8), mask, films, kinds[:, -1].astype(np.int64)


def _striped_ground(u: Float[np.ndarray, "n 7"], size: tuple[int, int]) -> Float[np.ndarray, "n 3 h w"]:
    """A dark colour with soft stripes."""
    down, across = np.mgrid[: size[0], : size[1]] / min(size)
    phase = 2 * np.pi * (u[:, 3, None, None] * 6 * down + u[:, 4, None, None] * 6 * across + u[:, 5, None, None])
    stripes = (0.1 * u[:, 6, None, None] * np.sin(phase))[:, None]
    ground: np.ndarray = np.clip(0.1 + 0.25 * u[:, :3, None, None] + stripes, 0, 1)
    return ground


def _outline_distance(
    kind: Int64[np.ndarray, " n"], u: Float[np.ndarray, "n 10"], time: Int64[np.ndarray, " n"], size: tuple[int, int]
) -> Float[np.ndarray, "n h w"]:
    """The distance of every pixel's centre to the outline of one shape, at its position in its film."""
    radius = (0.16 + 0.08 * u[:, 0]) * min(size)
    turn = 2 * np.pi * (u[:, 5] + (u[:, 6] - 0.5) * 0.1 * time)
    # A triangle wave of the position is a bounce; a step is at most 6 % of the way.
    at = [np.abs((2 * u[:, 1 + i] + (u[:, 3 + i] - 0.5) * 0.12 * time) % 2 - 1) for i in (0, 1)]
    centre = [radius + place * (length - 2 * radius) for place, length in zip(at, (size[1], size[0]), strict=True)]
    x = np.arange(size[1])[None, None, :] + 0.5 - centre[0][:, None, None]
    y = np.arange(size[0])[None, :, None] + 0.5 - centre[1][:, None, None]
    c, s = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    return outline_distance(kind, x * c - y * s, x * s + y * c, radius[:, None, None])


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
