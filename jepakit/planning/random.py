"""Random shooting: draw actions, take the cheapest. The floor of every search, and hard to beat in few steps."""

from dataclasses import dataclass

import torch

from ..core.actions import project
from ..envs import random_actions
from ..types import ActionSpec, Rng
from .plan import Cost, Plan, check_counts, check_space, single_action
from .search import Incumbent, evaluate_cost, global_rows


@dataclass(frozen=True)
class RandomShooting:
    """`samples` in each of `iterations`, which bound the memory and do not learn from each other."""

    samples: int = 256
    iterations: int = 1

    def __post_init__(self) -> None:
        check_counts("random", samples=self.samples, iterations=self.iterations)

    def __call__(self, cost: Cost, start: Plan, spec: ActionSpec, rng: Rng) -> Plan:
        """The plan found with these knobs; see `random_shooting`."""
        return random_shooting(cost, start, spec, knobs=self, rng=rng)


@torch.no_grad()
def random_shooting(cost: Cost, start: Plan, spec: ActionSpec, *, knobs: RandomShooting, rng: Rng) -> Plan:
    """The cheapest of actions that are all alike likely, standard normal ones where nothing bounds a number.

    The start is the first of them. Raises ValueError for discrete actions.
    """
    check_space("random", spec, discrete=False)
    rows, single, mean = global_rows(rng, len(start)), single_action(spec), project(start.mean, spec)
    best = Incumbent.of(mean)
    for i in range(knobs.iterations):
        drawn = random_actions(single, rows, rng.fork("shoot", i), knobs.samples * start.horizon * spec.parts)
        actions = project(drawn.to(mean).reshape(len(mean), knobs.samples, *mean.shape[1:]), spec)
        actions[:, 0] = mean
        best = best.update(actions, evaluate_cost(cost, actions))
    return best.plan()
