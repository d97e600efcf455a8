"""Random shooting: draw actions, take the cheapest. The floor of every search, and hard to beat in few steps."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..types import ActionSpec, Rng
from .plan import Cost, Plan, check_counts, check_space, project
from .search import EpisodeDraws, Incumbent, evaluate_cost, reach


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
    """The cheapest of actions drawn evenly from their range; normally around zero where nothing bounds a number.

    The start is the first of them. Raises ValueError for discrete actions.
    """
    check_space("random", spec, discrete=False)
    draws, mean = EpisodeDraws(rng, len(start)), project(start.mean, spec)
    best = Incumbent.of(mean)
    for _ in range(knobs.iterations):
        actions = _spread_actions(mean, knobs.samples, spec, draws, reach(start, spec))
        actions[:, 0] = mean
        best = best.update(actions, evaluate_cost(cost, actions))
    return best.plan()


def _spread_actions(
    mean: Tensor, samples: int, spec: ActionSpec, draws: EpisodeDraws, unit: Float[Tensor, "b h a"]
) -> Float[Tensor, "b s h a"]:
    low, high = (mean.new_tensor(side or (torch.inf,) * spec.size) for side in (spec.low, spec.high))
    bounded = (high - low).isfinite()
    even = low + (high - low) * draws.uniform(samples, *mean.shape[1:]).to(mean.device)
    normal = unit[:, None] * draws.normal(samples, *mean.shape[1:]).to(mean.device)
    return project(torch.where(bounded, even, normal), spec)
