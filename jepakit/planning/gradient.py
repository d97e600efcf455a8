"""Planning by gradients: Adam on the actions, through the model, from several starts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.actions import project
from ..types import ActionSpec, Rng
from .plan import Cost, Plan, check_counts, check_space
from .search import EpisodeDraws, Incumbent, evaluate_cost, reach, sample_actions

BETAS: Final = (0.9, 0.999)
EPS: Final = 1e-8


@dataclass(frozen=True)
class Gradient:
    """`iterations` steps of Adam from each of `starts` points: the start itself, and others around it.

    `lr` is the size of a step and `std` the spread of the other starts, as a share of each number's reach. `beta` as in
    `CEM`.
    """

    starts: int = 8
    iterations: int = 30
    lr: float = 0.1
    std: float = 0.5
    beta: float = 0.0

    def __post_init__(self) -> None:
        check_counts("gradient", starts=self.starts, iterations=self.iterations)

    def __call__(self, cost: Cost, start: Plan, spec: ActionSpec, rng: Rng) -> Plan:
        """The plan found with these knobs; see `gradient`."""
        return gradient(cost, start, spec, knobs=self, rng=rng)


def gradient(cost: Cost, start: Plan, spec: ActionSpec, *, knobs: Gradient, rng: Rng) -> Plan:
    """The cheapest actions on the way of Adam from every start, projected after each step.

    What the search starts from is an argument: `start_plan` begins at zeros or at the proposal of an actor, `shift` at
    the last plan. `Plan.energy` has a row for the starts and one per step. Raises ValueError for discrete actions, or
    if the cost has no gradient.
    """
    check_space("gradient", spec, discrete=False)
    mean, unit = project(start.mean, spec), reach(start, spec)
    std = knobs.std * unit if start.std is None else start.std
    actions = sample_actions(mean, std, knobs.starts, spec, EpisodeDraws(rng, len(start)), knobs.beta)
    best = Incumbent.of(mean)
    for point in descend(cost, actions, spec, knobs.iterations, knobs.lr * unit[:, None]):
        best = best.update(*point)
    return best.plan()


def descend(
    cost: Cost, actions: Float[Tensor, "b s h a"], spec: ActionSpec, steps: int, lr: Float[Tensor, "b #s h a"]
) -> Iterator[tuple[Float[Tensor, "b s h a"], Float[Tensor, "b s"]]]:
    """Yield the actions and their costs (B, S) before the first step of Adam and after each; samples never mix.

    A gradient that is no finite number moves nothing. Raises ValueError if the cost has no gradient.
    """
    first, second = torch.zeros_like(actions), torch.zeros_like(actions)
    for step in range(1, steps + 1):
        costs, slope = _slope(cost, actions)
        yield actions, costs
        first, second = first.lerp(slope, 1 - BETAS[0]), second.lerp(slope.square(), 1 - BETAS[1])
        size = (second / (1 - BETAS[1] ** step)).sqrt() + EPS
        actions = project(actions - lr * (first / (1 - BETAS[0] ** step)) / size, spec)
    with torch.no_grad():
        yield actions, evaluate_cost(cost, actions)


def _slope(cost: Cost, actions: Float[Tensor, "b s h a"]) -> tuple[Float[Tensor, "b s"], Float[Tensor, "b s h a"]]:
    with torch.enable_grad():
        leaf = actions.detach().requires_grad_()
        costs = evaluate_cost(cost, leaf)
        if not costs.requires_grad:
            raise ValueError(
                "the cost has no gradient with respect to actions; use a planner that samples, such as cem"
            )
        (slope,) = torch.autograd.grad(costs.where(costs.isfinite(), 0.0).sum(), leaf)
    return costs.detach(), slope.nan_to_num(0.0, 0.0, 0.0)
