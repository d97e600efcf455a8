"""The interface of every environment: batched states in, batched states out, and the episodes of a policy.

An environment holds no episode. A state is a value, a dictionary of tensors with the batch first, that no function
changes in place: keeping a state is a copy of the world, and a planner may try actions on it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ..core.actions import project
from ..core.draws import normal_draws, uniform_draws
from ..types import ActionSpec, Ids, Rng, Size

EnvState = dict[str, Tensor]
"""The true state of B environments; every value is (B, …)."""

Policy = Callable[[int, EnvState], Tensor]
"""From the number of the action, which counts a held action once, and the state, the actions (B, A)."""


class SimulationError(RuntimeError):
    """A simulator raised in the middle of an episode; `row` says which of the batch."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


class Transition(NamedTuple):
    """What a step leads to. `info` has further facts of the step, each (B, …), such as whether the move was blocked."""

    state: EnvState
    reward: Float[Tensor, " b"]
    terminated: Bool[Tensor, " b"]
    info: dict[str, Tensor]


class Simulation(NamedTuple):
    """B episodes of T steps that are not observed; fields as in `Episodes`."""

    states: EnvState
    action: Float[Tensor, "b t a"]
    reward: Float[Tensor, "b t"]
    done: Bool[Tensor, "b t"]
    length: Int64[Tensor, " b"]


class Episodes(NamedTuple):
    """B episodes of T steps, observed at F = T / every + 1 frames.

    `x` (B, C, F, *size) are observations, in [0, 1] if they are pictures; `action` (B, T, A), `reward` and `done`
    (B, T) belong to every step. An episode that ends early has fewer than T steps, its `length` (B,): its later frames
    repeat the last one, its later rewards are 0, and `done` is true at its last step alone. `states` (B, F, …) and
    `factors`, name → (B, F, k), are the truth at the frames.
    """

    x: Float[Tensor, "b c f ..."]
    action: Float[Tensor, "b t a"]
    reward: Float[Tensor, "b t"]
    done: Bool[Tensor, "b t"]
    length: Int64[Tensor, " b"]
    states: EnvState
    factors: dict[str, Tensor]


class Floor(NamedTuple):
    """The states of one world on a grid over two of its numbers; everything else is as in a given state.

    `states` (Y · X, …) holds, row by row, one state per pair of values `y` (Y,) and `x` (X,); `names` names x and y.
    `free` says which of the states the world can be in.
    """

    states: EnvState
    x: Float[Tensor, " x"]
    y: Float[Tensor, " y"]
    names: tuple[str, str]
    free: Bool[Tensor, " r"]


