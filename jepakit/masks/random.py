"""Random masks: tokens drawn at random to predict, and the others as context."""

from dataclasses import dataclass
from math import prod

import torch

from ..types import Grid, Masks, Rng


@dataclass(frozen=True)
class Random:
    """Hide a random share `ratio` of the tokens, on a grid with any number of axes; the rest is the context.

    The hidden tokens are split into `num_targets` disjoint sets (B, M, Kt) of equal size; a remainder stays in the
    context (B, K), which has at least one token. Every token is in the context or in exactly one target.
    """

    ratio: float = 0.6
    num_targets: int = 1

    def check(self, grid: Grid) -> None:
        """Raise ValueError, naming the fix, if there are too few tokens or a setting is out of range."""
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
        """Draw context (B, K) and targets (B, M, Kt), int64 on the CPU. Raises ValueError when `check` does."""
        self.check(grid)
        total, part = rng.global_batch(batch)
        order = torch.rand(total, prod(grid), generator=rng.generator()).argsort(1)[part]
        hidden = self.num_targets * self._target_size(grid)
        targets = order[:, :hidden].reshape(batch, self.num_targets, -1)
        return Masks(order[:, hidden:].sort().values, targets.sort().values)

    def _target_size(self, grid: Grid) -> int:
        wanted = round(self.ratio * prod(grid) / self.num_targets)
        return min(max(wanted, 1), (prod(grid) - 1) // self.num_targets)
