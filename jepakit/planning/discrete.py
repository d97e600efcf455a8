"""Planning with choices: CEM with probabilities in place of a Gaussian, and beam search."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..core.actions import project
from ..types import ActionSpec, Rng
from .plan import Cost, Plan, check_counts, check_elites, check_space
from .search import EpisodeDraws, Incumbent, evaluate_cost, take_elites, weighted_mean


@dataclass(frozen=True)
class CategoricalCEM:
    """`samples` per iteration, whose `elites` make the next probabilities.

    `doubt` is the share of equal choices that is mixed into the start, and `floor` into every later iteration.
    """

    samples: int = 64
    iterations: int = 4
    elites: int = 8
    doubt: float = 0.5
    floor: float = 0.05

    def __post_init__(self) -> None:
        check_counts("discrete", samples=self.samples, iterations=self.iterations, elites=self.elites)
        check_elites("discrete", self.elites, self.samples)
        if not 0 <= self.doubt <= 1 or not 0 <= self.floor <= 1:
            raise ValueError(f"doubt is {self.doubt} and floor {self.floor} of the planner discrete; give 0 to 1")

    def __call__(self, cost: Cost, start: Plan, spec: ActionSpec, rng: Rng) -> Plan:
        """The plan found with these knobs; see `categorical_cem`."""
        return categorical_cem(cost, start, spec, knobs=self, rng=rng)


@dataclass(frozen=True)
class BeamSearch:
    """The `width` cheapest beginnings are extended, step by step. Exact if `width` ≥ choices^(horizon − 1)."""

    width: int = 32

    def __post_init__(self) -> None:
        check_counts("beam", width=self.width)

    def __call__(self, cost: Cost, start: Plan, spec: ActionSpec, rng: Rng) -> Plan:
        """The plan found with these knobs; see `beam_search`."""
        return beam_search(cost, start, spec, knobs=self, rng=rng)


PLANNERS = {"discrete": CategoricalCEM(), "beam": BeamSearch()}


@torch.no_grad()
def categorical_cem(cost: Cost, start: Plan, spec: ActionSpec, *, knobs: CategoricalCEM, rng: Rng) -> Plan:
    """The plan that the cross-entropy method finds among sequences of choices; its mean is the most likely sequence.

    The most likely sequence is always among the samples. Raises ValueError for actions that are not discrete.
    """
    check_space("discrete", spec, discrete=True)
    draws = EpisodeDraws(rng, len(start))
    known = start.probabilities
    chances = _mix_with_equal(torch.zeros_like(start.mean) + 1 / spec.size if known is None else known, knobs.doubt)
    best = Incumbent.of(project(start.mean, spec))
    for _ in range(knobs.iterations):
        draw = draws.uniform(knobs.samples, start.horizon, 1).to(chances.device)
        # A rounded sum may end below 1, and a draw above it is of the last choice.
        choice = (draw > chances.cumsum(2)[:, None]).sum(3).clamp_max(spec.size - 1)
        actions = F.one_hot(choice, spec.size).to(chances.dtype)
        actions[:, 0] = project(chances, spec)
        costs = evaluate_cost(cost, actions)
        best = best.update(actions, costs)
        elites = take_elites(actions, costs, knobs.elites)
        likely = weighted_mean(elites.actions, elites.costs.isfinite().to(chances), chances)
        chances = _mix_with_equal(likely, knobs.floor)
    return best.plan(project(chances, spec), probabilities=chances)


@torch.no_grad()
def beam_search(cost: Cost, start: Plan, spec: ActionSpec, *, knobs: BeamSearch, rng: Rng) -> Plan:
    """The cheapest sequence of choices that beam search finds. It draws nothing, and the start gives the horizon alone.

    The cost is asked for beginnings of every length, so it has to mean something for them: energies summed over the
    path do. `Plan.energy` has one row, for whole sequences. Raises ValueError for actions that are not discrete.
    """
    check_space("beam", spec, discrete=True)
    choices = torch.eye(spec.size, dtype=start.mean.dtype, device=start.mean.device)
    beams = start.mean[:, None, :0]
    costs = start.mean.new_zeros(len(start), 1)
    for _ in range(start.horizon):
        beginnings = beams[:, :, None].expand(-1, -1, spec.size, -1, -1)
        last = choices[None, None, :, None].expand(*beginnings.shape[:3], 1, -1)
        actions = torch.cat([beginnings, last], 3).flatten(1, 2)
        beams, costs = take_elites(actions, evaluate_cost(cost, actions), knobs.width)
    best = Incumbent.of(project(start.mean, spec)).update(beams, costs)
    return best.plan(probabilities=best.actions)


def _mix_with_equal(chances: Float[Tensor, "b h a"], share: float) -> Float[Tensor, "b h a"]:
    """The probabilities with a share of equal ones mixed in."""
    return (1 - share) * chances + share / chances.shape[2]
