"""The closed loop: B environments at once, each acted on, observed, and planned for again."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ..core.draws import uniform_draws
from ..envs import Environment, EnvState, Transition, random_actions
from ..types import ActionSpec, Device, Rng, State
from .plan import Cost, Planner, shift, single_action, start_plan
from .search import global_rows


class Seen(NamedTuple):
    """What has happened in B environments since an agent last decided.

    `x` (B, F, C, *size) holds a frame per step of the agent, the last one of now, and `action` (B, F, A) what led to
    each; at the start there is one frame, and no action. `state` is the truth, which oracles alone may read.
    """

    x: Float[Tensor, "b f c ..."]
    action: Float[Tensor, "b _ a"]
    state: EnvState


Act = Callable[[Seen, Any, Rng], tuple[Tensor, Any]]
"""What an agent has seen, its memory (None at the start) and randomness, to its next K actions (B, K, A) and memory.

An action of the agent may be a block of several of the environment's. Memory is whatever the agent makes of it.
"""


class Episode(NamedTuple):
    """What B environments did in at most T steps.

    `states` (B, T + 1, …) and `action` (B, T, A) are those of the environment. An episode ends at its own end
    (`length` steps, `terminated`), else after T; its later states repeat the last one, and its later rewards are 0.
    `failed` maps the rows of environments that raised an error to its sentence; what they hold from there on means
    nothing. `seconds` is the time spent in the agent for all `decisions`.
    """

    states: EnvState
    action: Float[Tensor, "b t a"]
    reward: Float[Tensor, "b t"]
    length: Int64[Tensor, " b"]
    terminated: Bool[Tensor, " b"]
    failed: dict[int, str]
    seconds: float
    decisions: int


def mpc(env: Environment, start: EnvState, act: Act, steps: int, *, block: int = 1, rng: Rng) -> Episode:
    """Let an agent act in every environment of `start` for `steps` of the environment's steps.

    The agent's actions are blocks of `block` of the environment's, and it sees the frame after each block. An episode
    does not stop at its goal, so that success at the end means staying there. If an environment raises an error, its
    episode has failed and the others go on; where states cannot be copied, all that have not ended have failed.
    Raises ValueError if the agent's actions do not fit or are not finite.
    """
    loop = _Loop(env, start, block)
    memory: Any = None
    seen = Seen(env.observe(start)[:, None], loop.no_actions(), start)
    seconds, decisions = 0.0, 0
    while loop.steps < steps and loop.running.any():
        began = time.perf_counter()
        blocks, memory = act(seen, memory, rng.fork("decision", decisions))
        blocks = _checked_actions(blocks, loop, block).to("cpu")
        seconds, decisions = seconds + time.perf_counter() - began, decisions + 1
        frames = [loop.do(action, steps) for action in blocks.unbind(1)]
        seen = Seen(torch.stack(frames, 1), blocks, loop.state)
    return loop.episode(seconds, decisions)


def planning_agent(
    perceive: Callable[[Seen, Any], Any],
    cost_of: Callable[[Any], Cost],
    planner: Planner,
    spec: ActionSpec,
    horizon: int,
    replan_every: int = 1,
    device: Device = "cpu",
) -> Act:
    """An agent that plans, does the first `replan_every` actions of its plan, and plans again from what is left of it.

    `perceive` makes a state of what was seen and of the state before (None at the start), once per plan; `cost_of`
    makes its cost, such as `rollout_cost(step, energy, state)`. `spec` is the form of the agent's actions: blocks, if
    the model's are. The agent's memory is (state, plan). Raises ValueError if plans are shorter than `replan_every`.
    """
    if not 1 <= replan_every <= horizon:
        raise ValueError(f"replan_every is {replan_every} and the horizon {horizon}; give 1 to {horizon}")

    def act(seen: Seen, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
        before, plan = memory or (None, None)
        now = perceive(seen, before)
        if plan is None or plan.horizon != horizon:  # a greedy plan has one step, and nothing is left of it
            start = start_plan(len(seen.x), horizon, spec, device=device)
        else:
            start = shift(plan, replan_every)
        plan = planner(cost_of(now), start, spec, rng)
        return plan.mean[:, :replan_every], (now, plan)

    return act


def model_perception(
    start: Callable[[Tensor], State], observe: Callable[[State, Tensor, Tensor], State], device: Device = "cpu"
) -> Callable[[Seen, State | None], State]:
    """How a model perceives: `start` from the first frame, and `observe` each later one with the action before it."""

    @torch.no_grad()
    def perceive(seen: Seen, before: State | None) -> State:
        x, action = seen.x.to(device), seen.action.to(device)
        if before is None:
            return start(x[:, 0])
        for frame, done in zip(x.unbind(1), action.unbind(1), strict=True):
            before = observe(before, frame, done)
        return before

    return perceive


def true_state(seen: Seen, before: EnvState | None) -> EnvState:
    """How an oracle perceives: it knows the state."""
    return seen.state


def random_agent(spec: ActionSpec) -> Act:
    """An agent that draws every action from all allowed ones, the floor of every comparison."""

    def act(seen: Seen, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
        drawn = random_actions(single_action(spec), global_rows(rng, len(seen.x)), rng, spec.parts)
        return drawn.reshape(len(drawn), 1, -1), None

    return act


def exploring_agent(agent: Act, spec: ActionSpec, share: float) -> Act:
    """The agent, but about this `share` of its actions, each by itself, is drawn from all allowed ones instead.

    `spec` is the form of the agent's actions. Raises ValueError if the share is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of random actions is {share:g}; give 0 to 1")
    drawing = single_action(spec)

    def act(seen: Seen, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
        actions, memory = agent(seen, memory, rng)
        rows, count = global_rows(rng, len(actions)), actions.shape[1]
        drawn = random_actions(drawing, rows, rng.fork("explore"), count * spec.parts).reshape(actions.shape)
        replaced = torch.from_numpy(uniform_draws(rng.fork("share"), rows, count) < share)
        return torch.where(replaced.to(actions.device)[..., None], drawn.to(actions), actions), memory

    return act


class _Loop:
    """The environments of a closed loop, and what they have done so far."""

    def __init__(self, env: Environment, start: EnvState, block: int) -> None:
        self.env, self.state, self.block = env, start, block
        self.batch = len(next(iter(start.values())))
        self.running = torch.ones(self.batch, dtype=torch.bool)
        self.length = torch.zeros(self.batch, dtype=torch.int64)
        self.terminated = torch.zeros(self.batch, dtype=torch.bool)
        self.failed: dict[int, str] = {}
        self.states, self.actions, self.rewards = [start], list[Tensor](), list[Tensor]()

    @property
    def steps(self) -> int:
        return len(self.actions)

    def no_actions(self) -> Float[Tensor, "b 0 a"]:
        return torch.zeros(self.batch, 0, self.block * self.env.action.size)

    def do(self, action: Float[Tensor, "b a"], steps: int) -> Float[Tensor, "b c ..."]:
        """The frame after a block of actions, or after what the number of steps leaves of it."""
        for single in action.reshape(self.batch, self.block, -1).unbind(1):
            if self.steps < steps and self.running.any():
                self._step(single)
        return self.env.observe(self.state)

    def _step(self, action: Float[Tensor, "b a"]) -> None:
        after = self._try(action)
        going = self.running
        self.state = {name: _where(going, after.state[name], value) for name, value in self.state.items()}
        self.length += going
        self.states.append(self.state)
        self.actions.append(action)
        self.rewards.append(after.reward.where(going, 0.0))
        self.terminated = self.terminated | (going & after.terminated)
        self.running = going & ~after.terminated

    def _try(self, action: Float[Tensor, "b a"]) -> Transition:
        """The step of all environments; those that raise an error stop running."""
        try:
            return self.env.step(self.state, action)
        except Exception as error:  # a simulator raises anything, and finished episodes are worth keeping
            if not self.env.copyable:
                self._fail(self.running.nonzero()[:, 0].tolist(), error)
                return self._nothing()
        return self._step_one_by_one(action)

    def _step_one_by_one(self, action: Float[Tensor, "b a"]) -> Transition:
        nothing = self._nothing()
        state = {name: value.clone() for name, value in self.state.items()}
        for row in self.running.nonzero()[:, 0].tolist():
            own = {name: value[row : row + 1] for name, value in self.state.items()}
            try:
                after = self.env.step(own, action[row : row + 1])
            except Exception as error:  # as above
                self._fail([row], error)
                continue
            for name, value in after.state.items():
                state[name][row] = value[0]
            nothing.reward[row], nothing.terminated[row] = after.reward[0], after.terminated[0]
        return nothing._replace(state=state)

    def _fail(self, rows: list[int], error: Exception) -> None:
        self.failed |= dict.fromkeys(rows, f"{type(error).__name__} at step {self.steps + 1}: {error}")
        self.running = self.running.clone()
        self.running[rows] = False

    def _nothing(self) -> Transition:
        return Transition(self.state, torch.zeros(self.batch), torch.zeros(self.batch, dtype=torch.bool), {})

    def episode(self, seconds: float, decisions: int) -> Episode:
        states = {name: torch.stack([s[name] for s in self.states], 1) for name in self.state}
        action = torch.stack(self.actions, 1) if self.actions else torch.zeros(self.batch, 0, self.env.action.size)
        reward = torch.stack(self.rewards, 1) if self.rewards else torch.zeros(self.batch, 0)
        return Episode(states, action, reward, self.length, self.terminated, self.failed, seconds, decisions)


def _where(rows: Bool[Tensor, " b"], new: Shaped[Tensor, "b ..."], old: Shaped[Tensor, "b ..."]) -> Tensor:
    return torch.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _checked_actions(blocks: Tensor, loop: _Loop, block: int) -> Float[Tensor, "b k a"]:
    size = block * loop.env.action.size
    if blocks.ndim != 3 or blocks.shape[0] != loop.batch or blocks.shape[2] != size or not blocks.shape[1]:
        raise ValueError(
            f"the agent's actions have shape {tuple(blocks.shape)}; {loop.env.name} takes (environments, 1 or more "
            f"actions, numbers) = ({loop.batch}, K, {size}) in blocks of {block}"
        )
    if not blocks.isfinite().all():
        row = int((~blocks.isfinite().flatten(1).all(1)).nonzero()[0])
        raise ValueError(f"the agent's actions for environment {row} are not finite; look at its model's outputs")
    return blocks
