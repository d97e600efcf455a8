"""CEM whose elites descend the gradient before they are fitted: sampling finds the valley, gradients its floor."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.actions import project
from ..types import ActionSpec, Rng
from .gradient import descend
from .plan import Cost, Plan, check_counts, check_elites, check_space
from .search import (
    Elites,
    EpisodeDraws,
    Incumbent,
    evaluate_cost,
    reach,
    sample_actions,
    take_elites,
    weighted_moments,
)


@dataclass(frozen=True)
class RefinedCEM:
    """As `CEM`; the elites of each iteration then take `steps` steps of Adam with step size `lr`, as in `Gradient`."""

    samples: int = 48
    iterations: int = 3
    elites: int = 8
    steps: int = 4
    lr: float = 0.1
    std: float = 0.5
    floor: float = 0.05
    beta: float = 0.0

    def __post_init__(self) -> None:
        counts = {"samples": self.samples, "iterations": self.iterations, "elites": self.elites, "steps": self.steps}
        check_counts("cem-gradient", **counts)
        check_elites("cem-gradient", self.elites, self.samples)

    def __call__(self, cost: Cost, start: Plan, spec: ActionSpec, rng: Rng) -> Plan:
        """The plan found with these knobs; see `refined_cem`."""
        return refined_cem(cost, start, spec, knobs=self, rng=rng)


PLANNERS = {"cem-gradient": RefinedCEM()}


@torch.no_grad()
def refined_cem(cost: Cost, start: Plan, spec: ActionSpec, *, knobs: RefinedCEM, rng: Rng) -> Plan:
    """The plan that CEM finds when its elites are refined by gradients, which never makes one of them worse.

    Raises ValueError for discrete actions, or if the cost has no gradient. Source: Bharadhwaj, Xie & Shkurti, L4DC
    2020, arXiv:2003.10768, who refine every sample and not the elites alone.
    """
    check_space("cem-gradient", spec, discrete=False)
    draws, unit, mean = EpisodeDraws(rng, len(start)), reach(start, spec), project(start.mean, spec)
    std = knobs.std * unit if start.std is None else start.std
    best = Incumbent.of(mean)
    for _ in range(knobs.iterations):
        actions = sample_actions(mean, std, knobs.samples, spec, draws, knobs.beta)
        elites = take_elites(actions, evaluate_cost(cost, actions), knobs.elites)
        elites = _refine(cost, elites, spec, knobs.steps, knobs.lr * unit[:, None])
        best = best.update(elites.actions, elites.costs)
        mean, std = weighted_moments(elites.actions, elites.costs.isfinite().to(mean), mean, std, knobs.floor * unit)
    return best.plan(project(mean, spec), std)


def _refine(cost: Cost, elites: Elites, spec: ActionSpec, steps: int, lr: Float[Tensor, "b 1 h a"]) -> Elites:
    """The cheapest actions on the way down from each elite."""
    for actions, costs in descend(cost, elites.actions, spec, steps, lr):
        better = costs < elites.costs
        elites = Elites(
            torch.where(better[:, :, None, None], actions, elites.actions), torch.where(better, costs, elites.costs)
        )
    return elites
