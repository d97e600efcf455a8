"""Opens the data that a command is given, and a run's own training series, the way the run reads its data.

Scoring and forecasting need every step of a series with its place in the file, so they ask for the data as series.
"""

from collections.abc import Mapping
from typing import Any, Literal

from ..data import Dataset
from ..data.series.dataset import Series
from ..run import parse
from ..run.checkpoint import LoadedRun
from ..run.own_data import own_data

Windows = Literal["as trained", "adjacent", "none"]


def open_data(
    loaded: LoadedRun, path: str, settings: Mapping[str, Any] | None = None, windows: Windows = "as trained"
) -> Dataset:
    """All data at `path`, read as the run reads its own; `settings`, as {"data.fill": 30}, override how.

    `windows` says how series are cut: "as trained", "adjacent" (one window begins where the previous ends, unless
    `settings` give a stride), or "none" (each series whole). Raises ValueError if the data are of another kind.
    """
    settings = settings or {}
    cfg = parse.other_data(loaded.run, path, loaded.method.signal, settings)
    if windows == "none":
        cfg = cfg.uncut()
    if windows == "adjacent" and "data.stride" not in settings:
        cfg = cfg.without_overlap()
    dataset: Dataset = cfg.open()
    return dataset


def open_series(loaded: LoadedRun, path: str, settings: Mapping[str, Any] | None = None) -> Series:
    """The series at `path`, each uncut, read by the run's columns and `settings`.

    Raises ValueError if the data are no series, or have another number of channels than the run.
    """
    channels = loaded.method.signal.channels
    dataset: Series | None = open_data(loaded, path, settings, "none").as_series()
    if dataset is None:
        raise ValueError(f"{path!r} holds no series, but the run was trained on series; give data of its kind")
    if dataset.channels != channels:
        raise ValueError(
            f"{path!r} has {dataset.channels} channels ({', '.join(dataset.columns)}) but the run was trained on "
            f"{channels}; give data of the same columns"
        )
    return dataset


def open_training_series(loaded: LoadedRun, use: str) -> Series:
    """The series that the run was trained on; `use` completes the error message with what they are needed for.

    Raises ValueError if they are gone or have changed, are no series, or were stretched to one length.
    """
    found: Series | None = own_data(loaded, f"put the data back: {use}").dataset.as_series()
    if found is None:
        raise ValueError(f"the run was not trained on series, and {use}; train on a table or array of series")
    if found.unequal == "stretch" and (found.cut.length != found.native[0]).any():
        low, high = int(found.cut.length.min()), int(found.cut.length.max())
        raise ValueError(
            f"the run stretches series of {low} to {high} steps to one length, so its steps have no length of their "
            "own; train with data.unequal=pad or data.unequal=cut, or with a data.window"
        )
    return found
