"""What a model knows of actions: whether the true one explains the next latent best, and whether it can be found."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ...core.actions import project
from ...types import ActionSpec, Rng

Rows = tuple[Float[Tensor, "n ..."], ...]
Step = Callable[[Rows, Float[Tensor, "n a"]], Float[Tensor, "n d"]]
"""From states and actions to the next latents, differentiable in the actions."""

CHUNK_VALUES = 2**22
"""How many values of predicted latents are computed at a time."""
GRADIENT_STEPS = 40
FIRST_RATE = 0.2
"""Gradient steps towards an action, and the first step's size in standard deviations of actions."""


def draw_candidates(
    own: Float[Tensor, "n a"], pool: Float[Tensor, "m a"], count: int, rng: Rng
) -> Float[Tensor, "n c a"]:
    """The own action of each row, then others of the different actions in `pool`: all, or `count` − 1 drawn at random.

    `own` must be among the pool. No other candidate equals the own action.
    """
    kinds, which = torch.unique(torch.cat([own, pool]), dim=0, return_inverse=True)
    which, others = which[: len(own), None], len(kinds) - 1
    if others < count:
        drawn = torch.arange(others).expand(len(own), -1)
    else:
        drawn = torch.randint(others, (len(own), count - 1), generator=rng.generator())
    return torch.cat([own[:, None], kinds[drawn + (drawn >= which)]], 1)


def candidate_energies(
    step: Step, states: Rows, actions: Float[Tensor, "n c a"], target: Float[Tensor, "n d"]
) -> Iterator[Float[Tensor, "k c"]]:
    """The mean squared distance from `target` of what each action leads to, some rows at a time."""
    count = actions.shape[1]
    with torch.no_grad():
        for rows in chunks(len(target), count * target.shape[1]):
            again = tuple(part[rows].repeat_interleave(count, 0) for part in states)
            pred = step(again, actions[rows].flatten(0, 1)).reshape(-1, count, target.shape[1])
            yield (pred - target[rows, None]).square().mean(2)


def find_actions(
    step: Step,
    states: Rows,
    target: Float[Tensor, "n d"],
    starts: Float[Tensor, "n s a"],
    spec: ActionSpec,
    scale: Float[Tensor, " a"],
) -> Float[Tensor, "n a"]:
    """The action whose consequence comes nearest to `target`: Adam on the energy, from the best of several starts.

    Steps are in units of `scale`. Equally good starts count in their order, and the best action on the way is kept.
    """
    found = []
    for rows in chunks(len(target), starts.shape[1] * target.shape[1]):
        own, goal = tuple(part[rows] for part in states), target[rows]
        energy = torch.cat(list(candidate_energies(step, own, starts[rows], goal)))
        begin = starts[rows][torch.arange(len(goal)), energy.argmin(1)]
        found.append(_descend(step, own, goal, begin, spec, scale))
    return torch.cat(found)


def _descend(
    step: Step, states: Rows, target: Tensor, start: Tensor, spec: ActionSpec, scale: Tensor
) -> Float[Tensor, "n a"]:
    action, best = start.clone(), start.clone()
    lowest = start.new_full((len(start),), torch.inf)
    mean, square = torch.zeros_like(start), torch.zeros_like(start)
    for k in range(GRADIENT_STEPS + 1):
        with torch.enable_grad():
            action = action.detach().requires_grad_()
            energy = (step(states, action) - target).square().mean(1)
            if not energy.requires_grad:
                return start
            (slope,) = torch.autograd.grad(energy.sum(), action, allow_unused=True)
        if slope is None:
            return start
        better = energy.detach() < lowest
        lowest = torch.where(better, energy.detach(), lowest)
        best = torch.where(better[:, None], action.detach(), best)
        slope = slope * scale
        mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope.square()
        size = (square / (1 - 0.99 ** (k + 1))).sqrt().clamp(min=torch.finfo(slope.dtype).tiny)
        rate = FIRST_RATE * (1 - k / GRADIENT_STEPS)
        action = project(action.detach() - rate * scale * mean / (1 - 0.9 ** (k + 1)) / size, spec)
    return best


def chunks(rows: int, values: int) -> Iterator[slice]:
    """Slices of `rows` rows with `values` values each that hold CHUNK_VALUES at most, or one row."""
    size = max(1, CHUNK_VALUES // max(values, 1))
    return (slice(k, k + size) for k in range(0, rows, size))
