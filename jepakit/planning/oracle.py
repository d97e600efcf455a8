"""The environment itself as the model: what oracles plan with, where a state can be copied."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..envs import Environment, EnvState
from .energy import Energy, Reduce, discounts, reduce_steps
from .plan import Cost
from .rollout import cost_in_chunks, expand_rows


class TruePath(NamedTuple):
    """What an environment does under S rows of H actions for B episodes.

    Every value of `states` is (B, S, H + 1, …), from the state where the actions begin. `reward` and `terminated` are
    (B, S, H); rows go on after their end, so energies look at `terminated`.
    """

    states: EnvState
    reward: Float[Tensor, "b s h"]
    terminated: Bool[Tensor, "b s h"]


TrueEnergy = Callable[[TruePath, Tensor], Tensor]
"""A path of true states and its actions (B, S, H, A) to an energy (B, S)."""


def true_rollout(env: Environment, state: EnvState, actions: Float[Tensor, "b s h a"]) -> TruePath:
    """The path of a copyable environment. A block of several actions is one step of the path."""
    batch, samples, horizon, width = actions.shape
    parts = width // env.action.size
    now = {name: expand_rows(value, samples) for name, value in state.items()}
    states: list[EnvState] = [now]
    rewards: list[Tensor] = []
    ends: list[Tensor] = []
    for h in range(horizon):
        block = actions[:, :, h].reshape(batch * samples, parts, -1)
        reward, ended = block.new_zeros(len(block)), block.new_zeros(len(block), dtype=torch.bool)
        for action in block.unbind(1):
            now, gained, terminated, _ = env.step(now, action)
            reward = reward + gained * ~ended
            ended = ended | terminated
        states.append(now)
        rewards.append(reward)
        ends.append(ended)

    def stack_steps(steps: list[Tensor]) -> Tensor:
        return torch.stack(steps).reshape(len(steps), batch, samples, *steps[0].shape[1:]).movedim(0, 2)

    return TruePath(
        {name: stack_steps([s[name] for s in states]) for name in now}, stack_steps(rewards), stack_steps(ends)
    )


def true_cost(env: Environment, state: EnvState, energy: TrueEnergy, memory_limit: int | None = None) -> Cost:
    """What the energy says of actions, by the environment itself: the cost of an oracle.

    Raises ValueError if the environment's state cannot be copied.
    """
    if not env.copyable:
        raise ValueError("an oracle needs an environment whose state can be copied, and this one's cannot")
    per_row = sum(value[0].numel() * value.element_size() for value in state.values())

    def whole(actions: Tensor) -> Tensor:
        return energy(true_rollout(env, state, actions), actions)

    def cost(actions: Tensor) -> Tensor:
        return cost_in_chunks(whole, actions, per_row, memory_limit)

    return cost


def true_distance(
    env: Environment, goal: EnvState, way: Literal["way", "straight"] = "way", reduce: Reduce = "sum"
) -> TrueEnergy:
    """The true distance to the goals of B episodes, in units: along the shortest way, or straight through walls."""
    measure = env.way_to_go if way == "way" else env.distance

    def energy(path: TruePath, actions: Tensor) -> Tensor:
        batch, samples, horizon, _ = actions.shape
        ahead = {name: value[:, :, 1:].flatten(0, 2) for name, value in path.states.items()}
        wanted = {name: expand_rows(value, samples * horizon) for name, value in goal.items()}
        return reduce_steps(measure(ahead, wanted).reshape(batch, samples, horizon), reduce)

    return energy


def true_return(gamma: float = 1.0) -> TrueEnergy:
    """Minus the discounted sum of the rewards up to the end of an episode."""

    def energy(path: TruePath, actions: Tensor) -> Tensor:
        ended = path.terminated.cumsum(2) > 0
        over = torch.cat([torch.zeros_like(ended[:, :, :1]), ended[:, :, :-1]], 2)
        return -(path.reward.masked_fill(over, 0.0) @ discounts(path.reward, gamma))

    return energy


def encoded_energy(env: Environment, encode: Callable[[Tensor], Tensor], energy: Energy) -> TrueEnergy:
    """What an energy of latents says of true states: `encode` maps their frames (R, C, *size) to tokens (R, N, D).

    It tells a wrong energy from a wrong model: the same energy, planned with on the true dynamics.
    """

    def true_energy(path: TruePath, actions: Tensor) -> Tensor:
        batch, samples, horizon, _ = actions.shape
        tokens = encode(env.observe({name: value.flatten(0, 2) for name, value in path.states.items()}))
        latents = tokens.reshape(batch, samples, horizon + 1, *tokens.shape[1:])
        return energy(latents, actions.to(latents.device)).to(actions.device)

    return true_energy
