"""Any environment of Gymnasium, as `gym:ID`: a batch of simulators, one for each world.

Pictures become channels-first in [0, 1], frames are stacked into channels, and bounded actions are scaled to [-1, 1]. A
simulator moves on when it is stepped, so a state can be stepped once. Episode `id` is the simulator's reset with a
seed drawn from (rng, id): it is a pure function of them as far as the simulator is.
"""

import atexit
import os
import sys
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core.draws import uniform_draws
from ..types import ActionSpec, Ids, Rng, Size
from .base import Environment, EnvState, SimulationError, Transition, random_actions

# The starts of ids, and the package that registers them; the extra `control` installs it.
PROVIDERS: Final = {
    "gym_pusht/": "gym_pusht",
    **dict.fromkeys(
        ("PointMaze_", "AntMaze_", "Fetch", "HandManipulate", "HandReach", "AdroitHand", "FrankaKitchen"),
        "gymnasium_robotics",
    ),
    "jepakit/": "jepakit.envs.register",
}
DEFAULT_TIME_LIMIT: Final = 1000
MAX_CHANNELS: Final = 4  # of a picture; an axis of so many entries is its channels
MAX_TRIES: Final = 20  # for a goal that is not solved at the start
GOAL_HOLD: Final = 5  # steps for which the walk to a goal holds an action


@dataclass(frozen=True)
class Config:
    """Settings of an environment of Gymnasium.

    `options` are keywords of `gymnasium.make`. `key` chooses an entry of observations that are a Dict, and `pixels` the
    rendered picture instead of the observation. Pictures are resized to `size` × `size`, and `stack` frames are joined
    in the channels, the newest last. `normalise_actions` scales bounded actions to [-1, 1].

    `goal` names the fact, an entry of the observation or of `info`, in which the distance to a goal is measured, and
    `success_radius` is in its units; "" is `achieved_goal` where there is one. A goal is where the random policy gets
    from the start in `goal_steps`.
    """

    id: str = ""
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    key: str = ""
    pixels: bool = False
    size: int | None = None
    stack: int = 1
    normalise_actions: bool = True
    time_limit: int | None = None
    goal: str = ""
    goal_steps: int = 50
    success_radius: float = 0.45

    def __post_init__(self) -> None:
        for name in ("size", "stack", "time_limit", "goal_steps"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}; give 1 or more")

    def build(self) -> "GymEnvironment":
        """The environment with these settings. Raises ValueError if it is not installed or not supported."""
        if not self.id:
            raise ValueError("gym: lacks the id of an environment; give it after the colon, as in gym:Pendulum-v1")
        return GymEnvironment(self)


class Simulator:
    """One environment of Gymnasium; `stamp` says which state it is in."""

    def __init__(self, env: Any) -> None:
        self.env, self.stamp = env, -1


