"""Resolves every `auto` setting before step 1: each owner chooses its value, in one fixed order."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from .. import methods
from ..core import padding
from ..core.notes import Note
from ..data import Dataset, refuse_padding
from ..methods.base import Method
from ..nn.auto import cells_per_side
from ..nn.patch import grid_of
from ..run.settings import Run
from ..types import Rng, Signal, Size
from .stream import limits


class ResolvedRun(NamedTuple):
    """A run without any auto, its data as the run reads them, their signal, and what is worth telling the user."""

    run: Run
    dataset: Dataset
    signal: Signal
    notes: list[str]


def resolve_run(run: Run, dataset: Dataset, world: int = 1) -> ResolvedRun:
    """Ask the owners in turn, as each rule needs what the ones before it chose. Raises ValueError where one cannot.

    1. data: sizes, windows, channels and views (`DataConfig.resolved`), and with them the signal
    2. method: the patch of its encoder (`nn.auto.fit_patch`), its masks (`Method.fit_config`); padding to whole patches
    3. length: steps from epochs (`Length.resolve`)
    4. optimiser: constant rates on a stream (`Optim.without_schedule`)
    5. loop: device, precision, workers and intervals (`Loop.resolve`)
    """
    entry, streaming = methods.entry(type(run.method).__module__).Method, run.from_stream
    if streaming:
        limits.check_method(run.method)
    run, dataset, data_notes = resolve_data(run, dataset)
    signal = dataset.signal()
    method, frame_notes = limits.fit_encoder(run.method, signal) if streaming else (run.method, [])
    method, method_notes = entry.fit_config(
        method, signal, dataset.auto_patch(cells_per_side(getattr(method, "encoder", None)))
    )
    signal = whole_patches(signal, dataset, method)
    check_views(run.data, method, signal.size)
    length, length_notes = run.length.for_stream(world) if streaming else run.length.resolve(len(dataset), world)
    optim, optim_notes = run.optim.without_schedule() if streaming else (run.optim, [])
    loop, loop_notes = (
        run.loop.for_stream(len(dataset)) if streaming else run.loop.resolve(length.steps or 1, length.batch)
    )
    run = replace(run, method=method, length=length, optim=optim, loop=loop)
    choices = [*data_notes, *frame_notes, *method_notes, *length_notes, *optim_notes, *loop_notes]
    return ResolvedRun(run, dataset, signal, [*dataset.notes, *map(str, [*choices, *micro_batch_notes(run, entry)])])


def resolve_data(run: Run, dataset: Dataset) -> tuple[Run, Dataset, list[Note]]:
    """The run and its open data with every setting of data that was left open, and a note for each choice.

    Raises ValueError where the data cannot give what the method needs.
    """
    needs = methods.entry(type(run.method).__module__).Method.requires(run.method)
    patch = getattr(getattr(run.method, "encoder", None), "patch", None)
    cfg, notes = run.data.resolved(dataset, needs, methods.name_of(run.method), patch)
    return replace(run, data=cfg), dataset.with_config(cfg), notes


def whole_patches(signal: Signal, dataset: Dataset, method: Any) -> Signal:
    """The signal, its samples padded to a whole number of the encoder's patches where they are padded anyway."""
    patch = getattr(getattr(method, "encoder", None), "patch", (1,))
    if len(patch) != len(signal.size) or not dataset.is_padded(signal.size):
        return signal
    steps = -(-signal.size[0] // patch[0]) * patch[0]
    return replace(signal, size=(steps, *signal.size[1:]))


def check_views(cfg: Any, method: Any, size: Size) -> None:
    """Raises ValueError where the encoder's patch does not divide the size of some views; `size` is the signal's."""
    patch = getattr(getattr(method, "encoder", None), "patch", None)
    for i, group in enumerate(cfg.augment.views):
        own = group.size_for(size)
        if patch and own != size:
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


def check_method(run: Run, method: Method, dataset: Dataset) -> list[str]:
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
    if dataset.lengths is None or not dataset.is_padded(size):
        return
    name, shortest, patch = methods.name_of(run.method), int(dataset.lengths.min()), padding.patch_steps(method)
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
