"""What every search shares: samples that depend on their own episode alone, costs, elites, and the best so far."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core.actions import project
from ..types import ActionSpec, Ids, Rng
from .plan import Cost, Plan, action_scale


def global_rows(rng: Rng, batch: int) -> Ids:
    """The rows of these `batch` episodes in the global batch of `rng`, by which their random streams are known."""
    total, part = rng.global_batch(batch)
    rows: Ids = np.arange(total)[part]
    return rows


class EpisodeDraws:
    """Random numbers on the CPU, one stream for each of B episodes: none depends on which others are planned.

    An episode is known by its row in the global batch of `rng`: `rng.of([3], 50)` draws for the fourth of 50.
    """

    def __init__(self, rng: Rng, batch: int) -> None:
        self._streams = [rng.fork("episode", row).generator() for row in global_rows(rng, batch).tolist()]

    def normal(self, *shape: int) -> Float[Tensor, "b *shape"]:
        """Standard normal numbers."""
        out = torch.empty(len(self._streams), *shape)
        for row, stream in zip(out, self._streams, strict=True):
            row.normal_(generator=stream)
        return out

    def uniform(self, *shape: int) -> Float[Tensor, "b *shape"]:
        """Numbers in [0, 1)."""
        out = torch.empty(len(self._streams), *shape)
        for row, stream in zip(out, self._streams, strict=True):
            row.uniform_(generator=stream)
        return out


class Incumbent(NamedTuple):
    """The cheapest actions (B, H, A) so far, their cost (B,), and the lowest cost after every iteration."""

    actions: Float[Tensor, "b h a"]
    cost: Float[Tensor, " b"]
    history: tuple[Float[Tensor, " b"], ...] = ()

    @classmethod
    def of(cls, actions: Float[Tensor, "b h a"]) -> "Incumbent":
        """Actions that nobody has evaluated."""
        return cls(actions, actions.new_full((len(actions),), math.inf))

    def update(self, actions: Float[Tensor, "b s h a"], costs: Float[Tensor, "b s"]) -> "Incumbent":
        """The better of these and what was the best so far; one more iteration."""
        lowest, index = costs.min(1)
        better = lowest < self.cost
        found = actions[torch.arange(len(actions), device=actions.device), index]
        cost = torch.where(better, lowest, self.cost)
        return Incumbent(torch.where(better[:, None, None], found, self.actions), cost, (*self.history, cost))

    def plan(self, mean: Tensor | None = None, std: Tensor | None = None, probabilities: Tensor | None = None) -> Plan:
        """The plan; its mean is the best where a search has no other."""
        actions = self.actions if mean is None else mean
        return Plan(actions, self.actions, self.cost, torch.stack(self.history), std, probabilities)


def evaluate_cost(cost: Cost, actions: Float[Tensor, "b s h a"]) -> Float[Tensor, "b s"]:
    """What the actions cost, infinite where that is no finite number. Raises ValueError if its shape is another."""
    found = cost(actions)
    if found.shape != actions.shape[:2]:
        raise ValueError(
            f"the cost of actions {tuple(actions.shape)} has shape {tuple(found.shape)}; "
            f"return one number per episode and sample, {tuple(actions.shape[:2])}"
        )
    return found.where(found.isfinite(), math.inf)


def reach(start: Plan, spec: ActionSpec) -> Float[Tensor, "b h a"]:
    """How far each number of every action reaches, the unit of standard deviations and step sizes."""
    return start.mean.new_tensor(action_scale(spec)).expand_as(start.mean)


def sample_actions(
    mean: Float[Tensor, "b h a"],
    std: Float[Tensor, "b h a"],
    samples: int,
    spec: ActionSpec,
    draws: EpisodeDraws,
    beta: float = 0.0,
) -> Float[Tensor, "b s h a"]:
    """Allowed actions around the mean, which is the first of them.

    The noise has the power spectrum 1 / f^`beta` over time. An action of several parts is as many steps of time.
    """
    noise = draws.normal(samples, *mean.shape[1:])
    if beta and mean.shape[1] * spec.parts > 1:
        colour = colour_matrix(beta, mean.shape[1] * spec.parts)
        # One product per episode: the rounding of a larger one would depend on the other episodes.
        noise = torch.stack([_in_time(colour, own) for own in noise])
    noise[:, 0] = 0
    return project(torch.addcmul(mean[:, None], std[:, None], noise.to(mean.device)), spec)


def _in_time(colour: Tensor, noise: Float[Tensor, "s h a"]) -> Float[Tensor, "s h a"]:
    steps = noise.reshape(len(noise), len(colour), -1)
    return (steps.transpose(1, 2) @ colour).transpose(1, 2).reshape(noise.shape)


@lru_cache(maxsize=16)
def colour_matrix(beta: float, steps: int) -> Float[Tensor, "t t"]:
    """The symmetric matrix that gives white noise over `steps` the power spectrum 1 / f^`beta`, at variance 1.

    The frequency 0 has the power of the lowest other. Source: Timmer & König, Astronomy and Astrophysics 300 (1995)
    707, as iCEM uses it, arXiv:2008.06389.
    """
    gain = torch.fft.fftfreq(steps, dtype=torch.float64).abs().clamp_min(1 / steps) ** (-beta / 2)
    gain = gain / gain.square().mean().sqrt()
    row = torch.arange(steps)
    matrix: Tensor = torch.fft.ifft(gain).real[(row[:, None] - row) % steps].float()
    return matrix


class Elites(NamedTuple):
    """The K cheapest actions (B, K, H, A) and their costs (B, K), cheapest first."""

    actions: Float[Tensor, "b k h a"]
    costs: Float[Tensor, "b k"]


def take_elites(actions: Float[Tensor, "b s h a"], costs: Float[Tensor, "b s"], count: int) -> Elites:
    """The `count` cheapest samples, all where there are fewer."""
    lowest, index = costs.topk(min(count, costs.shape[1]), 1, largest=False)
    rows = torch.arange(len(actions), device=actions.device)[:, None]
    return Elites(actions[rows, index], lowest)


def weighted_mean(
    actions: Float[Tensor, "b k h a"], weights: Float[Tensor, "b k"], before: Float[Tensor, "b h a"]
) -> Float[Tensor, "b h a"]:
    """The mean of each episode's actions; what it was `before` where an episode has no weight at all."""
    total = weights.sum(1)
    mean = (_shares(weights) * actions).sum(1)
    return torch.where((total > 0)[:, None, None], mean, before)


def weighted_moments(
    actions: Float[Tensor, "b k h a"],
    weights: Float[Tensor, "b k"],
    mean: Float[Tensor, "b h a"],
    std: Float[Tensor, "b h a"],
    floor: Float[Tensor, "b h a"],
) -> tuple[Float[Tensor, "b h a"], Float[Tensor, "b h a"]]:
    """Mean and population standard deviation, at least `floor`; those before where an episode has no weight at all."""
    centre = weighted_mean(actions, weights, mean)
    variance = weighted_mean((actions - centre[:, None]).square(), weights, std.square())
    return centre, variance.sqrt().maximum(floor)


def _shares(weights: Float[Tensor, "b k"]) -> Float[Tensor, "b k 1 1"]:
    total = weights.sum(1, keepdim=True)
    return (weights / total.clamp_min(torch.finfo(weights.dtype).tiny))[:, :, None, None]
