"""A Run: everything a training is made of, as frozen dataclasses, and how one is written down."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, get_args, get_type_hints, runtime_checkable

import yaml

from . import methods
from .data import KINDS, Dataset
from .data.base import Settings
from .masks import MASKERS, Masker
from .nn import ENCODERS, PREDICTORS
from .nn.encoder import EncoderConfig
from .nn.predictor import PredictorConfig
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


class Family(NamedTuple):
    """A table of names; `default` gives the settings object that a name starts from."""

    noun: str
    names: tuple[str, ...]
    default: Any  # (name) -> settings object

    def name_of(self, value: Any) -> str:
        """The first name whose settings are of the same class."""
        return next(name for name in self.names if type(self.default(name)) is type(value))


def family(hint: Any) -> Family | None:
    """The table behind a field's type, or None where the type is concrete."""
    if hint is MethodConfig:
        return Family("method", tuple(methods.table()), lambda name: methods.load(name).Config())
    if hint is DataConfig:
        return Family("data", tuple(KINDS), lambda name: KINDS[name]())
    if hint is EncoderConfig:
        return Family("encoder", tuple(ENCODERS), ENCODERS.__getitem__)
    if hint is PredictorConfig:
        return Family("predictor", tuple(PREDICTORS), PREDICTORS.__getitem__)
    if hint is Masker:
        return Family("masker", tuple(MASKERS), MASKERS.__getitem__)
    return None


def dump(value: Any, hint: Any = None) -> Any:
    """Settings as plain lists, numbers and mappings; `apply` reads them back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        entries = {f.name: dump(getattr(value, f.name), hints[f.name]) for f in dataclasses.fields(value)}
        group = family(hint)
        return {"name": group.name_of(value), **entries} if group else entries
    if isinstance(value, tuple):
        inner = get_args(hint)[0] if hint is not None and get_args(hint) else None
        return [dump(v, inner) for v in value]
    return value


def to_yaml(run: Run) -> str:
    """A Run as YAML, family members with their names."""
    return yaml.safe_dump(dump(run), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def difference(old: Run, new: Run) -> dict[str, tuple[Any, Any]]:
    """Every dotted key whose value differs, with both values."""
    a, b = (flatten(dump(run)) for run in (old, new))
    return {k: (a.get(k), b.get(k)) for k in sorted({*a, *b}) if a.get(k) != b.get(k)}


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
        items = {str(i): v for i, v in enumerate(value)}.items()
    else:
        return {path: value}
    return {k: v for key, inner in items for k, v in flatten(inner, f"{path}.{key}".lstrip(".")).items()}
