"""Collects episodes of an environment: a file per episode, with the policy and the seed that made them.

Episode k depends on the environment, its settings, the policy, the seed and k alone. So a collection that was
interrupted continues where it stopped, and several processes write the same files as one. The policy may be a run: then
the same episodes are always planned together, because rounding depends on how many these are.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Shaped

from ..core import files
from ..core.progress import Progress, SilentProgress, progress_counter
from ..core.version import VERSION
from ..envs import Environment, Episodes, build_environment
from ..types import ActionSpec, Rng
from .run_policy import Planning, RunPolicy, open_policy
from .world import environment_settings

Columns = dict[str, Shaped[np.ndarray, "..."]]
Format = Literal["npz", "minari"]
FORMATS: Final[tuple[Format, ...]] = ("npz", "minari")
CHUNK: Final = 64
"""Episodes that are stepped together."""
PLANNED_CHUNK: Final = 8
"""Episodes that are planned together, always the same ones."""
ABOUT: Final = "collection.json"
MINARI_FILE: Final = Path("data", "main_data.hdf5")


@dataclasses.dataclass(frozen=True)
class Collection:
    """What a collection is made of; stored beside the episodes. `settings` are those of the environment.

    `policy` is the name of a policy of the environment, or of a run; `planning` says how the run acted.
    """

    environment: str
    settings: dict[str, Any]
    policy: str
    seed: int
    steps: int
    hold: int
    format: Format
    planning: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """What is stored: these values and the version of jepakit."""
        return {**dataclasses.asdict(self), "jepakit": VERSION}


def collect(
    environment: str,
    out: str | os.PathLike[str],
    episodes: int,
    *,
    policy: str | os.PathLike[str] = "random",
    planning: Mapping[str, Any] | None = None,
    steps: int | None = None,
    hold: int = 1,
    format: Format = "npz",
    seed: int = 0,
    workers: int = 1,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Let a policy act in an environment and write the episodes to the folder `out`; returns it.

    `environment` is a name that `jepa list` shows, or gym:ID. `policy` is one of its own, or the folder of a run of a
    world model, which plans, to goals where the environment has some; `planning` are fields of `Planning`, such as
    {"horizon": 15, "noise": 0.2}. `settings` are those of the environment, as {"env.size": 65}, and of the planner, as
    {"cem.samples": 300}. Each action is held for `hold` steps; an episode ends after `steps` steps (default: the
    environment's time limit) or earlier, where the environment says so. Format "npz" writes a file per episode, with
    Minari's names for its arrays, "minari" one HDF5 file in Minari's layout. `workers` is the number of processes. A
    folder with episodes of the same collection is continued. Raises ValueError for a folder that holds anything else,
    and for a run that does not fit, before anything is written.
    """
    if episodes < 1 or workers < 1:
        raise ValueError(f"episodes is {episodes} and workers {workers}; give 1 or more")
    if format not in FORMATS:
        raise ValueError(f"no format {format!r}; give one of: {', '.join(FORMATS)}")
    env, acting, about = _open_collection(environment, policy, planning, settings or {}, hold)
    about = dataclasses.replace(about, seed=seed, steps=steps or env.time_limit, format=format)
    folder = Path(out)
    _check_folder(folder, about)
    writer = _MinariFile(folder) if format == "minari" else _NpzFolder(folder)
    open_ids = [k for k in range(episodes) if not writer.has(k)]
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / ABOUT, about.to_json())
    count = progress_counter(progress or SilentProgress(), f"collecting from {environment}", "episodes")
    done = episodes - len(open_ids)
    chunks = _chunks_of(open_ids, None if acting is None else PLANNED_CHUNK)
    make = partial(make_episodes, about) if acting is None else partial(play_episodes, about, acting)
    for ids, made in zip(chunks, _run_chunks(make, chunks, min(workers, len(chunks))), strict=True):
        for k in sorted(set(open_ids) & set(ids)):
            writer.write(k, made[ids.index(k)])
            done += 1
        count(done, episodes)
    writer.finish(about, env.action)
    return folder


