"""Collects episodes of an environment: a file per episode, with the policy and the seed that made them.

Episode k depends on the environment, its settings, the policy, the seed and k alone. So a collection that was
interrupted continues where it stopped, and several processes write the same files as one.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
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
from ..envs import ENVS, Environment, Episodes, build_environment
from ..run import parse
from ..types import ActionSpec, Rng

Format = Literal["npz", "minari"]
FORMATS: Final[tuple[Format, ...]] = ("npz", "minari")
CHUNK: Final = 64
"""Episodes that are stepped together."""
ABOUT: Final = "collection.json"
MINARI_FILE: Final = Path("data", "main_data.hdf5")


@dataclasses.dataclass(frozen=True)
class Collection:
    """What a collection is made of; stored beside the episodes. `settings` are those of the environment."""

    environment: str
    settings: dict[str, Any]
    policy: str
    seed: int
    steps: int
    hold: int
    format: Format

    def to_json(self) -> dict[str, Any]:
        """What is stored: these values and the version of jepakit."""
        return {**dataclasses.asdict(self), "jepakit": VERSION}


def collect(
    environment: str,
    out: str | os.PathLike[str],
    episodes: int,
    *,
    policy: str = "random",
    steps: int | None = None,
    hold: int = 1,
    format: Format = "npz",
    seed: int = 0,
    workers: int = 1,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Let a policy act in an environment and write the episodes to the folder `out`; returns it.

    `environment` is a name that `jepa list` shows, or gym:ID; `settings` are its own, as {"env.size": 65}. Each action
    is held for `hold` steps; an episode ends after `steps` steps (default: the environment's time limit) or earlier,
    where the environment says so. Format "npz" writes a file per episode, with Minari's names for its arrays, "minari"
    one HDF5 file in Minari's layout. `workers` is the number of processes. A folder with episodes of the same
    collection is continued. Raises ValueError for a folder that holds anything else.
    """
    own = _environment_settings(environment, settings or {})
    env = build_environment(environment, **own)
    if episodes < 1 or workers < 1:
        raise ValueError(f"episodes is {episodes} and workers {workers}; give 1 or more")
    if policy not in env.policies:
        raise ValueError(f"{environment} has no policy {policy!r}; choose one of: {', '.join(env.policies)}")
    if format not in FORMATS:
        raise ValueError(f"no format {format!r}; give one of: {', '.join(FORMATS)}")
    folder = Path(out)
    about = Collection(environment, own, policy, seed, steps or env.time_limit, hold, format)
    _check_folder(folder, about)
    writer = _MinariFile(folder) if format == "minari" else _NpzFolder(folder)
    open_ids = [k for k in range(episodes) if not writer.has(k)]
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / ABOUT, about.to_json())
    count = progress_counter(progress or SilentProgress(), f"collecting from {environment}", "episodes")
    done = episodes - len(open_ids)
    chunks = [open_ids[k : k + CHUNK] for k in range(0, len(open_ids), CHUNK)]
    for ids, made in zip(chunks, _run_chunks(about, chunks, min(workers, len(chunks))), strict=True):
        for k, columns in zip(ids, made, strict=True):
            writer.write(k, columns)
        done += len(ids)
        count(done, episodes)
    writer.finish(about, env.action)
    return folder


def _environment_settings(environment: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the section `env`. Raises ValueError for another section or a setting that does not fit."""
    changes = parse.flags_to_changes(settings)
    if unknown := [section for section in changes if section != "env"]:
        raise ValueError(
            f"{unknown[0]} is no section of a collection; write settings of {environment} as --env.KEY VALUE"
        )
    own: dict[str, Any] = changes.get("env", {})
    prefix, colon, _ = environment.partition(":")
    parse.apply_changes(ENVS.load(prefix if colon else environment), own, "env")
    return own


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
    about: Collection, chunks: Sequence[Sequence[int]], workers: int
) -> Iterator[list[dict[str, Shaped[np.ndarray, "..."]]]]:
    """The columns of the episodes of every chunk, in order, made in `workers` processes."""
    make = partial(make_episodes, about)
    if workers < 2:
        yield from map(make, chunks)
        return
    # Forked processes would inherit the threads of torch in an unknown state.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(make, chunks)


def make_episodes(about: Collection, ids: Sequence[int]) -> list[dict[str, Shaped[np.ndarray, "..."]]]:
    """The columns, by Minari's names, of these episodes of a collection."""
    env = build_environment(about.environment, **about.settings)
    steps = about.steps
    made = env.behave(np.array(ids, dtype=np.int64), Rng(about.seed), steps, about.policy, about.hold)
    return [_columns_of(env, made, row) for row in range(len(ids))]


def _columns_of(env: Environment, made: Episodes, row: int) -> dict[str, Shaped[np.ndarray, "..."]]:
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
