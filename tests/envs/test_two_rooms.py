import heapq
import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from jepakit.envs import Episodes, build_environment
from jepakit.envs import two_rooms as rooms
from jepakit.types import Rng

FIXED = build_environment("two-rooms-fixed")
RANDOM = build_environment("two-rooms-random")
SMALL = build_environment("two-rooms-random", size=9)  # the same walks, with pictures that cost little
IDS = np.arange(500)


def is_free(x: Any, y: Any, wall: float, door: float) -> Any:
    """Whether the dot may be here, straight from the definition; of one place or of many."""
    no_wall = (abs(x - wall) >= 1) | (abs(y - door) <= 4)
    return (x >= 4) & (x <= 60) & (y >= 4) & (y <= 60) & no_wall


def slow_move(place: np.ndarray, action: np.ndarray, wall: float, door: float) -> np.ndarray:
    """The last free point of a thousand along the move: an independent simulation without any geometry."""
    points = place + np.linspace(0, 1, 1001)[:, None] * action
    free = is_free(points[1:, 0], points[1:, 1], wall, door)
    return points[1000 if free.all() else free.argmin()]


def walks(env: rooms.TwoRooms, steps: int = 32, ids: np.ndarray = IDS, seed: int = 0, **how: object) -> Episodes:
    return env.behave(ids, Rng(seed), steps, **how)


@pytest.mark.parametrize("env", [FIXED, RANDOM], ids=["fixed", "random"])
def test_moves_agree_with_a_slow_simulation_that_only_asks_which_points_are_free(env: rooms.TwoRooms) -> None:
    found = walks(env, 24, IDS[:25], policy="uniform")
    scale = torch.linspace(0.3, 1, 25)[:, None, None]
    place = found.states["position"]
    for b in range(25):
        wall, door = float(found.states["wall"][b, 0]), float(found.states["door"][b, 0])
        for t in range(24):
            state = {name: value[b : b + 1, t] for name, value in found.states.items()}
            action = found.action[b : b + 1, t] * scale[b]
            ours = env.step(state, action).state["position"][0].numpy()
            slow = slow_move(place[b, t].double().numpy(), action[0].double().numpy(), wall, door)
            # The gap is measured across the face, so along a grazing move it is longer.
            direction = np.abs(action[0].numpy()) / np.linalg.norm(action[0].numpy())
            assert np.linalg.norm(ours - slow) < 0.004 + rooms.GAP / max(direction.min(), 1e-3), (b, t)


@settings(max_examples=100, deadline=None)
@given(
    wall=st.floats(20, 45, width=32),
    door=st.floats(10, 55, width=32),
    offsets=st.tuples(st.floats(-6, 6, width=32), st.floats(-8, 8, width=32)),
    actions=st.lists(
        st.tuples(st.floats(-2.5, 2.5, width=32), st.floats(-2.5, 2.5, width=32)), min_size=1, max_size=30
    ),
)
def test_no_path_crosses_the_wall_but_through_the_door(
    wall: float, door: float, offsets: tuple[float, float], actions: list[tuple[float, float]]
) -> None:
    x, y = wall + offsets[0], min(max(door + offsets[1], 4.0), 60.0)
    if not is_free(x, y, wall, door):
        return
    layout = {"wall": torch.tensor([wall]), "door": torch.tensor([door])}
    state = {"position": torch.tensor([[x, y]]), **layout}
    for action in actions:
        after = RANDOM.step(state, torch.tensor([action])).state
        for share in np.linspace(0, 1, 50):
            point = (1 - share) * state["position"][0].double() + share * after["position"][0].double()
            # Float32 rounds the start to within the wall's last digits.
            assert is_free(*(point.round(decimals=4).tolist()), wall, door) or abs(abs(point[0] - wall) - 1) < 1e-4
        state = after


def test_no_walk_of_many_crosses_the_wall_but_through_the_door() -> None:
    found = walks(SMALL, 200, np.arange(1000))
    place, wall = found.states["position"], found.states["wall"][..., None]
    a, b = place[:, :-1], place[:, 1:]
    assert place.amin() >= rooms.LOW
    assert place.amax() <= rooms.HIGH
    side = wall[:, :-1, 0]
    crossing = (a[..., 0] < side) != (b[..., 0] < side)
    assert crossing.sum() > 300
    share = (side - a[..., 0]) / (b[..., 0] - a[..., 0])
    height = a[..., 1] + share * (b[..., 1] - a[..., 1]) - found.states["door"][:, 1:]
    assert height[crossing].abs().amax() < rooms.HALF_HEIGHT
    inside = ((place[..., 0] - wall[..., 0]).abs() < 1) & ((place[..., 1] - found.states["door"]).abs() > 4)
    assert not inside.any()


