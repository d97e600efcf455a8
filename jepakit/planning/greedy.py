"""One step of look-ahead: of a fixed set of actions, the one after which the energy is lowest."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.actions import project
from ..types import ActionSpec, Rng
from .plan import Cost, Plan, action_scale, check_counts
from .search import Incumbent, evaluate_cost


@dataclass(frozen=True)
class Greedy:
    """All choices; of numbers, none and `directions` directions at full and at half reach. A block holds one action.

    In one and two dimensions the directions are even, in more they are both ways of every axis and random others.
    """

    directions: int = 16

    def __post_init__(self) -> None:
        check_counts("greedy", directions=self.directions)

    def __call__(self, cost: Cost, start: Plan, spec: ActionSpec, rng: Rng) -> Plan:
        """The plan of one step; see `greedy`."""
        return greedy(cost, start, spec, knobs=self, rng=rng)


@torch.no_grad()
def greedy(cost: Cost, start: Plan, spec: ActionSpec, *, knobs: Greedy, rng: Rng) -> Plan:
    """The best first action, as a plan with a horizon of one step, whatever that of the start. It draws nothing.

    It tells what an energy is worth: with an energy that decreases along the way to the goal, and never elsewhere,
    greedy steps arrive. The article that the package follows plans like this, and stops at walls.
    """
    actions = look_ahead_actions(spec, knobs.directions).to(start.mean)[None, :, None].expand(len(start), -1, 1, -1)
    best = Incumbent.of(project(start.mean[:, :1], spec)).update(actions, evaluate_cost(cost, actions))
    return best.plan(probabilities=best.actions if spec.discrete else None)


def look_ahead_actions(spec: ActionSpec, directions: int) -> Float[Tensor, "k a"]:
    """The candidates of `greedy`, allowed and without an order that matters."""
    if spec.discrete:
        return torch.eye(spec.size)
    size = spec.size // spec.parts
    unit = _directions(size, directions)
    unit = torch.cat([torch.zeros(1, size), unit, unit / 2])
    low, high = (torch.tensor(side or (math.inf,) * spec.size)[:size] for side in (spec.low, spec.high))
    middle = ((low + high) / 2).where((high - low).isfinite(), 0.0)
    single = middle + unit * torch.tensor(action_scale(spec))[:size]
    return project(single.repeat(1, spec.parts), spec)


def _directions(size: int, count: int) -> Float[Tensor, "k a"]:
    if size == 1:
        return torch.tensor([[-1.0], [1.0]])
    if size == 2:
        angle = torch.arange(count) * (2 * math.pi / count)
        return torch.stack([angle.cos(), angle.sin()], 1)
    axes = torch.cat([torch.eye(size), -torch.eye(size)])
    others = torch.randn(max(count - len(axes), 0), size, generator=torch.Generator().manual_seed(0))
    return torch.cat([axes, others / others.norm(dim=1, keepdim=True)])
