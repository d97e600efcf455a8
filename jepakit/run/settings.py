"""A Run: everything a training is made of, as frozen dataclasses, and how one is written down."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from ..data import Dataset
from ..data.base import Settings
from .optim import Optim


@runtime_checkable
class MethodConfig(Protocol):
    """The frozen dataclass `Config` of a method."""


@runtime_checkable
class DataConfig(Settings, Protocol):
    """The frozen dataclass `Config` of a kind of data."""

    @property
    def path(self) -> str:
        """The folder, file or pattern, or the name of a generated set."""
        ...

    def open(self) -> Dataset:
        """The data; raises ValueError, saying what to do, where they cannot be found or read."""
        ...


def at_least(least: int, settings: Any, *keys: str) -> None:
    """ValueError for the first of `keys` that is set and below `least`."""
    for key in keys:
        value = getattr(settings, key)
        if value is not None and value < least:
            raise ValueError(f"{key} is {value}; give {least} or more")


@dataclass(frozen=True)
class Length:
    """How long, in optimiser steps. `batch` is global: over all processes and accumulated micro-batches."""

    steps: int | None = None  # auto: epochs × samples / batch
    epochs: float = 100.0
    batch: int = 64
    accumulate: int = 1

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "batch", "accumulate")
        if not 0 < self.epochs < float("inf"):
            raise ValueError(f"epochs is {self.epochs:g}; give a number above 0")


@dataclass(frozen=True)
class Loop:
    """Where and how the loop runs; None means auto, and is replaced by the value chosen before step 1."""

    device: str | None = None
    amp: bool | None = None  # bfloat16 where it pays
    dtype: Literal["float32", "float64"] = "float32"
    workers: int | None = None
    activation_checkpointing: bool = False
    log_every: int = 10
    save_every: int | None = None
    keep: int = 2
    panel_every: int | None = None
    panel_size: int | None = None
    dear_every: int | None = None  # the panel's numbers of several views and of pairs
    on_collapse: Literal["warn", "stop", "rollback"] = "warn"

    def __post_init__(self) -> None:
        at_least(1, self, "log_every", "save_every", "keep", "panel_every", "dear_every")
        at_least(2, self, "panel_size")
        at_least(0, self, "workers")


@dataclass(frozen=True)
class Evals:
    """What judges by labels: probes of `kinds` after the last step, and the report.

    With `online`, kNN on up to so many labelled samples scores every checkpoint; the best one is kept.
    """

    kinds: tuple[str, ...] = ("knn", "linear")
    report: bool = True
    online: int = 0

    def __post_init__(self) -> None:
        at_least(0, self, "online")


@dataclass(frozen=True)
class Run:
    """One training, whole: the run folder's config.yaml is this."""

    method: MethodConfig
    data: DataConfig
    optim: Optim = field(default_factory=Optim)
    length: Length = field(default_factory=Length)
    loop: Loop = field(default_factory=Loop)
    evals: Evals = field(default_factory=Evals)
    seed: int = 0

    @property
    def from_stream(self) -> bool:
        """Whether the data arrive as a stream whose end is not known, and are not a set of samples."""
        return getattr(self.data, "arrives", False)
