"""Energies of imagined paths, low where they are wanted: functions (path, actions) → (B, S) that add up."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Energy = Callable[[Tensor, Tensor], Tensor]
"""A path (B, S, H + 1, N, D) of tokens, from the present on, and its actions (B, S, H, A), to an energy (B, S)."""

Kind = Literal["l2", "l1", "cosine"]
Reduce = Literal["sum", "last", "discounted", "lowest"]
TokenDistance = Callable[[Tensor, Tensor], Tensor]
"""Two sets of tokens (…, N, D), whose leading axes broadcast, to the distance from the first to the second (…)."""


def goal_distance(
    goal: Float[Tensor, "b n d"], kind: Kind = "l2", reduce: Reduce = "sum", gamma: float = 0.95
) -> Energy:
    """How far the path is from the goal's tokens, one goal per episode.

    `l2` is the mean squared difference and `l1` the mean absolute one, over tokens and features; `cosine` is 1 − the
    cosine of each token, on average. `reduce` says over which steps; see `reduce_steps`.
    """
    return learned_distance(_DISTANCES[kind], goal, reduce, gamma)


def learned_distance(
    distance: TokenDistance, goal: Float[Tensor, "b n d"], reduce: Reduce = "sum", gamma: float = 0.95
) -> Energy:
    """The distance to go from the path to the goal, as a head measures it, one goal per episode.

    `distance` gets tokens (B, S, H, N, D) and goals (B, 1, 1, N, D), so that it reads every goal once.
    """

    def energy(path: Tensor, actions: Tensor) -> Tensor:
        return reduce_steps(distance(path[:, :, 1:], goal[:, None, None]), reduce, gamma)

    return energy


def reduce_steps(values: Float[Tensor, "b s h"], reduce: Reduce = "sum", gamma: float = 0.95) -> Float[Tensor, "b s"]:
    """One number from those of steps 1 … H: their sum, the last, the lowest, or the sum weighted by gamma^(h − 1).

    The sum wants to arrive early; the last one only wants to be there in the end.
    """
    if reduce == "sum":
        return values.sum(2)
    if reduce == "last":
        return values[:, :, -1]
    if reduce == "lowest":
        return values.amin(2)
    return values @ discounts(values, gamma)


def discounts(values: Float[Tensor, "b s h"], gamma: float) -> Float[Tensor, " h"]:
    """The weights 1, gamma, gamma² … of the steps."""
    return gamma ** torch.arange(values.shape[2], dtype=values.dtype, device=values.device)


def reward_energy(
    reward: Callable[[Tensor], Tensor],
    value: Callable[[Tensor], Tensor] | None = None,
    done: Callable[[Tensor], Tensor] | None = None,
    gamma: float = 0.99,
) -> Energy:
    """Minus the discounted return of the path: rewards of arriving at steps 1 … H, and the value of the last state.

    The functions map tokens (…, N, D) to numbers (…). `done` is the logit of an episode's end: what comes after an
    end counts only as much as the episode is likely to go on.
    """

    def energy(path: Tensor, actions: Tensor) -> Tensor:
        ahead = path[:, :, 1:]
        weights = discounts(actions[..., 0], gamma).expand(actions.shape[:3])
        going = torch.ones_like(weights)
        if done is not None:
            going = F.sigmoid(-done(ahead)).cumprod(2)
            # The step at which an episode ends still has its reward.
            weights = weights * torch.cat([torch.ones_like(going[:, :, :1]), going[:, :, :-1]], 2)
        total = (weights * reward(ahead)).sum(2)
        if value is not None:
            total = total + gamma ** actions.shape[2] * going[:, :, -1] * value(path[:, :, -1])
        return -total

    return energy


def action_cost(weight: float = 1.0) -> Energy:
    """`weight` times the sum of the squared actions."""

    def energy(path: Tensor, actions: Tensor) -> Tensor:
        return weight * actions.square().sum((2, 3))

    return energy


def constraint(violation: Callable[[Tensor, Tensor], Tensor], weight: float = 100.0) -> Energy:
    """`weight` times what is above zero of `violation`, a function (path, actions) → (B, S, H), summed over steps."""

    def energy(path: Tensor, actions: Tensor) -> Tensor:
        return weight * violation(path, actions).relu().sum(2)

    return energy


def weighted_sum(energies: Mapping[Energy, float]) -> Energy:
    """The sum of several energies, each times its weight. Raises ValueError without any."""
    if not energies:
        raise ValueError("a sum of no energies says nothing; give at least one")

    def energy(path: Tensor, actions: Tensor) -> Tensor:
        return torch.stack([weight * part(path, actions) for part, weight in energies.items()]).sum(0)

    return energy


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean((-2, -1))


def _absolute_distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean((-2, -1))


def _cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(a, b, -1).mean(-1)


_DISTANCES: Mapping[Kind, TokenDistance] = {
    "l2": _squared_distance,
    "l1": _absolute_distance,
    "cosine": _cosine_distance,
}
