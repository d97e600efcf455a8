"""Reads a run's own data again: from the path that training used, and only if they are unchanged.

A run folder stores the data path as given and as an absolute path, so that a command finds the data from any folder. A
fingerprint shows whether they are still the training data.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..data import Dataset, SourceConfig
from ..data.paths import expand_pattern, first_file, split_key
from .checkpoint import Checkpoint, LoadedRun, settings_of


def absolute_path(cfg: SourceConfig) -> str:
    """The data path of a run, valid from any folder; unchanged if it names no file (generated data, a stream)."""
    if cfg.is_generated or not first_file(split_key(cfg.path)[0]):
        return cfg.path
    file, key = split_key(cfg.path)
    return os.path.abspath(Path(file).expanduser()) + (f":{key}" if key else "")


class OwnData(NamedTuple):
    """A run's training data: the settings that read them, and the data set."""

    cfg: SourceConfig
    dataset: Dataset


def own_data(loaded: LoadedRun, remedy: str = "put the data back, or give --data PATH") -> OwnData:
    """Read a run's training data again.

    Raises ValueError, with the `remedy`, if the data are missing or have changed.
    """
    found = at_source(loaded.run.data, loaded.state)
    try:
        dataset = found.open()
    except ValueError as error:
        raise ValueError(f"{error}. The run was trained on it; {remedy}") from None
    known = loaded.state.get("data")
    if found.arrives or known in (None, dataset.fingerprint()):
        return OwnData(found, dataset)
    # Few items once had an empty test part: such a run was trained on all of them.
    if found.test_part() is not None and (whole := found.whole()).open().fingerprint() == known:
        return OwnData(whole, whole.open())
    raise ValueError(
        f"{found.path!r} does not hold the data that the run was trained on: files or values have changed; {remedy}"
    )


def at_source(cfg: SourceConfig, state: Mapping[str, Any]) -> SourceConfig:
    """The settings with the path at which the training found its data, if data are still there; else unchanged."""
    stored = state.get("source", "")
    return cfg.at(stored) if stored and first_file(split_key(stored)[0]) else cfg


def check_left_out(loaded: LoadedRun, held: Dataset, path: str) -> None:
    """Raise ValueError if `held`, the part of the data at `path` that training left out, has changed since then."""
    if loaded.state.get("left_out", "") not in ("", held.fingerprint()):
        raise ValueError(
            f"the part of {path!r} that training left out has changed since then: files or values differ; put the data "
            "back, or give data to score on as --test PATH"
        )


def unseen_part(loaded: LoadedRun, cfg: SourceConfig) -> SourceConfig | None:
    """The settings of the part of a run's data `cfg` that its encoder never saw; None if there is none.

    A run that starts from the weights of another one, or that changed its data on the way, may have seen all of them.
    """
    return None if loaded.state.get("test_part_seen") else cfg.test_part()


def has_seen_test_part(cfg: SourceConfig, run: Path, saved: Checkpoint) -> bool:
    """Whether the weights `saved` by `run` may come from a training on what a run on the data `cfg` leaves out.

    They may if the data are the same and were not divided in the same way.
    """
    other = settings_of(run).data
    if cfg.test_part() is None or (saved.state.get("source") or absolute_path(other)) != absolute_path(cfg):
        return False
    division = ("split", "held_out", "by", "gap", "split_by")
    same = all(getattr(cfg, key, None) == getattr(other, key, None) for key in division)
    return bool(saved.state.get("test_part_seen")) or not same


def is_own(loaded: LoadedRun, path: str) -> bool:
    """Whether `path` is the run's training data."""
    return _real_path(path) == _real_path(_path_trained_on(loaded))


def overlaps_own(loaded: LoadedRun, path: str) -> bool:
    """Whether files at `path` are among those of the run's training data, or the other way round."""
    given, own = _real_files(path), _real_files(_path_trained_on(loaded))
    return any(a == b or a in b.parents or b in a.parents for a in given for b in own)


def _path_trained_on(loaded: LoadedRun) -> str:
    return str(loaded.state.get("source") or absolute_path(loaded.run.data))


def _real_path(path: str) -> str:
    file, key = split_key(path)
    return f"{os.path.realpath(Path(file).expanduser())}:{key}"


def _real_files(path: str) -> set[Path]:
    try:
        return {file.resolve() for file in expand_pattern(split_key(path)[0])}
    except ValueError:
        return set()
