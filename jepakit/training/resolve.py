"""Before step 1: every `auto` becomes a value with its reason, and `--dry-run` says what the run would cost."""

import dataclasses
import math
from typing import Any, NamedTuple, cast

from .. import methods
from ..core.devices import amp_pays, best_device, cores
from ..data import Dataset
from ..data.images.augment import Views, strong
from ..data.scanpaths.augment import GazeAugment, GazeViews
from ..data.scanpaths.dataset import Scanpaths
from ..data.scanpaths.settings import Config as GazeConfig
from ..data.series import augment as series
from ..data.series.dataset import Series
from ..data.series.settings import Config as SeriesConfig
from ..masks.multiblock import MultiBlock
from ..masks.random import Random
from ..nn.patch import grid_of
from ..run.settings import Length, Loop, Run
from ..run.write import dump
from ..types import Signal, Size

CHEAP_SHARE = 0.02  # of the run's time, for the panel's numbers of one encoding …
DEAR_SHARE = 0.008  # … and for those of several views and of pairs
DEAR = 1100  # encodings that a dear measurement costs


class Note(NamedTuple):
    """A setting that was left to us, what we chose, and why."""

    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value} ({self.reason})"


def fit_views(run: Run, channels: int) -> tuple[Run, list[Note]]:
    """The run with two views of each sample, where its method compares views and its data settings ask for none.

    Where nothing else is said of the augmentation, it is made strong: see `augment.strong` and that of series.
    """
    method = methods.entry(type(run.method).__module__).Method
    augment, name = run.data.augment, methods.name_of(run.method)
    if "views" not in method.requires(run.method) or augment.views:
        return run, []
    chosen, keys, why = _strong(augment, channels // getattr(run.data, "fovea", 1))
    notes = [Note("data.augment.views", "[{count: 2}]", f"{name} compares views of one sample")]
    if augment == type(augment)():
        value = ", ".join(f"{key} {dump(getattr(chosen, key))}" for key in keys)
        notes.append(Note("data.augment", value, why))
    return dataclasses.replace(run, data=dataclasses.replace(cast(Any, run.data), augment=chosen)), notes


def _strong(augment: Any, channels: int) -> tuple[Any, tuple[str, ...], str]:
    """An augmentation with views, which of its settings make it strong, and why."""
    if isinstance(augment, series.SeriesAugment):
        why = "parts of one series could be matched by their level alone"
        return series.strong(augment, channels), ("scale", "jitter", "drop"), why
    views = GazeViews() if isinstance(augment, GazeAugment) else Views()
    keys = ("flip", "jitter", "gray")
    return strong(augment, channels, views), keys, "crops alone could be matched by their colours"


def fit_series(run: Run, dataset: Dataset) -> Run:
    """The run with the window, the stride and the channels that were chosen, so that other data are read the same.

    Of scanpaths it is the size of a crop, and how many fixations.
    """
    if isinstance(dataset, Scanpaths) and isinstance(run.data, GazeConfig):
        height, width = dataset.view.size
        gaze = dataclasses.replace(run.data, size=(height, width), steps=dataset.steps)
        return dataclasses.replace(run, data=gaze)
    if not isinstance(dataset, Series) or not isinstance(run.data, SeriesConfig):
        return run
    columns = dataset.columns if dataset.named else run.data.columns
    chosen = dataclasses.replace(run.data, window=dataset.window, stride=dataset.stride, columns=columns)
    return dataclasses.replace(run, data=chosen)


def check_views(run: Run, size: Size) -> None:
    """Raises ValueError where the encoder's patch does not divide the size of some views; `size` is the signal's."""
    patch = getattr(getattr(run.method, "encoder", None), "patch", None)
    groups: tuple[Any, ...] = run.data.augment.views
    for i, group in enumerate(groups):
        own = group.of(size) if isinstance(group, GazeViews) else group.size
        if patch and own and own != size:
            try:
                grid_of(own[-len(patch) :], patch)
            except ValueError as error:
                key = "size" if group.size else "steps"
                raise ValueError(f"data.augment.views.{i}.{key}: {error}") from error


def resolve(run: Run, signal: Signal, samples: int, world: int = 1) -> tuple[Run, list[Note]]:
    """The run with no auto left, and a note for each choice. ValueError where the length or the batch cannot work."""
    method, patch_notes = fit_patch(run.method, signal)
    method, mask_notes = fit_masks(method, signal)
    check_views(dataclasses.replace(run, method=method), signal.size)
    length, length_notes = resolve_length(run.length, samples, world)
    loop, loop_notes = resolve_loop(run.loop, length.steps or 1, length.batch)
    return dataclasses.replace(run, method=method, length=length, loop=loop), [
        *patch_notes,
        *mask_notes,
        *length_notes,
        *loop_notes,
    ]


def fit_patch(method: Any, signal: Signal) -> tuple[Any, list[Note]]:
    """The method's settings with its encoder's patch chosen from the signal's size, if it was left open."""
    encoder = getattr(method, "encoder", None)
    if encoder is None or not hasattr(encoder, "patch") or encoder.patch is not None:
        return method, []
    frames = methods.is_predictive(method) and len(signal.size) > 1
    patch = (1, *signal.size[1:]) if frames else tuple(auto_patch(side) for side in signal.size)
    grid = tuple(side // p for side, p in zip(signal.size, patch, strict=True))
    why = "a frame at a time" if frames else "the largest that leaves at least 7 patches a side"
    note = Note("method.encoder.patch", list(patch), f"{why}: grid {grid}")
    return dataclasses.replace(method, encoder=dataclasses.replace(encoder, patch=patch)), [note]


def fit_masks(method: Any, signal: Signal) -> tuple[Any, list[Note]]:
    """The method's settings with random masks, where rectangles, its default, do not fit the axes of the signal."""
    masks = getattr(method, "masks", ())
    if len(signal.size) == 2 or masks != getattr(type(method)(), "masks", ()):
        return method, []
    if not any(isinstance(mask, MultiBlock) for mask in masks):
        return method, []
    note = Note("method.masks", "[{name: random, num_targets: 3}]", "multiblock masks are of pictures")
    return dataclasses.replace(method, masks=(Random(num_targets=3),)), [note]


def auto_patch(side: int) -> int:
    """The largest divisor of `side`, at most 16, that leaves at least 7 patches; 1 where none does."""
    return max(p for p in range(1, 17) if side % p == 0 and (side // p >= 7 or p == 1))


def resolve_length(length: Length, samples: int, world: int) -> tuple[Length, list[Note]]:
    """Steps from epochs; checks that the batch fits the data, the processes and the accumulation."""
    batch, accumulate = length.batch, length.accumulate
    if batch % (world * accumulate):
        raise ValueError(
            f"length.batch {batch} cannot be split over {world} processes × {accumulate} accumulated micro-batches; "
            f"give a multiple of {world * accumulate}"
        )
    if samples < batch:
        raise ValueError(
            f"the data hold {samples} samples, fewer than one batch of {batch}; give --length.batch {samples} or less"
        )
    if length.steps is not None:
        return length, []
    steps = max(1, math.floor(length.epochs * (samples // batch)))
    note = Note("length.steps", steps, f"{length.epochs:g} epochs × {samples // batch} batches of {batch}")
    return dataclasses.replace(length, steps=steps), [note]


def micro_batches(run: Run) -> list[Note]:
    """Says that accumulation makes the batch of a loss that mixes samples smaller."""
    parts, mixes = run.length.accumulate, methods.entry(type(run.method).__module__).Method.batch_statistics
    if parts == 1 or not mixes:
        return []
    why = f"statistics are those of {run.length.batch // parts} samples at a time, not of {run.length.batch}"
    return [Note("length.accumulate", parts, why)]


def resolve_loop(loop: Loop, steps: int, batch: int) -> tuple[Loop, list[Note]]:
    """Device, precision, workers and intervals for this machine."""
    device, why = best_device() if loop.device is None else (loop.device, "")
    amp, why_amp = amp_pays(device, loop.dtype)
    n = cores()
    chosen: dict[str, tuple[Any, str]] = {
        "device": (device, why),
        "amp": (amp, why_amp),
        "workers": (min(8, n), f"{n} cores"),
        "save_every": (max(1, min(1000, math.ceil(steps / 10))), "a tenth of the run, at most 1000 steps"),
    }
    chosen |= panel_that_pays(loop, steps, batch * encodings_per_sample(device, amp if loop.amp is None else loop.amp))
    open_keys = [key for key in chosen if getattr(loop, key) is None]
    notes = [Note(f"loop.{key}", *chosen[key]) for key in open_keys]
    return dataclasses.replace(loop, **{key: chosen[key][0] for key in open_keys}), notes


def panel_that_pays(loop: Loop, steps: int, price: float) -> dict[str, tuple[int, str]]:
    """Size and intervals of the panel for less than 3 % of the run, where a step costs as much as `price` encodings.

    It encodes its samples twice, 25 to 50 times in the run. A dear measurement costs about DEAR encodings. Of both,
    more is spent where less would tell nothing: at least 64 samples, at least one dear measurement, the last.
    """
    every = loop.panel_every or steps / 25
    size = loop.panel_size or 32 * min(max(int(CHEAP_SHARE * every * price / 2 / 32), 2), 16)
    every = loop.panel_every or max(math.ceil(steps / 50), math.ceil(2 * size / price / CHEAP_SHARE))
    times = max(1, min(int(DEAR_SHARE * steps * price / DEAR), steps // every))
    return {
        "panel_size": (size, "64 to 512 samples, what 2 % of the run's time allows"),
        "panel_every": (every, "at most 50 times in the run, and 2 % of its time"),
        "dear_every": (math.ceil(steps / times), "what 0.8 % of the run's time allows, but once"),
    }


def encodings_per_sample(device: str, amp: bool) -> float:
    """What training on a sample costs, in encodings of it in fp32, as the panel does them; measured, and low."""
    if not amp:
        return 1.8
    return 0.5 if device.startswith("cuda") else 1.4
