"""Stripes of tokens: every other row is predicted from the rows between."""

from dataclasses import dataclass

import torch

from jepakit.types import Grid, Masks, Rng


@dataclass(frozen=True)
class Stripes:
    """Rows `first`, `first` + 2, … are the target, the other rows the context."""

    first: int = 0

    def check(self, grid: Grid) -> None:
        """Raises ValueError where the grid has an odd number of rows."""
        if grid[0] % 2:
            raise ValueError(f"the grid {grid} has {grid[0]} rows; give a patch that leaves an even number")

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        """Context and targets, the same for every sample."""
        rows = torch.arange(torch.Size(grid).numel()).reshape(grid[0], -1)
        targets, context = rows[self.first % 2 :: 2].flatten(), rows[1 - self.first % 2 :: 2].flatten()
        return Masks(context.repeat(batch, 1), targets.repeat(batch, 1, 1))
