"""Completed clips as arrays, and the first of them over time in one grid with input and truth."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from ..data import Dataset
from ..data.base import spread
from ..evals.metrics.generation import Tally, tally
from .complete_folder import GRID, Chunk, free
from .complete_images import TITLES, Pixels, compared, grid, pixels

CLIPS: Final = 4
FRAMES: Final = 16
TILE: Final = 64


def write(
    chunks: Iterator[Chunk], folder: Path, dataset: Dataset, hidden: Bool[Tensor, "t h w"], std: Tensor, count: int
) -> Tally:
    """FOLDER/NAME.npy for every item, FOLDER/grid.png, and the sums of how far all are from the truth.

    An array is (C, T, H, W) float32, in the units of the data: of pixels in [0, 1], which are cut off and measured so.
    """
    frames = spread(len(hidden), FRAMES)
    total, rows = Tally(), list[Pixels]()
    for chunk in chunks:
        three, unit = compared(chunk, hidden)
        total = total.plus(tally(three[:, 1], chunk.true, hidden))
        for item, made in zip(chunk.id, three[:, 1].numpy(), strict=True):
            np.save(free(folder, dataset.name(item), ".npy"), made)
        if few := CLIPS - len(rows) // len(TITLES):
            rows += strips(three[:few, :, :, frames], unit)
    if rows:
        grid(rows, [f"frame {t}" for t in frames], TITLES, TILE).save(folder / GRID)
    return total


def strips(three: Float[Tensor, "b 3 c t h w"], unit: bool) -> list[Pixels]:
    """The frames as 8-bit colours: of every clip three rows."""
    flat = pixels(three.movedim(3, 2).flatten(1, 2), unit)
    return list(flat.reshape(-1, three.shape[3], *flat.shape[2:]))
