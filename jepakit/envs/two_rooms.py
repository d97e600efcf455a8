"""Two Rooms: a dot moves by displacements between two rooms, through the door in the wall that parts them.

A square of 65 × 65 units, in which the dot is free in [4, 60]². A vertical wall of half-width 1 stands at x = `wall`,
with a door of half-height 4 at y = `door`. The fixed wall stands at 32 with its door at 18; the random one, drawn for
each episode, in [20, 45) with its door in [10, 55). An action is a displacement (x, y) of at most 2.45 units. The dot
stops just before the first thing in its way. An observation has two channels: a Gaussian dot, and the wall with its
border, each pixel its covered share. Source of the task: PLDM, arXiv:2502.14819; here layouts and positions are real
numbers, not whole ones.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..core.draws import normal_draws, uniform_draws
from ..types import ActionSpec, Ids, Rng
from .base import Environment, EnvState, Floor, Policy, Transition, grid_states
from .drawing import paint

LOW: Final = 4.0
HIGH: Final = 60.0
EXTENT: Final = 64.0  # from the centre of the first pixel to that of the last
HALF_WIDTH: Final = 1.0  # of the wall, and of the border as it is drawn
HALF_HEIGHT: Final = 4.0  # of the door
MAX_STEP: Final = 2.45
FIXED_WALL: Final = 32.0
FIXED_DOOR: Final = 18.0
WALLS: Final = (20.0, 45.0)
DOORS: Final = (10.0, 55.0)
ROOM_MARGIN: Final = 2.6  # between a task's start or goal and the walls
SUCCESS_RADIUS: Final = 4.5

# The dot stops this far from the wall. Faces are found with the tolerance, which is above the rounding of float32 and
# far below the gap, so that no rounding lets it through.
GAP: Final = 1e-2
TOLERANCE: Final = 1e-4

# The walk of the random policy: its turn per action, and the lengths of its actions, a truncated normal distribution.
TURN: Final = 0.45
LENGTH_MEAN: Final = 1.5
LENGTH_STD: Final = 0.6
MIN_LENGTH: Final = 0.2


@dataclass(frozen=True)
class Config:
    """Settings of Two Rooms: the `wall`, the side of the picture in pixels, the time limit, and the random policy.

    `door_share` of the random policy's episodes are made to pass through the door. `group` episodes in a row have the
    same random wall.
    """

    wall: Literal["fixed", "random"] = "fixed"
    size: int = 33
    time_limit: int = 200
    door_share: float = 0.35
    group: int = 1

    def __post_init__(self) -> None:
        if self.wall not in ("fixed", "random"):
            raise ValueError(f"wall is {self.wall!r}; give 'fixed' or 'random'")
        if self.size < 9:
            raise ValueError(f"size is {self.size}; two rooms need a picture of 9 pixels or more, such as 33")
        if self.group < 1:
            raise ValueError(f"group is {self.group}; give 1 episode or more")
        if not 0 <= self.door_share <= 1:
            raise ValueError(f"door_share is {self.door_share}; give a share from 0 to 1")

    def build(self) -> "TwoRooms":
        """The environment with these settings."""
        return TwoRooms(self)


ENVS: Final = {
    "two-rooms": Config(),
    "two-rooms-fixed": Config(wall="fixed"),
    "two-rooms-random": Config(wall="random"),
}
DESCRIPTIONS: Final = {
    "two-rooms": "Two Rooms: a dot, a wall with a door, and a goal in the other room; the wall is fixed",
    "two-rooms-fixed": "Two Rooms with a fixed wall",
    "two-rooms-random": "Two Rooms with another wall and door in every episode",
}


class TwoRooms(Environment):
    """Two Rooms as defined above. A state has `position` (B, 2), as (x, y), and `wall` and `door` (B,), in units.

    A goal is a state with the same layout; `info["blocked"]` says whose move something stopped.
    """

    action = ActionSpec(2, (-MAX_STEP,) * 2, (MAX_STEP,) * 2, names=("x", "y"), max_norm=MAX_STEP)
    channels = 2
    terminates = False
    has_goal = True
    success_radius = SUCCESS_RADIUS
    factors_names = ("position", "wall", "door")
    policies: ClassVar[tuple[str, ...]] = ("random", "uniform", "scripted")

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name = f"two-rooms-{config.wall}"
        self.size = (config.size, config.size)
        self.time_limit = config.time_limit
        # The same dot as at 65 pixels, but never finer than the pixels.
        self.sigma = max(1.3, EXTENT / (config.size - 1))

    def reset(self, ids: Ids, rng: Rng) -> EnvState:
        """A dot anywhere in the two rooms, and each episode's layout."""
        u = torch.from_numpy(uniform_draws(rng.fork("start"), ids, 2))
        wall, door = self._layouts(ids, rng)
        left, right = wall - HALF_WIDTH - GAP - LOW, HIGH - wall - HALF_WIDTH - GAP
        along = u[:, 0] * (left + right)
        x = torch.where(along < left, LOW + along, HIGH - (left + right - along))
        return _state(x, LOW + (HIGH - LOW) * u[:, 1], wall, door)

    def step(self, state: EnvState, action: Float[Tensor, "b a"]) -> Transition:
        """Move every dot, or stop it just before the first thing in its way; there is no reward and no end."""
        position, share = move(state["position"], self.admit(action), state["wall"], state["door"])
        zeros = torch.zeros_like(share)
        return Transition({**state, "position": position}, zeros, zeros.bool(), {"blocked": share < 1})

    def observe(self, state: EnvState) -> Float[Tensor, "b c h w"]:
        """Pictures (B, 2, size, size) in [0, 1]: the dot, and the wall with its border."""
        across, down = self._dot_sides(state["position"])
        return torch.stack([down * across, self._draw_walls(state["wall"], state["door"])], 1)

    def observe_path(self, states: EnvState) -> Float[Tensor, "b c f h w"]:
        """As `observe`; the wall, which stays, is drawn once."""
        position = states["position"]
        shape = (len(position), 2, position.shape[1], *self.size)
        # numpy asks for huge pages, so the first writing of a large batch is several times faster.
        x = (
            torch.from_numpy(np.empty(shape, np.float32))
            if position.device.type == "cpu"
            else position.new_empty(shape)
        )
        # Drawn in place: the dots of many frames are most of the work.
        across, down = self._dot_sides(position)
        torch.mul(down, across, out=x[:, 0])
        x[:, 1] = self._draw_walls(states["wall"][:, 0], states["door"][:, 0])[:, None]
        return x

    def factors(self, state: EnvState) -> dict[str, Float[Tensor, "b _"]]:
        """`position` (B, 2), `wall` and `door` (B, 1), in units."""
        return {"position": state["position"], "wall": state["wall"][:, None], "door": state["door"][:, None]}

    def draw(self, state: EnvState, size: int = 65) -> Float[Tensor, "b 3 h w"]:
        """A red dot among grey walls, on white."""
        shapes = TwoRooms(replace(self.config, size=size)).observe(state)
        return paint([shapes[:, 1], shapes[:, 0]], [(0.4, 0.4, 0.4), (0.8, 0.2, 0.2)])

    def tasks(self, ids: Ids, rng: Rng) -> tuple[EnvState, EnvState]:
        """Start and goal in different rooms, at least 2.6 units from every wall, so never solved at the start."""
        rng = rng.fork("task")
        u = torch.from_numpy(uniform_draws(rng.fork("places"), ids, 5))
        wall, door = self._layouts(ids, rng)
        low, high = LOW + ROOM_MARGIN, HIGH - ROOM_MARGIN
        y = low + (high - low) * u[:, :2]
        left = low + (wall - HALF_WIDTH - ROOM_MARGIN - low) * u[:, 2]
        right = high - (high - wall - HALF_WIDTH - ROOM_MARGIN) * u[:, 3]
        starts_left = u[:, 4] < 0.5
        start = _state(torch.where(starts_left, left, right), y[:, 0], wall, door)
        return start, _state(torch.where(starts_left, right, left), y[:, 1], wall, door)

    def distance(self, state: EnvState, goal: EnvState) -> Float[Tensor, " b"]:
        """The straight distance between the dots, through walls, in units."""
        return _length(state["position"] - goal["position"])

    def way_to_go(self, state: EnvState, goal: EnvState) -> Float[Tensor, " b"]:
        """The length of the shortest path of the dot: straight, or around the corners of the door."""
        return shortest_way(state["position"], goal["position"], state["wall"], state["door"])

    def floor(self, state: EnvState, cells: int) -> Floor:
        """The dot's places in the rooms with the walls of `state`."""
        line = torch.linspace(LOW, HIGH, cells)
        x, y, states = grid_states(state, line, line)
        states["position"] = torch.stack([x, y], 1)
        apart, above = (states["wall"] - x).abs(), (states["door"] - y).abs()
        free = (apart >= HALF_WIDTH + GAP) | (above <= HALF_HEIGHT - GAP)
        return Floor(states, line, line, ("x", "y"), free)

    def start_policy(self, policy: str, ids: Ids, rng: Rng, steps: int, hold: int) -> tuple[EnvState, Policy]:
        """Three policies.

        `random` is a walk whose heading turns slowly, some of them through the door. `uniform` draws each action.
        `scripted` goes to and fro, unsteadily, between the start and the goal of a task.
        """
        count = -(-steps // hold)
        if policy == "random":
            state, actions = self._walks(ids, rng, count, hold)
            return state, lambda n, state: actions[:, n]
        if policy == "scripted":
            return self._shuttle(ids, rng, count)
        return super().start_policy(policy, ids, rng, steps, hold)

    def _layouts(self, ids: Ids, rng: Rng) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Wall and door of every episode."""
        if self.config.wall == "fixed":
            ones = torch.ones(len(ids), dtype=torch.float64)
            return FIXED_WALL * ones, FIXED_DOOR * ones
        u = torch.from_numpy(uniform_draws(rng.fork("layout"), ids // self.config.group, 2))
        return WALLS[0] + (WALLS[1] - WALLS[0]) * u[:, 0], DOORS[0] + (DOORS[1] - DOORS[0]) * u[:, 1]

    def _walks(self, ids: Ids, rng: Rng, actions: int, hold: int) -> tuple[EnvState, Float[Tensor, "b n 2"]]:
        """Starts and actions of the random policy.

        A walk through the door has a point in the door at a random time. It goes on from there as any walk. Before, it
        is walked backward, and where a wall is in its way, it is mirrored so that it is not.
        """
        b = len(ids)
        state = self.reset(ids, rng)
        u = uniform_draws(rng.fork("walk"), ids, 6)
        noise = normal_draws(uniform_draws(rng.fork("turns"), ids, 2 * actions)).numpy()[:, :actions]
        noise[:, 0] = 0
        heading = 2 * np.pi * u[:, :1] + TURN * np.cumsum(noise, 1)
        through = u[:, 1] < self.config.door_share
        crossing = np.minimum((u[:, 2] * (actions + 1)).astype(np.int64), actions)  # the action that leaves the door
        # Through the door, a walk heads for one of the rooms.
        across = np.pi * (u[:, 3] < 0.5) + np.pi / 2 * (u[:, 4] - 0.5)
        there = heading[np.arange(b), np.minimum(crossing, actions - 1)]
        heading += np.where(through, across - there, 0)[:, None]
        length = _lengths(uniform_draws(rng.fork("lengths"), ids, actions))
        moves = torch.from_numpy(np.stack([np.cos(heading), np.sin(heading)], 2)).float() * length[..., None]
        inside = torch.from_numpy(2 * u[:, 5] - 1) * (HALF_HEIGHT - 1)
        point = torch.stack([state["wall"], state["door"] + inside.float()], 1)
        rows = torch.from_numpy(np.flatnonzero(through))
        starts = state["position"].clone()
        layout = state["wall"][rows], state["door"][rows]
        starts[rows], moves[rows] = _walk_back(point[rows], moves[rows], torch.from_numpy(crossing)[rows], hold, layout)
        return {**state, "position": starts}, moves

    def _shuttle(self, ids: Ids, rng: Rng, actions: int) -> tuple[EnvState, Policy]:
        """The starts and the policy `scripted`."""
        start, goal = self.tasks(ids, rng)
        sway = TURN * normal_draws(uniform_draws(rng.fork("turns"), ids, 2 * actions))[:, :actions].float()
        length = _lengths(uniform_draws(rng.fork("lengths"), ids, actions))
        returns = torch.zeros(len(ids), dtype=torch.bool)

        def act(n: int, state: EnvState) -> Tensor:
            position = state["position"]
            for end, leaves in ((goal, True), (start, False)):
                returns[self.is_solved(state, end)] = leaves
            target = torch.where(returns[:, None], start["position"], goal["position"])
            ahead = _next_point(position, target, state["wall"], state["door"]) - position
            along = ahead / _length(ahead).clamp(min=1e-6)[:, None]
            turned = torch.stack([-along[:, 1], along[:, 0]], 1)
            return length[:, n, None] * (along * sway[:, n, None].cos() + turned * sway[:, n, None].sin())

        return start, act

    def _dot_sides(self, position: Float[Tensor, "*b 2"]) -> tuple[Float[Tensor, "*b 1 w"], Float[Tensor, "*b h 1"]]:
        """The two factors of a picture of the dot, across and down."""
        grid = torch.linspace(0, EXTENT, self.size[0], device=position.device)
        sides = torch.exp((grid - position[..., None]).square() * (-0.5 / self.sigma**2))
        return sides[..., 0, None, :], sides[..., 1, :, None]

    def _draw_walls(self, wall: Float[Tensor, " b"], door: Float[Tensor, " b"]) -> Float[Tensor, "b h w"]:
        grid = torch.linspace(0, EXTENT, self.size[0], device=wall.device)
        pixel = EXTENT / (self.size[0] - 1)

        def cover(low: Tensor, high: Tensor) -> Tensor:
            """The share of each pixel, along one axis, that lies between two bounds."""
            ends = torch.minimum(grid + pixel / 2, high[:, None]) - torch.maximum(grid - pixel / 2, low[:, None])
            return (ends / pixel).clamp(0, 1)

        bounds = wall.new_tensor([LOW - HALF_WIDTH, LOW + HALF_WIDTH, HIGH - HALF_WIDTH, HIGH + HALF_WIDTH])
        outside, inside = cover(bounds[:1], bounds[3:])[0], cover(bounds[1:2], bounds[2:3])[0]
        border = outside[:, None] * outside - inside[:, None] * inside
        shut = inside - torch.minimum(cover(door - HALF_HEIGHT, door + HALF_HEIGHT), inside)
        column = cover(wall - HALF_WIDTH, wall + HALF_WIDTH)
        return border + shut[:, :, None] * column[:, None, :]


def move(
    position: Float[Tensor, "*b 2"], action: Float[Tensor, "*b 2"], wall: Float[Tensor, "*b"], door: Float[Tensor, "*b"]
) -> tuple[Float[Tensor, "*b 2"], Float[Tensor, "*b"]]:
    """Where a dot comes to by a displacement shorter than the door, and the share of it that it moved.

    It stops at the border, at a side of the wall, or at an edge of the door, whichever comes first.
    """
    (x, y), (dx, dy) = position.unbind(-1), action.unbind(-1)
    one = torch.ones_like(x)
    share = one
    for start, along in ((x, dx), (y, dy)):
        reached = (torch.where(along > 0, HIGH, LOW) - start) / along
        share = torch.minimum(share, torch.where(along != 0, reached.clamp(min=0), one))
    reach, to_x, to_y = HALF_HEIGHT - GAP, dx.sign(), dy.sign()
    side = wall - to_x * (HALF_WIDTH + GAP)
    # A dot that was put into the gap may leave it, and comes no closer.
    crosses = (to_x * (side - x) >= -GAP - TOLERANCE) & (to_x * (x + dx - side) > 0)
    time = ((side - x) / dx).clamp(min=0)
    meets_wall = crosses & ((y + time * dy - door).abs() >= reach - TOLERANCE)
    share = torch.minimum(share, torch.where(meets_wall, time, one))
    edge = door + to_y * reach
    crosses = ((y - door).abs() <= HALF_HEIGHT + TOLERANCE) & (to_y * (y + dy - edge) > 0)
    time = ((edge - y) / dy).clamp(min=0)
    meets_edge = crosses & ((x + time * dx - wall).abs() < HALF_WIDTH + GAP)
    share = torch.minimum(share, torch.where(meets_edge, time, one))
    return (position + share[..., None] * action).clamp(LOW, HIGH), share


def shortest_way(
    start: Float[Tensor, "b 2"], goal: Float[Tensor, "b 2"], wall: Float[Tensor, " b"], door: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """The length of the shortest path between free points: a polygon through no, one or two corners of the door."""
    swap = (start[:, 0] > goal[:, 0])[:, None]
    a, b = torch.where(swap, goal, start), torch.where(swap, start, goal)
    # The path crosses the two sides of the wall, or starts or ends between them.
    first = torch.minimum(torch.maximum(wall - HALF_WIDTH, a[:, 0]), b[:, 0])
    last = torch.maximum(torch.minimum(wall + HALF_WIDTH, b[:, 0]), a[:, 0])

    def is_open(p: Tensor, q: Tensor, x: Tensor) -> Tensor:
        """Whether the line from p to q is in the door where it crosses x."""
        slope = (q[:, 1] - p[:, 1]) / (q[:, 0] - p[:, 0]).clamp(min=1e-9)
        return (p[:, 1] + slope * (x - p[:, 0]) - door).abs() <= HALF_HEIGHT

    same_room = (b[:, 0] <= wall - HALF_WIDTH) | (a[:, 0] >= wall + HALF_WIDTH)
    straight = same_room | (is_open(a, b, first) & is_open(a, b, last))
    ways = [torch.where(straight, _length(b - a), torch.inf)]
    edges = [door - HALF_HEIGHT, door + HALF_HEIGHT]
    for p in (torch.stack([first, edge], 1) for edge in edges):
        ways.append(torch.where(is_open(p, b, last), _length(p - a) + _length(b - p), torch.inf))
        ways += [_length(p - a) + _length(q - p) + _length(b - q) for q in (torch.stack([last, e], 1) for e in edges)]
    for q in (torch.stack([last, edge], 1) for edge in edges):
        ways.append(torch.where(is_open(a, q, first), _length(q - a) + _length(b - q), torch.inf))
    return torch.stack(ways).amin(0)


def _next_point(
    position: Float[Tensor, "b 2"], target: Float[Tensor, "b 2"], wall: Float[Tensor, " b"], door: Float[Tensor, " b"]
) -> Float[Tensor, "b 2"]:
    """Where to head for: the target, or a point in front of the door, and from there one behind it."""
    (x, y), in_front = position.unbind(1), 1.5 * HALF_WIDTH + 1
    side, beyond = (torch.where(place < wall, -1.0, 1.0) for place in (x, target[:, 0]))
    at_door = ((y - door).abs() < HALF_HEIGHT - 1) & ((x - wall).abs() < in_front + 1.5)
    via = torch.stack([wall + torch.where(at_door, beyond, side) * in_front, door], 1)
    same_room = (side == beyond) & ((x - wall).abs() > HALF_WIDTH + GAP / 2)
    return torch.where(same_room[:, None], target, via)


def _walk_back(
    point: Float[Tensor, "b 2"],
    moves: Float[Tensor, "b n 2"],
    count: Int64[Tensor, " b"],
    hold: int,
    layout: tuple[Float[Tensor, " b"], Float[Tensor, " b"]],
) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b n 2"]]:
    """Starts from which the first `count` moves, each made `hold` times, lead to `point`; and the moves, mirrored."""
    wall, door = (value[:, None].expand(-1, 4) for value in layout)
    mirrors = point.new_tensor([[1, 1], [-1, 1], [1, -1], [-1, -1]])
    preference = torch.tensor([4, 3, 2, 1])
    rows = torch.arange(len(point))
    mirror = torch.ones_like(point)
    moves = moves.clone()
    for n in reversed(range(int(count.max()) if len(count) else 0)):
        tried = mirror[:, None] * mirrors * moves[:, n, None]
        places, free = point[:, None].expand(-1, 4, -1), torch.ones(len(point), 4, dtype=torch.bool)
        for _ in range(hold):
            places, share = move(places, -tried, wall, door)
            free = free & (share == 1)
        choice = torch.where(free.any(1), (free * preference).argmax(1), 0)
        place = places[rows, choice]
        # In the door there may be no way: then the move is as long as there is room.
        made = torch.where(free.any(1)[:, None], tried[rows, choice], (point - place) / hold)
        before = (n < count)[:, None]
        moves[:, n] = torch.where(before, made, moves[:, n])
        point = torch.where(before, place, point)
        mirror = torch.where(before, mirror * mirrors[choice], mirror)
    return point, moves


def _lengths(u: Float[np.ndarray, "b n"]) -> Float[Tensor, "b n"]:
    """Lengths of actions from uniform numbers: the normal distribution's quantiles between its two bounds."""
    bounds = torch.tensor([MIN_LENGTH, MAX_STEP], dtype=torch.float64)
    low, high = torch.special.ndtr((bounds - LENGTH_MEAN) / LENGTH_STD).tolist()
    quantile = torch.special.ndtri(torch.from_numpy(low + (high - low) * u))
    lengths: Tensor = LENGTH_MEAN + LENGTH_STD * quantile
    return lengths.clamp(MIN_LENGTH, MAX_STEP).float()


def _state(x: Tensor, y: Tensor, wall: Tensor, door: Tensor) -> EnvState:
    return {"position": torch.stack([x, y], 1).float(), "wall": wall.float(), "door": door.float()}


def _length(vector: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
    x, y = vector.unbind(-1)
    return (x * x + y * y).sqrt()
