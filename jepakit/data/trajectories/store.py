"""All steps of the episodes at a path, in memory or as parts of their files, so that windows are read at once."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64, Shaped

from ...types import ActionSpec, Size
from ..draws import spread_evenly
from ..report import Problem
from .columns import as_rows
from .record import (
    ActionFacts,
    Column,
    Episode,
    Logs,
    action_problems,
    choice_problems,
    count_problems,
    value_problems,
)
from .windows import Form

# Frames above the first limit stay in their files if these allow it; copies above the second lie in a temporary file.
MAX_READ_BYTES, MAX_MEMORY_BYTES = 2**30, 2**32
MAX_MAPS = 10_000
HASHED_BYTES, HASHED_FRAMES = 2**26, 8
MIN_PICTURE_SIDE = 16
PICTURE_KEYS = ("pixels", "image", "images", "rgb", "observations")
VECTOR_KEYS = ("observations", "observation", "state")
PROPRIO_KEYS = ("proprio", "agent_pos")


class Request(NamedTuple):
    """The observations to read: keys and proprioception as in the settings, and the size of pictures."""

    keys: tuple[str, ...] | None = None
    proprio: str | None = None
    size: tuple[int, int] | None = None


class Chosen(NamedTuple):
    """The keys that make x, the key of the proprioception ("": none), whether x is pictures, and notes."""

    keys: tuple[str, ...]
    proprio: str
    pictures: bool
    notes: tuple[str, ...]


class Steps(NamedTuple):
    """Recorded frames (B, F, …) of B windows, and what lies between the first and the last; see `Store.read`."""

    frames: Shaped[np.ndarray, "b f ..."]
    action: Float32[np.ndarray, "b s a"]
    reward: Float32[np.ndarray, "b s"] | None
    done: Bool[np.ndarray, "b s"] | None
    proprio: Float32[np.ndarray, "b f p"] | None


@dataclass(frozen=True, eq=False)
class Block:
    """The frames of all episodes: `whole`, one array with episode k from row `first[k]` on, or `parts`, one each."""

    first: Int64[np.ndarray, " e"]
    whole: Shaped[np.ndarray, "n ..."] | None
    parts: Sequence[Shaped[np.ndarray, "_ ..."]] = ()

    @property
    def dtype(self) -> type:
        """The type of the frames as they are read: 8-bit, or float32."""
        found = self.parts[0] if self.whole is None else self.whole
        return np.uint8 if found.dtype == np.uint8 else np.float32

    def rows(self, episode: Int64[np.ndarray, " b"], at: Int64[np.ndarray, "b f"]) -> Shaped[np.ndarray, "b f ..."]:
        """Frames `at` of each episode."""
        if self.whole is not None:
            taken: np.ndarray = np.take(self.whole, self.first[episode][:, None] + at, axis=0)
            return taken
        found = np.empty((*at.shape, *self.parts[0].shape[1:]), dtype=self.dtype)
        for b, k in enumerate(episode.tolist()):
            found[b] = self.parts[k][at[b]]
        return found

    def of(self, k: int, length: int) -> Shaped[np.ndarray, "t ..."]:
        """The first `length` frames of episode k, in place."""
        if self.whole is None:
            return self.parts[k][:length]
        return self.whole[self.first[k] : self.first[k] + length]


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
    chosen = choose_keys(_shared_shapes(episodes), request)
    steps = np.array([episode.steps for episode in episodes], dtype=np.int64)
    first = np.cumsum([0, *steps[:-1]]).astype(np.int64)
    reader = _frame_reader(episodes, chosen, request.size)
    frames = _frame_block(episodes, chosen, reader, first + np.arange(len(steps)))
    actions, spec, notes, found = _read_actions(episodes, logs.action)
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
        reward=_joined([episode.rewards for episode in episodes], np.float32),
        done=_joined([episode.terminations for episode in episodes], bool),
        proprio=_read_proprio(episodes, chosen.proprio),
        factor_values=factors,
        factor_names=factor_names,
        chosen=chosen,
        notes=(*logs.notes, *chosen.notes, *reader.notes, *notes),
        problems=tuple(problems),
    )


def _shared_shapes(episodes: Sequence[Episode]) -> Mapping[str, Column]:
    """The observations that all episodes have, as in the first. Raises ValueError if one differs in shape."""
    first = episodes[0]
    keys = [key for key in first.observations if all(key in episode.observations for episode in episodes)]
    for episode in episodes:
        for key in keys:
            own, other = episode.observations[key], first.observations[key]
            if own.shape[1:] != other.shape[1:]:
                raise ValueError(
                    f"{key!r} of {episode.name} has the shape {own.shape[1:]} but that of {first.name} "
                    f"{other.shape[1:]}; give episodes of one shape"
                )
    return {key: first.observations[key] for key in keys}


def is_picture(column: Column) -> bool:
    """Whether a column's rows are pictures: three axes, or two that are 8-bit or long."""
    axes = column.shape[1:]
    return len(axes) == 3 or (len(axes) == 2 and (column.dtype == np.uint8 or min(axes) >= MIN_PICTURE_SIDE))


