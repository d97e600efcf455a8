import math

import pytest
import torch
from torch.testing import assert_close

from jepakit.nn.position import sincos_positions


def wave(position, dim):
    half = dim // 2
    angles = [position / 10000 ** (i / half) for i in range(half)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def test_the_two_published_orders_are_each_others_halves_swapped():
    ours, theirs = sincos_positions((3, 5), 16, "column-row"), sincos_positions((3, 5), 16, "row-column")
    assert not torch.equal(ours, theirs)
    assert torch.equal(ours, theirs.roll(8, 1))


@pytest.mark.parametrize(
    ("grid", "dim", "order", "expected"),
    [
        ((7,), 8, "column-row", lambda t: wave(t, 8)),
        ((3, 5), 16, "column-row", lambda row, column: wave(column, 8) + wave(row, 8)),
        ((3, 5), 16, "row-column", lambda row, column: wave(row, 8) + wave(column, 8)),
        ((3, 5), 16, "uniform", lambda row, column: wave(row, 8) + wave(column, 8)),
        ((2, 3, 4), 16, "row-column", lambda d, h, w: wave(d, 8) + wave(h, 4) + wave(w, 4)),
        ((2, 3, 4), 12, "uniform", lambda d, h, w: wave(d, 4) + wave(h, 4) + wave(w, 4)),
        ((2, 3, 4), 16, "uniform", lambda d, h, w: (wave(d, 6) + wave(h, 6) + wave(w, 6))[:16]),
    ],
)
def test_every_cell_has_the_closed_form_in_row_major_order(grid, dim, order, expected):
    cells = torch.cartesian_prod(*[torch.arange(n) for n in grid]).reshape(-1, len(grid)).tolist()
    assert_close(
        sincos_positions(grid, dim, order), torch.tensor([expected(*cell) for cell in cells]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("grid", "dim", "fix"), [((4,), 7, "2"), ((4, 4), 10, "4"), ((2, 4, 4), 12, "8")])
def test_a_width_that_cannot_be_shared_is_refused_with_the_next_that_can(grid, dim, fix):
    with pytest.raises(ValueError, match=f"width {dim} .* multiple of {fix}"):
        sincos_positions(grid, dim)
    with pytest.raises(ValueError, match="4 axes"):
        sincos_positions((2, 2, 2, 2), 16)
