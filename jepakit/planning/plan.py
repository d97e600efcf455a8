"""A plan and its form: where a search starts, what it finds, and how actions are kept within their bounds."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..core.actions import project
from ..types import ActionSpec, Device, Rng

Cost = Callable[[Tensor], Tensor]
"""Actions (B, S, H, A), S samples for each of B episodes, to what they cost (B, S): low is good."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The actions of B episodes over a horizon of H steps, and how good the search says that they are.

    `mean` (B, H, A) is what to do, and where a later search starts; its neighbourhood has the standard deviation `std`
    (B, H, A), None where a planner chooses its own. `best` are the cheapest actions that were evaluated, `cost` (B,)
    what they cost, infinite before a search. `energy` (I, B) is the lowest cost up to each iteration: it never rises.
    `probabilities` (B, H, A) are those of discrete actions, else None.
    """

    mean: Float[Tensor, "b h a"]
    best: Float[Tensor, "b h a"]
    cost: Float[Tensor, " b"]
    energy: Float[Tensor, "i b"]
    std: Float[Tensor, "b h a"] | None = None
    probabilities: Float[Tensor, "b h a"] | None = None

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def horizon(self) -> int:
        """The number of steps, or of blocks where an action is a block."""
        return self.mean.shape[1]


@runtime_checkable
class Planner(Protocol):
    """A search for actions of low cost; a frozen dataclass of its knobs."""

    def __call__(self, cost: Cost, start: Plan, spec: ActionSpec, rng: Rng) -> Plan:
        """The plan of every episode of `start`, which episodes planned beside it never change."""
        ...


def start_plan(
    batch: int,
    horizon: int,
    spec: ActionSpec,
    std: float | None = None,
    mean: Float[Tensor, "b h a"] | None = None,
    device: Device = "cpu",
) -> Plan:
    """Where a first search starts: at actions of zero, or at the proposal `mean` (B, H, A), within the bounds.

    `std` is that of the first samples, in units of the actions; None leaves it to the planner. Choices are equally
    likely, or certain where a proposal makes them. Raises ValueError if the shape of `mean` does not fit.
    """
    shape = (batch, horizon, spec.size)
    if mean is not None and mean.shape != shape:
        raise ValueError(f"the proposal has shape {tuple(mean.shape)}; give (episodes, horizon, action size) = {shape}")
    centre = project(torch.zeros(shape, device=device) if mean is None else mean.detach(), spec)
    chosen = centre if mean is not None else torch.full(shape, 1 / spec.size, device=device)
    return Plan(
        centre,
        centre,
        centre.new_full((batch,), math.inf),
        centre.new_empty(0, batch),
        None if std is None else torch.full_like(centre, std),
        chosen if spec.discrete else None,
    )


def shift(plan: Plan, steps: int = 1) -> Plan:
    """Where the next search starts after `steps` actions were done: at the others, then zeros, or equal choices.

    The standard deviation is the planner's own again: the one that a search ends with is too small to start another.
    """

    def shift_actions(actions: Tensor, fill: float = 0.0) -> Tensor:
        kept = actions[:, steps:]
        return F.pad(kept, (0, 0, 0, plan.horizon - kept.shape[1]), value=fill)

    chosen = plan.probabilities
    return replace(
        plan,
        mean=shift_actions(plan.mean),
        best=shift_actions(plan.best),
        cost=torch.full_like(plan.cost, math.inf),
        energy=plan.energy[:0],
        std=None,
        probabilities=None if chosen is None else shift_actions(chosen, 1 / chosen.shape[2]),
    )


def action_scale(spec: ActionSpec) -> tuple[float, ...]:
    """How far each number of an action reaches: half its range, at most `max_norm`; 1 where nothing bounds it."""
    unbounded = spec.max_norm or 1.0
    low, high = (side or (math.inf,) * spec.size for side in (spec.low, spec.high))
    halves = ((b - a) / 2 if math.isfinite(b - a) else unbounded for a, b in zip(low, high, strict=True))
    return tuple(min(half, spec.max_norm or half) for half in halves)


def single_action(spec: ActionSpec) -> ActionSpec:
    """The form of one action of a block."""
    size = spec.size // spec.parts
    return replace(spec, size=size, low=spec.low[:size], high=spec.high[:size], names=spec.names[:size], parts=1)


def check_space(planner: str, spec: ActionSpec, discrete: bool) -> None:
    """Raise ValueError, naming planners that fit, if actions are not of the kind that a planner searches."""
    if spec.discrete == discrete:
        return
    if spec.discrete:
        raise ValueError(
            f"the planner {planner} moves numbers, and an action here is one of {spec.size} choices; "
            "use discrete or beam"
        )
    raise ValueError(f"the planner {planner} takes choices, and an action here is {spec.size} numbers; use cem or mppi")


def check_counts(planner: str, **counts: int) -> None:
    """Raise ValueError if one of a planner's counts is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} of the planner {planner} is {count}; give 1 or more")


def check_elites(planner: str, elites: int, samples: int) -> None:
    """Raise ValueError if a planner shall keep more samples than it draws."""
    if elites > samples:
        raise ValueError(f"the planner {planner} has {elites} elites of {samples} samples; give at most {samples}")
