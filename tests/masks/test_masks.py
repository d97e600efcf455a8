import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jepakit.masks import MASKERS
from jepakit.masks.base import Masker, Range
from jepakit.masks.multiblock import MultiBlock, context_shape, target_shape
from jepakit.masks.random import Random
from jepakit.types import Grid, Masks, Rng

GRIDS = [(4, 4), (7, 7), (8, 8), (14, 14), (16, 16), (6, 10)]
COMPAT = MultiBlock(compat="ijepa")


def occupancy(masks: Masks, grid: Grid) -> tuple[Tensor, Tensor]:
    """How often each cell is context, and how often target: (B, N) each."""
    context, target = (torch.zeros(len(masks.context), math.prod(grid)) for _ in range(2))
    context.scatter_(1, masks.context, 1.0)
    target.scatter_add_(1, masks.targets.flatten(1), torch.ones(masks.targets.flatten(1).shape))
    return context, target


def coverage(masker: Masker, grid: Grid, steps: int = 100, batch: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Per cell: how often context, target, and either, as shares of the samples."""
    drawn = [occupancy(masker(grid, batch, Rng(0, step)), grid) for step in range(steps)]
    context, target = (torch.cat(part).gt(0).float() for part in zip(*drawn, strict=True))
    return context.mean(0), target.mean(0), torch.maximum(context, target).mean(0)


def row_trend(cells: Tensor, grid: Grid) -> float:
    rows = torch.arange(grid[0]).repeat_interleave(grid[1]).float()
    return float(torch.corrcoef(torch.stack([cells, rows]))[0, 1])


def uniform(grid: Grid, shape: Grid) -> Tensor:
    """Closed form: how likely each cell lies in a block of `shape` placed uniformly."""
    axes = []
    for g, s in zip(grid, shape, strict=True):
        cell = torch.arange(g)
        places = torch.minimum(cell, torch.tensor(g - s)) - (cell - s + 1).clamp(min=0) + 1
        axes.append(places / (g - s + 1))
    return (axes[0][:, None] * axes[1]).flatten()


def rectangle(block: Tensor, grid: Grid) -> Grid:
    rows, columns = block // grid[1], block % grid[1]
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


@pytest.mark.parametrize("grid", GRIDS)
def test_context_and_targets_never_share_a_token_and_no_token_comes_twice(grid: Grid) -> None:
    for step in range(20):
        masks = MultiBlock()(grid, 16, Rng(3, step))
        context, target = occupancy(masks, grid)
        assert masks.context.shape[1] >= max(1, math.prod(grid) // 20)
        assert not (context * target).any()
        assert (context.sum(1) == masks.context.shape[1]).all()
        assert (masks.targets.sort().values.diff() > 0).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_targets_are_rectangles_of_one_shape_per_step_that_fill_the_scale_range(grid: Grid) -> None:
    shares = []
    for step in range(200):
        masks = MultiBlock()(grid, 3, Rng(1, step))
        shapes = {rectangle(block, grid) for block in masks.targets.flatten(0, 1)}
        (shape,) = shapes
        assert math.prod(shape) == masks.targets.shape[2]
        shares.append(math.prod(shape) / math.prod(grid))
    # Rounding a side to tokens moves an area by at most half a column.
    assert abs(sum(shares) / len(shares) - 0.175) < 0.5 / grid[0] / 2
    assert max(shares) - min(shares) < 0.05 + 1 / grid[0]


@pytest.mark.parametrize("grid", GRIDS)
def test_every_cell_is_target_and_context_and_their_union_covers_each_by_half_the_mean(grid: Grid) -> None:
    context, target, union = coverage(MultiBlock(), grid)
    assert context.min() > 0.05
    assert target.min() > 0.02
    assert union.min() >= 0.5 * union.mean()


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (16, 16)])
def test_context_coverage_has_no_trend_over_rows(grid: Grid) -> None:
    assert abs(row_trend(coverage(MultiBlock(), grid)[0], grid)) < 0.1


@pytest.mark.parametrize("grid", [(7, 7), (8, 8), (14, 14)])
def test_target_coverage_is_that_of_uniform_placement(grid: Grid) -> None:
    steps, batch = 60, 128
    found, expected, variance = (torch.zeros(math.prod(grid)) for _ in range(3))
    for step in range(steps):
        masks = MultiBlock()(grid, batch, Rng(5, step))
        p = uniform(grid, rectangle(masks.targets[0, 0], grid))
        found += occupancy(masks, grid)[1].sum(0)
        expected += 4 * batch * p
        variance += 4 * batch * p * (1 - p)
    z = (found - expected) / variance.sqrt()
    assert z.abs().max() < 4.5
    assert z.square().mean() < 1.5


def test_scale_and_aspect_are_drawn_independently_but_together_in_compat() -> None:
    def correlation(masker: MultiBlock) -> float:
        grid = (32, 32)
        blocks = [masker(grid, 1, Rng(0, step)).targets[0, 0] for step in range(300)]
        shapes = torch.tensor([rectangle(block, grid) for block in blocks]).float()
        return float(torch.corrcoef(torch.stack([shapes.prod(1), shapes[:, 0] / shapes[:, 1]]))[0, 1])

    assert abs(correlation(MultiBlock())) < 0.2
    assert correlation(COMPAT) > 0.9


@pytest.mark.parametrize("grid", [(14, 14), (16, 16)])
def test_the_compat_sampler_starves_the_bottom_and_never_uses_the_last_row_and_column(grid: Grid) -> None:
    context, target, union = coverage(COMPAT, grid, steps=50)
    assert row_trend(context, grid) < -0.5
    assert context.reshape(grid)[0].mean() > 5 * context.reshape(grid)[-3].mean()
    assert not union.reshape(grid)[-1].any()
    assert not union.reshape(grid)[:, -1].any()
    assert (target.reshape(grid)[:-1, :-1] > 0).all()


def test_the_compat_sampler_lets_targets_be_overlapped_rather_than_search_for_ever() -> None:
    masker = MultiBlock(num_targets=2, target_scale=(0.9, 0.9), target_aspect=(1.0, 1.0), compat="ijepa")
    context, target = occupancy(masker((12, 12), 4, Rng(0)), (12, 12))
    assert (context.sum(1) > 10).all()
    assert (context * target).any(1).all()


def published_sides(grid: Grid, scale: float, ratio: float) -> Grid:
    """The published block: a whole number of tokens, its root with the ratio, sides lowered until below the grid's."""
    tokens = math.floor(grid[0] * grid[1] * scale)
    height, width = round((tokens * ratio) ** 0.5), round((tokens / ratio) ** 0.5)
    while height >= grid[0]:
        height -= 1
    while width >= grid[1]:
        width -= 1
    return height, width


def published_contexts(grid: Grid, target: Grid, window: Grid, batch: int, draw: np.random.Generator) -> int:
    """How many tokens the contexts of one collated batch keep, sample by sample: 4 targets, more than 10 tokens."""

    def place(block: Grid) -> np.ndarray:
        top, left = (draw.integers(g - side) for g, side in zip(grid, block, strict=True))
        cells = np.zeros(grid, dtype=bool)
        cells[top : top + block[0], left : left + block[1]] = True
        return cells

    kept = []
    for _ in range(batch):
        hidden = [place(target) for _ in range(4)]
        for attempt in range(100):
            context = place(window) & ~np.any([*hidden[: 4 - attempt // 20], np.zeros(grid, dtype=bool)], 0)
            if context.sum() > 10:
                break
        kept.append(int(context.sum()))
    return min(kept)


@pytest.mark.parametrize("grid", [(14, 14), (16, 16), (12, 20)])
def test_the_blocks_of_compat_are_those_of_the_published_formula_over_the_whole_range(grid: Grid) -> None:
    for k in range(101):
        scale, ratio, seen = 0.15 + 0.05 * k / 100, 0.75 + 0.75 * k / 100, 0.85 + 0.15 * k / 100
        masks = MultiBlock(1, (scale, scale), (ratio, ratio), (seen, seen), compat="ijepa")(grid, 1, Rng(0, k))
        assert rectangle(masks.targets[0, 0], grid) == published_sides(grid, scale, ratio)
        assert masks.targets.shape[2] == math.prod(published_sides(grid, scale, ratio))
        # No target is as long as a side of the context's block, so the context reaches all four sides of it.
        assert rectangle(masks.context[0], grid) == published_sides(grid, seen, 1.0)


def test_the_contexts_of_compat_keep_as_many_tokens_as_a_sampler_that_goes_sample_by_sample() -> None:
    grid, scale, ratio, seen = (14, 14), 0.17, 1.0, 0.9
    masker = MultiBlock(4, (scale, scale), (ratio, ratio), (seen, seen), compat="ijepa")
    draw = np.random.default_rng(0)
    sides = published_sides(grid, scale, ratio), published_sides(grid, seen, 1.0)
    expected = [published_contexts(grid, *sides, 64, draw) for _ in range(40)]
    # Of a global batch of 256, the 64 samples of one process are cut by themselves.
    found = [masker(grid, 64, Rng(0, step, offset=128, total=256)).context.shape[1] for step in range(200)]
    assert abs(np.mean(found) - np.mean(expected)) < 4 * np.std(expected) / len(expected) ** 0.5
    assert np.mean([masker(grid, 256, Rng(0, step)).context.shape[1] for step in range(50)]) < np.mean(found) - 2


@pytest.mark.parametrize("masker", [MultiBlock(), Random(0.5, 2)])
def test_a_sample_has_the_same_mask_however_the_batch_is_split(masker: Masker) -> None:
    whole = masker((14, 14), 12, Rng(0, 7))
    parts = [masker((14, 14), 4, Rng(0, 7, offset=k, total=12)) for k in (0, 4, 8)]
    assert torch.equal(torch.cat([p.context for p in parts]), whole.context)
    assert torch.equal(torch.cat([p.targets for p in parts]), whole.targets)


def test_compat_draws_the_same_blocks_however_the_batch_is_split_and_cuts_each_part_by_itself() -> None:
    whole = COMPAT((14, 14), 12, Rng(0, 7))
    parts = [COMPAT((14, 14), 4, Rng(0, 7, offset=k, total=12)) for k in (0, 4, 8)]
    keep = whole.context.shape[1]
    assert torch.equal(torch.cat([p.targets for p in parts]), whole.targets)
    assert torch.equal(torch.cat([p.context[:, :keep] for p in parts]), whole.context)
    assert min(p.context.shape[1] for p in parts) == keep < max(p.context.shape[1] for p in parts)


@pytest.mark.parametrize(("scale", "aspect"), [((0.15, 0.2), (0.75, 1.5)), ((0.1, 0.3), (0.3, 3.0))])
def test_check_knows_the_smallest_target_that_compat_can_draw(scale: Range, aspect: Range) -> None:
    shapes = [
        published_sides((9, 11), *(low + u / 2000 * (high - low) for low, high in (scale, aspect))) for u in range(2001)
    ]
    smallest = min(map(math.prod, shapes))
    MultiBlock(4, scale, aspect, min_context=smallest - 1, compat="ijepa").check((9, 11))
    with pytest.raises(ValueError, match=f"only {smallest} tokens"):
        MultiBlock(4, scale, aspect, min_context=smallest, compat="ijepa").check((9, 11))


@pytest.mark.parametrize("masker", [MultiBlock(), Random(), MASKERS.load("semantic"), COMPAT])
def test_masks_depend_on_the_rng_alone(masker: Masker) -> None:
    before = torch.get_rng_state()
    first, again, other = (masker((14, 14), 4, Rng(0, step)) for step in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.targets, again.targets)
    assert torch.equal(first.context, again.context)
    assert first.targets.shape != other.targets.shape or not torch.equal(first.targets, other.targets)
    assert first.context.dtype == first.targets.dtype == torch.int64
    assert first.context.device.type == "cpu"


sides = st.integers(1, 12)
scales = st.tuples(st.floats(0.02, 1), st.floats(0.02, 1)).map(lambda t: (min(t), max(t)))
aspects = st.tuples(st.floats(0.1, 8), st.floats(0.1, 8)).map(lambda t: (min(t), max(t)))


@settings(max_examples=150, deadline=None)
@given(
    grid=st.tuples(sides, sides),
    masker=st.builds(
        MultiBlock,
        num_targets=st.integers(1, 5),
        target_scale=scales,
        target_aspect=aspects,
        context_scale=scales,
        min_context=st.none() | st.integers(1, 60),
    ),
    seed=st.integers(0, 99),
)
def test_what_check_accepts_always_ends_with_a_context_of_the_promised_size(
    grid: Grid, masker: MultiBlock, seed: int
) -> None:
    try:
        masker.check(grid)
    except ValueError:
        return
    for step in range(5):
        context, target = occupancy(masker(grid, 8, Rng(seed, step)), grid)
        assert (context.sum(1) >= (masker.min_context or max(1, math.prod(grid) // 20))).all()
        assert not (context * target).any()


def test_check_covers_the_ends_of_the_scale_range() -> None:
    grid, low, high = (9, 9), 0.3, 0.6
    target, window = target_shape(grid, high, 1.0), context_shape(grid, 0.85)
    left = math.prod(window) - math.prod(target)
    tight = {"num_targets": 4, "target_scale": (low, high), "target_aspect": (1.0, 1.0)}
    MultiBlock(**tight, min_context=left).check(grid)
    with pytest.raises(ValueError, match="min_context is"):
        MultiBlock(**tight, min_context=left + 1).check(grid)


def test_the_last_resort_keeps_the_promised_context_when_no_other_placement_could() -> None:
    # Two different places of a target this large never leave this much.
    grid = (9, 9)
    masker = MultiBlock(4, (0.6, 0.6), (1.0, 1.0), (1.0, 1.0), min_context=81 - 49)
    for step in range(5):
        masks = masker(grid, 32, Rng(0, step))
        assert (occupancy(masks, grid)[0].sum(1) == 81 - 49).all()
    assert masks.targets.flatten().unique().numel() == 81


@settings(max_examples=200, deadline=None)
@given(grid=st.tuples(sides, sides), fraction=st.floats(0.02, 1), ratio=st.floats(0.1, 8))
def test_blocks_fit_the_grid_and_a_context_block_is_never_too_small(grid: Grid, fraction: float, ratio: float) -> None:
    for shape in (target_shape(grid, fraction, ratio), context_shape(grid, fraction)):
        assert all(1 <= side <= size for side, size in zip(shape, grid, strict=True))
    assert math.prod(context_shape(grid, fraction)) >= fraction * math.prod(grid) * (1 - 1e-5)


@pytest.mark.parametrize(
    ("masker", "grid", "words"),
    [
        (MultiBlock(), (2, 2), r"grid \(2, 2\) is too small.*target_scale"),
        (MultiBlock(), (16,), "2 axes.*random"),
        (MultiBlock(), (4, 7, 7), "2 axes.*random"),
        (MultiBlock(num_targets=0), (8, 8), "num_targets is 0"),
        (MultiBlock(min_context=0), (8, 8), "min_context is 0"),
        (MultiBlock(min_context=60), (8, 8), "min_context"),
        (MultiBlock(target_scale=(0.2, 0.1)), (8, 8), "target_scale is"),
        (MultiBlock(target_aspect=(0.0, 1.0)), (8, 8), "target_aspect is"),
        (MultiBlock(context_scale=(0.5, 1.5)), (8, 8), "context_scale is"),
        (MultiBlock(target_scale=(1.0, 1.0)), (8, 8), "too small for these scales"),
        (COMPAT, (8, 8), "compat"),
        (Random(), (1,), "leave no context"),
        (Random(0.1, 3), (3,), "leave no context"),
        (Random(1.0), (16,), "0 < ratio < 1"),
    ],
)
def test_what_cannot_work_is_refused_with_the_fix(masker: Masker, grid: Grid, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        masker.check(grid)
    with pytest.raises(ValueError, match=words):
        masker(grid, 2, Rng(0))


@pytest.mark.parametrize("grid", [(2,), (30,), (5, 6), (2, 4, 4), (7, 7)])
@pytest.mark.parametrize("masker", [Random(), Random(0.75), Random(0.5, 4), Random(0.01)])
def test_random_masks_use_every_token_once_on_a_grid_of_any_rank(masker: Random, grid: Grid) -> None:
    if math.prod(grid) <= masker.num_targets:
        pytest.skip("too few tokens for these targets")
    context, target = occupancy(masker(grid, 5, Rng(0)), grid)
    assert (context + target == 1).all()
    wanted = min(max(masker.ratio * math.prod(grid), masker.num_targets), math.prod(grid) - 1)
    assert abs(float(target.sum(1).mean()) - wanted) <= masker.num_targets / 2 + 1


def test_random_masks_cover_all_cells_alike() -> None:
    context, target, _ = coverage(Random(0.6), (30,))
    assert (context - 0.4).abs().max() < 0.03
    assert (target - 0.6).abs().max() < 0.03


def test_the_maskers_named_in_configs_are_maskers() -> None:
    assert {"multiblock", "random"} <= set(MASKERS.names())
    assert all(isinstance(masker, Masker) for masker in map(MASKERS.load, MASKERS.names()))
