"""Halves: one side of a grid is seen, the other is predicted, along any axis of a series, a picture or a video."""

import math
from typing import Any

import pytest
import torch

from jepakit.masks import MASKERS
from jepakit.masks.base import Masker
from jepakit.masks.halves import Halves
from jepakit.types import Rng

GRIDS = [(2,), (7,), (2, 2), (4, 6), (5, 3), (1, 2), (4, 3, 2), (2, 4, 5)]
EVERY = [(grid, axis) for grid in GRIDS for axis in range(-len(grid), len(grid)) if grid[axis] > 1]


def places(tokens: torch.Tensor, grid: tuple[int, ...], axis: int) -> set[int]:
    """Where along `axis` the tokens lie."""
    return set(torch.unravel_index(tokens, grid)[axis].flatten().tolist())


@pytest.mark.parametrize("context", ["first", "last"])
@pytest.mark.parametrize(("grid", "axis"), EVERY)
def test_the_two_halves_are_the_two_sides_of_the_axis_and_no_token_is_left(
    grid: tuple[int, ...], axis: int, context: Any
) -> None:
    masks, cells = Halves(axis, context)(grid, 3, Rng(0)), grid[axis]
    seen, hidden = places(masks.context, grid, axis), places(masks.targets, grid, axis)
    assert seen | hidden == set(range(cells))
    assert max(seen) < min(hidden) if context == "first" else max(hidden) < min(seen)
    assert len(seen) - len(hidden) == cells % 2
    for sample in range(3):
        both = torch.cat([masks.context[sample], masks.targets[sample, 0]])
        assert both.sort().values.tolist() == list(range(math.prod(grid)))
        assert (masks.context[sample].diff() > 0).all()
        assert (masks.targets[sample, 0].diff() > 0).all()


def test_on_a_picture_axis_0_is_top_and_bottom_and_axis_1_left_and_right() -> None:
    top, left = Halves(axis=0)((2, 4), 1, Rng(0)), Halves(axis=1)((2, 4), 1, Rng(0))
    assert top.context.tolist() == [[0, 1, 2, 3]]
    assert top.targets.tolist() == [[[4, 5, 6, 7]]]
    assert left.context.tolist() == [[0, 1, 4, 5]]
    assert left.targets.tolist() == [[[2, 3, 6, 7]]]
    assert Halves(-1)((2, 4), 1, Rng(0)).context.tolist() == left.context.tolist()


def test_the_middle_of_an_odd_axis_belongs_to_the_context_on_either_side() -> None:
    assert Halves(context="first")((5,), 1, Rng(0)).context.tolist() == [[0, 1, 2]]
    assert Halves(context="last")((5,), 1, Rng(0)).context.tolist() == [[2, 3, 4]]


def test_either_is_one_side_for_a_whole_batch_and_both_equally_often() -> None:
    masker, first = Halves(context="either"), Halves()((5,), 1, Rng(0)).context[0]
    steps = [masker((5,), 6, Rng(0, step)).context for step in range(400)]
    assert all((context == context[0]).all() for context in steps)
    share = sum(torch.equal(context[0], first) for context in steps) / 400
    assert abs(share - 0.5) < 4 * 0.5 / 400**0.5


def test_a_part_of_the_batch_has_the_masks_it_has_in_the_whole() -> None:
    masker = Halves(context="either")
    for step in range(8):
        whole = masker((6,), 8, Rng(1, step))
        part = masker((6,), 3, Rng(1, step, offset=5, total=8))
        assert torch.equal(part.context, whole.context[5:])
        assert torch.equal(part.targets, whole.targets[5:])


def test_a_config_can_name_it() -> None:
    assert MASKERS.load("halves") == Halves()
    assert isinstance(Halves(), Masker)


@pytest.mark.parametrize(
    ("masker", "grid", "sentence"),
    [
        (Halves(axis=1), (4,), r"axis is 1 but the grid \(4,\) has 1 axes; give -1 to 0"),
        (Halves(axis=-3), (4, 4), r"axis is -3 but the grid \(4, 4\) has 2 axes; give -2 to 1"),
        (Halves(), (1,), r"grid \(1,\) has one cell along axis -1.*patch of at most half the signal's length there$"),
        (Halves(axis=0), (1, 8), r"grid \(1, 8\) has one cell along axis 0.*there, or axis 1$"),
    ],
)
def test_a_grid_that_has_no_such_halves_is_refused(masker: Halves, grid: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        masker.check(grid)
    with pytest.raises(ValueError, match=sentence):
        masker(grid, 2, Rng(0))
