"""Reads a run's own data again: from the path that training used, and only if they are unchanged.

A run folder stores the data path as given and as an absolute path, so that a command finds the data from any folder. A
fingerprint shows whether they are still the training data.
"""

import os
from pathlib import Path
from typing import NamedTuple

from ..data import Dataset, SourceConfig
from ..data.paths import first_file, split_key
from .checkpoint import LoadedRun


def absolute_path(path: str) -> str:
    """A data path that is valid from any folder; unchanged if it names no file (synthetic data, a stream)."""
    return os.path.abspath(Path(split_key(path)[0]).expanduser()) + _key_of(path) if first_file(path) else path


class OwnData(NamedTuple):
    """A run's training data: the settings that read them, and the data set."""

    cfg: SourceConfig
    dataset: Dataset


def own_data(loaded: LoadedRun, remedy: str = "put it back, or give --data PATH") -> OwnData:
    """Read a run's training data again.

    Raises ValueError, with the `remedy`, if the data are missing or have changed.
    """
    cfg: SourceConfig = loaded.run.data
    stored = loaded.state.get("source", "")
    found = cfg.at(stored) if stored and first_file(stored) else cfg
    try:
        dataset = found.open()
    except ValueError as error:
        raise ValueError(f"{error}. The run was trained on it; {remedy}") from None
    if not cfg.arrives and loaded.state.get("data") not in (None, dataset.fingerprint()):
        raise ValueError(
            f"{found.path!r} does not hold the data that the run was trained on: files or values have changed; {remedy}"
        )
    return OwnData(found, dataset)


def is_own(loaded: LoadedRun, path: str) -> bool:
    """Whether `path` is the run's training data."""
    trained_on = loaded.state.get("source") or absolute_path(loaded.run.data.path)
    return os.path.realpath(absolute_path(path)) == os.path.realpath(trained_on)


def _key_of(path: str) -> str:
    _, key = split_key(path)
    return f":{key}" if key else ""
