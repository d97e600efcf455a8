"""What every masker is: a function (grid, batch, rng) → Masks."""

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..types import Grid, Masks, Rng

Range = tuple[float, float]
MAX_TRIES: Final = 20


@runtime_checkable
class Masker(Protocol):
    """Draws `Masks` for a grid; a method calls `check` once, when it is built."""

    def check(self, grid: Grid) -> None:
        """Raise ValueError, naming the fix, if masks cannot be drawn on this grid."""

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        """Draw context (B, K) and targets (B, M, Kt), int64 on the CPU, for the local part of the global batch."""
        ...


@runtime_checkable
class TokenMasker(Protocol):
    """A masker that also reads tokens, if the method can provide them; without tokens it is called like any other."""

    def guided(self, grid: Grid, tokens: Float[Tensor, "b n d"], rng: Rng) -> Masks:
        """Draw context (B, K) and targets (B, M, Kt) for these tokens; the masks of a sample depend on no other."""
        ...


def need_tokens(maskers: Sequence[object]) -> bool:
    """Whether any of the maskers reads tokens."""
    return any(isinstance(masker, TokenMasker) for masker in maskers)


def draw_masks(
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
