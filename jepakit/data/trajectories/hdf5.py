"""Read episodes from HDF5 in Minari's layout, or from flat arrays as in D4RL, by h5py alone."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from .columns import episodes_from, is_episode, one_episode
from .record import ActionFacts, Column, Logs

HDF5_ENDINGS = (".hdf5", ".h5")
EPISODE_PREFIX = "episode_"
WholeFile = Callable[[], Shaped[np.ndarray, " n"]]
NEED_H5PY = "reading .hdf5 needs the package h5py; install it by pip install 'jepakit[control]'"


def minari_file(folder: Path) -> Path | None:
    """The HDF5 file of a Minari folder; None if the folder is none."""
    places = (folder / "data" / "main_data.hdf5", folder / "main_data.hdf5")
    return next((file for file in places if file.is_file()), None)


def read_hdf5(path: Path, prefix: str = "") -> Logs:
    """The episodes of a file, whose names begin with `prefix`. Raises ValueError with the remedy.

    Arrays in one piece can be mapped; those in chunks, compressed or not, are read.
    """
    try:
        import h5py
    except ImportError:
        raise ValueError(NEED_H5PY) from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"cannot open {str(path)!r}: {error}; the file is cut short or no HDF5: copy it or write it again"
        ) from None
    try:
        return _read_file(file, path, prefix)
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"cannot read {str(path)!r}: {error}; copy the file or write it again") from None


def _read_file(file: Any, path: Path, prefix: str) -> Logs:
    # One map, read on access, serves all arrays of the file.
    whole = cache(lambda: np.memmap(path, np.uint8, "r"))
    groups = sorted((key for key in file if key.startswith(EPISODE_PREFIX)), key=_episode_number)
    facts = declared_actions(file, path)
    if not groups:
        columns = dict(_columns(file, path, whole))
        if not is_episode(list(columns)):
            raise ValueError(
                f"{str(path)!r} holds {', '.join(list(file)[:8]) or 'nothing'} but no episodes; give groups "
                "episode_0, episode_1 … with observations and actions, or these as flat arrays with their ends"
            )
        found = episodes_from(columns, path.name, lambda k: prefix + (f"[{k}]" if k >= 0 else path.stem))
        return found._replace(action=facts if facts != ActionFacts() else found.action)
    episodes = []
    for key in groups:
        columns = dict(_columns(file[key], path, whole))
        columns |= _info_factors(columns)
        episodes.append(one_episode(columns, f"{key} of {path.name}", prefix + key))
    return Logs(episodes, facts)


def _info_factors(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The numbers in `infos` that have a row per observation, as true quantities."""
    rows = len(columns["actions"]) + 1 if "actions" in columns else -1
    return {
        f"factors.{name.removeprefix('infos.')}": column
        for name, column in columns.items()
        if name.startswith("infos.") and len(column) == rows and column.dtype.kind in "uifb"
    }


def _episode_number(key: str) -> tuple[int, str]:
    tail = key.removeprefix(EPISODE_PREFIX)
    return (int(tail), "") if tail.isdecimal() else (-1, tail)


def _columns(group: Any, path: Path, whole: WholeFile, prefix: str = "") -> Iterator[tuple[str, Column]]:
    """The data sets of a group by name; nested groups are joined by dots. `whole` maps the file."""
    for key, item in group.items():
        if hasattr(item, "keys"):
            yield from _columns(item, path, whole, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _column(item, path, whole, f"{prefix}{key}")


def _column(found: Any, path: Path, whole: WholeFile, key: str) -> Column:
    def read() -> Shaped[np.ndarray, "..."]:
        try:
            values: np.ndarray = found[()]
        except (OSError, RuntimeError) as error:
            raise ValueError(f"cannot read {key!r} of {str(path)!r}: {error}; copy or write the file again") from None
        return np.asarray(values)

    # A data set in one piece, without a filter, is a part of the file as it is.
    offset = found.id.get_offset() if found.chunks is None and found.shape and found.size else None
    if offset is None or found.dtype.hasobject:
        return Column(found.shape or (), found.dtype, read)
    shape, dtype, length = found.shape, found.dtype, found.size * found.dtype.itemsize
    return Column(shape, dtype, read, lambda: whole()[offset : offset + length].view(dtype).reshape(shape))


def declared_actions(file: Any, path: Path) -> ActionFacts:
    """What Minari's metadata say about actions, beside the file or in its attributes. Raises ValueError."""
    text = file.attrs.get("action_space")
    beside = path.parent / "metadata.json"
    if text is None and beside.is_file():
        try:
            text = json.loads(beside.read_text()).get("action_space")
        except ValueError as error:
            raise ValueError(f"cannot read {str(beside)!r}: {error}; copy it again") from None
    if text is None:
        return ActionFacts()
    space = json.loads(text) if isinstance(text, str | bytes) else text
    kind = space.get("type")
    if kind == "Discrete":
        return ActionFacts(choices=int(space["n"]), start=int(space.get("start", 0)))
    if kind != "Box":
        raise ValueError(
            f"the actions of {path.name} are of the space {kind}; only Box (real numbers) and Discrete can be read, so "
            "write them as one of these"
        )
    low, high = (
        np.broadcast_to(np.array(space[key], dtype=np.float64), space["shape"]).reshape(-1) for key in ("low", "high")
    )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return ActionFacts(choices=0)
    return ActionFacts(tuple(low.tolist()), tuple(high.tolist()), choices=0)
