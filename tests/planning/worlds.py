"""A corridor with a wall, and a counter that ends: environments small enough to know what happens in them."""

import numpy as np
import torch
from torch import Tensor

from jepakit.envs import Environment, EnvState, Transition
from jepakit.types import ActionSpec, Rng, State


class Plane(Environment):
    """A dot in the square [-1, 1]², moved by displacements; the observation is its position."""

    name = "plane"
    action = ActionSpec(2, (-0.2, -0.2), (0.2, 0.2), max_norm=0.2)
    channels, size, time_limit, has_goal, success_radius = 2, (), 20, True, 0.1

    def __init__(self, breaks_at: float = 2.0, copyable: bool = True) -> None:
        self.breaks_at, self.copyable = breaks_at, copyable
        self.observed = 0

    def reset(self, ids: np.ndarray, rng: Rng) -> EnvState:
        draws = [np.random.default_rng((rng.seed, int(i))).uniform(-0.9, 0.9, 2) for i in ids]
        return {"position": torch.tensor(np.stack(draws), dtype=torch.float32)}

    def tasks(self, ids: np.ndarray, rng: Rng) -> tuple[EnvState, EnvState]:
        return self.reset(ids, rng), self.reset(ids + 10_000, rng)

    def step(self, state: EnvState, action: Tensor) -> Transition:
        position = (state["position"] + self.admit(action)).clamp(-1, 1)
        if (position[:, 0] > self.breaks_at).any():
            raise RuntimeError("the simulator broke")
        zeros = torch.zeros(len(position))
        return Transition({"position": position}, -position.norm(dim=1), zeros.bool(), {})

    def observe(self, state: EnvState) -> Tensor:
        self.observed += len(state["position"])
        return state["position"]

    def factors(self, state: EnvState) -> dict[str, Tensor]:
        return {"position": state["position"]}

    def distance(self, state: EnvState, goal: EnvState) -> Tensor:
        return (state["position"] - goal["position"]).norm(dim=1)


class Counter(Environment):
    """A number that each action, stay or count, may raise; the reward is the number, and 5 is the end."""

    name = "counter"
    action = ActionSpec(2, discrete=True)
    channels, size, time_limit = 1, (), 20

    def reset(self, ids: np.ndarray, rng: Rng) -> EnvState:
        return {"count": torch.from_numpy(ids % 3).float()}

    def step(self, state: EnvState, action: Tensor) -> Transition:
        count = state["count"] + self.admit(action)[:, 1]
        return Transition({"count": count}, count, count >= 5, {})

    def observe(self, state: EnvState) -> Tensor:
        return state["count"][:, None]

    def factors(self, state: EnvState) -> dict[str, Tensor]:
        return {"count": state["count"][:, None]}


def plane_tokens(x: Tensor) -> Tensor:
    """The latent of a frame of the plane: itself."""
    return x[:, None]


def plane_step(state: State, action: Tensor) -> State:
    """A perfect model of the plane."""
    return State((state.tokens + action.reshape(len(action), -1, 2).sum(1)[:, None]).clamp(-1, 1))
