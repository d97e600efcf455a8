"""Defines a Run: all settings of a training, as frozen dataclasses."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol, runtime_checkable

from .. import methods
from ..core.devices import available_cores, best_device, choose_amp
from ..core.notes import Note
from ..data import SourceConfig
from . import intervals
from .optim import Optim


@runtime_checkable
class MethodConfig(Protocol):
    """The frozen dataclass `Config` of a method."""


def require_at_least(least: int, settings: Any, *keys: str) -> None:
    """Raise ValueError for the first of `keys` that is set and below `least`."""
    for key in keys:
        value = getattr(settings, key)
        if value is not None and value < least:
            raise ValueError(f"{key} is {value}; give {least} or more")


def require_entries(entries: Sequence[str], setting: str, form: str, example: str) -> None:
    """Raise ValueError for the first of `entries` without a "=", or without a "." before it where `form` has one."""
    for entry in entries:
        key, equals, _ = entry.partition("=")
        if not equals or ("." in form and "." not in key):
            raise ValueError(f"{setting} has the entry {entry!r}; write {form}, as in {example}")


def read_entries(entries: Sequence[str]) -> dict[str, str]:
    """Entries "KEY=VALUE" as values by key; the last one of a key counts."""
    return {key: value for key, _, value in (entry.partition("=") for entry in entries)}


@dataclass(frozen=True)
class Length:
    """The length of a run in optimiser steps. `batch` is global: over all processes and accumulated micro-batches."""

    steps: int | None = None  # auto: epochs × samples / batch
    epochs: float = 100.0
    batch: int = 64
    accumulate: int = 1

    def __post_init__(self) -> None:
        require_at_least(1, self, "steps", "batch", "accumulate")
        if not 0 < self.epochs < float("inf"):
            raise ValueError(f"epochs is {self.epochs:g}; give a number above 0")

    def resolve(self, samples: int, world: int = 1) -> tuple["Length", list[Note]]:
        """Steps from epochs. Raises ValueError if the batch does not fit the data, processes or accumulation."""
        batch, accumulate = self.batch, self.accumulate
        if batch % (world * accumulate):
            raise ValueError(
                f"length.batch {batch} cannot be split over {world} processes × {accumulate} accumulated "
                f"micro-batches; give a multiple of {world * accumulate}"
            )
        if samples < batch:
            raise ValueError(
                f"the data hold {samples} samples, fewer than one batch of {batch}; give --length.batch {samples} or "
                "less"
            )
        if self.steps is not None:
            return self, []
        steps = max(1, math.floor(self.epochs * (samples // batch)))
        note = Note("length.steps", steps, f"{self.epochs:g} epochs × {samples // batch} batches of {batch}")
        return replace(self, steps=steps), [note]

    def for_stream(self, world: int) -> tuple["Length", list[Note]]:
        """These settings for a stream, whose length is unknown. Raises ValueError if a stream cannot use them."""
        if world > 1:
            raise ValueError(f"a stream is one sequence, but {world} processes were started; start one")
        if self.accumulate > 1:
            raise ValueError(
                f"length.accumulate is {self.accumulate}, but a stream is learnt frame by frame as it arrives; give 1"
            )
        return self, []


@dataclass(frozen=True)
class Loop:
    """Device, precision, workers and intervals of the loop; None means auto, resolved to a value before step 1."""

    device: str | None = None
    amp: bool | None = None  # bfloat16 if it is faster
    dtype: Literal["float32", "float64"] = "float32"
    workers: int | None = None
    activation_checkpointing: bool = False
    log_every: int = 10
    save_every: int | None = None
    keep: int = 2
    panel_every: int | None = None
    panel_size: int | None = None
    views_every: int | None = None  # the panel's measures of several views and of pairs
    on_collapse: Literal["warn", "stop", "rollback"] = "warn"

    def __post_init__(self) -> None:
        require_at_least(1, self, "log_every", "save_every", "keep", "panel_every", "views_every")
        require_at_least(2, self, "panel_size")
        require_at_least(0, self, "workers")

    def resolve(self, steps: int, batch: int) -> tuple["Loop", list[Note]]:
        """Device, precision, workers and intervals for this machine and this length of run."""
        device, why = best_device() if self.device is None else (self.device, "")
        amp, why_amp = choose_amp(device, self.dtype)
        n = available_cores()
        price = batch * intervals.encodings_per_sample(device, amp if self.amp is None else self.amp)
        return self._fill_open(
            {
                "device": (device, why),
                "amp": (amp, why_amp),
                "workers": (min(8, n), f"{n} cores"),
                "save_every": intervals.save_every(steps),
                **intervals.panel_schedule(self.panel_every, self.panel_size, steps, price),
            }
        )

    def for_stream(self, samples: int) -> tuple["Loop", list[Note]]:
        """These settings for a stream. Raises ValueError if a run on a stream cannot use them."""
        if self.amp:
            raise ValueError("loop.amp is true, but forward propagation keeps its traces in full precision; give false")
        if self.on_collapse == "rollback":
            raise ValueError("a stream cannot be rewound, so on_collapse rollback is not possible; give warn or stop")
        return self._fill_open(
            {
                "amp": (False, "one frame at a time is too little work to gain"),
                "workers": (0, "a stream has one reader"),
                **intervals.stream_schedule(samples),
                "device": best_device(),
            }
        )

    def _fill_open(self, values: dict[str, tuple[Any, str]]) -> tuple["Loop", list[Note]]:
        """These settings with open values filled in from `values`, and a note with the reason for each."""
        filled = {key: value for key, value in values.items() if getattr(self, key) is None}
        notes = [Note(f"loop.{key}", *value) for key, value in filled.items()]
        return replace(self, **{key: value for key, (value, _) in filled.items()}), notes


@dataclass(frozen=True)
class Evals:
    """Evaluation with labels: probes of `kinds` after the last step, and the report.

    `online` is the maximum number of labelled samples: kNN on them scores every checkpoint and the best one is kept. 0
    disables it.
    `settings` are those of the probes, such as "knn.k=1"; `jepa probe` uses them too unless it is given others.
    """

    kinds: tuple[str, ...] = ("knn", "linear")
    report: bool = True
    online: int = 0
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_at_least(0, self, "online")
        require_entries(self.settings, "settings", "KIND.KEY=VALUE", "knn.k=1")

    @property
    def probe_settings(self) -> dict[str, str]:
        """`settings` by their dotted names, such as {"knn.k": "1"}."""
        return read_entries(self.settings)


# A head is a small network on frozen features: it needs no warm-up and no weight decay.
HEAD_STEPS: Final = 2000
HEAD_OPTIM: Final = Optim(start_lr=1e-3, final_lr=1e-5, warmup=0.0, weight_decay=0.0, final_weight_decay=0.0)


@dataclass(frozen=True)
class HeadStage:
    """A head that is trained after the run and on top of it, as a run of its own in the folder heads/NAME.

    `data` changes how the run's data are read, as in ("window=33",). Device, precision and seed are the run's. Raises
    ValueError if the method is no head.
    """

    method: MethodConfig
    optim: Optim = HEAD_OPTIM
    length: Length = field(default_factory=lambda: Length(steps=HEAD_STEPS))
    data: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not methods.is_head(self.method):
            raise ValueError(f"{self.name} is no head; only a head, such as metric, is trained on top of a run")
        require_entries(self.data, "data", "KEY=VALUE", "window=33")

    @property
    def name(self) -> str:
        """The name of the head's method, and of its folder."""
        return methods.name_of(self.method)


@dataclass(frozen=True)
class Run:
    """The complete settings of one training, stored as config.yaml in the run folder; `heads` are trained after it."""

    method: MethodConfig
    data: SourceConfig
    optim: Optim = field(default_factory=Optim)
    length: Length = field(default_factory=Length)
    loop: Loop = field(default_factory=Loop)
    evals: Evals = field(default_factory=Evals)
    seed: int = 0
    heads: tuple[HeadStage, ...] = ()

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.heads]
        if len(set(names)) < len(names):
            raise ValueError(f"heads are {', '.join(names)}; give each once, as each has one folder")

    @property
    def samples_at_once(self) -> int:
        """Samples in one forward pass, over all processes; a stream is one sample."""
        return 1 if self.from_stream else self.length.batch // self.length.accumulate

    @property
    def from_stream(self) -> bool:
        """Whether the data arrive as a stream of unknown length instead of a set of samples."""
        return self.data.arrives
