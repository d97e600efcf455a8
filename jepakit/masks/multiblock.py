"""Multi-block masks: rectangles of tokens to predict, and a large context block without them. Source: I-JEPA."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil, prod, sqrt
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Generator, Tensor

from ..types import Grid, Masks, Rng
from .base import MAX_TRIES, Range


@dataclass(frozen=True)
class MultiBlock:
    """I-JEPA's masks on 2-D grids: `num_targets` rectangles to predict, and one large rectangle minus them as context.

    Scales are fractions of the grid, and `target_aspect` is height / width; each is drawn once per step, uniformly and
    independently. Targets (B, M, h·w) may overlap. The context (B, K) keeps K random tokens of every sample, where K is
    the smallest context in the global batch.

    No context ever has fewer than `min_context` tokens (default: a twentieth of the grid). Positions that leave fewer
    are drawn again, at most 20 times; after that, all targets take the position of the first one. This leaves at least
    the smallest context block minus the largest target, and `check` compares that number with `min_context`: so every
    call ends with a valid mask. With the default ranges this almost never happens, and positions stay uniform.

    `compat="ijepa"` draws as the published code does: one random number sets both scale and aspect, the area is cut to
    whole tokens before sides are rounded, sides stay below the grid's, the last row and column are never drawn, and
    after every 20 failures the context may overlap one more target. Contexts are cut in raster order (which starves the
    bottom rows) to the shortest of the samples that are encoded together, as one process of the published training
    does. So they depend on how the global batch is split: at 14 x 14, batches of 128 keep about 50 tokens, one of 2048
    about 39. `min_context` is then 10 by default, and targets must exceed it too.

    Source: I-JEPA, arXiv:2301.08243.
    """

    num_targets: int = 4
    target_scale: Range = (0.15, 0.2)
    target_aspect: Range = (0.75, 1.5)
    context_scale: Range = (0.85, 1.0)
    min_context: int | None = None
    compat: Literal["", "ijepa"] = ""

    def check(self, grid: Grid) -> None:
        """Raise ValueError, naming the fix, if drawing could fail at some scale in the ranges."""
        if len(grid) != 2:
            raise ValueError(f"multiblock masks need a grid of 2 axes, not {grid}; use the random masker instead")
        self._check_ranges()
        if prod(grid) * self.target_scale[0] < 1:
            raise ValueError(
                f"grid {grid} is too small: a target of scale {self.target_scale[0]:g} covers less than one token; "
                f"use a smaller patch, or target_scale of at least {1 / prod(grid):.2g}"
            )
        if self.compat == "ijepa":
            self._check_compat(grid)
        else:
            self._check_context(grid)

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        """Draw context (B, K) and targets (B, M, Kt), int64 on the CPU. Raises ValueError when `check` does."""
        self.check(grid)
        total, part = rng.global_batch(batch)
        if self.compat == "ijepa":
            context, targets = self._draw_compat_blocks(grid, total, rng.generator())
            return Masks(_keep_first(context[part]), targets[part])
        masks = self._draw_masks(grid, total, rng.generator())
        return Masks(masks.context[part], masks.targets[part])

    def _draw_masks(self, grid: Grid, total: int, gen: Generator) -> Masks:
        scale, aspect, seen = torch.rand(3, generator=gen, dtype=torch.float64).tolist()
        places = _block_positions(
            grid,
            target_shape(grid, _scale_to_range(self.target_scale, scale), _scale_to_range(self.target_aspect, aspect)),
        )
        window = _block_positions(grid, context_shape(grid, _scale_to_range(self.context_scale, seen)))
        inside = _pick_rows(_mark_tokens(window, grid), (total,), gen)
        targets = _pick_rows(places, (total, self.num_targets), gen)
        context = inside & ~_mark_tokens(targets, grid)
        for attempt in range(MAX_TRIES + 1):
            short = (context.sum(1) < self._min_tokens(grid))[:, None, None]
            if not short.any():
                break
            again = _pick_rows(places, (total, self.num_targets), gen) if attempt < MAX_TRIES else targets[:, :1]
            targets = torch.where(short, again, targets)
            context = inside & ~_mark_tokens(targets, grid)
        return Masks(_thin_out(context, gen), targets)

    def _draw_compat_blocks(
        self, grid: Grid, total: int, gen: Generator
    ) -> tuple[Bool[Tensor, "b n"], Int[Tensor, "b m k"]]:
        """The context of every sample before it is cut, and the targets."""
        u, v = torch.rand(2, generator=gen, dtype=torch.float64).tolist()
        shape = _compat_shape(grid, _scale_to_range(self.target_scale, u), _scale_to_range(self.target_aspect, u))
        window = _mark_tokens(
            _block_positions(grid, _compat_shape(grid, _scale_to_range(self.context_scale, v), 1.0), margin=1), grid
        )
        targets = _pick_rows(_block_positions(grid, shape, margin=1), (total, self.num_targets), gen)
        context = torch.zeros(total, prod(grid), dtype=torch.bool)
        for attempt in range(MAX_TRIES * (self.num_targets + 1)):
            short = context.sum(1) <= self._min_tokens(grid)
            if not short.any():
                break
            avoided = targets[:, : self.num_targets - attempt // MAX_TRIES]
            again = _pick_rows(window, (total,), gen) & ~_mark_tokens(avoided, grid)
            context = torch.where(short[:, None], again, context)
        return context, targets

    def _min_tokens(self, grid: Grid) -> int:
        if self.min_context is not None:
            return self.min_context
        return 10 if self.compat == "ijepa" else max(1, prod(grid) // 20)

    def _check_ranges(self) -> None:
        if self.num_targets < 1:
            raise ValueError(f"num_targets is {self.num_targets}; give at least 1")
        if self.min_context is not None and self.min_context < 1:
            raise ValueError(f"min_context is {self.min_context}; give at least 1, an empty context teaches nothing")
        limits = {"target_scale": 1.0, "target_aspect": float("inf"), "context_scale": 1.0}
        for name, limit in limits.items():
            low, high = getattr(self, name)
            if not 0 < low <= high <= limit:
                raise ValueError(f"{name} is {(low, high)}; give two numbers with 0 < low <= high <= {limit:g}")

    def _check_context(self, grid: Grid) -> None:
        need, window = self._min_tokens(grid), prod(context_shape(grid, self.context_scale[0]))
        left = window - _largest_target(grid, self.target_scale[1], self.target_aspect)
        if left < need:
            raise ValueError(
                f"grid {grid} is too small for these scales: a context block of {window} tokens may keep only "
                f"{left} beside a target, and min_context is {need}; use a smaller patch, target_scale below "
                f"{self.target_scale[1]:g}, context_scale above {self.context_scale[0]:g} or a smaller min_context"
            )

    def _check_compat(self, grid: Grid) -> None:
        target = _smallest_compat_target(grid, self.target_scale, self.target_aspect)
        block = min(target, prod(_compat_shape(grid, self.context_scale[0], 1.0)))
        if block <= self._min_tokens(grid):
            raise ValueError(
                f"grid {grid} is too small for compat 'ijepa': a block may have only {block} tokens, which must exceed "
                f"min_context {self._min_tokens(grid)}; use compat '', a smaller patch or a smaller min_context"
            )


def target_shape(grid: Grid, fraction: float, ratio: float) -> Grid:
    """Sides (h, w), in tokens, of a block that covers about `fraction` of the grid with h / w of about `ratio`.

    The block fits the grid. The area takes precedence over the ratio: w is area / h, rounded.
    """
    area = fraction * prod(grid)
    height = max(round(sqrt(area * ratio)), ceil(area / grid[1] - 1e-6), 1)
    height = min(height, grid[0])
    return height, min(max(round(area / height), 1), grid[1])


def context_shape(grid: Grid, fraction: float) -> Grid:
    """Sides (h, w), in tokens, of a block with the grid's aspect that covers at least `fraction` of the grid."""
    side = sqrt(fraction)
    return ceil(side * grid[0] - 1e-6), ceil(side * grid[1] - 1e-6)


