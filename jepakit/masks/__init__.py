"""Which tokens are seen and which are predicted: maskers are functions (grid, batch, rng) → Masks."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from ..types import Grid, Masks, Rng
from .base import Masker
from .halves import Halves
from .multiblock import MultiBlock
from .random import Random
from .semantic import Semantic, TokenMasker


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


MASKERS: Final = MappingProxyType[str, Masker](
    {"multiblock": MultiBlock(), "random": Random(), "semantic": Semantic(), "halves": Halves()}
)
