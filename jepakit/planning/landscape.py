"""Energies to be looked at: over two numbers of a plan, and over the places of a floor with the ways down from them."""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ..core.actions import project
from ..envs import Environment, EnvState, Floor
from ..types import ActionSpec
from .plan import Cost, Plan, action_scale

Axis = tuple[int, int]
"""A step of a plan, and a number of its action."""

NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)
DETOUR = 1.001
"""A way that is at most so many times longer than the straight line counts as straight."""


@torch.no_grad()
def energy_map(
    cost: Cost, plan: Plan, spec: ActionSpec, axes: tuple[Axis, Axis] = ((0, 0), (0, 1)), points: int = 41
) -> tuple[Float[Tensor, " x"], Float[Tensor, " y"], Float[Tensor, "b y x"]]:
    """The values of two numbers of a plan, x and y, over their range, and the energy where all else stays.

    Values are in the units of the action; the energy is NaN outside what is allowed. In a block, a number is varied in
    each of its parts alike. Raises ValueError if the plan has no two such numbers.
    """
    size = spec.size // spec.parts
    held = all(0 <= step < plan.horizon and 0 <= number < size for step, number in axes)
    if spec.discrete or axes[0] == axes[1] or not held:
        raise ValueError(
            f"axes are {axes} of a plan of {plan.horizon} steps and {size} numbers; give two different pairs (step, "
            "number) within the plan, of continuous actions"
        )
    lines = [axis_values(spec, number, points) for _, number in axes]
    y, x = torch.meshgrid(lines[1], lines[0], indexing="ij")
    actions = plan.mean[:, None].repeat(1, points * points, 1, 1)
    parts = actions.view(*actions.shape[:3], spec.parts, size)
    for (step, number), values in zip(axes, (x, y), strict=True):
        parts[:, :, step, :, number] = values.reshape(1, -1, 1).to(actions)
    allowed = (project(actions, spec) - actions).abs().amax((2, 3)) < 1e-5
    energy = cost(actions).where(allowed, math.nan).reshape(len(plan), points, points)
    return lines[0], lines[1], energy.cpu()


def axis_values(spec: ActionSpec, number: int, points: int) -> Float[Tensor, " p"]:
    """The values of one number of an action, evenly over its range."""
    low, high = (side[number] if side else math.inf for side in (spec.low, spec.high))
    middle = (low + high) / 2 if math.isfinite(high - low) else 0.0
    return middle + action_scale(spec)[number] * torch.linspace(-1, 1, points)


def open_moves(env: Environment, floor: Floor) -> Bool[Tensor, "8 y x"]:
    """Whether a straight way leads from each place to its neighbour in each of the directions `NEIGHBOURS`.

    The environment has goals, so that it knows the way from one place to another.
    """
    shape = (len(floor.y), len(floor.x))
    number = torch.arange(shape[0] * shape[1]).reshape(shape)
    found = []
    for direction in NEIGHBOURS:
        there = _neighbours(number, direction, -1)
        here, other = number[there >= 0], there[there >= 0]
        a, b = ({name: value[rows] for name, value in floor.states.items()} for rows in (here, other))
        straight = env.way_to_go(a, b) <= DETOUR * env.distance(a, b)
        is_open = torch.zeros(shape, dtype=torch.bool)
        is_open[there >= 0] = straight & floor.free[here] & floor.free[other]
        found.append(is_open)
    return torch.stack(found)


def downhill(energy: Float[Tensor, "y x"], moves: Bool[Tensor, "8 y x"]) -> Int64[Tensor, "y x"]:
    """The number of the place that the steepest way down leads to from each place; its own where none leads down.

    Places are numbered row by row, and steepness is by distance on the grid.
    """
    number = torch.arange(energy.numel()).reshape(energy.shape)
    best, leads = torch.zeros_like(energy), number.clone()
    for direction, is_open in zip(NEIGHBOURS, moves, strict=True):
        fall = (energy - _neighbours(energy, direction, math.inf)) / math.hypot(*direction)
        better = is_open & (fall > best)
        best, leads = best.where(~better, fall), leads.where(~better, _neighbours(number, direction, -1))
    return leads


def descent_ends(leads: Int64[Tensor, "y x"]) -> Int64[Tensor, " r"]:
    """The number of the place where the way down from each place ends, by place."""
    end = leads.flatten()
    while not torch.equal(after := end[end], end):
        end = after
    return end


def arrives(env: Environment, floor: Floor, leads: Int64[Tensor, "y x"], goal: EnvState) -> Bool[Tensor, "y x"]:
    """Whether the way down from each place ends at the goal (a batch of one)."""
    end = descent_ends(leads)
    states = {name: value[end] for name, value in floor.states.items()}
    wanted = {name: value.expand(len(end), *value.shape[1:]) for name, value in goal.items()}
    return (env.is_solved(states, wanted) & floor.free).reshape(leads.shape)


def _neighbours(values: Tensor, direction: tuple[int, int], outside: int | float) -> Tensor:
    """What the neighbour of each place in a direction has."""
    dy, dx = direction
    height, width = values.shape
    around = F.pad(values, (1, 1, 1, 1), value=outside)
    return around[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
