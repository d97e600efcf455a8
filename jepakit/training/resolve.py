"""Resolves every `auto` setting before step 1: each part of the run chooses its own, in a fixed order."""

from dataclasses import replace
from typing import Any, NamedTuple

from .. import methods
from ..core.notes import Note
from ..data import Dataset, refuse_padding
from ..methods.base import Method
from ..nn.auto import cells_per_side
from ..nn.patch import grid_of
from ..run.settings import Length, Run
from ..types import Signal, Size
from .stream import limits


class ResolvedRun(NamedTuple):
    """A run without auto settings, its data set, their signal, and notes for the user."""

    run: Run
    dataset: Dataset
    signal: Signal
    notes: list[str]


def resolve_run(run: Run, dataset: Dataset, world: int = 1) -> ResolvedRun:
    """Resolve the parts in turn, because each depends on those before it. Raises ValueError if one cannot be resolved.

    1. data: sizes, windows, channels and views (`DataConfig.resolve`), and with them the signal
    2. method: the patch of its encoder (`nn.auto.fit_patch`), its masks (`Method.fit_config`); sizes of whole patches
    3. length: steps from epochs (`Length.resolve`)
    4. optimiser: constant rates on a stream (`Optim.without_schedule`)
    5. loop: device, precision, workers and intervals (`Loop.resolve`)
    """
    name, method_class = methods.name_of(run.method), methods.class_of(run.method)
    needs, streaming = method_class.requires(run.method), run.from_stream
    if streaming:
        limits.check_method(name, method_class, getattr(run.method, "rule", ""))
    patch = getattr(getattr(run.method, "encoder", None), "patch", None)
    if getattr(run.data, "split", "") == "test":
        raise ValueError("data.split=test is the part that runs are judged on; train on data.split=train or all")
    data, data_notes = run.data.resolve(dataset, needs, name, patch)
    dataset = dataset.with_config(data)
    signal = dataset.signal()
    method, frame_notes = limits.fit_encoder(run.method, signal) if streaming else (run.method, [])
    method, method_notes = method_class.fit_config(
        method, signal, dataset.auto_patch(cells_per_side(getattr(method, "encoder", None)))
    )
    signal, size_notes = whole_patches(signal, dataset, method)
    check_views(data, method, signal.size)
    dataset.check_views(signal)
    check_data(dataset, signal.size, name, method_class, run.evals.online)
    length, length_notes = (
        run.length.for_stream(world) if streaming else run.length.resolve(dataset.samples_per_epoch, world)
    )
    optim, optim_notes = run.optim.without_schedule() if streaming else (run.optim, [])
    loop, loop_notes = (
        run.loop.for_stream(len(dataset)) if streaming else run.loop.resolve(length.steps or 1, length.batch)
    )
    run = replace(run, method=method, data=data, length=length, optim=optim, loop=loop)
    choices = [*data_notes, *frame_notes, *method_notes, *length_notes, *optim_notes, *loop_notes]
    choices += micro_batch_notes(length, method_class)
    return ResolvedRun(run, dataset, signal, [*dataset.notes, *map(str, choices), *size_notes])


def whole_patches(signal: Signal, dataset: Dataset, method: Any) -> tuple[Signal, list[str]]:
    """The signal; samples that are padded or stretched anyway get a whole number of the encoder's patches.

    The note is on a stretched signal; padding is never seen.
    """
    patch = getattr(getattr(method, "encoder", None), "patch", (1,))
    if len(patch) != len(signal.size) or not dataset.can_lengthen(signal.size):
        return signal, []
    steps = -(-signal.size[0] // patch[0]) * patch[0]
    notes = [f"samples are stretched from {signal.size[0]} to {steps} steps, {steps // patch[0]} whole patches"]
    changed = steps > signal.size[0] and not dataset.is_padded(signal.size)
    return replace(signal, size=(steps, *signal.size[1:])), notes if changed else []


def check_views(cfg: Any, method: Any, size: Size) -> None:
    """Raise ValueError if the encoder's patch does not divide the size of some views; `size` is the signal's."""
    patch = getattr(getattr(method, "encoder", None), "patch", None)
    for i, group in enumerate(cfg.augment.views):
        own = group.size_for(size)
        if patch and own != size:
            try:
                grid_of(own[-len(patch) :], patch)
            except ValueError as error:
                key = "size" if group.size else "steps"
                raise ValueError(f"data.augment.views.{i}.{key}: {error}") from error


def micro_batch_notes(length: Length, method: type[Method]) -> list[Note]:
    """A note if accumulation shrinks the batch of a loss that mixes samples."""
    parts = length.accumulate
    if parts == 1 or not method.batch_statistics:
        return []
    why = f"statistics are over {length.batch // parts} samples at a time, not {length.batch}"
    return [Note("length.accumulate", parts, why)]


def check_data(dataset: Dataset, size: Size, name: str, method: type[Method], online: int) -> None:
    """Raise ValueError if labels are missing, or if samples of unequal lengths cannot be compared.

    `online` is the number of labelled samples that score the checkpoints.
    """
    if online and len(dataset.classes) < 2:
        raise ValueError("evals.online needs labels, but the data have none; give labelled data, or set it to 0")
    if method.batch_statistics and method.reads_x:
        refuse_padding(dataset, size, f"{name}, which compares the samples of a batch with one another,")
    if online:
        refuse_padding(dataset, size, "evals.online")
