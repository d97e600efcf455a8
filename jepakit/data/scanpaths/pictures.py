"""Images reduced once, so that every crop is a slice: one decoding serves all fixations of a scanpath."""

from collections import OrderedDict
from dataclasses import dataclass, field
from math import floor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ...types import Size, unit
from ..images.box import Box, CropRequest
from ..images.dataset import PictureSet

MAX_BYTES_KEPT = 2**27
GREY_SIDE = 24


class View(NamedTuple):
    """What a fixation sees: `size` (h, w) px; `crop` is its height as a share of the image's shorter side.

    With `levels` above 1, each further level covers twice the width and height at the same size.
    """

    size: Size
    crop: float
    levels: int

    def crop_side(self, height: int, width: int) -> tuple[float, float]:
        """Height and width of the innermost crop, in pixels of an image."""
        tall = self.crop * min(height, width)
        return tall, tall * self.size[1] / self.size[0]


class Reduced(NamedTuple):
    """An image (height, width) at each level's scale, in which a crop has `View.size`, and a small grey version.

    Each level repeats the colours of the image's edge as far as a crop may reach.
    """

    height: int
    width: int
    levels: list[Shaped[np.ndarray, "c _h _w"]]
    grey: Float[np.ndarray, "_h _w"]


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images of a data set, reduced. Caches the most recently used ones, up to 128 MiB per process.

    No sample depends on what the cache holds.
    """

    source: PictureSet
    memory: int = MAX_BYTES_KEPT
    cache: OrderedDict[tuple[int, View], Reduced] = field(default_factory=OrderedDict)

    def picture_for(self, i: int, view: View) -> Reduced:
        """Image i, reduced for a view. Raises Unreadable."""
        key = (i, view)
        if key in self.cache:
            self.cache.move_to_end(key)
            return self.cache[key]
        found = reduce_picture(self.source, i, view)
        each = sum(x.nbytes for x in (*found.levels, found.grey))
        self.cache[key] = found
        while len(self.cache) > max(1, self.memory // max(each, 1)):
            self.cache.popitem(last=False)
        return found


def reduce_picture(source: PictureSet, i: int, view: View) -> Reduced:
    """Image i at every level's scale, from one decoding. Raises Unreadable."""
    height, width = source.height_and_width(i)
    side = view.crop_side(height, width)[0]
    scales = [view.size[0] / side / 2**level for level in range(view.levels)]
    sizes = [(_whole_pixels(height * s), _whole_pixels(width * s)) for s in (*scales, GREY_SIDE / min(height, width))]
    *levels, grey = source.crops(i, [CropRequest(size, lambda h, w: Box(0, 0, w, h)) for size in sizes])
    wide = [extend_edges(level.numpy(), _edge_margin(view.size[0]), _edge_margin(view.size[1])) for level in levels]
    return Reduced(height, width, wide, unit(grey).float().mean(0).numpy())


def _whole_pixels(length: float) -> int:
    return max(1, floor(length + 0.5))


def cut_crops(
    picture: Reduced, xy: Float[np.ndarray, "t 2"], view: View, steps: int
) -> Shaped[Tensor, "c {steps} h w"]:
    """The crops around places (x, y) in pixels of the image, then zeros up to `steps` crops.

    The channels stack the levels. A place is rounded to the pixels of its level; beyond the border, the edge pixels
    repeat.
    """
    height, width = view.size
    c = len(picture.levels[0])
    out = np.zeros((c * len(picture.levels), steps, height, width), dtype=picture.levels[0].dtype)
    for k, level in enumerate(picture.levels):
        wide = level.shape[2] - 2 * _edge_margin(width), level.shape[1] - 2 * _edge_margin(height)
        scale = np.array(wide) / (picture.width, picture.height)
        # The margin precedes the image, so that no window begins below 0.
        first = np.floor(xy * scale - np.array([width, height]) / 2 + 0.5).astype(np.int64)
        first += (_edge_margin(width), _edge_margin(height))
        for t, (left, top) in enumerate(first.tolist()):
            out[k * c : (k + 1) * c, t] = level[:, top : top + height, left : left + width]
    return torch.from_numpy(out)


def extend_edges(x: Shaped[np.ndarray, "*c _h _w"], tall: int, wide: int) -> Shaped[np.ndarray, "*c _ _"]:
    """An image extended by its outermost pixels: `tall` rows above and below, `wide` columns left and right."""
    rows, columns = (np.arange(-m, n + m).clip(0, n - 1) for m, n in zip((tall, wide), x.shape[-2:], strict=True))
    out: np.ndarray = x[..., rows[:, None], columns]
    return out


def _edge_margin(length: int) -> int:
    """The number of repeated edge pixels that a window of this length may reach beyond the image."""
    return length // 2 + 1


def local_contrast(grey: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Edge strength of a small grey image: the energy of its differences, summed over 3 x 3 pixels; sums to 1."""
    wide = extend_edges(grey.astype(np.float64), 1, 1)
    across, down = wide[1:-1, 2:] - wide[1:-1, :-2], wide[2:, 1:-1] - wide[:-2, 1:-1]
    energy = extend_edges(across**2 + down**2, 1, 1)
    rows = energy[:-2] + energy[1:-1] + energy[2:]
    near: np.ndarray = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    # Every place keeps some probability, so that a flat image has places too.
    near += 0.02 * near.mean() + 1e-12
    near /= near.sum()
    return near
