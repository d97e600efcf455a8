"""Trajectories that an environment generates: each is a pure function of the seed and its number.

Small data are generated once and kept. Of others, a batch simulates its own trajectories and observes the frames that
it shows, so that any number of them takes no memory.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from ...envs import ENVS, Environment, EnvState, build_environment
from ...types import ActionSpec, Rng, Size
from .keys import Request
from .record import ActionFacts, Episode, Logs, array_column
from .store import Steps, Store, build_store, factor_columns
from .windows import Form

MAX_KEPT_BYTES = 2**28
MAX_STEPS = 200
CHUNK_BYTES, MAX_CHUNK = 2**26, 4096
GYMNASIUM = "gym:"


def is_environment(path: str) -> bool:
    """Whether a path names an environment. Imports none of them."""
    return path in ENVS.names() or (path.startswith(GYMNASIUM) and len(path) > len(GYMNASIUM))


@dataclass(frozen=True)
class Recipe:
    """What makes trajectories: the environment by name, the side of its pictures, policy and seed.

    `group` trajectories in a row share what the environment draws for a group, such as where walls stand. Each has
    `steps` steps (None: one sample if the environment has goals, else as many as its time limit, at most 200),
    in which every action is held for `hold` steps.
    """

    path: str
    size: tuple[int, int] | None
    policy: str
    seed: int
    steps: int | None
    hold: int
    group: int = 1

    def build(self) -> Environment:
        """The environment. Raises ValueError if it does not exist, or has no such pictures or policy."""
        if self.size is not None and self.size[0] != self.size[1]:
            raise ValueError(f"data.size is {list(self.size)}, but environments draw squares; give two equal sides")
        own = {} if self.size is None else {"size": int(self.size[0])}
        if self.group > 1:
            if not hasattr(ENVS.load(self.path.partition(":")[0]), "group"):
                raise ValueError(
                    f"data.group is {self.group}, but episodes of {self.path} share nothing; leave data.group out"
                )
            own["group"] = self.group
        env = build_environment(self.path, **own)
        if self.size is not None and not env.size:
            raise ValueError(f"data.size is {list(self.size)}, but {self.path} observes vectors; leave data.size out")
        if self.policy not in env.policies:
            raise ValueError(
                f"{self.path} has no policy {self.policy!r}; set data.policy to one of {', '.join(env.policies)}"
            )
        return env

    def length(self, env: Environment, form: Form) -> int:
        """The steps of a trajectory. Raises ValueError if a sample needs more."""
        if self.steps is None:
            return form.steps if env.has_goal else max(form.steps, min(env.time_limit, MAX_STEPS))
        if self.steps < form.steps:
            raise ValueError(
                f"data.steps is {self.steps}, but a window of {form.window} frames takes {form.steps} steps; give "
                f"{form.steps} or more"
            )
        return self.steps

    @property
    def rng(self) -> Rng:
        """The random stream of all trajectories."""
        return Rng(self.seed).fork("trajectories")


class NumberedNames(Sequence[str]):
    """Names that count: NAME[FIRST], NAME[FIRST + 1], …"""

    def __init__(self, name: str, ids: Int64[np.ndarray, " e"]) -> None:
        self.name, self.ids = name, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> str:  # type: ignore[override]
        return f"{self.name}[{int(self.ids[i])}]"


@dataclass(frozen=True, eq=False)
class SimulatedEpisodes:
    """Trajectories `ids` of an environment, simulated when they are read; `steps` counts the actions of each."""

    recipe: Recipe
    env: Environment
    ids: Int64[np.ndarray, " e"]
    steps: Int64[np.ndarray, " e"]
    length: int
    names: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", NumberedNames(self.recipe.path, self.ids))

    @property
    def layout(self) -> str:
        """The axes of a frame."""
        return "CHW" if self.env.size else ""

    @property
    def channels(self) -> int:
        """The number of channels of a frame."""
        return self.env.channels

    @property
    def size(self) -> Size:
        """(H, W) of a picture, () of a vector."""
        return tuple(self.env.size)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the channels."""
        return tuple(map(str, range(self.env.channels)))

    @property
    def spec(self) -> ActionSpec:
        """The form of one action."""
        return self.env.action

    @property
    def proprio_size(self) -> int:
        """0: environments show no proprioception."""
        return 0

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The names of the true quantities, one per number."""
        start = self.env.factors(self.env.reset(self.ids[:1], self.recipe.rng))
        return tuple(factor_columns({key: value.shape[1] for key, value in start.items()}))

    def read(self, episode: Int64[np.ndarray, " b"], begin: Int64[np.ndarray, " b"], form: Form) -> Steps:
        """The frames and steps of windows; every trajectory among them is simulated once."""
        ids, row = np.unique(self.ids[episode], return_inverse=True)
        rows = torch.from_numpy(row.reshape(-1))[:, None]
        made = self.env.simulate(ids, self.recipe.rng, self.length, self.recipe.policy, self.recipe.hold)
        shown = pick_states(made.states, rows, form.rows(begin))
        action = torch.from_numpy(begin[:, None] + np.arange(form.steps, dtype=np.int64))
        frames = self.env.observe_path(shown).movedim(1, 2)
        return Steps(
            frames.float().numpy(),
            made.action[rows, action].float().numpy(),
            made.reward[rows, action].float().numpy(),
            made.done[rows, action].numpy(),
            None,
        )

    def factors(self, episode: int, at: Int64[np.ndarray, " f"]) -> Float32[np.ndarray, "f k"]:
        """The true quantities at these frames of a trajectory."""
        ids = self.ids[episode : episode + 1]
        made = self.env.simulate(ids, self.recipe.rng, self.length, self.recipe.policy, self.recipe.hold)
        found = self.env.factors({key: value[0, at] for key, value in made.states.items()})
        values: np.ndarray = torch.cat(list(found.values()), 1).float().numpy()
        return values

    def fingerprint(self) -> str:
        """A hash of what makes the trajectories, of their numbers, and of one of them."""
        made = (self.recipe, getattr(self.env, "config", None), self.length)
        digest = hashlib.blake2b(repr(made).encode() + self.ids.tobytes(), digest_size=8)
        first = self.env.simulate(self.ids[:1], self.recipe.rng, self.length, self.recipe.policy, self.recipe.hold)
        digest.update(first.action.numpy().tobytes())
        return digest.hexdigest()


def pick_states(states: EnvState, rows: Tensor, at: Int64[np.ndarray, "b f"]) -> EnvState:
    """The states (B, F, …) at these steps of trajectories `rows` (B, 1)."""
    return {key: value[rows, torch.from_numpy(at)] for key, value in states.items()}


def generate(recipe: Recipe, ids: Int64[np.ndarray, " e"], form: Form) -> Store | SimulatedEpisodes:
    """Trajectories `ids`: kept if they are small, else simulated when they are read. Raises ValueError."""
    env = recipe.build()
    length = recipe.length(env, form)
    if _frame_bytes(env) * (length + 1) * len(ids) <= MAX_KEPT_BYTES:
        return keep_trajectories(recipe, env, ids, length)
    if not env.copyable:
        raise ValueError(
            f"{len(ids)} trajectories of {recipe.path} do not fit into memory, and its simulator is too slow to make "
            f"them again for every batch; give a smaller data.count, or write them once with jepa collect {recipe.path}"
        )
    steps = np.full(len(ids), length, dtype=np.int64)
    if env.terminates:
        parts = split_ids(env, ids, length)
        made = [env.simulate(part, recipe.rng, length, recipe.policy, recipe.hold).length for part in parts]
        steps = torch.cat(made).numpy()
    return SimulatedEpisodes(recipe, env, ids, steps, length)


def keep_trajectories(recipe: Recipe, env: Environment, ids: Int64[np.ndarray, " e"], length: int) -> Store:
    """Trajectories `ids`, generated once."""
    episodes, names = list[Episode](), NumberedNames(recipe.path, ids)
    for part in split_ids(env, ids, length):
        made = env.behave(part, recipe.rng, length, recipe.policy, recipe.hold)
        action = made.action.argmax(2) if env.action.discrete else made.action.float()
        arrays: dict[str, Any] = {
            "x": made.x.float().movedim(1, 2),
            "action": action,
            "reward": made.reward.float(),
            "done": made.done,
        }
        for b, steps in enumerate(made.length.tolist()):
            own = {key: array_column(value[b].numpy()) for key, value in arrays.items()}
            episodes.append(
                Episode(
                    names[len(episodes)],
                    {"observations": own["x"].part(0, steps + 1)},
                    own["action"].part(0, steps),
                    own["reward"].part(0, steps),
                    own["done"].part(0, steps),
                    {key: array_column(value[b, : steps + 1].numpy()) for key, value in made.factors.items()},
                )
            )
    facts = ActionFacts(choices=env.action.size if env.action.discrete else 0)
    store = build_store(Logs(episodes, facts), Request())
    return replace(store, spec=env.action, notes=())


def split_ids(env: Environment, ids: Int64[np.ndarray, " e"], length: int) -> list[Int64[np.ndarray, " _"]]:
    """The trajectories in parts of at most 4,096, or of fewer if these would take more than 64 MiB."""
    size = max(1, min(MAX_CHUNK, CHUNK_BYTES // (_frame_bytes(env) * (length + 1))))
    return np.array_split(ids, -(-len(ids) // size))


def _frame_bytes(env: Environment) -> int:
    return 4 * env.channels * prod(env.size)