def choose_keys(columns: Mapping[str, Column], request: Request) -> Chosen:
    """The observations that make x, and the proprioception. Raises ValueError for unknown keys or a mixture.

    Without a request: the pictures of the usual name, or the first ones; if there are none, the vectors of the usual
    name, or all of them.
    """
    held = ", ".join(columns) or "none that all episodes have"
    for key in (*(request.keys or ()), *([request.proprio] if request.proprio else [])):
        if key not in columns:
            raise ValueError(f"no observation {key!r}, only {held}; set data.keys and data.proprio to these")
    pictures = [key for key, column in columns.items() if is_picture(column)]
    vectors = [key for key in columns if key not in pictures]
    proprio = request.proprio
    if proprio is None:
        proprio = next((key for key in PROPRIO_KEYS if key in vectors), "") if pictures else ""
        proprio = "" if request.keys and proprio in request.keys else proprio
    keys = request.keys
    if not keys:
        usual = next((key for key in (PICTURE_KEYS if pictures else VECTOR_KEYS) if key in (pictures or vectors)), None)
        keys = (usual,) if usual else tuple(pictures[:1] or vectors)
    if not keys:
        raise ValueError("the episodes share no observation; give each of them the same keys")
    kinds = {key in pictures for key in keys}
    if len(kinds) > 1 or (proprio and proprio in pictures):
        raise ValueError(
            f"data.keys = {', '.join(keys)} with data.proprio = {proprio!r} mixes pictures ({', '.join(pictures)}) and "
            "vectors; put pictures in data.keys and one vector in data.proprio"
        )
    rest = [key for key in columns if key not in (*keys, proprio)]
    notes = []
    if len(columns) > 1:
        left = f"; {', '.join(rest)} not read" if rest else ""
        notes.append(f"data.keys = [{', '.join(keys)}], data.proprio = {proprio or 'none'}{left}")
    return Chosen(tuple(keys), proprio, kinds == {True}, tuple(notes))


class _Reader(NamedTuple):
    """How the frames of an episode become rows of a block: `read`, or in place if `single` names a column as it is."""

    read: Callable[[Episode], Shaped[np.ndarray, "t ..."]]
    layout: str
    channels: int
    size: Size
    names: tuple[str, ...]
    single: bool
    notes: tuple[str, ...] = ()


