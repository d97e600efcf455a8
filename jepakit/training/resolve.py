"""Before step 1: every setting that was left open becomes a value, chosen by its owner, in one fixed order."""

import dataclasses
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from .. import data, methods
from ..core import padding
from ..core.notes import Note
from ..data import Dataset
from ..data.images.augment import Views, strong
from ..data.lengths import Uneven, refuse_padding, shorter
from ..data.scanpaths.augment import GazeAugment, GazeViews
from ..data.scanpaths.dataset import Scanpaths
from ..data.scanpaths.settings import Config as GazeConfig
from ..data.series import augment as series
from ..data.series.dataset import Series
from ..data.series.settings import Config as SeriesConfig
from ..methods.base import Method
from ..nn.auto import cells_per_side
from ..nn.patch import grid_of
from ..run.settings import Run
from ..run.write import dump
from ..types import Rng, Signal, Size
from .stream import limits


class Resolved(NamedTuple):
    """A run without any auto, its data as the run reads them, their signal, and what is worth telling the user."""

    run: Run
    dataset: Dataset
    signal: Signal
    notes: list[str]


def resolve(run: Run, dataset: Dataset, world: int = 1) -> Resolved:
    """Ask the owners in turn, as each rule needs what the ones before it chose. Raises ValueError where one cannot.

    1. data: windows, channels and views (`DataConfig.resolved`), and with them the signal
    2. method: the patch of its encoder (`nn.auto.fit_patch`), its masks (`Method.fit_config`); padding to whole patches
    3. length: steps from epochs (`Length.resolve`)
    4. optimiser: constant rates on a stream (`Optim.without_schedule`)
    5. loop: device, precision, workers and intervals (`Loop.resolve`)
    """
    entry, streaming = methods.entry(type(run.method).__module__).Method, run.from_stream
    if streaming:
        limits.check_method(run.method)
    run, data_notes = fit_views(run, dataset.channels)
    run = fit_series(run, dataset)
    cfg, signal = run.data, data.fit(dataset, run.data)
    method, frame_notes = limits.fit_encoder(run.method, signal) if streaming else (run.method, [])
    method, method_notes = entry.fit_config(
        method, signal, auto_patch(dataset, cells_per_side(getattr(method, "encoder", None)))
    )
    signal = whole_patches(signal, dataset, method)
    check_views(cfg, method, signal.size)
    length, length_notes = run.length.for_stream(world) if streaming else run.length.resolve(len(dataset), world)
    optim, optim_notes = run.optim.without_schedule() if streaming else (run.optim, [])
    loop, loop_notes = (
        run.loop.for_stream(len(dataset)) if streaming else run.loop.resolve(length.steps or 1, length.batch)
    )
    run = replace(run, data=cfg, method=method, length=length, optim=optim, loop=loop)
    choices = [*data_notes, *frame_notes, *method_notes, *length_notes, *optim_notes, *loop_notes]
    return Resolved(run, dataset, signal, [*dataset.notes, *map(str, [*choices, *micro_batch_notes(run, entry)])])


def whole_patches(signal: Signal, dataset: Dataset, method: Any) -> Signal:
    """The signal, its samples padded to a whole number of the encoder's patches where they are padded anyway."""
    patch = getattr(getattr(method, "encoder", None), "patch", (1,))
    if len(patch) != len(signal.size) or not (isinstance(dataset, Uneven) and shorter(dataset, signal.size)):
        return signal
    steps = -(-signal.size[0] // patch[0]) * patch[0]
    return replace(signal, size=(steps, *signal.size[1:]))


def check_views(cfg: Any, method: Any, size: Size) -> None:
    """Raises ValueError where the encoder's patch does not divide the size of some views; `size` is the signal's."""
    patch = getattr(getattr(method, "encoder", None), "patch", None)
    for i, group in enumerate(cfg.augment.views):
        own = group.of(size) if isinstance(group, GazeViews) else group.size
        if patch and own and own != size:
            try:
                grid_of(own[-len(patch) :], patch)
            except ValueError as error:
                key = "size" if group.size else "steps"
                raise ValueError(f"data.augment.views.{i}.{key}: {error}") from error


def micro_batch_notes(run: Run, method: type[Method]) -> list[Note]:
    """A note where accumulation makes the batch smaller for a loss that mixes samples."""
    parts = run.length.accumulate
    if parts == 1 or not method.batch_statistics:
        return []
    why = f"statistics are those of {run.length.batch // parts} samples at a time, not of {run.length.batch}"
    return [Note("length.accumulate", parts, why)]


def check(run: Run, method: Method, dataset: Dataset) -> list[str]:
    """Refuse what only the built method shows to be impossible; returns its cautions. Raises ValueError."""
    if run.evals.online and len(dataset.classes) < 2:
        raise ValueError(
            "evals.online judges by labels, of which the data have none; give labelled data, or set it to 0"
        )
    if run.from_stream:
        limits.check_encoder(method)
    method.check(run.samples_at_once)
    check_shortest(run, method, dataset)
    caution = method.caution(run.samples_at_once)
    return [caution] if caution else []


def check_shortest(run: Run, method: Method, dataset: Dataset) -> None:
    """Raises ValueError where samples are of unequal lengths and the method cannot learn from the shortest."""
    size = method.signal.size
    if not (isinstance(dataset, Uneven) and shorter(dataset, size)) or dataset.lengths is None:
        return
    name, shortest, patch = methods.name_of(run.method), int(dataset.lengths.min()), padding.stride(method)
    if method.batch_statistics and method.reads_x:
        refuse_padding(dataset, size, f"{name}, which compares the samples of a batch with one another,")
    if run.evals.online:
        refuse_padding(dataset, size, "evals.online")
    steps = shortest // patch * patch
    try:
        if not steps:
            raise ValueError(f"that is less than the patch of {patch}")
        if method.reads_x:
            with torch.no_grad():
                method.loss(method.signal.zeros(2, steps=steps), Rng(0))
    except ValueError as error:
        words = dataset.words
        raise ValueError(f"the shortest {words.one} has {shortest} {words.parts}: {error}; or {words.fix}") from None


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


PATCHES, LEAST = 7, 4


def auto_patch(dataset: Dataset, cells: int) -> tuple[Size, str] | None:
    """The patch that data of unequal lengths propose, and why."""
    if not (isinstance(dataset, Scanpaths) or (isinstance(dataset, Series) and dataset.padded)):
        return None
    lengths = dataset.lengths
    if isinstance(dataset, Scanpaths) or lengths is None:
        sides = [max(p for p in range(1, 17) if n % p == 0 and (n // p >= cells or p == 1)) for n in dataset.native[1:]]
        return (1, *sides), f"one fixation, {cells} patches or more along each side of it"
    steps = max(1, min(16, int(np.median(lengths)) // PATCHES, int(lengths.min()) // LEAST))
    return (steps,), f"{PATCHES} patches or more in half of the series"
