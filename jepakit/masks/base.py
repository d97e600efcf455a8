"""What every masker is: a function (grid, batch, rng) → Masks."""

from typing import Final, Protocol, runtime_checkable

from ..types import Grid, Masks, Rng

Range = tuple[float, float]
TRIES: Final = 20


@runtime_checkable
class Masker(Protocol):
    """Draws `Masks` for a grid; a method calls `check` once, when it is built."""

    def check(self, grid: Grid) -> None:
        """Raise ValueError, naming the fix, if masks cannot be drawn on this grid."""

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        """Draw context (B, K) and targets (B, M, Kt), int64 on the CPU, for the local part of the global batch."""
        ...