def _largest_target(grid: Grid, fraction: float, aspect: Range) -> int:
    """The most tokens that a target of at most `fraction` can have, over all heights that `aspect` allows."""
    heights = range(1, target_shape(grid, fraction, aspect[1])[0] + 1)
    return max(h * min(max(round(fraction * prod(grid) / h), 1), grid[1]) for h in heights)


def _compat_shape(grid: Grid, fraction: float, ratio: float) -> Grid:
    return _compat_sides(grid, int(prod(grid) * fraction), ratio)


def _compat_sides(grid: Grid, area: int, ratio: float) -> Grid:
    return min(round(sqrt(area * ratio)), grid[0] - 1), min(round(sqrt(area / ratio)), grid[1] - 1)


@lru_cache
def _smallest_compat_target(grid: Grid, scale: Range, aspect: Range) -> int:
    """The fewest tokens that a target can have, over all values of the random number behind its scale and aspect."""
    cells, width = prod(grid), scale[1] - scale[0]
    areas = range(int(cells * scale[0]), int(cells * scale[1]) + 1)
    # An area holds for an interval of ratios, in which the sides change only where one of them is rounded up or down.
    ends = [0.0, *((area / cells - scale[0]) / width for area in areas[1:]), 1.0]
    found = []
    for area, (low, high) in zip(areas, pairwise(_scale_to_range(aspect, u) for u in ends), strict=True):
        halves = [k + 0.5 for k in range(max(grid))]
        changes = {r for h in halves for r in (h * h / max(area, 1), area / (h * h)) if low < r < high}
        found += [prod(_compat_sides(grid, area, (a + b) / 2)) for a, b in pairwise([low, *sorted(changes), high])]
    return min(found)