class GymEnvironment(Environment):
    """An environment of Gymnasium. A state has the frames `x`, the facts by name, and which simulator is in it.

    A fact is a vector of the observation, or of numbers in `info`. `close` frees the simulators.
    """

    copyable = False

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name = f"gym:{config.id}"
        self._simulators: list[Simulator] = [Simulator(make_simulator(config))]
        self._finalizer = weakref.finalize(self, _close, self._simulators)
        self._stamps = 0
        env = self._simulators[0].env
        self._space = env.action_space
        self.action = action_spec(self.name, env.action_space, config.normalise_actions)
        self._key = chosen_key(self.name, env.observation_space, config)
        self.time_limit = config.time_limit or registered_limit(env) or DEFAULT_TIME_LIMIT
        first, info = env.reset(seed=0)
        raw = self._raw_frame(env, first)
        self._frame_shape = np.shape(raw)
        # The display of MuJoCo closes itself at exit, once it is there: the simulators close before.
        self._finalizer.atexit = False
        atexit.register(self._finalizer)
        frame = self._frames([raw])
        self.channels, self.size = frame.shape[1] * config.stack, tuple(frame.shape[2:])
        # What a start tells and a step does not is no fact.
        after, _, _, _, later = env.step(self._own_action(torch.zeros(self.action.size)))
        facts, lasting = self._facts(first, info), self._facts(after, later)
        self.factors_names = tuple(name for name in facts if name in lasting)
        self._goal = config.goal or ("achieved_goal" if "achieved_goal" in self.factors_names else "")
        if self._goal and self._goal not in self.factors_names:
            known = ", ".join(self.factors_names)
            raise ValueError(f"{self.name} has no fact {self._goal!r} for a goal; it has: {known}")
        self.has_goal, self.success_radius = bool(self._goal), config.success_radius

    def reset(self, ids: Ids, rng: Rng) -> EnvState:
        """Start an episode in each simulator, which ends the episodes that were in them."""
        seeds = (uniform_draws(rng.fork("start"), ids, 1)[:, 0] * 2**31).astype(np.int64).tolist()
        while len(self._simulators) < len(ids):
            self._simulators.append(Simulator(make_simulator(self.config)))
        found = []
        for simulator, seed in zip(self._simulators, seeds, strict=False):
            env = simulator.env
            first, info = env.reset(seed=seed)
            if env.action_space != self._space:
                raise ValueError(
                    f"{self.name} changed its actions from {self._space} to {env.action_space}; "
                    "use an environment whose spaces stay the same"
                )
            found.append((self._check_frame(self._raw_frame(env, first)), self._facts(first, info)))
        frame = self._frames([raw for raw, _ in found])
        x = frame.repeat(1, self.config.stack, *[1] * len(self.size))
        state = {"x": x, **self._stack_facts([facts for _, facts in found])}
        return {**state, **self._stamp(torch.arange(len(ids))), "ended": torch.zeros(len(ids), dtype=torch.bool)}

    def step(self, state: EnvState, action: Float[Tensor, "b a"]) -> Transition:
        """Step every simulator whose episode goes on.

        Raises ValueError if a simulator has moved on since this state, and SimulationError if one raises.
        """
        action = self.admit(action)
        self._check_current(state)
        rows = state["simulator"].tolist()
        reward = torch.zeros(len(rows))
        terminated, truncated, success = (torch.zeros(len(rows), dtype=torch.bool) for _ in range(3))
        raws, facts, going = [], [], (~state["ended"]).nonzero()[:, 0].tolist()
        for row in going:
            env = self._simulators[rows[row]].env
            try:
                seen, gain, ends, cut, info = env.step(self._own_action(action[row]))
                raw = self._raw_frame(env, seen)
            except Exception as error:  # a simulator raises anything
                raise SimulationError(
                    f"{self.name} failed in row {row} of the batch: {type(error).__name__}: {error}", row
                ) from error
            raws.append(self._check_frame(raw))
            facts.append(self._facts(seen, info))
            reward[row], terminated[row], truncated[row] = float(gain), bool(ends), bool(cut)
            success[row] = bool(info.get("success", info.get("is_success", False)))
        new = {name: value.clone() for name, value in state.items()}
        if going:
            kept = state["x"][going, self.channels // self.config.stack :]
            new["x"][going] = torch.cat([kept, self._frames(raws)], 1)
            for name, value in self._stack_facts(facts).items():
                new[name][going] = value
        new |= self._stamp(state["simulator"])
        new["ended"] = state["ended"] | terminated | truncated
        return Transition(new, reward, terminated, {"truncated": truncated, "success": success})

    def observe(self, state: EnvState) -> Float[Tensor, "b c ..."]:
        """The frames of the state."""
        return state["x"]

    def factors(self, state: EnvState) -> dict[str, Float[Tensor, "b _"]]:
        """The facts of the state: vectors of the observation, and numbers of `info`."""
        return {name: state[f"fact.{name}"] for name in self.factors_names}

    def draw(self, state: EnvState, size: int = 64) -> Float[Tensor, "b 3 h w"]:
        """The newest frame, if observations are pictures in colour or in grey."""
        channels = self.channels // self.config.stack
        if not self.size or channels == 2:
            return super().draw(state, size)
        frame = state["x"][:, -channels:][:, :3]
        return resize_frames(frame, size).expand(-1, 3, -1, -1)

    def tasks(self, ids: Ids, rng: Rng) -> tuple[EnvState, EnvState]:
        """Starts, and goals at which the random policy arrives from there; goals cannot be stepped.

        Raises ValueError if the random policy stays within the success radius of its start.
        """
        if not self.has_goal:
            return super().tasks(ids, rng)
        goal: EnvState = {}
        todo = np.arange(len(ids))
        for attempt in range(MAX_TRIES):
            reached = self._walk(ids[todo], rng, attempt)
            goal = {name: _fill_rows(goal.get(name), todo, value) for name, value in reached.items()}
            start = self.reset(ids, rng)
            todo = np.flatnonzero(self.is_solved(start, goal).numpy())
            if not len(todo):
                return start, goal
        raise ValueError(
            f"{self.name} reaches no goal farther than {self.success_radius} in {self.config.goal_steps} random steps; "
            "raise goal_steps or lower success_radius"
        )

    def distance(self, state: EnvState, goal: EnvState) -> Float[Tensor, " b"]:
        """The Euclidean distance in the fact that `goal` of the settings names."""
        if not self.has_goal:
            return super().distance(state, goal)
        apart = state[f"fact.{self._goal}"] - goal[f"fact.{self._goal}"]
        return apart.square().sum(1).sqrt()

    def close(self) -> None:
        """Free all simulators."""
        self._finalizer()

    def _walk(self, ids: Ids, rng: Rng, attempt: int) -> EnvState:
        """Where the random policy gets from the starts of these episodes; no simulator is in that state any more."""
        state = self.reset(ids, rng)
        actions = random_actions(self.action, ids, rng.fork("goal", attempt), -(-self.config.goal_steps // GOAL_HOLD))
        for step in range(self.config.goal_steps):
            state = self.step(state, actions[:, step // GOAL_HOLD]).state
        return {**state, "simulator": torch.full_like(state["simulator"], -1)}

    def _check_current(self, state: EnvState) -> None:
        for row, (which, stamp) in enumerate(zip(state["simulator"].tolist(), state["stamp"].tolist(), strict=True)):
            if which < 0 or self._simulators[which].stamp != stamp:
                raise ValueError(
                    f"the simulator of {self.name} has left the state in row {row}, and cannot return to it; step each "
                    "state once, and plan on a model"
                )

    def _stamp(self, simulators: Tensor) -> EnvState:
        """Number the states that the simulators are in now."""
        stamps = torch.arange(self._stamps, self._stamps + len(simulators))
        self._stamps += len(simulators)
        for which, stamp in zip(simulators.tolist(), stamps.tolist(), strict=True):
            self._simulators[which].stamp = stamp
        return {"simulator": simulators, "stamp": stamps}

    def _own_action(self, action: Float[Tensor, " a"]) -> Any:
        """An action as the simulator takes it."""
        if self.action.discrete:
            return int(action.argmax()) + int(self._space.start)
        values = action.numpy()
        if self.config.normalise_actions and self._space.is_bounded():
            values = self._space.low + (values + 1) / 2 * (self._space.high - self._space.low)
        return np.clip(values, self._space.low, self._space.high).astype(self._space.dtype)

    def _raw_frame(self, env: Any, observation: Any) -> Any:
        """The chosen part of an observation, or the rendered picture."""
        if self.config.pixels:
            return env.render()
        return observation[self._key] if self._key else observation

    def _check_frame(self, raw: Any) -> Any:
        """The same part of an observation. Raises ValueError if its shape has changed."""
        if np.shape(raw) != self._frame_shape:
            raise ValueError(
                f"{self.name} changed the shape of its observations from {self._frame_shape} to {np.shape(raw)}; "
                "use an environment whose spaces stay the same"
            )
        return raw

    def _frames(self, raws: Sequence[Any]) -> Float[Tensor, "b c ..."]:
        """Observations as (B, C, *size): vectors of numbers, or pictures in [0, 1]."""
        x = torch.from_numpy(np.stack([np.asarray(raw) for raw in raws]))
        if x.ndim == 2:
            return x.float()
        if x.ndim == 3:
            x = x[..., None]
        if x.shape[-1] <= MAX_CHANNELS:
            x = x.movedim(-1, 1)
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        return x if self.config.size is None else resize_frames(x, self.config.size)

    def _facts(self, observation: Any, info: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Vectors of the observation and numbers of `info`, by name; those that a start has, in its order."""
        entries = dict(observation) if isinstance(observation, Mapping) else {"observation": observation}
        found = {}
        for name, value in {**entries, **info}.items():
            array = np.asarray(value)
            if array.ndim < 2 and array.dtype.kind in "fiu" and array.size:
                found[name] = array.reshape(-1).astype(np.float32)
        if missing := [name for name in self.factors_names if name not in found]:
            raise ValueError(f"{self.name} no longer tells its {missing[0]!r}; use an environment that keeps its facts")
        return {name: found[name] for name in self.factors_names} or found

    def _stack_facts(self, facts: Sequence[Mapping[str, np.ndarray]]) -> EnvState:
        return {f"fact.{name}": torch.from_numpy(np.stack([one[name] for one in facts])) for name in self.factors_names}


def make_simulator(config: Config) -> Any:
    """An environment of Gymnasium without its time limit, rendering off screen.

    Raises ValueError, naming what to install, if it is not there.
    """
    import gymnasium
    from gymnasium import error

    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("MUJOCO_GL", "egl")
    options: dict[str, Any] = dict(config.options)
    if config.pixels:
        options["render_mode"] = "rgb_array"
    # The environments of MuJoCo render at any size: at a small one much faster.
    sized = {"width": config.size, "height": config.size} if config.pixels and config.size else {}
    try:
        provider = next((package for start, package in PROVIDERS.items() if config.id.startswith(start)), "")
        if provider:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import_module(provider)
        arguments = {"max_episode_steps": -1, "disable_env_checker": True, **options}
        try:
            return gymnasium.make(config.id, **{**sized, **arguments})
        except TypeError:
            return gymnasium.make(config.id, **arguments)
    except (ImportError, error.DependencyNotInstalled) as reason:
        raise ValueError(
            f"gym:{config.id} needs a package that is not installed ({reason}); "
            "install the extra: pip install 'jepakit[control]'"
        ) from reason
    except (error.UnregisteredEnv, error.DeprecatedEnv) as reason:
        raise ValueError(f"Gymnasium has no environment {config.id!r}: {reason}") from reason
    except (TypeError, error.Error) as reason:
        raise ValueError(f"gym:{config.id} cannot be made with these options: {reason}") from reason


def registered_limit(env: Any) -> int | None:
    """The time limit with which an environment is registered, and which `make_simulator` leaves out."""
    import gymnasium

    spec = gymnasium.registry.get(env.spec.id) if env.spec is not None else None
    return spec.max_episode_steps if spec is not None else None


def action_spec(name: str, space: Any, normalise: bool) -> ActionSpec:
    """The form of actions in one of Gymnasium's spaces. Raises ValueError if they are not supported."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return ActionSpec(int(space.n), discrete=True)
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(
            f"{name} takes actions {space}, which are not supported; wrap it so that they are a Box of one axis or "
            "Discrete"
        )
    size = int(space.shape[0])
    if normalise and space.is_bounded():
        return ActionSpec(size, (-1.0,) * size, (1.0,) * size)
    low, high = (tuple(map(float, side)) if np.isfinite(side).all() else () for side in (space.low, space.high))
    return ActionSpec(size, low, high)


def chosen_key(name: str, space: Any, config: Config) -> str:
    """The entry of a Dict of observations that is read, "" if they are no Dict or if the picture is rendered.

    Raises ValueError if observations are neither vectors nor pictures.
    """
    from gymnasium import spaces

    if config.pixels:
        return ""
    key = ""
    if isinstance(space, spaces.Dict):
        boxes = [k for k, v in space.items() if isinstance(v, spaces.Box)]
        pictures = [k for k in boxes if len(space[k].shape or ()) == 3]
        usual = [k for k in boxes if k == "observation"] or (boxes if len(boxes) == 1 else [])
        key = config.key or next(iter([*pictures, *usual]), "")
        if key not in boxes:
            raise ValueError(f"{name} observes {key or 'several things'!r}; choose one by key: {', '.join(boxes)}")
        space = space[key]
    elif config.key:
        raise ValueError(f"key is {config.key!r}, but {name} observes {space}, which has no entries; leave key out")
    shape: Size = getattr(space, "shape", None) or ()
    if not isinstance(space, spaces.Box) or len(shape) not in (1, 2, 3):
        raise ValueError(
            f"{name} observes {space}, which is not supported; set pixels to read its rendered picture, or wrap it so "
            "that observations are a Box"
        )
    if len(shape) == 3 and min(shape[0], shape[-1]) > MAX_CHANNELS:
        raise ValueError(f"{name} observes {space}, which is no picture; choose another key, or set pixels")
    return key


def resize_frames(x: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c size size"]:
    """Pictures at another size, smoothed where they shrink."""
    if tuple(x.shape[2:]) == (size, size):
        return x
    smooth = torch.nn.functional.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return smooth.clamp(0, 1)


def _fill_rows(old: Tensor | None, rows: Ids, new: Tensor) -> Tensor:
    """New rows in an old tensor; without one, the new rows are all there are."""
    if old is None:
        return new
    filled = old.clone()
    filled[rows] = new
    return filled


def _close(simulators: list[Simulator]) -> None:
    for simulator in simulators:
        simulator.env.close()
    simulators.clear()
