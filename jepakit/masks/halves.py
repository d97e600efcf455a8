"""One half of a signal is seen, the other is predicted: past and future, left and right, top and bottom."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch

from ..types import Grid, Masks, Rng

Side = Literal["first", "last", "either"]


@dataclass(frozen=True)
class Halves:
    """The grid cut in two across one of its axes: the context, and the rest as one target block. 1 axis or more.

    `axis` counts the axes of the grid. A series has the one. Of a picture, 0 is top and bottom, 1 left and right; of a
    video, 0 is time, then come those of a picture. -1 is the last axis. `context` is the `first` half (the past, the
    left, the top), the `last`, or `either`: one or the other for the whole batch of a step, drawn with equal chance.

    Context (B, K) and targets (B, 1, Kt) are in raster order and the same for every sample. Of an odd number of cells
    along the axis, the one in the middle belongs to the context; so K is Kt, or more.
    Source: BiJEPA, arXiv:2603.00049.
    """

    axis: int = -1
    context: Side = "first"

    def check(self, grid: Grid) -> None:
        """Raises ValueError, naming the fix, where the grid lacks the axis or has one cell along it."""
        axes = len(grid)
        if not -axes <= self.axis < axes:
            raise ValueError(f"axis is {self.axis} but the grid {grid} has {axes} of them; give {-axes} to {axes - 1}")
        if grid[self.axis] < 2:
            longer = [str(axis) for axis, cells in enumerate(grid) if cells > 1]
            raise ValueError(
                f"grid {grid} has one cell along axis {self.axis}, which makes no two halves; give a patch of at most "
                f"half the signal's length there{', or axis ' + ' or '.join(longer) if longer else ''}"
            )

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        """Context (B, K) and targets (B, 1, Kt), int64 on the CPU. Raises ValueError where `check` does."""
        self.check(grid)
        leads, cells = self._leads(rng), grid[self.axis]
        cut = (cells + 1) // 2 if leads else cells // 2
        first, last = torch.arange(prod(grid)).reshape(grid).tensor_split([cut], self.axis)
        seen, hidden = (first, last) if leads else (last, first)
        return Masks(seen.flatten().repeat(batch, 1), hidden.flatten().repeat(batch, 1, 1))

    def hides(self, other: "Halves", axes: int) -> bool:
        """Whether it hides what `other` hides, at least sometimes, on a grid of so many axes."""
        return self.axis % axes == other.axis % axes and self.context in (other.context, "either")

    def _leads(self, rng: Rng) -> bool:
        """Whether the context is the first half."""
        if self.context != "either":
            return self.context == "first"
        return bool(torch.randint(2, (), generator=rng.generator()) == 0)


def sides(axes: int) -> dict[str, Halves]:
    """The halves by name, as what hides them: past and future where there is time, top … right where there is space."""
    names = [("past", "future")] * (axes != 2) + [("top", "bottom"), ("left", "right")] * (axes > 1)
    found: dict[str, Halves] = {}
    for axis, (first, last) in enumerate(names):
        found |= {first: Halves(axis, "last"), last: Halves(axis, "first")}
    return found


def splits(grid: Grid) -> dict[str, Halves]:
    """Those of `sides` that the grid has: along axes of two cells or more."""
    return {name: half for name, half in sides(len(grid)).items() if grid[half.axis] > 1}
