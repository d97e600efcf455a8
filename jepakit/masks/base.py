"""What every masker is: a function (grid, batch, rng) → Masks."""

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..types import Grid, Masks, Rng

Range = tuple[float, float]
TRIES: Final = 20


@runtime_checkable
class Masker(Protocol):
    """Anything that draws `Masks` for a grid; a method calls `check` once, when it is built."""

    def check(self, grid: Grid) -> None:
        """Raises ValueError, naming the fix, where masks could not be drawn on this grid."""

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        """Context (B, K) and targets (B, M, Kt), int64 on the CPU, for the local part of the global batch."""
        ...


@runtime_checkable
class TokenMasker(Protocol):
    """A masker that also reads the tokens of what it hides, where a method can show them; else it is called as any."""

    def guided(self, grid: Grid, tokens: Float[Tensor, "b n d"], rng: Rng) -> Masks:
        """Context (B, K) and targets (B, M, Kt) for these tokens; sizes and masks depend on no other sample."""
        ...


def read_tokens(maskers: Sequence[object]) -> bool:
    """Whether any of the maskers reads tokens."""
    return any(isinstance(masker, TokenMasker) for masker in maskers)


def draw(
    maskers: Sequence[Masker],
    grid: Grid,
    batch: int,
    rng: Rng,
    device: torch.device | str = "cpu",
    tokens: Float[Tensor, "b n d"] | None = None,
) -> list[Masks]:
    """One Masks per masker, on `device`; `tokens` are for those that read them."""
    drawn = [
        m(grid, batch, own) if tokens is None or not isinstance(m, TokenMasker) else m.guided(grid, tokens, own)
        for m, own in ((masker, rng.fork("masks", i)) for i, masker in enumerate(maskers))
    ]
    return [Masks(m.context.to(device), m.targets.to(device), grid) for m in drawn]
