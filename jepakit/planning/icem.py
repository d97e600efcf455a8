"""CEM for control loops: noise that is smooth in time, elites that are kept, and fewer samples in later iterations."""

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
class ICEM:
    """As `CEM`; `samples` is the first iteration's number, and each later one has `shrink` times fewer.

    `kept` is the share of the elites that compete again in the next iteration, `momentum` that of the old Gaussian in
    the new one.
    """

    samples: int = 64
    iterations: int = 4
    elites: int = 8
    std: float = 0.5
    floor: float = 0.05
    beta: float = 2.0
    kept: float = 0.3
    shrink: float = 1.25
    momentum: float = 0.1

    def __post_init__(self) -> None:
        check_counts("icem", samples=self.samples, iterations=self.iterations, elites=self.elites)
        check_elites("icem", self.elites, self.samples)
        if self.shrink < 1 or not 0 <= self.kept <= 1 or not 0 <= self.momentum < 1:
            raise ValueError(
                f"shrink is {self.shrink}, kept {self.kept} and momentum {self.momentum} of the planner icem; "
                "give shrink of 1 or more, kept from 0 to 1, and momentum from 0 to below 1"
            )

    def samples_at(self, iteration: int) -> int:
        """The samples of an iteration: at least twice the elites, unless the first had fewer."""
        return min(self.samples, max(2 * self.elites, int(self.samples * self.shrink**-iteration)))

    def __call__(self, cost: Cost, start: Plan, spec: ActionSpec, rng: Rng) -> Plan:
        """The plan found with these knobs; see `icem`."""
        return icem(cost, start, spec, knobs=self, rng=rng)


@torch.no_grad()
def icem(cost: Cost, start: Plan, spec: ActionSpec, *, knobs: ICEM, rng: Rng) -> Plan:
    """The plan that iCEM finds: as `cem`, with the three changes above.

    Deliberate differences from the paper: kept elites bring their cost along and are not evaluated again; from one plan
    to the next the shifted best actions are kept, not all elites; the mean competes in every iteration, not only in
    the last. Raises ValueError for discrete actions. Source: Pinneri et al., arXiv:2008.06389.
    """
    check_space("icem", spec, discrete=False)
    draws, unit, mean = EpisodeDraws(rng, len(start)), reach(start, spec), project(start.mean, spec)
    std = knobs.std * unit if start.std is None else start.std
    best = Incumbent.of(mean)
    kept_actions, kept_costs = mean[:, None][:, :0], mean.new_empty(len(start), 0)
    for iteration in range(knobs.iterations):
        actions = sample_actions(mean, std, knobs.samples_at(iteration), spec, draws, knobs.beta)
        if iteration == 0 and actions.shape[1] > 1:
            actions[:, 1] = project(start.best, spec)
        costs = evaluate_cost(cost, actions)
        best = best.update(actions, costs)
        actions, costs = torch.cat([actions, kept_actions], 1), torch.cat([costs, kept_costs], 1)
        elites = take_elites(actions, costs, knobs.elites)
        count = round(knobs.kept * knobs.elites)
        kept_actions, kept_costs = elites.actions[:, :count], elites.costs[:, :count]
        fitted = weighted_moments(elites.actions, elites.costs.isfinite().to(mean), mean, std, knobs.floor * unit)
        mean, std = (new.lerp(old, knobs.momentum) for new, old in zip(fitted, (mean, std), strict=True))
    return best.plan(project(mean, spec), std)
