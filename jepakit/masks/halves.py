"""Masks that show one half of a signal and hide the other: past and future, left and right, top and bottom."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch

from ..types import Grid, Masks, Rng

Side = Literal["first", "last", "either"]


@dataclass(frozen=True)
class Halves:
    """Cut the grid in two along one of its axes: one half is the context, the other the single target block.

    `axis` counts the axes of the grid, and -1 is the last. A series has one axis. In a picture, axis 0 cuts top from
    bottom and axis 1 left from right; in a video, axis 0 is time and the picture's axes follow. `context` is the
    `first` half (past, left, top), the `last`, or `either`: each step draws one of them for the whole batch, with equal
    chance.

    Context (B, K) and targets (B, 1, Kt) are in raster order and the same for every sample. If the axis has an odd
    number of cells, the middle one belongs to the context, so K ≥ Kt.
    Source: BiJEPA, arXiv:2603.00049.
    """

    axis: int = -1
    context: Side = "first"

    def check(self, grid: Grid) -> None:
        """Raise ValueError, naming the fix, if the grid lacks the axis or has a single cell along it."""
        axes = len(grid)
        if not -axes <= self.axis < axes:
            raise ValueError(f"axis is {self.axis} but the grid {grid} has {axes} axes; give {-axes} to {axes - 1}")
        if grid[self.axis] < 2:
            longer = [str(axis) for axis, cells in enumerate(grid) if cells > 1]
            raise ValueError(
                f"grid {grid} has one cell along axis {self.axis}, so it has no halves there; give a patch of at most "
                f"half the signal's length there{', or axis ' + ' or '.join(longer) if longer else ''}"
            )

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        """Draw context (B, K) and targets (B, 1, Kt), int64 on the CPU. Raises ValueError when `check` does."""
        self.check(grid)
        leads, cells = self._context_is_first(rng), grid[self.axis]
        cut = (cells + 1) // 2 if leads else cells // 2
        first, last = torch.arange(prod(grid)).reshape(grid).tensor_split([cut], self.axis)
        seen, hidden = (first, last) if leads else (last, first)
        return Masks(seen.flatten().repeat(batch, 1), hidden.flatten().repeat(batch, 1, 1))

    def can_hide(self, other: "Halves", axes: int) -> bool:
        """Whether these halves hide what `other` hides, at least sometimes, on a grid with that many axes."""
        return self.axis % axes == other.axis % axes and self.context in (other.context, "either")

    def _context_is_first(self, rng: Rng) -> bool:
        """Whether the first half is the context."""
        if self.context != "either":
            return self.context == "first"
        return bool(torch.randint(2, (), generator=rng.generator()) == 0)


def named_halves(axes: int) -> dict[str, Halves]:
    """The masker that hides each half, by name: past and future in time; top, bottom, left and right in space."""
    names = [("past", "future")] * (axes != 2) + [("top", "bottom"), ("left", "right")] * (axes > 1)
    found: dict[str, Halves] = {}
    for axis, (first, last) in enumerate(names):
        found |= {first: Halves(axis, "last"), last: Halves(axis, "first")}
    return found


def available_halves(grid: Grid) -> dict[str, Halves]:
    """The `named_halves` that this grid has: those along axes of two cells or more."""
    return {name: half for name, half in named_halves(len(grid)).items() if grid[half.axis] > 1}
