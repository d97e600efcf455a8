"""Fixed sin-cos position embeddings, computed from the grid of the input."""

from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..types import Grid

Order = Literal["column-row", "row-column", "uniform"]


def sincos_positions(
    grid: Grid, dim: int, order: Order = "column-row", device: torch.device | str = "cpu"
) -> Float[Tensor, "n d"]:
    """One vector (D,) per cell of `grid`, row-major, in float32; the table is cached, so do not change it in place.

    `order` says which coordinate fills which features, from the first to the last. With two axes, each has half of the
    features: "column-row" as in I-JEPA, "row-column" as in V-JEPA. With three axes, the order is always depth, row,
    column: a half and two quarters, or three equal shares (cut at `dim`) if "uniform". A single axis has all features.
    Raises ValueError if the axes cannot share `dim` features. Source: the released code of I-JEPA (2301.08243) and
    V-JEPA (2404.08471).
    """
    return _position_table(tuple(grid), dim, order, str(device))


def axis_shares(axes: int, dim: int, order: Order) -> tuple[int, ...]:
    """How many of `dim` features each axis gets, in the grid's order. Raises ValueError if `dim` cannot be shared."""
    if axes not in (1, 2, 3):
        raise ValueError(f"a grid with {axes} axes has no sin-cos positions; give the signal 1, 2 or 3 axes")
    if axes == 3 and order == "uniform":
        step, parts = 2, [2 * -(-dim // 6)] * 3
    else:
        step = {1: 2, 2: 4, 3: 8}[axes]
        parts = {1: [dim], 2: [dim // 2] * 2, 3: [dim // 2, dim // 4, dim // 4]}[axes]
    if dim % step:
        raise ValueError(
            f"width {dim} cannot be shared by the positions of {axes} axes; "
            f"use a multiple of {step}, e.g. {step * max(1, round(dim / step))}"
        )
    return tuple(parts)


@lru_cache(maxsize=64)
def _position_table(grid: Grid, dim: int, order: Order, device: str) -> Tensor:
    # The table is made outside inference_mode, because a table first built in there must still serve training.
    with torch.inference_mode(False), torch.no_grad():
        parts = axis_shares(len(grid), dim, order)
        axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in grid], indexing="ij")
        columns = [_sine_waves(axis.flatten(), part) for axis, part in zip(axes, parts, strict=True)]
        if len(grid) == 2 and order == "column-row":
            columns.reverse()
        return torch.cat(columns, 1)[:, :dim].to(device, torch.float32)


def _sine_waves(position: Float[Tensor, " n"], dim: int) -> Float[Tensor, "n d"]:
    """Sines, then cosines, of `position` at dim / 2 frequencies that fall geometrically from 1 towards 1 / 10000."""
    frequency = 10000.0 ** -(torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angle = position[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)