def test_a_dot_that_was_stopped_is_not_stuck() -> None:
    layout = {"wall": torch.tensor([32.0]), "door": torch.tensor([18.0])}
    state = {"position": torch.tensor([[30.0, 40.0]]), **layout}
    for _ in range(5):
        after = FIXED.step(state, torch.tensor([[2.0, 0.1]]))
        state = after.state
    assert bool(after.info["blocked"])
    assert 30.98 < float(state["position"][0, 0]) < 31
    back = FIXED.step(state, torch.tensor([[-2.0, 0.1]]))
    assert not bool(back.info["blocked"])
    assert_close(back.state["position"], state["position"] + torch.tensor([[-2.0, 0.1]]))


def test_actions_are_clipped_to_their_longest_length() -> None:
    state = {"position": torch.tensor([[20.0, 40.0]]), "wall": torch.tensor([32.0]), "door": torch.tensor([18.0])}
    moved = FIXED.step(state, torch.tensor([[-30.0, 40.0]])).state["position"] - state["position"]
    assert_close(moved, torch.tensor([[-0.6, 0.8]]) * rooms.MAX_STEP)
    assert_close(state["position"], torch.tensor([[20.0, 40.0]]), rtol=0, atol=0)


@pytest.mark.parametrize("policy", ["random", "uniform", "scripted"])
def test_an_episode_depends_on_its_id_alone_however_ids_are_split(policy: str) -> None:
    whole = walks(RANDOM, 24, IDS[:100], policy=policy, hold=2)
    parts = [walks(RANDOM, 24, part, policy=policy, hold=2) for part in np.array_split(IDS[:100][::-1], 7)]
    for name in ("x", "action", "reward", "done"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]).flip(0), getattr(whole, name)), name
    for of in ("states", "factors"):
        for name, value in getattr(whole, of).items():
            assert torch.equal(torch.cat([getattr(part, of)[name] for part in parts]).flip(0), value), name
    assert not torch.equal(walks(RANDOM, 24, IDS[:100], seed=1, policy=policy, hold=2).action, whole.action)


def test_actions_are_held_and_frames_skipped_without_changing_the_episode() -> None:
    every, skipped = walks(RANDOM, hold=4), walks(RANDOM, hold=4, every=2)
    held = every.action.unflatten(1, (8, 4))
    assert torch.equal(held, held[:, :, :1].expand_as(held))
    assert not torch.equal(held[:, 0], held[:, 1])
    assert torch.equal(every.action, skipped.action)
    assert torch.equal(every.x[:, :, ::2], skipped.x)
    assert torch.equal(every.states["position"][:, ::2], skipped.states["position"])


def test_lengths_and_turns_of_the_walk_are_distributed_as_stated() -> None:
    actions = walks(build_environment("two-rooms", size=9), 40, np.arange(4000)).action
    length = actions.norm(dim=2)
    z = torch.tensor([(rooms.MIN_LENGTH - 1.5) / 0.6, (rooms.MAX_STEP - 1.5) / 0.6], dtype=torch.float64)
    density, mass = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi), torch.special.ndtr(z)
    mean = 1.5 + 0.6 * float((density[0] - density[1]) / (mass[1] - mass[0]))
    assert abs(float(length.mean()) - mean) < 0.01
    assert float(length.amin()) < 0.25
    assert float(length.amax()) <= rooms.MAX_STEP + 1e-5
    heading = torch.atan2(actions[..., 1], actions[..., 0])
    turn = torch.remainder(heading.diff(dim=1) + math.pi, 2 * math.pi) - math.pi
    # Walks that are mirrored at a wall turn more sharply: the middle half of the turns tells the spread of the others.
    assert abs(float(turn.quantile(0.75) - turn.quantile(0.25)) / 1.349 - 0.45) < 0.02
    assert abs(float(turn.mean())) < 0.01


@pytest.mark.parametrize("hold", [1, 2])
def test_the_stated_share_of_walks_goes_through_the_door(hold: int) -> None:
    def in_door(share: float) -> float:
        env = build_environment("two-rooms-random", door_share=share, size=9)
        states = walks(env, 64, np.arange(1500), hold=hold).states
        return float(((states["position"][..., 0] - states["wall"]).abs() < 1.0).any(1).float().mean())

    none, all_of_them = in_door(0.0), in_door(1.0)
    assert none < 0.1
    assert all_of_them > 0.95
    assert abs(in_door(0.35) - (0.35 * all_of_them + 0.65 * none)) < 0.04


