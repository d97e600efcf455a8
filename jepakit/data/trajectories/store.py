"""All steps of the episodes at a path, in memory or as parts of their files, so that windows are read at once."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from ...types import ActionSpec, Size
from ..draws import spread_evenly
from ..report import Problem
from .actions import read_actions
from .blocks import Block, frame_block, frame_reader
from .columns import as_rows
from .keys import Chosen, Request, choose_keys, shared_columns
from .record import Column, Episode, Logs, count_problems, value_problems
from .windows import Form

HASHED_BYTES, HASHED_FRAMES = 2**26, 8


class Steps(NamedTuple):
    """Recorded frames (B, F, …) of B windows, and what lies between the first and the last; see `Store.read`."""

    frames: Shaped[np.ndarray, "b f ..."]
    action: Float32[np.ndarray, "b s a"]
    reward: Float32[np.ndarray, "b s"] | None
    done: Bool[np.ndarray, "b s"] | None
    proprio: Float32[np.ndarray, "b f p"] | None


@dataclass(frozen=True, eq=False)
class Store:
    """The steps of all episodes. `steps` counts the actions of each; `layout` is that of a frame: HWC, CHW, HW or "".

    `actions` has the number of the choice if actions are discrete. Episode k has the rows from `first[k]` on in what is
    kept per action, and from `first[k] + k` on in what is kept per frame. `problems` are mistakes in the values.
    """

    names: tuple[str, ...]
    steps: Int64[np.ndarray, " e"]
    first: Int64[np.ndarray, " e"]
    frames: Block
    layout: str
    channels: int
    size: Size
    column_names: tuple[str, ...]
    spec: ActionSpec
    actions: Shaped[np.ndarray, "s a"]
    reward: Float32[np.ndarray, " s"] | None
    done: Bool[np.ndarray, " s"] | None
    proprio: Float32[np.ndarray, "n p"] | None
    factor_values: Float32[np.ndarray, "n k"] | None
    factor_names: tuple[str, ...]
    chosen: Chosen
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def proprio_size(self) -> int:
        """The number of proprioceptive values of a frame; 0 if there are none."""
        return 0 if self.proprio is None else self.proprio.shape[1]

    def read(self, episode: Int64[np.ndarray, " b"], begin: Int64[np.ndarray, " b"], form: Form) -> Steps:
        """The frames and steps of windows that begin at frame `begin` of `episode`, as `form` asks."""
        at = form.rows(begin)
        action = (self.first[episode] + begin)[:, None] + np.arange(form.steps, dtype=np.int64)
        values = self.actions[action]
        if self.spec.discrete:
            values = (values == np.arange(self.spec.size)).astype(np.float32)
        frame = (self.first[episode] + episode)[:, None] + at
        return Steps(
            self.frames.rows(episode, at),
            values,
            None if self.reward is None else self.reward[action],
            None if self.done is None else self.done[action],
            None if self.proprio is None else self.proprio[frame],
        )

    def factors(self, episode: int, at: Int64[np.ndarray, " f"]) -> Float32[np.ndarray, "f k"] | None:
        """The true quantities at these frames of an episode; None if the data have none."""
        return None if self.factor_values is None else self.factor_values[self.first[episode] + episode + at]

    def episode_actions(self, k: int) -> Shaped[np.ndarray, "t a"]:
        """The actions of episode k."""
        return self.actions[self.first[k] : self.first[k] + self.steps[k]]

    def fingerprint(self) -> str:
        """A hash of all names and actions, and of the frames: all, or eight of each episode if they are many."""
        about = (self.names, self.layout, self.channels, self.size, self.spec, self.chosen[:3], self.factor_names)
        digest = hashlib.blake2b(repr(about).encode(), digest_size=8)
        for values in (self.steps, self.actions, self.reward, self.done, self.proprio, self.factor_values):
            if values is not None:
                digest.update(np.ascontiguousarray(values).tobytes())
        frame = prod(self.size) * self.channels * np.dtype(self.frames.dtype).itemsize
        every = frame * int((self.steps + 1).sum()) <= HASHED_BYTES
        for k, steps in enumerate(self.steps.tolist()):
            own = self.frames.of(k, steps + 1)
            digest.update(
                np.ascontiguousarray(own if every else own[spread_evenly(steps + 1, HASHED_FRAMES)]).tobytes()
            )
        return digest.hexdigest()


# --- building


def build_store(logs: Logs, request: Request) -> Store:
    """The steps of the episodes whose counts fit; the problems of the others, and those of values, are listed.

    Raises ValueError if no episode is left, if episodes differ in shape, or if a setting does not fit them.
    """
    problems = [problem for episode in logs.episodes for problem in count_problems(episode)]
    wrong = {problem.name for problem in problems}
    episodes = [episode for episode in logs.episodes if episode.name not in wrong and episode.steps]
    if not episodes:
        raise ValueError(str(problems[0]) if problems else "no episode has an action; give observations and actions")
    chosen = choose_keys(shared_columns(episodes), request)
    steps = np.array([episode.steps for episode in episodes], dtype=np.int64)
    first = np.cumsum([0, *steps[:-1]]).astype(np.int64)
    reader = frame_reader(episodes, chosen, request.size)
    frames = frame_block(episodes, chosen, reader, first + np.arange(len(steps)))
    actions, spec, notes, found = read_actions(episodes, logs.action)
    problems += found
    if not chosen.pictures and frames.whole is not None:
        for k, episode in enumerate(episodes):
            problems += value_problems(episode.name, "the observation", frames.of(k, episode.steps + 1))
    factor_names, factors = _read_factors(episodes)
    return Store(
        names=tuple(episode.name for episode in episodes),
        steps=steps,
        first=first,
        frames=frames,
        layout=reader.layout,
        channels=reader.channels,
        size=reader.size,
        column_names=reader.names,
        spec=spec,
        actions=actions,
        reward=join_column([episode.rewards for episode in episodes], np.float32),
        done=join_column([episode.terminations for episode in episodes], bool),
        proprio=_read_proprio(episodes, chosen.proprio),
        factor_values=factors,
        factor_names=factor_names,
        chosen=chosen,
        notes=(*logs.notes, *chosen.notes, *reader.notes, *notes),
        problems=tuple(problems),
    )


def join_column(columns: Sequence[Column | None], dtype: type) -> Shaped[np.ndarray, " s"] | None:
    """A column of all episodes; None unless all have it."""
    found: list[np.ndarray] = [column.read().reshape(-1).astype(dtype) for column in columns if column is not None]
    return np.concatenate(found) if len(found) == len(columns) else None


def _read_proprio(episodes: Sequence[Episode], key: str) -> Float32[np.ndarray, "n p"] | None:
    if not key:
        return None
    return np.concatenate([as_rows(episode.observations[key].read()).astype(np.float32) for episode in episodes])


def _read_factors(episodes: Sequence[Episode]) -> tuple[tuple[str, ...], Float32[np.ndarray, "n k"] | None]:
    """The true quantities that all episodes have, and the names of their numbers."""
    keys = [key for key in episodes[0].factors if all(key in episode.factors for episode in episodes)]
    if not keys:
        return (), None
    widths = {key: prod(episodes[0].factors[key].shape[1:]) for key in keys}
    rows = [np.concatenate([as_rows(episode.factors[key].read()) for key in keys], axis=1) for episode in episodes]
    return tuple(factor_columns(widths)), np.concatenate(rows).astype(np.float32)


def factor_columns(widths: Mapping[str, int]) -> Iterator[str]:
    """The names of the numbers of quantities that have so many each."""
    for key, width in widths.items():
        yield from ([key] if width == 1 else [f"{key} {i}" for i in range(width)])


def repeat_problems(store: Store, repeat: int) -> Iterator[Problem]:
    """The first place in each episode where an action is not held for `repeat` steps."""
    if repeat == 1:
        return
    for k, name in enumerate(store.names):
        actions = store.episode_actions(k)
        groups = actions[: len(actions) // repeat * repeat].reshape(-1, repeat, actions.shape[1])
        bad = np.flatnonzero((groups != groups[:, :1]).any((1, 2)))
        if len(bad):
            detail = f"the action changes within steps {int(bad[0]) * repeat} … {int(bad[0] + 1) * repeat - 1}"
            fix = f"set data.action_repeat to the steps for which actions are held, or data.action_block={repeat}"
            yield Problem(name, "repeat", detail, fix)