def _open_collection(
    environment: str,
    policy: str | os.PathLike[str],
    planning: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    hold: int,
) -> tuple[Environment, RunPolicy | None, Collection]:
    """The environment, the run that acts there, if it is one, and what the collection is made of, but for its size.

    Raises ValueError if they do not fit.
    """
    own = {key.removeprefix("env."): value for key, value in settings.items() if key.startswith("env.")}
    rest = {key: value for key, value in settings.items() if not key.startswith("env.")}
    parsed = environment_settings(environment, own)
    env = build_environment(environment, **parsed)
    if str(policy) in env.policies:
        if rest:
            section = next(iter(rest)).partition(".")[0]
            raise ValueError(
                f"{section} is no section of a collection; write settings of {environment} as --env.KEY VALUE"
            )
        if planning:
            raise ValueError(
                f"the policy {policy} does not plan; leave out {', '.join(planning)}, or give the folder of a run as "
                "policy"
            )
        return env, None, Collection(environment, parsed, str(policy), 0, 0, hold, "npz")
    run = Path(policy)
    if not (run / "config.yaml").is_file():
        raise ValueError(
            f"{environment} has no policy {str(policy)!r}; choose one of: {', '.join(env.policies)}, or give the "
            "folder of a run of a world model"
        )
    if hold != 1:
        raise ValueError(f"hold is {hold}, but a run holds its actions as in its data; leave it out")
    acting, facts, world = open_policy(run, environment, own, rest, Planning.of(planning or {}))
    name = run.resolve().name
    return world.env, acting, Collection(environment, dict(acting.settings), name, 0, 0, hold, "npz", facts)


