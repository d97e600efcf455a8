"""The fixation places of a scanpath: recorded ones in a chosen order, or synthetic ones."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .pictures import Reduced, View, local_contrast

Order = Literal["human", "shuffled", "repeated", "uniform", "raster"]
Synthetic = Literal["saliency", "uniform", "raster"]
DRAWS_PER_FIXATION = 3


class Scanpath(NamedTuple):
    """The fixations of one viewer on one image: places (T, 2) in its pixels, durations (T,), NaN if unknown."""

    image: str
    subject: str
    xy: Float[np.ndarray, "t 2"]
    duration: Float[np.ndarray, " t"]


def reorder_path(path: Scanpath, order: Order, u: Float[np.ndarray, "t 3"], height: int, width: int) -> Scanpath:
    """The same number of fixations, reordered or moved; durations follow their places if these stay."""
    if order == "shuffled":
        rows = np.argsort(u[:, 0], kind="stable")
        return path._replace(xy=path.xy[rows], duration=path.duration[rows])
    if order == "repeated":
        rows = np.zeros(len(path.xy), dtype=np.int64)
        return path._replace(xy=path.xy[rows], duration=path.duration[rows])
    if order == "uniform":
        return path._replace(xy=uniform_places(u, height, width))
    return path._replace(xy=raster_places(len(path.xy), height, width)) if order == "raster" else path


def make_up_places(
    kind: Synthetic, u: Float[np.ndarray, "t 3"], picture: Reduced, view: View
) -> Float[np.ndarray, "t 2"]:
    """Synthetic places, one per row of uniform numbers."""
    if kind == "uniform":
        return uniform_places(u, picture.height, picture.width)
    if kind == "raster":
        return raster_places(len(u), picture.height, picture.width)
    return salient_places(u, picture, view)


def uniform_places(u: Float[np.ndarray, "t 3"], height: int, width: int) -> Float[np.ndarray, "t 2"]:
    """Places uniform over the image."""
    return u[:, :2] * np.array([width, height], dtype=np.float64)


def raster_places(count: int, height: int, width: int) -> Float[np.ndarray, "t 2"]:
    """The centres of the cells of a grid, in reading order: left to right, downwards.

    The grid has about the image's aspect and no more rows than are filled; the last row may end early.
    """
    columns = min(count, max(1, round(float(np.sqrt(count * width / height)))))
    rows = -(-count // columns)
    at = np.arange(count)
    x, y = (at % columns + 0.5) * width / columns, (at // columns + 0.5) * height / rows
    return np.stack([x, y], 1)


def salient_places(u: Float[np.ndarray, "t 3"], picture: Reduced, view: View) -> Float[np.ndarray, "t 2"]:
    """Places drawn in proportion to local contrast; places already seen are less likely to be drawn again.

    A place inhibits its surroundings by a Gaussian whose deviation is half a crop.
    """
    chance = local_contrast(picture.grey)
    rows, columns = chance.shape
    scale = np.array([picture.width / columns, picture.height / rows])
    across, down = (np.arange(columns) + 0.5) * scale[0], (np.arange(rows) + 0.5) * scale[1]
    reach = max(view.crop_side(picture.height, picture.width)[0] / 2, float(scale.max()))
    places = []
    for draw in u:
        total = np.cumsum(chance)
        cell = min(int(np.searchsorted(total, draw[0] * total[-1], side="right")), chance.size - 1)
        place = (np.array([cell % columns, cell // columns]) + draw[1:]) * scale
        near_x, near_y = (np.exp(-(((at - c) / reach) ** 2) / 2) for at, c in zip((across, down), place, strict=True))
        chance = chance * (1 - np.outer(near_y, near_x))
        places.append(place)
    return np.stack(places)


def saccades_between(xy: Float[np.ndarray, "t 2"], side: tuple[float, float], steps: int) -> Float[Tensor, "{steps} 2"]:
    """(dx, dy) from each place to the next, in crop widths and heights; zeros after the last, up to `steps`."""
    out = np.zeros((steps, 2), dtype=np.float32)
    out[: len(xy) - 1] = np.diff(xy, axis=0) / np.array([side[1], side[0]])
    return torch.from_numpy(out)