def test_a_walk_through_the_door_comes_there_at_any_time_and_freely() -> None:
    env = build_environment("two-rooms-random", door_share=1.0, size=9)
    found = walks(env, 60, np.arange(2000))
    place = found.states["position"]
    in_door = (place[..., 0] - found.states["wall"]).abs() < 1
    when = in_door.int().argmax(1)  # the first time
    for low in range(0, 60, 20):
        assert 0.25 < ((when >= low) & (when < low + 20)).float().mean() < 0.45
    before = torch.arange(60) < when[:, None] - 1
    moved_as_told = (place.diff(dim=1) - found.action).norm(dim=2) < 1e-3
    assert moved_as_told[before].float().mean() > 0.999
    assert moved_as_told[~before].float().mean() < 0.9  # afterwards, walls stop it
    # A walk that is mirrored keeps its new heading: sharp turns are as rare as walls.
    heading = torch.atan2(found.action[..., 1], found.action[..., 0])
    turn = (torch.remainder(heading.diff(dim=1) + math.pi, 2 * math.pi) - math.pi).abs()
    assert (turn[before[:, 1:]] > 1.8).float().mean() < 0.05


def test_the_scripted_policy_reaches_goals_in_the_other_room() -> None:
    found = walks(SMALL, 120, IDS[:200], policy="scripted", hold=2)
    start, goal = SMALL.tasks(IDS[:200], Rng(0))
    assert torch.equal(found.states["position"][:, 0], start["position"])
    nearest = (found.states["position"] - goal["position"][:, None]).norm(dim=2).amin(1)
    assert (nearest < rooms.SUCCESS_RADIUS).float().mean() > 0.95


def grid_ways(goal: np.ndarray, wall: float, door: float, spacing: float) -> dict[tuple[int, int], float]:
    """Lengths of the shortest paths on a fine grid, by Dijkstra's algorithm with 32 directions, from every node."""
    steps = [(i, j) for i in range(-4, 5) for j in range(-4, 5) if math.gcd(i, j) == 1]
    found: dict[tuple[int, int], float] = {}
    queue = [(0.0, tuple(int(v) for v in goal))]
    while queue:
        length, node = heapq.heappop(queue)
        if node in found:
            continue
        found[node] = length
        for i, j in steps:
            line = [(node[0] + i * k / 8, node[1] + j * k / 8) for k in range(1, 9)]
            if (node[0] + i, node[1] + j) not in found and all(
                is_free(p * spacing, q * spacing, wall, door) for p, q in line
            ):
                heapq.heappush(queue, (length + spacing * math.hypot(i, j), (node[0] + i, node[1] + j)))
    return found


@pytest.mark.parametrize(
    ("goal", "wall", "door"), [((50, 50), 32.0, 18.0), ((22, 6), 25.0, 41.0), ((45, 30), 45.0, 30.0)]
)
def test_the_way_to_go_is_the_shortest_path_on_a_fine_grid(goal: tuple[int, int], wall: float, door: float) -> None:
    ways = grid_ways(np.array(goal), wall, door, 1.0)
    nodes = torch.tensor(list(ways), dtype=torch.float32)
    on_grid = torch.tensor(list(ways.values()))
    here, there = (
        {"position": p, "wall": torch.full((len(p),), wall), "door": torch.full((len(p),), door)}
        for p in (nodes, torch.tensor(goal).float().expand_as(nodes))
    )
    ours = RANDOM.way_to_go(here, there)
    assert len(ways) > 2500
    # A grid with 32 directions overestimates by at most 1.4 %, and goes around corners at its own nodes.
    assert ((on_grid - ours) > -1e-3).all()
    assert ((on_grid - ours) < 0.014 * ours + 0.5).all()
    assert_close(RANDOM.way_to_go(there, here), ours)
    assert (ours >= RANDOM.distance(here, there) - 1e-4).all()
    assert ((ours - RANDOM.distance(here, there)).amax() > 5) == (goal != (45, 30))  # from within the door, all is near


@pytest.mark.parametrize("env", [FIXED, RANDOM], ids=["fixed", "random"])
def test_tasks_are_in_different_rooms_away_from_walls_and_never_solved_at_the_start(env: rooms.TwoRooms) -> None:
    start, goal = env.tasks(np.arange(3000), Rng(0))
    wall = start["wall"]
    assert torch.equal(wall, goal["wall"])
    assert torch.equal(start["door"], goal["door"])
    assert ((start["position"][:, 0] < wall) != (goal["position"][:, 0] < wall)).all()
    for state in (start, goal):
        assert ((state["position"][:, 0] - wall).abs() >= 1 + 2.6 - 1e-4).all()
        assert state["position"].amin() >= 6.6 - 1e-4
        assert state["position"].amax() <= 57.4 + 1e-4
    assert not env.is_solved(start, goal).any()
    assert env.is_solved(goal, goal).all()
    assert 0.45 < float((start["position"][:, 0] < wall).float().mean()) < 0.55
    again = env.tasks(np.array([7, 2000]), Rng(0))[1]
    assert torch.equal(again["position"], goal["position"][[7, 2000]])
    if env is RANDOM:
        assert 20 <= wall.amin() < 20.1
        assert 44.9 < wall.amax() < 45
        assert 10 <= start["door"].amin() < 10.1
        assert 54.9 < start["door"].amax() < 55