def _chunks_of(ids: Sequence[int], fixed: int | None) -> list[list[int]]:
    """The episodes in groups; of a `fixed` size, the groups are the same whichever of their episodes are missing."""
    if fixed is None:
        return [list(ids[k : k + CHUNK]) for k in range(0, len(ids), CHUNK)]
    return [list(range(k * fixed, (k + 1) * fixed)) for k in sorted({k // fixed for k in ids})]


def _check_folder(folder: Path, about: Collection) -> None:
    """Raise ValueError unless the folder is empty or holds a part of the same collection."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    file = folder / ABOUT
    if not file.is_file():
        raise ValueError(f"{folder} holds files and no collection of episodes; give a new folder as --out")
    stored, wanted = json.loads(file.read_text()), json.loads(json.dumps(about.to_json()))
    differing = [key for key in wanted if key != "jepakit" and stored.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        raise ValueError(
            f"{folder} holds episodes with {key} {stored.get(key)!r}, not {wanted[key]!r}; "
            "give the same to continue, or a new folder as --out"
        )


def _run_chunks(
    make: Callable[[Sequence[int]], list[Columns]], chunks: Sequence[Sequence[int]], workers: int
) -> Iterator[list[Columns]]:
    """The columns of the episodes of every chunk, in order, made in `workers` processes."""
    if workers < 2:
        yield from map(make, chunks)
        return
    # Forked processes would inherit the threads of torch in an unknown state.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(make, chunks)


def make_episodes(about: Collection, ids: Sequence[int]) -> list[Columns]:
    """The columns, by Minari's names, of these episodes of a collection."""
    env = build_environment(about.environment, **about.settings)
    steps = about.steps
    made = env.behave(np.array(ids, dtype=np.int64), Rng(about.seed), steps, about.policy, about.hold)
    return [_columns_of(env, made, row) for row in range(len(ids))]


def play_episodes(about: Collection, acting: RunPolicy, ids: Sequence[int]) -> list[Columns]:
    """The same of a run that acts."""
    world, planner = acting.open()
    made = acting.play(world, planner, np.array(ids, dtype=np.int64), Rng(about.seed), about.steps)
    return [_columns_of(world.env, made, row) for row in range(len(ids))]


def _columns_of(env: Environment, made: Episodes, row: int) -> Columns:
    """The columns of one episode, up to its end."""
    steps, spec = int(made.length[row]), env.action
    x = made.x[row, :, : steps + 1].movedim(0, -1)  # (T + 1, *size, C)
    observations = (x * 255).round().byte() if env.size else x
    done = made.done[row, :steps].numpy()
    truncated = np.zeros(steps, dtype=bool)
    truncated[-1] = not done[-1]
    action = made.action[row, :steps]
    columns = {
        "observations": observations.numpy(),
        "actions": (action.argmax(-1) if spec.discrete else action).numpy(),
        "rewards": made.reward[row, :steps].numpy(),
        "terminations": done,
        "truncations": truncated,
        **{f"factors.{name}": value[row, : steps + 1].numpy() for name, value in made.factors.items()},
    }
    if spec.discrete:
        columns["action_choices"] = np.array(spec.size)
    elif spec.low and spec.high:
        columns |= {"action_low": np.array(spec.low, np.float32), "action_high": np.array(spec.high, np.float32)}
    if spec.max_norm is not None:
        columns["action_max_norm"] = np.array(spec.max_norm, np.float32)
    return columns


class _NpzFolder:
    """A folder with one .npz file per episode."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, k: int) -> Path:
        return self.folder / f"episode-{k:06d}.npz"

    def has(self, k: int) -> bool:
        """Whether episode k is there."""
        return self._file(k).is_file()

    def write(self, k: int, columns: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
        """Write one episode as a whole."""
        with files.replace_file(self._file(k)) as part, part.open("wb") as file:
            np.savez(file, **columns)  # type: ignore[arg-type]

    def finish(self, about: Collection, spec: ActionSpec) -> None:
        """Nothing is left to write."""


class _MinariFile:
    """One HDF5 file in Minari's layout. An episode that was written in part is written again."""

    def __init__(self, folder: Path) -> None:
        try:
            import h5py
        except ImportError:
            raise ValueError("format minari needs the package h5py; pip install 'jepakit[control]'") from None
        self.folder, self.path = folder, folder / MINARI_FILE
        self._open = partial(h5py.File, self.path)
        self._complete: set[int] = set()
        if self.path.is_file():
            with self._open("r") as file:
                self._complete = {int(name[8:]) for name, group in file.items() if "total_steps" in group.attrs}

    def has(self, k: int) -> bool:
        """Whether episode k is there."""
        return k in self._complete

    def write(self, k: int, columns: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
        """Write one episode; its attributes come last and say that it is complete."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open("a") as file:
            if (name := f"episode_{k}") in file:
                del file[name]
            group = file.create_group(name)
            for key, values in columns.items():
                if not key.startswith("action_"):
                    group.create_dataset(key.replace("factors.", "infos/"), data=values)
            group.attrs["id"] = k
            group.attrs["total_steps"] = len(columns["actions"])
        self._complete.add(k)

    def finish(self, about: Collection, spec: ActionSpec) -> None:
        """Write the file of facts that Minari keeps beside the data."""
        if spec.discrete:
            space: dict[str, Any] = {"type": "Discrete", "dtype": "int64", "n": spec.size, "start": 0}
        else:
            low, high = (
                list(side) or [sign * float("inf")] * spec.size for side, sign in ((spec.low, -1), (spec.high, 1))
            )
            space = {"type": "Box", "dtype": "float32", "shape": [spec.size], "low": low, "high": high}
        with self._open("a") as file:
            file.attrs["total_episodes"] = len(self._complete)
            file.attrs["total_steps"] = sum(int(group.attrs["total_steps"]) for group in file.values())
            file.attrs["action_space"] = json.dumps(space)
            file.attrs["dataset_id"] = f"jepakit/{about.environment}/{about.policy}-v0"
            file.attrs["jepakit"] = json.dumps(about.to_json())
