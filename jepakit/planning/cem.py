"""The cross-entropy method: sample, keep the best, fit a Gaussian to them, repeat."""

from dataclasses import dataclass

import torch

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
class CEM:
    """`samples` per iteration, of which the `elites` make the next Gaussian.

    `std` is that of the first samples and `floor` the least, both as a share of each number's reach (half its range).
    `beta` > 0 makes samples smooth in time: the exponent of their power spectrum.
    """

    samples: int = 64
    iterations: int = 4
    elites: int = 8
    std: float = 0.5
    floor: float = 0.05
    beta: float = 0.0

    def __post_init__(self) -> None:
        check_counts("cem", samples=self.samples, iterations=self.iterations, elites=self.elites)
        check_elites("cem", self.elites, self.samples)

    def __call__(self, cost: Cost, start: Plan, spec: ActionSpec, rng: Rng) -> Plan:
        """The plan found with these knobs; see `cem`."""
        return cem(cost, start, spec, knobs=self, rng=rng)


@torch.no_grad()
def cem(cost: Cost, start: Plan, spec: ActionSpec, *, knobs: CEM, rng: Rng) -> Plan:
    """The plan that the cross-entropy method finds.

    The mean is always among the samples, so a good start is never lost. The standard deviation is the population's
    (one elite gives the floor). Samples whose cost is no finite number are never elites; an episode without finite
    costs keeps its mean. Raises ValueError for discrete actions.
    Source: Rubinstein & Kroese, The Cross-Entropy Method, 2004.
    """
    check_space("cem", spec, discrete=False)
    draws, unit, mean = EpisodeDraws(rng, len(start)), reach(start, spec), project(start.mean, spec)
    std = knobs.std * unit if start.std is None else start.std
    best = Incumbent.of(mean)
    for _ in range(knobs.iterations):
        actions = sample_actions(mean, std, knobs.samples, spec, draws, knobs.beta)
        costs = evaluate_cost(cost, actions)
        best = best.update(actions, costs)
        elites = take_elites(actions, costs, knobs.elites)
        mean, std = weighted_moments(elites.actions, elites.costs.isfinite().to(mean), mean, std, knobs.floor * unit)
    return best.plan(project(mean, spec), std)
