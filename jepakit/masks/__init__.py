"""Which tokens are seen and which are predicted: maskers are functions (grid, batch, rng) → Masks.

A new masker is a file here, with one frozen dataclass that has `check(grid)` and `__call__(grid, batch, rng)`. It is
named as the file is.
"""

from typing import TYPE_CHECKING, Final

from ..core.lazy import lazy_names
from ..core.registry import Registry, is_dataclass_with, one_class, settings_like

if TYPE_CHECKING:
    from .base import Masker, TokenMasker, draw_masks, need_tokens
    from .halves import Halves
    from .multiblock import MultiBlock
    from .random import Random
    from .semantic import Semantic

__all__ = [
    "MASKERS",
    "Halves",
    "Masker",
    "MultiBlock",
    "Random",
    "Semantic",
    "TokenMasker",
    "base",
    "draw_masks",
    "halves",
    "multiblock",
    "need_tokens",
    "random",
    "semantic",
]


MASKERS: "Final[Registry[Masker]]" = Registry(
    __name__,
    "masker",
    "one frozen dataclass with __call__(grid, batch, rng)",
    one_class(is_dataclass_with("__call__", "grid", "batch", "rng")),
    settings_like(f"{__name__}.base", "Masker", "draws no masks; give it check(grid) and __call__(grid, batch, rng)"),
)

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("Masker", "TokenMasker", "draw_masks", "need_tokens"), "base"),
        "Halves": "halves",
        "MultiBlock": "multiblock",
        "Random": "random",
        "Semantic": "semantic",
    },
)
