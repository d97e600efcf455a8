"""Costs with known minima for the tests of planners, and a linear model of a point that is pushed."""

import math

import torch
from torch import Tensor

from jepakit.planning import PLANNERS, Cost, Planner
from jepakit.types import ActionSpec, Rng, State

BOX = ActionSpec(2, (-1.0, -1.0), (1.0, 1.0))
SHORT = ActionSpec(2, max_norm=0.5)
BLOCK = ActionSpec(2, (-1.0, -0.5), (1.0, 0.5), max_norm=0.8).repeat(3)
CHOICES = ActionSpec(3, discrete=True)

CONTINUOUS = ("random", "cem", "icem", "mppi", "gradient", "cem-gradient", "greedy")
DISCRETE = ("discrete", "beam", "greedy")


def rng(seed: int = 0) -> Rng:
    return Rng(seed)


def planner(name: str, **knobs: object) -> Planner:
    """The planner called `name`, with these knobs."""
    return type(PLANNERS.load(name))(**knobs)


def goals(batch: int, horizon: int, size: int, reach: float = 0.8) -> Tensor:
    """Actions that are to be found (B, H, A), within `reach` of zero."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(batch, horizon, size, generator=generator) * 2 - 1) * reach


def bowl(goal: Tensor) -> Cost:
    """The squared distance to the actions `goal` (B, H, A)."""
    return lambda actions: (actions - goal[:, None]).square().sum((2, 3))


def rosenbrock(actions: Tensor) -> Tensor:
    """Rosenbrock's valley in the two numbers of one action: 0 at (1, 1)."""
    x, y = actions[:, :, 0].unbind(-1)
    return (1 - x).square() + 100 * (y - x.square()).square()


class Point:
    """A point with a velocity, pushed by a force: x′ = A x + B u, with the cost Σ x′ᵀQ x′ + uᵀR u."""

    A = torch.tensor([[1.0, 0.3], [0.0, 1.0]])
    B = torch.tensor([[0.0], [0.3]])
    Q = torch.diag(torch.tensor([1.0, 0.1]))
    R = torch.tensor([[0.1]])
    SPEC = ActionSpec(1)

    @classmethod
    def step(cls, state: State, action: Tensor) -> State:
        return State(state.tokens @ cls.A.T + (action @ cls.B.T)[:, None])

    @classmethod
    def energy(cls, path: Tensor, actions: Tensor) -> Tensor:
        x = path[:, :, 1:, 0]
        return ((x @ cls.Q) * x).sum((2, 3)) + ((actions @ cls.R) * actions).sum((2, 3))

    @classmethod
    def best(cls, x0: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """The optimal actions (H, 1) from `x0` (2,) and their cost, by Riccati's recursion."""
        P, gains = torch.zeros(2, 2), []
        for _ in range(horizon):
            M = P + cls.Q
            K = torch.linalg.solve(cls.R + cls.B.T @ M @ cls.B, cls.B.T @ M @ cls.A)
            P = cls.A.T @ M @ (cls.A - cls.B @ K)
            gains.append(K)
        x, actions = x0, []
        for K in reversed(gains):
            u = -K @ x
            actions.append(u)
            x = cls.A @ x + cls.B @ u
        return torch.stack(actions), x0 @ P @ x0


def allowed(actions: Tensor, spec: ActionSpec) -> bool:
    """Whether every action is finite, within the bounds, and each part short enough, up to rounding."""
    if spec.discrete:
        return bool(((actions == 0) | (actions == 1)).all() and (actions.sum(-1) == 1).all())
    low = torch.tensor(spec.low or (-math.inf,) * spec.size)
    high = torch.tensor(spec.high or (math.inf,) * spec.size)
    length = actions.unflatten(-1, (spec.parts, -1)).norm(dim=-1)
    inside = (actions >= low).all() and (actions <= high).all() and actions.isfinite().all()
    return bool(inside and (length <= (spec.max_norm or math.inf) * (1 + 1e-6)).all())


def watched(cost: Cost, seen: list[Tensor]) -> Cost:
    """The same cost, which notes the actions that it is asked for."""

    def ask(actions: Tensor) -> Tensor:
        seen.append(actions.detach().clone())
        return cost(actions)

    return ask
