"""Where planning fails: the energy, the model or the search, side by side on the same starts."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..core.actions import project
from ..envs import Environment, EnvState
from ..types import ActionSpec, State
from .energy import Energy
from .greedy import Greedy
from .mpc import Seen, planning_agent, true_state
from .oracle import encoded_energy, true_cost
from .plan import Cost, Plan, Planner, action_scale
from .protocol import AgentOf, Outcome, Protocol, evaluate
from .rollout import Step, rollout_cost

GREEDY_TRUE = "greedy, true dynamics"
GREEDY_MODEL = "greedy, model"
PLANNER = "planner"


def side_by_side(
    env: Environment, protocol: Protocol, agents: Mapping[str, AgentOf], at_once: int | None = None
) -> dict[str, Outcome]:
    """What each of several agents does on the same starts; compare two of them with `compare_paired`."""
    return {name: evaluate(env, protocol, agent_of, at_once) for name, agent_of in agents.items()}


def three_agents(
    env: Environment,
    protocol: Protocol,
    perceive: Callable[[Seen, State | None], State],
    step: Step,
    encode: Callable[[Tensor], Tensor],
    energy_of: Callable[[EnvState], Energy],
    planner: Planner,
) -> dict[str, AgentOf]:
    """Three agents with the same energy, whose successes say which part to mend; the environment can be copied.

    Greedy look-ahead by one action on the true dynamics: if that fails, the energy does not lead to the goal (or knows
    no walls, and a search has to). The same on the model: if it is worse, the model is wrong within one action. The
    planner: if it is worse than the true dynamics, the model is wrong over its horizon, or the search too small.
    `encode` maps frames (R, C, *size) to tokens (R, N, D), and `energy_of` goals to the energy of latent paths.
    """
    spec = env.action.repeat(protocol.block) if protocol.block > 1 else env.action

    def greedy_true(goal: EnvState | None) -> Callable[..., tuple[Tensor, object]]:
        energy = encoded_energy(env, encode, energy_of(_given(goal)))
        return planning_agent(true_state, lambda state: true_cost(env, state, energy), Greedy(), spec, 1)

    def on_model(search: Planner, horizon: int, replan_every: int) -> AgentOf:
        def agent(goal: EnvState | None) -> Callable[..., tuple[Tensor, object]]:
            energy = energy_of(_given(goal))
            return planning_agent(
                perceive, lambda state: rollout_cost(step, energy, state), search, spec, horizon, replan_every
            )

        return agent

    return {
        GREEDY_TRUE: greedy_true,
        GREEDY_MODEL: on_model(Greedy(), 1, 1),
        PLANNER: on_model(planner, protocol.horizon, protocol.replan_every),
    }


def _given(goal: EnvState | None) -> EnvState:
    if goal is None:
        raise ValueError("the three agents go to goals, and this environment has none; choose one that has")
    return goal


class Ghosting(NamedTuple):
    """How many of P movements push against the wall after each of T steps, and the share of these that go through.

    The share is NaN where nothing pushes.
    """

    share: Float[Tensor, " t"]
    pushes: Int64[Tensor, " t"]


def ghosting(
    position: Float[Tensor, "p t1 k"],
    predicted: Float[Tensor, "p t1 k"],
    action: Float[Tensor, "p t k"],
    wall: Float[Tensor, " p"],
    axis: int = 0,
    margin: float = 0.0,
) -> Ghosting:
    """The share of pushes against a wall that a model lets through.

    `position` holds the true positions of P movements over T steps and `predicted` those read from a model's latents,
    from the start on; `action` are the displacements that were asked for, and a wall crosses `axis` at `wall`. A
    movement pushes at a step if it would be `margin` beyond the wall, had nothing stopped it, and has truly stayed on
    its side.
    The model lets it through if it predicts a position on the other side.
    """
    side = (position[:, :1, axis] - wall[:, None]).sign()
    free = position[:, :1, axis] + action[..., axis].cumsum(1)
    stays = ((position[:, 1:, axis] - wall[:, None]) * side > 0).long().cumprod(1).bool()
    pushes = stays & ((free - wall[:, None]) * side < -margin)
    through = pushes & ((predicted[:, 1:, axis] - wall[:, None]) * side < 0)
    return Ghosting(through.sum(0) / pushes.sum(0), pushes.sum(0))


class EnergyMap(NamedTuple):
    """The energy over two numbers of an action: `energy` (B, Y, X) at `y` (Y,) and `x` (X,).

    `x` and `y` are in the units of the action; points outside what is allowed are NaN.
    """

    x: Float[Tensor, " x"]
    y: Float[Tensor, " y"]
    energy: Float[Tensor, "b y x"]


@torch.no_grad()
def energy_map(
    cost: Cost, plan: Plan, spec: ActionSpec, step: int = 0, axes: tuple[int, int] = (0, 1), points: int = 41
) -> EnergyMap:
    """The energy when two numbers of one step of a plan are varied over their range, and the rest stays.

    In a block, the numbers are varied in each of its parts alike. Raises ValueError if there are not two such numbers.
    """
    size = spec.size // spec.parts
    if spec.discrete or len(set(axes)) != 2 or not all(0 <= axis < size for axis in axes):
        raise ValueError(f"axes are {axes} of an action of {size} numbers; give two different ones below {size}")
    lines = []
    for axis in axes:
        low, high = (side[axis] if side else math.inf for side in (spec.low, spec.high))
        middle = (low + high) / 2 if math.isfinite(high - low) else 0.0
        lines.append(middle + action_scale(spec)[axis] * torch.linspace(-1, 1, points))
    y, x = torch.meshgrid(lines[1], lines[0], indexing="ij")
    actions = plan.mean[:, None].repeat(1, points * points, 1, 1)
    blocks = actions[:, :, step].reshape(*actions.shape[:2], spec.parts, size)
    blocks[..., axes[0]], blocks[..., axes[1]] = x.reshape(1, -1, 1).to(actions), y.reshape(1, -1, 1).to(actions)
    actions[:, :, step] = blocks.flatten(2)
    allowed = (project(actions[:, :, step], spec) - actions[:, :, step]).abs().amax(2) < 1e-5
    energy = cost(actions).where(allowed, math.nan).reshape(len(plan), points, points)
    return EnergyMap(lines[0], lines[1], energy.cpu())