def _frame_reader(episodes: Sequence[Episode], chosen: Chosen, size: tuple[int, int] | None) -> _Reader:
    columns = {key: episodes[0].observations[key] for key in chosen.keys}
    if not chosen.pictures:
        if size is not None:
            raise ValueError(f"data.size is {list(size)} but {', '.join(columns)} are vectors; leave data.size out")
        widths = {key: prod(column.shape[1:]) for key, column in columns.items()}
        names = tuple(f"{key} {i}" for key, width in widths.items() for i in range(width))

        def read_vectors(episode: Episode) -> Float32[np.ndarray, "t d"]:
            parts = [as_rows(episode.observations[key].read()) for key in chosen.keys]
            return np.concatenate(parts, axis=1).astype(np.float32)

        return _Reader(read_vectors, "", sum(widths.values()), (), names, False)
    layouts = {key: frame_layout(column.shape[1:], key) for key, column in columns.items()}
    sides = {key: _sides(column.shape[1:], layouts[key]) for key, column in columns.items()}
    channels = {key: _channels(column.shape[1:], layouts[key]) for key, column in columns.items()}
    own = sides[chosen.keys[0]]
    target = own if size is None else (int(size[0]), int(size[1]))
    if size is None and len(set(sides.values())) > 1:
        raise ValueError(f"the pictures {', '.join(chosen.keys)} differ in size; give data.size, or one of data.keys")
    names = tuple(f"{key} {i}" if len(columns) > 1 else str(i) for key in chosen.keys for i in range(channels[key]))
    if len(chosen.keys) == 1 and target == own:
        key = chosen.keys[0]
        return _Reader(
            lambda episode: plain_values(episode.observations[key].read()),
            layouts[key],
            channels[key],
            target,
            names,
            True,
        )

    def read_pictures(episode: Episode) -> Shaped[np.ndarray, "t c h w"]:
        parts = [
            resize_frames(channels_first(plain_values(episode.observations[key].read()), layouts[key]), target)
            for key in chosen.keys
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    note = f"pictures are resized from {own[0]} x {own[1]} to {target[0]} x {target[1]} px" if target != own else ""
    return _Reader(read_pictures, "CHW", sum(channels.values()), target, names, False, (note,) if note else ())


def frame_layout(shape: tuple[int, ...], key: str) -> str:
    """The axes of a picture: the shortest one is the channels. Raises ValueError if it is the middle one."""
    if len(shape) == 2:
        return "HW"
    if shape[2] <= min(shape[:2]):
        return "HWC"
    if shape[0] <= min(shape[1:]):
        return "CHW"
    raise ValueError(f"{key!r} has frames of shape {shape}; give pictures (H, W, C) or (C, H, W)")


def _sides(shape: tuple[int, ...], layout: str) -> tuple[int, int]:
    return (shape[1], shape[2]) if layout == "CHW" else (shape[0], shape[1])


def _channels(shape: tuple[int, ...], layout: str) -> int:
    return {"HW": 1, "CHW": shape[0], "HWC": shape[-1]}[layout]


def plain_values(values: Shaped[np.ndarray, "t ..."]) -> Shaped[np.ndarray, "t ..."]:
    """8-bit values as they are, 16-bit ones in [0, 1], all others as float32."""
    if values.dtype == np.uint8:
        return values
    return (values / 65535).astype(np.float32) if values.dtype == np.uint16 else values.astype(np.float32)


def channels_first(values: Shaped[np.ndarray, "t ..."], layout: str) -> Shaped[np.ndarray, "t c h w"]:
    """Pictures with the channels before the sides."""
    if layout == "HW":
        return values[:, None]
    return np.moveaxis(values, -1, 1) if layout == "HWC" else values


def resize_frames(values: Shaped[np.ndarray, "t c h w"], size: tuple[int, int]) -> Shaped[np.ndarray, "t c _ _"]:
    """Pictures at `size`, resized with antialiasing."""
    if values.shape[2:] == size:
        return values
    found = np.empty((*values.shape[:2], *size), dtype=values.dtype)
    for begin in range(0, len(values), 256):
        wide = torch.from_numpy(np.ascontiguousarray(values[begin : begin + 256])).float()
        part = F.interpolate(wide, size=size, mode="bilinear", antialias=True)
        found[begin : begin + 256] = (part.round_().clamp_(0, 255) if values.dtype == np.uint8 else part).numpy()
    return found


def _frame_block(episodes: Sequence[Episode], chosen: Chosen, reader: _Reader, first: Int64[np.ndarray, " e"]) -> Block:
    """The frames of all episodes: in their files if they are many and these allow it, else read once."""
    columns = [episode.observations[chosen.keys[0]] for episode in episodes]
    total = sum(prod(column.shape) * column.dtype.itemsize for column in columns)
    # 16-bit pictures are scaled, which only reading can do.
    in_place = reader.single and all(column.mapped and column.dtype != np.uint16 for column in columns)
    if in_place and total > MAX_READ_BYTES and len(columns) <= MAX_MAPS:
        return Block(first, None, [np.asarray(column.mapped()) for column in columns if column.mapped])
    whole: Shaped[np.ndarray, "n ..."] | None = None
    for k, episode in enumerate(episodes):
        values = reader.read(episode)
        if whole is None:
            whole = new_block((int(first[-1]) + episodes[-1].steps + 1, *values.shape[1:]), values.dtype)
        whole[first[k] : first[k] + episode.steps + 1] = values
    return Block(first, whole)


def new_block(shape: tuple[int, ...], dtype: np.dtype) -> Shaped[np.ndarray, "n ..."]:
    """An array to fill: in memory, or in a temporary file that ends with the process if it is large."""
    if prod(shape) * np.dtype(dtype).itemsize <= MAX_MEMORY_BYTES:
        return np.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile(prefix="jepakit-") as file:
        return np.asarray(np.memmap(file, dtype, "w+", 0, shape))


def _read_actions(
    episodes: Sequence[Episode], facts: ActionFacts
) -> tuple[Shaped[np.ndarray, "s a"], ActionSpec, list[str], list[Problem]]:
    """The actions of all episodes, their form, notes, and what is wrong with them."""
    parts = [as_rows(episode.actions.read()) for episode in episodes]
    width = parts[0].shape[1]
    for episode, values in zip(episodes, parts, strict=True):
        if values.shape[1] != width:
            raise ValueError(
                f"an action of {episode.name} has {values.shape[1]} numbers but one of {episodes[0].name} {width}; "
                "give episodes of one environment"
            )
    whole = all(values.dtype.kind in "iub" for values in parts)
    if facts.choices > 0 or (facts.choices < 0 and whole and width == 1 and not facts.low):
        return _discrete_actions(episodes, parts, facts)
    actions = np.concatenate(parts).astype(np.float32)
    notes, low, high = list[str](), facts.low, facts.high
    if low and len(low) == 1 and width > 1:
        low, high = low * width, high * width
    if low and not len(low) == len(high) == width:
        raise ValueError(
            f"the declared bounds have {len(low)} and {len(high)} numbers for actions of {width}; give {width}"
        )
    problems = [
        problem
        for episode, values in zip(episodes, parts, strict=True)
        for problem in action_problems(episode.name, values.astype(np.float64), facts._replace(low=low, high=high))
    ]
    if not low and not problems:
        low, high, notes = range_of_actions(actions)
    names = facts.names if len(facts.names) == width else ()
    return actions, ActionSpec(width, low, high, names=names, max_norm=facts.max_norm), notes, problems


def range_of_actions(actions: Float[np.ndarray, "s a"]) -> tuple[tuple[float, ...], tuple[float, ...], list[str]]:
    """The bounds of actions that declare none: their range in all episodes; and notes on it."""
    low, high = actions.min(0).astype(np.float64), actions.max(0).astype(np.float64)
    notes = ["the files declare no bounds of actions: they are the range of the actions in all episodes"]
    still = np.flatnonzero(low == high)
    if len(still):
        notes.append(f"the number {', '.join(map(str, still[:8].tolist()))} of the action never changes")
        # Bounds must leave some room between them.
        room = 1e-3 * np.maximum(1, np.abs(low[still]))
        low[still], high[still] = low[still] - room, high[still] + room
    return tuple(low.tolist()), tuple(high.tolist()), notes


def _discrete_actions(
    episodes: Sequence[Episode], parts: Sequence[Shaped[np.ndarray, "_ a"]], facts: ActionFacts
) -> tuple[Int64[np.ndarray, "s 1"], ActionSpec, list[str], list[Problem]]:
    if parts[0].shape[1] != 1:
        raise ValueError(f"discrete actions have {parts[0].shape[1]} numbers each; give one, the number of the choice")
    numbers = [values[:, 0].astype(np.int64) - facts.start for values in parts]
    found = np.concatenate(numbers)
    choices = facts.choices if facts.choices > 0 else int(found.max()) + 1
    notes = [f"actions are whole numbers: one of {choices} choices, as one-hot vectors"]
    problems = [
        problem
        for episode, values in zip(episodes, numbers, strict=True)
        for problem in choice_problems(episode.name, values, choices, facts.start)
    ]
    return found[:, None], ActionSpec(max(1, choices), discrete=True, names=facts.names), notes, problems


def _joined(columns: Sequence[Column | None], dtype: type) -> Shaped[np.ndarray, " s"] | None:
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