def _scale_to_range(bounds: Range, u: float) -> float:
    return bounds[0] + u * (bounds[1] - bounds[0])


def _block_positions(grid: Grid, shape: Grid, margin: int = 0) -> Int[Tensor, "p k"]:
    """The tokens of a block (P, h·w) at each of its P positions; the last `margin` cells of each axis stay free."""
    rows, columns = (torch.arange(g - s + 1 - margin) for g, s in zip(grid, shape, strict=True))
    corners = rows[:, None] * grid[1] + columns
    offsets = torch.arange(shape[0])[:, None] * grid[1] + torch.arange(shape[1])
    return corners.reshape(-1, 1) + offsets.flatten()


def _pick_rows(places: Shaped[Tensor, "p k"], count: tuple[int, ...], gen: Generator) -> Shaped[Tensor, "*count k"]:
    """Rows of `places`, each drawn uniformly and independently."""
    return places[torch.randint(len(places), count, generator=gen)]


def _mark_tokens(tokens: Int[Tensor, "b *k"], grid: Grid) -> Bool[Tensor, "b n"]:
    return torch.zeros(len(tokens), prod(grid), dtype=torch.bool).scatter_(1, tokens.flatten(1), True)


def _thin_out(context: Bool[Tensor, "b n"], gen: Generator) -> Int[Tensor, "b k"]:
    """As many tokens of every row as the shortest row has, chosen at random."""
    # Random bits above and the token's own number below: no two keys of a row are equal, so exactly `keep` are taken.
    # numpy's partition finds the last of them five times as fast as topk.
    tokens, keep = context.shape[1], _shortest_row(context)
    number = (1 << (tokens - 1).bit_length()) - 1
    key = torch.empty(context.shape, dtype=torch.int32).random_(generator=gen)
    key = (key & ~number | torch.arange(tokens, dtype=torch.int32)).masked_fill_(~context, 2**31 - 1)
    last = torch.from_numpy(np.partition(key.numpy(), keep - 1, axis=1)[:, keep - 1 : keep])
    return _token_indices(context & (key <= last))


def _keep_first(context: Bool[Tensor, "b n"]) -> Int[Tensor, "b k"]:
    """The first tokens of every row, as many as the shortest row has."""
    return _token_indices(context & (context.cumsum(1) <= _shortest_row(context)))


def _shortest_row(rows: Bool[Tensor, "b n"]) -> int:
    return int(rows.sum(1).min())


def _token_indices(rows: Bool[Tensor, "b n"]) -> Int[Tensor, "b k"]:
    """The marked tokens of each row in raster order; every row must have equally many."""
    return rows.nonzero()[:, 1].reshape(len(rows), -1)
