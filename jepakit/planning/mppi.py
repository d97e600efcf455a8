"""Model-predictive path integral control: samples are averaged, the cheap ones with more weight."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.actions import project
from ..types import ActionSpec, Rng
from .plan import Cost, Plan, check_counts, check_elites, check_space
from .search import (
    EpisodeDraws,
    Incumbent,
    evaluate_cost,
    reach,
    sample_actions,
    take_elites,
    weighted_moments,
)


@dataclass(frozen=True)
class MPPI:
    """`samples` per iteration; the `elites` among them are averaged, all samples where `elites` is 0.

    `temperature` is in units of the standard deviation of the costs that are averaged, so that it needs no tuning to
    the scale of an energy: the smaller, the more the cheapest counts. `std`, `floor` and `beta` as in `CEM`.
    """

    samples: int = 128
    iterations: int = 6
    elites: int = 16
    temperature: float = 0.3
    std: float = 0.5
    floor: float = 0.05
    beta: float = 0.0

    def __post_init__(self) -> None:
        check_counts("mppi", samples=self.samples, iterations=self.iterations)
        check_elites("mppi", self.elites, self.samples)
        if self.temperature <= 0 or self.elites < 0:
            raise ValueError(
                f"temperature is {self.temperature} and elites {self.elites} of the planner mppi; "
                "give a temperature above 0, and a number of elites or 0 for all samples"
            )

    def __call__(self, cost: Cost, start: Plan, spec: ActionSpec, rng: Rng) -> Plan:
        """The plan found with these knobs; see `mppi`."""
        return mppi(cost, start, spec, knobs=self, rng=rng)


@torch.no_grad()
def mppi(cost: Cost, start: Plan, spec: ActionSpec, *, knobs: MPPI, rng: Rng) -> Plan:
    """The plan that MPPI finds, with weights exp(−(E − min E) / (temperature · spread of E)).

    Samples obey the bounds before they are weighed, so their average does. The mean is among them. As in TD-MPC, the
    standard deviation follows the weights; there is no control cost (add `action_cost`). Raises ValueError for discrete
    actions. Source: Williams et al., ICRA 2017; elites and deviation: TD-MPC, arXiv:2203.04955.
    """
    check_space("mppi", spec, discrete=False)
    draws, unit, mean = EpisodeDraws(rng, len(start)), reach(start, spec), project(start.mean, spec)
    std = knobs.std * unit if start.std is None else start.std
    best = Incumbent.of(mean)
    for _ in range(knobs.iterations):
        actions = sample_actions(mean, std, knobs.samples, spec, draws, knobs.beta)
        costs = evaluate_cost(cost, actions)
        best = best.update(actions, costs)
        elites = take_elites(actions, costs, knobs.elites or knobs.samples)
        weights = path_weights(elites.costs, knobs.temperature)
        mean, std = weighted_moments(elites.actions, weights, mean, std, knobs.floor * unit)
    return best.plan(project(mean, spec), std)


def path_weights(costs: Float[Tensor, "b k"], temperature: float) -> Float[Tensor, "b k"]:
    """Weights that sum to 1, equal where costs are; 0 where a cost is infinite, all 0 where all are."""
    known = costs.isfinite()
    count = known.sum(1, keepdim=True).clamp_min(1)
    finite = costs.where(known, 0.0)
    mean = finite.sum(1, keepdim=True) / count
    spread = ((finite - mean).square().where(known, 0.0).sum(1, keepdim=True) / count).sqrt()
    above = (finite - costs.amin(1, keepdim=True)).where(known, 0.0)
    weights = (-above / (temperature * spread).clamp_min(torch.finfo(costs.dtype).tiny)).exp().where(known, 0.0)
    return weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(costs.dtype).tiny)