class Environment(ABC):
    """B worlds at once, as functions of their state.

    `size` is () if an observation is a vector of `channels` numbers, (H, W) if it is a picture. `time_limit` is the
    number of steps after which an episode is cut. If the environment `has_goal`, a task is solved within
    `success_radius`, in the units of `distance`. A state of an environment that is not `copyable` can be stepped only
    once, because a simulator behind it moves on; such an environment leaves worlds that have ended as they are. If it
    never `terminates`, all episodes are as long as asked for.
    `policies` are the names that `behave` knows.
    """

    name: str
    action: ActionSpec
    channels: int
    size: Size
    time_limit: int
    copyable: bool = True
    terminates: bool = True
    has_goal: bool = False
    success_radius: float = 0.0
    factors_names: tuple[str, ...] = ()
    policies: ClassVar[tuple[str, ...]] = ("random",)

    @abstractmethod
    def reset(self, ids: Ids, rng: Rng) -> EnvState:
        """The starts of these episodes. Each depends on `rng` and its id alone, however ids are split into batches."""

    @abstractmethod
    def step(self, state: EnvState, action: Float[Tensor, "b a"]) -> Transition:
        """One step of every world, with the action clipped by `admit`."""

    @abstractmethod
    def observe(self, state: EnvState) -> Float[Tensor, "b c ..."]:
        """The observations (B, C, *size), raw: pixels in [0, 1], other numbers in their units."""

    @abstractmethod
    def factors(self, state: EnvState) -> dict[str, Float[Tensor, "b _"]]:
        """The true quantities by name, each (B, k), for probes; an angle is its cosine and sine."""

    def tasks(self, ids: Ids, rng: Rng) -> tuple[EnvState, EnvState]:
        """Starts and goals of these tasks, none of them solved at the start. Raises ValueError without goals."""
        raise self._no_goal("tasks")

    def distance(self, state: EnvState, goal: EnvState) -> Float[Tensor, " b"]:
        """The straight distance to the goal, in the units of `success_radius`. Raises ValueError without goals."""
        raise self._no_goal("distance")

    def way_to_go(self, state: EnvState, goal: EnvState) -> Float[Tensor, " b"]:
        """The length of the shortest way to the goal that the environment allows; here the straight distance."""
        return self.distance(state, goal)

    def is_solved(self, state: EnvState, goal: EnvState) -> Bool[Tensor, " b"]:
        """Whether the goal is within the success radius."""
        return self.distance(state, goal) < self.success_radius

    def floor(self, state: EnvState, cells: int) -> Floor | None:
        """The places of a world (a batch of one) on a grid of `cells` × `cells`, as seen from above.

        None if no two numbers describe most of the state, or if one observation does not show them.
        """
        return None

    def admit(self, action: Float[Tensor, "b a"]) -> Float[Tensor, "b a"]:
        """The nearest actions within the bounds; of discrete ones, the largest entry as a one-hot vector.

        One that is too long keeps its direction. Raises ValueError if the shape does not fit or a number is not finite.
        """
        spec = self.action
        if action.ndim != 2 or action.shape[1] != spec.size:
            raise ValueError(
                f"{self.name} takes actions of {spec.size} numbers, one row per world; "
                f"these have the shape {tuple(action.shape)}"
            )
        if not action.isfinite().all():
            row = int((~action.isfinite().all(1)).nonzero()[0])
            raise ValueError(f"action {row} of the batch is {action[row].tolist()}; give finite numbers")
        return project(action, spec)

    def draw(self, state: EnvState, size: int = 64) -> Float[Tensor, "b 3 h w"]:
        """Pictures of the worlds for people, in [0, 1]. Raises ValueError if the environment has none."""
        raise ValueError(f"{self.name} cannot be drawn")

    def start_policy(self, policy: str, ids: Ids, rng: Rng, steps: int, hold: int) -> tuple[EnvState, Policy]:
        """The starts of episodes in which a policy acts, and the policy. Here it draws from all actions alike."""
        actions = random_actions(self.action, ids, rng.fork("actions"), -(-steps // hold))
        return self.reset(ids, rng), lambda n, state: actions[:, n]

    def observe_path(self, states: EnvState) -> Float[Tensor, "b c f ..."]:
        """The observations (B, C, F, *size) of states (B, F, …)."""
        frames = next(iter(states.values())).shape[:2]
        x = self.observe({name: value.flatten(0, 1) for name, value in states.items()})
        return x.reshape(*frames, *x.shape[1:]).movedim(1, 2).contiguous()

    def behave(self, ids: Ids, rng: Rng, steps: int, policy: str = "random", hold: int = 1, every: int = 1) -> Episodes:
        """The same episodes as `simulate`, with their observations and the truth."""
        found = self.simulate(ids, rng, steps, policy, hold, every)
        frames = next(iter(found.states.values())).shape[1]
        flat = self.factors({name: value.flatten(0, 1) for name, value in found.states.items()})
        return Episodes(
            self.observe_path(found.states),
            found.action,
            found.reward,
            found.done,
            found.length,
            found.states,
            {name: value.reshape(len(ids), frames, -1) for name, value in flat.items()},
        )

    def simulate(
        self, ids: Ids, rng: Rng, steps: int, policy: str = "random", hold: int = 1, every: int = 1
    ) -> Simulation:
        """Episodes of `steps` steps in which each action is held for `hold` steps, with every `every`-th state.

        Nothing is observed, which for pictures takes most of the time. Episode `id` depends on `rng`, its id and the
        settings alone, however ids are split into batches. Raises ValueError for an unknown policy, or if `every` does
        not divide `steps`.
        """
        if policy not in self.policies:
            raise ValueError(f"{self.name} has no policy {policy!r}; choose one of: {', '.join(self.policies)}")
        if steps < 1 or hold < 1 or every < 1 or steps % every:
            raise ValueError(
                f"{steps} steps, each action held for {hold}, cannot be observed every {every}; "
                "give numbers of 1 or more, and a multiple as the number of steps"
            )
        state, act = self.start_policy(policy, ids, rng, steps, hold)
        frames, actions, rewards, done = [state], [], [], []
        ended = torch.zeros(len(ids), dtype=torch.bool)
        length = torch.full((len(ids),), steps)
        for step in range(steps):
            if step % hold == 0:
                action = self.admit(act(step // hold, state))
            after = self.step(state, action)
            # A simulator keeps the worlds that have ended itself.
            state = _keep(ended, state, after.state) if self.copyable and ended.any() else after.state
            last = after.terminated & ~ended
            actions.append(action)
            rewards.append(after.reward.masked_fill(ended, 0.0))
            done.append(last)
            length[last] = step + 1
            ended = ended | last
            if (step + 1) % every == 0:
                frames.append(state)
        states = {name: torch.stack([frame[name] for frame in frames], 1) for name in state}
        return Simulation(states, torch.stack(actions, 1), torch.stack(rewards, 1), torch.stack(done, 1), length)

    def _no_goal(self, what: str) -> ValueError:
        return ValueError(f"{self.name} has no goals and so no {what}; choose one that has, such as two-rooms")


@runtime_checkable
class EnvConfig(Protocol):
    """The settings of an environment, a frozen dataclass."""

    def build(self) -> Environment:
        """The environment with these settings."""
        ...


def build_environment(name: str, **settings: Any) -> Environment:
    """The environment called `name`; `gym:ID` is any environment of Gymnasium. `settings` are fields of its Config.

    Raises ValueError for an unknown name or setting, or if a package that the environment needs is not installed.
    """
    from dataclasses import fields, replace

    from . import ENVS

    kind, colon, identity = name.partition(":")
    adapted = colon and kind == "gym"
    config: Any = ENVS.load(kind if adapted else name)
    if adapted:
        settings = {"id": identity, **settings}
    known = [f.name for f in fields(config)]
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"{name} has no setting {unknown[0]!r}; it has: {', '.join(known)}")
    environment: Environment = replace(config, **settings).build()
    return environment


def grid_states(
    state: EnvState, x: Float[Tensor, " x"], y: Float[Tensor, " y"]
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"], EnvState]:
    """The x and the y of every place of a grid, row by row, and the state of a single world repeated for each place."""
    down, across = torch.meshgrid(y, x, indexing="ij")
    states = {name: value[:1].expand(down.numel(), *value.shape[1:]).clone() for name, value in state.items()}
    return across.flatten(), down.flatten(), states


def random_actions(spec: ActionSpec, ids: Ids, rng: Rng, steps: int) -> Float[Tensor, "b steps a"]:
    """Actions of every episode, all alike likely; of a number without bounds, standard normal ones."""
    b, size = len(ids), spec.size
    if spec.discrete:
        choice = torch.from_numpy((uniform_draws(rng, ids, steps) * size).astype(np.int64))
        return torch.nn.functional.one_hot(choice, size).float()
    if spec.max_norm is not None:
        # A direction from a normal distribution, and a radius that fills the ball evenly.
        normal = normal_draws(uniform_draws(rng, ids, 2 * steps * size))[:, : steps * size].reshape(b, steps, size)
        radius = torch.from_numpy(uniform_draws(rng.fork("radius"), ids, steps) ** (1 / size))
        length = sum(n * n for n in normal.unbind(2)).sqrt()  # type: ignore[union-attr]
        return (normal * (spec.max_norm * radius / length)[..., None]).float()
    if spec.low and spec.high and np.isfinite([*spec.low, *spec.high]).all():
        low, high = torch.tensor(spec.low), torch.tensor(spec.high)
        u = torch.from_numpy(uniform_draws(rng, ids, steps * size)).reshape(b, steps, size)
        return (low + (high - low) * u).float()
    return normal_draws(uniform_draws(rng, ids, 2 * steps * size))[:, : steps * size].reshape(b, steps, size).float()


def _keep(
    rows: Bool[Tensor, " b"], old: dict[str, Shaped[Tensor, "b ..."]], new: dict[str, Shaped[Tensor, "b ..."]]
) -> EnvState:
    """The new state, with some rows of the old."""
    return {k: torch.where(rows.reshape(-1, *[1] * (new[k].ndim - 1)), old[k], new[k]) for k in new}
