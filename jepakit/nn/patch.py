"""Patches: cutting signals into them, joining them again, and the linear layer that embeds them."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..types import Grid, Size


def given_patch(patch: Size | None) -> Size:
    """The patch as a tuple. Raises ValueError if it is None (auto)."""
    if patch is None:
        raise ValueError("the patch is auto, which is resolved only in training; give one, e.g. patch=(16, 16)")
    return tuple(patch)


def check_patch(patch: object) -> None:
    """Raise ValueError unless `patch` is a sequence of positive lengths, one per axis."""
    if not isinstance(patch, tuple | list):
        raise ValueError(
            f"patch {patch!r} is one length; give one per axis of the signal, e.g. patch=({patch}, {patch})"
        )
    if not patch or any(not isinstance(p, int) or p < 1 for p in patch):
        raise ValueError(f"patch {tuple(patch)} must hold positive whole lengths, e.g. patch=(16, 16)")


def grid_of(size: Size, patch: Size) -> Grid:
    """The number of patches along each axis of `size`. Raises ValueError if the patch does not tile it."""
    if len(patch) != len(size):
        fitting = tuple(math.gcd(patch[0], s) for s in size)
        raise ValueError(
            f"patch {tuple(patch)} has {len(patch)} axes but the signal has size {tuple(size)}; "
            f"give one length per axis, e.g. patch={fitting}"
        )
    if any(s % p or s < p for s, p in zip(size, patch, strict=True)):
        smaller = tuple(math.gcd(s, p) for s, p in zip(size, patch, strict=True))
        larger = tuple(p * max(1, -(-s // p)) for s, p in zip(size, patch, strict=True))
        raise ValueError(
            f"patch {tuple(patch)} does not divide size {tuple(size)}; use size {larger} or a patch such as {smaller}"
        )
    return tuple(s // p for s, p in zip(size, patch, strict=True))


def patches(
    x: Float[Tensor, "b c ..."], patch: Size, keep: Int[Tensor, "b k"] | None = None
) -> Float[Tensor, "b _ c ..."]:
    """The patches of x at `keep` (None: all), each (C, *patch); only these are read from memory."""
    axes = len(patch)
    grid = grid_of(tuple(x.shape[2:]), patch)
    sides = [n for pair in zip(grid, patch, strict=True) for n in pair]
    cut = x.reshape(*x.shape[:2], *sides).permute(0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2))
    if keep is None:
        return cut.reshape(len(x), math.prod(grid), x.shape[1], *patch)
    rows = torch.arange(len(x), device=x.device)[:, None]
    return cut[rows, *torch.unravel_index(keep, grid)]


def join_patches(cut: Float[Tensor, "b n p"], grid: Grid, patch: Size) -> Float[Tensor, "b c ..."]:
    """The signals with these flattened patches: `join_patches(patches(x, patch).flatten(2), grid, patch)` is x."""
    axes = len(patch)
    parts = cut.reshape(len(cut), *grid, -1, *patch)
    order = [0, 1 + axes, *(place for a in range(axes) for place in (1 + a, 2 + axes + a))]
    sides = [cells * p for cells, p in zip(grid, patch, strict=True)]
    channels = parts.shape[1 + axes]
    return parts.permute(order).reshape(len(cut), channels, *sides)


class PatchEmbed(nn.Module):
    """One linear on every patch, `proj` (D, C·prod(patch)): a convolution with stride = kernel and a flat weight."""

    def __init__(self, channels: int, patch: Size, dim: int) -> None:
        super().__init__()
        self.patch = tuple(patch)
        self.proj = nn.Linear(channels * math.prod(patch), dim)

    def forward(self, x: Float[Tensor, "b c ..."], keep: Int[Tensor, "b k"] | None = None) -> Float[Tensor, "b _ d"]:
        """The embeddings of the patches at `keep` (None: all)."""
        embedded: Tensor = self.proj(patches(x, self.patch, keep).flatten(2))
        return embedded
