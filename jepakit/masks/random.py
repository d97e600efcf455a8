"""Random masks: any tokens to predict, the others as context."""

from dataclasses import dataclass
from math import prod

import torch

from ..types import Grid, Masks, Rng


@dataclass(frozen=True)
class Random:
    """Tokens at random, on a grid of any number of axes: a share `ratio` is predicted, the rest is the context.

    The hidden tokens are split into `num_targets` disjoint sets (B, M, Kt) of equal size; what does not divide stays
    in the context (B, K), which has one token at least. Every token is one or the other.
    """

    ratio: float = 0.6
    num_targets: int = 1

    def check(self, grid: Grid) -> None:
        """Raises ValueError, naming the fix, where there are too few tokens or the settings make no sense."""
        if not 0 < self.ratio < 1 or self.num_targets < 1:
            raise ValueError(
                f"ratio is {self.ratio:g} and num_targets {self.num_targets}; give 0 < ratio < 1 and at least 1 target"
            )
        if prod(grid) <= self.num_targets:
            raise ValueError(
                f"grid {grid} is too small: {self.num_targets} targets of one token leave no context; "
                f"use a smaller patch or fewer num_targets"
            )

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        """Context (B, K) and targets (B, M, Kt), int64 on the CPU. Raises ValueError where `check` does."""
        self.check(grid)
        total, part = rng.global_batch(batch)
        order = torch.rand(total, prod(grid), generator=rng.generator()).argsort(1)[part]
        hidden = self.num_targets * self._size(grid)
        targets = order[:, :hidden].reshape(batch, self.num_targets, -1)
        return Masks(order[:, hidden:].sort().values, targets.sort().values)

    def _size(self, grid: Grid) -> int:
        wanted = round(self.ratio * prod(grid) / self.num_targets)
        return min(max(wanted, 1), (prod(grid) - 1) // self.num_targets)
