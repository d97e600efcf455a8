"""Recurrent gated circuits: what the gate means, the derivatives written out, blocks, and maps with positions."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from jepakit.recurrent.cells import Cell, Gated, Memoryless, Reciprocal
from jepakit.recurrent.circuit import Circuit, Circuits

D, N = 5, 6
CELLS = {
    "gated": lambda: Gated(D, N),
    "mingru": lambda: Gated(D, N, own=False, linear=True),
    "blocks of 3": lambda: Gated(D, N, block=3),
    "dense": lambda: Gated(D, N, block=N),
    "reciprocal": lambda: Reciprocal(D, N),
    "memoryless": lambda: Memoryless(D, N),
}


@pytest.fixture(autouse=True)
def _weights_from_one_seed() -> None:
    torch.manual_seed(0)


def cell_of(name: str) -> Cell:
    cell = CELLS[name]().double()
    with torch.no_grad():
        cell.bias.normal_(0, 0.3)
    return cell


def at_random(cell: Cell, rows: int = 3) -> tuple[Tensor, Tensor]:
    state = torch.randn(rows, cell.blocks, cell.block, dtype=torch.float64)
    return state, cell.drive(torch.randn(rows, D, dtype=torch.float64)).detach()


@pytest.mark.parametrize("name", CELLS)
def test_the_derivatives_written_out_are_those_of_the_step(name: str) -> None:
    cell = cell_of(name)
    state, drive = at_random(cell)
    with torch.no_grad():
        local = cell.local(state, drive)
    by_state, by_drive = torch.autograd.functional.jacobian(lambda s, g: cell(s, g).sum(0), (state, drive))
    m = range(cell.blocks)
    # jacobian: (m, b, rows, m', b'), of which only m' = m is not zero: a block's own past enters that block alone.
    own = torch.stack([by_state[i, :, :, i] for i in m], 1).permute(2, 1, 0, 3)
    assert_close(local.by_state, own)
    q = cell.weight.shape[1]
    fed = torch.stack([by_drive[i, :, :, i] for i in m], 1).permute(2, 1, 0, 3)
    assert_close(local.by_drive[..., :q], fed)
    assert float(by_state.abs().sum()) == pytest.approx(float(own.abs().sum()))


@pytest.mark.parametrize("name", CELLS)
@torch.no_grad()
def test_steps_taken_together_are_those_taken_one_by_one(name: str) -> None:
    cell = cell_of(name)
    state, _ = at_random(cell)
    drives = cell.drive(torch.randn(4, 3, D, dtype=torch.float64))
    together = cell.run(state, drives.clone())
    for k, drive in enumerate(drives):
        local = cell.local(state, drive)
        assert_close(together.by_state[k], local.by_state)
        assert_close(together.by_drive[k], local.by_drive)
        state = cell(state, drive)
        assert_close(together.states[k + 1], state)


@pytest.mark.parametrize("name", CELLS)
def test_pull_is_the_derivative_by_the_weights_on_the_past(name: str) -> None:
    cell = cell_of(name)
    state, drive = at_random(cell)
    if not cell.own.numel():
        assert cell.pull(torch.ones(3, cell.blocks, 1, 2), state).shape[-1] == 0
        return
    weight = torch.randn(state.shape, dtype=torch.float64)
    (expected,) = torch.autograd.grad((cell(state, drive) * weight).sum(), cell.own)
    with torch.no_grad():
        by_drive = cell.local(state, drive).by_drive
    g = torch.einsum("nmb,nmbq->nmq", weight, by_drive)
    assert_close(cell.pull(g[..., None, :], state)[..., 0, :].sum(0), expected)


def test_an_open_gate_passes_the_input_and_a_closed_one_keeps_the_past() -> None:
    cell = cell_of("gated")
    state, drive = at_random(cell)
    with torch.no_grad():
        cell.own.zero_()
    for gate, expected in ((40.0, torch.tanh(drive[..., :1])), (-40.0, state)):
        wide = torch.stack([drive[..., 0], torch.full_like(drive[..., 1], gate)], -1)
        assert_close(cell(state, wide), expected)
    assert_close(cell.gate(state, drive), torch.sigmoid(drive[..., 1]))


def test_a_memoryless_circuit_is_the_gated_one_with_its_gate_open() -> None:
    state, _ = at_random(cell_of("gated"))
    gated, plain = cell_of("gated"), cell_of("memoryless")
    with torch.no_grad():
        gated.own.zero_()
        gated.weight[:, 1] = 0
        gated.bias[:, 1] = 40
        plain.weight[:, 0], plain.bias[:, 0] = gated.weight[:, 0], gated.bias[:, 0]
    x = torch.randn(3, D, dtype=torch.float64)
    assert_close(gated(state, gated.drive(x)), plain(state, plain.drive(x)))


def test_the_reciprocal_unit_lets_the_input_through_in_the_same_step_and_gates_with_the_other_state() -> None:
    cell = cell_of("reciprocal")
    state, drive = at_random(cell)
    h, c = state.unbind(-1)
    s, (ch, hh, hc, cc) = torch.sigmoid, cell.own.unbind(-1)
    x = drive[..., 0]
    assert_close(cell(state, drive)[..., 0], torch.tanh((1 - s(ch * c)) * x + (1 - s(hh * h)) * h))
    assert_close(cell(state, drive)[..., 1], torch.tanh((1 - s(hc * h)) * x + (1 - s(cc * c)) * c))
    assert bool(cell(cell.start(3), drive)[..., 0].any())


def test_a_block_of_one_is_the_elementwise_circuit() -> None:
    one, coupled = cell_of("gated"), cell_of("dense")
    with torch.no_grad():
        coupled.weight.copy_(one.weight.transpose(0, 1).reshape(1, 2 * N, D))
        coupled.bias.copy_(one.bias.T.reshape(1, 2 * N))
        coupled.own.copy_(torch.cat([torch.diag(u) for u in one.own.unbind(1)]).reshape(1, -1))
    state, _ = at_random(one)
    x = torch.randn(3, D, dtype=torch.float64)
    flat = state.transpose(1, 2)
    assert_close(one.out(one(state, one.drive(x))), coupled.out(coupled(flat, coupled.drive(x))))


def circuits(grid: tuple[int, int] = (4, 4), channels: int = 3, **settings: object) -> Circuits:
    return Circuit(width=N, **settings).build(channels, grid).double()  # type: ignore[arg-type]


def test_every_position_of_a_map_has_its_own_past_and_the_same_weights() -> None:
    net = circuits(kernel=1, norm=False)
    x = torch.randn(2, 1, 3, 4, 4, dtype=torch.float64)
    states, _ = net.step(net.start(1), net.read(x)[0])
    states, _ = net.step(states, net.read(x)[1])
    alone = circuits((1, 1), norm=False)
    alone.load_state_dict(net.state_dict())
    for p in range(16):
        own, _ = alone.step(alone.start(1), x[0, :, :, p // 4, p % 4])
        own, _ = alone.step(own, x[1, :, :, p // 4, p % 4])
        assert_close(net.shown(states[-1])[:, p], alone.shown(own[-1])[:, 0])


def test_input_weights_are_a_convolution() -> None:
    net = circuits(kernel=3, norm=False)
    x = torch.randn(1, 2, 3, 4, 4, dtype=torch.float64)
    drive = net.top.cell.drive(net.read(x)[0])
    weight = net.top.cell.weight.reshape(2 * N, 3, 3, 3)
    expected = torch.nn.functional.conv2d(x[0], weight, padding=1).permute(0, 2, 3, 1).reshape(32, N, 2)
    assert_close(drive, expected)


def test_levels_halve_the_map_and_feedback_is_what_the_level_above_showed_before() -> None:
    net = circuits((8, 8), levels=(4, 5), recurrence="all", feedback=True)
    assert [level.grid for level in net.levels] == [(4, 4), (2, 2), (1, 1)]
    x = torch.randn(2, 1, 3, 8, 8, dtype=torch.float64)
    first, _ = net.step(net.start(1), net.read(x)[0])
    second, seen = net.step(first, net.read(x)[1])
    changed = (first[0], first[1] + 1, first[2])
    _, other = net.step(changed, net.read(x)[1])
    assert not torch.equal(seen[0], other[0])
    assert_close(seen[0][:, : 3 * 9], other[0][:, : 3 * 9])
    assert len(second) == 3


@pytest.mark.parametrize(("recurrence", "past"), [("none", [0, 0]), ("top", [0, 1]), ("all", [1, 1])])
def test_recurrence_says_which_levels_have_a_past(recurrence: str, past: list[int]) -> None:
    net = circuits((4, 4), levels=(4,), recurrence=recurrence)
    assert [int(cell.remembers) for cell in net.cells] == past


def test_rank_bounds_the_rank_of_the_top_and_scale_its_size() -> None:
    net = circuits((1, 1), channels=8, rank=2)
    assert int(torch.linalg.matrix_rank(net.top.cell.weight.flatten(0, 1), atol=1e-4)) == 2
    small = circuits((1, 1), channels=8, scale=0.01)
    assert float(small.top.cell.weight.detach().abs().max()) <= 0.01 / 8**0.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 0}, "width is 0"),
        ({"kernel": 2}, "odd number"),
        ({"cell": "mingru", "block": 2}, "cell gated"),
        ({"feedback": True}, "circuit.levels"),
    ],
)
def test_settings_that_make_no_circuit_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Circuit(**settings)  # type: ignore[arg-type]


def test_blocks_have_to_tile_the_width() -> None:
    with pytest.raises(ValueError, match="does not divide the width 6"):
        Gated(D, N, block=4)


def test_a_memoryless_circuit_forgets() -> None:
    cell = Memoryless(D, N)
    x = torch.randn(2, D)
    assert torch.equal(cell(torch.randn(2, N, 1), cell.drive(x)), cell(cell.start(2), cell.drive(x)))
    assert not cell.remembers
    assert isinstance(cell, Cell)
