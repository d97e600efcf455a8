"""Our environments as environments of Gymnasium: `import jepakit.envs.register`, then `gymnasium.make("jepakit/…")`.

The ids are jepakit/TwoRooms-v0, jepakit/Pendulum-v0 and jepakit/CartPole-v0; keywords are fields of the environment's
Config, as in `gymnasium.make("jepakit/TwoRooms-v0", wall="random")`. Gymnasium's own time limit cuts the episodes.
"""

from typing import Any, Final

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from ..types import Rng
from .base import Environment, EnvState, build_environment

# Gymnasium's id → our name, and the time limit.
IDS: Final = {
    "jepakit/TwoRooms-v0": ("two-rooms", 200),
    "jepakit/Pendulum-v0": ("pendulum", 200),
    "jepakit/CartPole-v0": ("cartpole", 500),
}


class SingleEnv(gymnasium.Env[np.ndarray, Any]):
    """One world of an environment, as Gymnasium wants it.

    Observations are float32, pictures channels-first in [0, 1]. Discrete actions are numbers. With a goal, the reward
    is 1 when it is reached, which ends the episode, and `info` has its picture `goal` and the `distance` to it.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, name: str, render_mode: str | None = None, **settings: Any) -> None:
        self.environment: Environment = build_environment(name, **settings)
        self.render_mode = render_mode
        spec = self.environment.action
        self.action_space = (
            spaces.Discrete(spec.size)
            if spec.discrete
            else spaces.Box(np.array(spec.low, np.float32), np.array(spec.high, np.float32))
        )
        bound = (0.0, 1.0) if self.environment.size else (-np.inf, np.inf)
        self.observation_space = spaces.Box(*bound, (self.environment.channels, *self.environment.size), np.float32)
        self._state: EnvState = {}
        self._goal: EnvState = {}
        self._goal_picture = np.zeros(0, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The start of an episode, or of a task."""
        super().reset(seed=seed, options=options)
        rng, ids = Rng(int(self.np_random.integers(2**31))), np.zeros(1, np.int64)
        if self.environment.has_goal:
            self._state, self._goal = self.environment.tasks(ids, rng)
            self._goal_picture = self.environment.observe(self._goal)[0].numpy()
        else:
            self._state = self.environment.reset(ids, rng)
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step, as in the environment itself."""
        spec = self.environment.action
        row = np.eye(spec.size, dtype=np.float32)[action] if spec.discrete else np.float32(action)
        after = self.environment.step(self._state, torch.from_numpy(row)[None])
        self._state = after.state
        reward, terminated = float(after.reward[0]), bool(after.terminated[0])
        if self.environment.has_goal:
            terminated = bool(self.environment.is_solved(self._state, self._goal)[0])
            reward = float(terminated)
        return self._observation(), reward, terminated, False, self._info()

    def render(self) -> Any:
        """A picture (H, W, 3), uint8."""
        if self.render_mode is None:
            return None
        picture = self.environment.draw(self._state)[0]
        return (picture * 255).round().byte().permute(1, 2, 0).numpy()

    def _observation(self) -> np.ndarray:
        observation: np.ndarray = self.environment.observe(self._state)[0].numpy()
        return observation

    def _info(self) -> dict[str, Any]:
        if not self._goal:
            return {}
        distance = float(self.environment.distance(self._state, self._goal)[0])
        return {"goal": self._goal_picture.copy(), "distance": distance}


for _id, (_name, _limit) in IDS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(_id, entry_point=f"{__name__}:SingleEnv", max_episode_steps=_limit, kwargs={"name": _name})