@pytest.mark.parametrize("size", [33, 65])
def test_a_picture_shows_the_dot_the_wall_and_the_door_where_they_are(size: int) -> None:
    env = build_environment("two-rooms-random", size=size)
    state = env.reset(IDS, Rng(3))
    x = env.observe(state)
    assert x.shape == (500, 2, size, size)
    assert x.amin() >= 0
    assert x.amax() <= 1
    grid = torch.linspace(0, 64, size)
    dot = x[:, 0] / x[:, 0].sum((1, 2), keepdim=True)
    centre = torch.stack([(dot.sum(1) * grid).sum(1), (dot.sum(2) * grid).sum(1)], 1)
    well_inside = ((state["position"] > 10) & (state["position"] < 54)).all(1)
    assert (centre - state["position"])[well_inside].abs().amax() < 0.1

    inner = (grid > 7) & (grid < 57)

    def middle(weight: Tensor) -> Tensor:
        return (weight * grid[inner]).sum(1) / weight.sum(1)

    walls = x[:, 1, inner][:, :, inner]
    assert (middle(walls.amax(1)) - state["wall"]).abs().amax() < 0.01
    wide = (state["door"] > 16) & (state["door"] < 48)
    column = walls.amax(2)
    assert (middle(column.amax(1, keepdim=True) - column) - state["door"])[wide].abs().amax() < 0.01
    assert x[:, 1, size // 16, size // 16].amin() > 0.3  # the border's corner


def test_settings_that_cannot_be_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="a picture of 9 pixels or more"):
        build_environment("two-rooms", size=5)
    with pytest.raises(ValueError, match="no setting 'walls'; it has: wall, size"):
        build_environment("two-rooms", walls="random")
    with pytest.raises(ValueError, match="Did you mean 'two-rooms'"):
        build_environment("two-room")
    with pytest.raises(ValueError, match="no policy 'clever'; choose one of: random"):
        FIXED.behave(IDS, Rng(0), 4, "clever")
    with pytest.raises(ValueError, match="give numbers of 1 or more, and a multiple"):
        FIXED.behave(IDS, Rng(0), 5, every=2)


@pytest.mark.parametrize(
    ("action", "fix"),
    [([[0.0, float("nan")]], "action 0 of the batch"), ([[0.0, 0.0, 0.0]], "takes actions of 2 numbers")],
)
def test_actions_of_another_size_or_not_finite_are_refused(action: list[list[float]], fix: str) -> None:
    with pytest.raises(ValueError, match=fix):
        FIXED.step(FIXED.reset(IDS[:1], Rng(0)), torch.tensor(action))


def test_a_batch_of_walks_is_much_faster_than_one_after_the_other() -> None:
    def seconds(parts: list[np.ndarray]) -> float:
        begin = time.process_time()
        for part in parts:
            RANDOM.behave(part, Rng(0), 16, hold=2, every=2)
        return time.process_time() - begin

    ids = np.arange(500)
    at_once = min(seconds([ids]) for _ in range(3)) / 500
    alone = min(seconds(list(ids[:3, None])) for _ in range(3)) / 3
    # The benchmark measures about 100 times; here other tests may be using the machine.
    assert alone > 20 * at_once


def test_the_floor_holds_every_place_of_the_layout_and_says_where_the_dot_can_be() -> None:
    start, _ = SMALL.tasks(np.array([3]), Rng(0))
    floor = SMALL.floor(start, 33)
    wall, door = float(start["wall"]), float(start["door"])
    places = floor.states["position"].reshape(33, 33, 2)
    assert_close(places[5, :, 0], floor.x)
    assert_close(places[:, 7, 1], floor.y)
    assert (floor.states["wall"] == wall).all()
    for (x, y), free in zip(floor.states["position"].tolist(), floor.free.tolist(), strict=True):
        # Within the gap, the dot can be by the definition but not by a move.
        near = abs(abs(x - wall) - 1) < 2 * rooms.GAP or abs(abs(y - door) - 4) < 2 * rooms.GAP
        assert near or free == is_free(x, y, wall, door)
