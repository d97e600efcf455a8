"""Maps of energies, and the ways down from every place of a floor."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from jepakit.envs import EnvState, Floor, build_environment
from jepakit.planning.landscape import arrives, descent_ends, downhill, energy_map, open_moves
from jepakit.planning.plan import start_plan
from jepakit.types import ActionSpec, Rng

ROOMS = build_environment("two-rooms-random", size=9)


def test_a_map_of_the_energy_is_lowest_at_the_best_action_and_empty_outside_the_bounds() -> None:
    spec = ActionSpec(3, (-2.0, -1.0, -1.0), (2.0, 1.0, 1.0), max_norm=1.5)
    goal = torch.tensor([0.5, 0.1, -0.5])
    x, y, energy = energy_map(
        lambda a: (a[:, :, 1] - goal).square().sum(2), start_plan(2, 3, spec), spec, ((1, 0), (1, 2)), points=31
    )
    assert energy.shape == (2, 31, 31)
    lowest = int(energy[1].nan_to_num(9).argmin())
    assert float(x[lowest % 31]) == pytest.approx(0.5, abs=0.06)
    assert float(y[lowest // 31]) == pytest.approx(-0.5, abs=0.06)
    assert energy[0, 0, 0].isnan()
    assert energy[0, 15, 15].isfinite()


def test_a_map_over_two_steps_moves_one_number_of_each() -> None:
    spec, seen = ActionSpec(1, (-2.0,), (2.0,)), list[Tensor]()
    energy_map(lambda a: seen.append(a) or a.sum((2, 3)), start_plan(1, 3, spec), spec, ((0, 0), (2, 0)), points=3)
    assert seen[0][0, :3, :, 0].tolist() == [[-2, 0, -2], [0, 0, -2], [2, 0, -2]]


def test_a_map_over_a_block_moves_all_its_parts() -> None:
    spec, seen = ActionSpec(2, (-1.0, -1.0), (1.0, 1.0)).repeat(3), list[Tensor]()
    energy_map(lambda a: seen.append(a) or a.sum((2, 3)), start_plan(1, 2, spec), spec, points=3)
    assert_close(seen[0][0, 0, 0], torch.full((6,), -1.0))
    assert_close(seen[0][0, :, 1], torch.zeros(9, 6))


@pytest.mark.parametrize("axes", [((0, 1), (0, 1)), ((0, 0), (0, 3)), ((0, 0), (1, 0))])
def test_a_map_needs_two_numbers_of_the_plan(axes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    spec = ActionSpec(3)
    with pytest.raises(ValueError, match="two different pairs"):
        energy_map(lambda a: a.sum((2, 3)), start_plan(1, 1, spec), spec, axes)


# --- floors


def floor_with_goal(task: int = 0, cells: int = 33) -> tuple[Floor, EnvState, EnvState]:
    """The floor of a task, its goal, and the goal once for every place."""
    start, goal = ROOMS.tasks(np.array([task]), Rng(0))
    floor = ROOMS.floor(start, cells)
    count = len(floor.free)
    return floor, goal, {name: value.expand(count, *value.shape[1:]) for name, value in goal.items()}


def test_the_true_way_leads_to_the_goal_from_everywhere_and_the_straight_line_ends_at_the_wall() -> None:
    floor, goal, goals = floor_with_goal()
    moves, free = open_moves(ROOMS, floor), floor.free.reshape(33, 33)
    way, line = (
        measure(floor.states, goals).where(floor.free, torch.nan).reshape(33, 33)
        for measure in (ROOMS.way_to_go, ROOMS.distance)
    )
    assert arrives(ROOMS, floor, downhill(way, moves), goal)[free].all()
    leads = downhill(line, moves)
    caught = free & ~arrives(ROOMS, floor, leads, goal)
    assert caught[free].float().mean() > 0.1
    ends = descent_ends(leads).reshape(33, 33)[caught]
    apart = (floor.states["position"][ends, 0] - goal["wall"]).abs()
    assert (apart < 1 + 2 * 1.76).all()


def test_no_way_down_goes_through_the_wall() -> None:
    for task in range(5):
        floor, goal, _ = floor_with_goal(task)
        x, door = floor.states["position"][:, 0], (floor.states["position"][:, 1] - goal["door"]).abs()
        slope = downhill(x.where(floor.free, torch.nan).reshape(33, 33), open_moves(ROOMS, floor))
        leads = slope.flatten()
        crosses = (x > goal["wall"]) & (x[leads] < goal["wall"])
        assert (door[crosses] < 4).all()
        assert floor.free[leads[floor.free]].all()


def test_the_way_down_is_the_steepest_and_ends_where_none_leads_down() -> None:
    energy = torch.tensor([[3.0, 2.0, 2.0], [3.0, 1.5, 0.0], [torch.nan, 1.0, 2.0]])
    moves = torch.ones(8, 3, 3, dtype=torch.bool)
    leads = downhill(energy, moves)
    # From the corner, the diagonal falls by 1.5 over a length of 1.41, which is steeper than 1 over 1.
    assert leads.tolist() == [[4, 5, 5], [4, 5, 5], [6, 5, 5]]
    assert descent_ends(leads).tolist() == [5, 5, 5, 5, 5, 5, 6, 5, 5]
    blocked = downhill(energy, torch.zeros_like(moves))
    assert torch.equal(blocked.flatten(), torch.arange(9))
