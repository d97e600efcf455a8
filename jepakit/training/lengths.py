"""Series and scanpaths of unequal lengths, before step 1: the patch and size that suit them, and what cannot work."""

from dataclasses import replace
from typing import Any, cast

import torch

from .. import methods
from ..core import padding
from ..core.notes import Note
from ..data import Dataset, refuse_padding
from ..methods.base import Method
from ..nn.conv import CNN
from ..run.settings import Run
from ..types import Rng, Signal

# Patches along each side of a fixation, at least; a convolutional encoder sees as much as it can of one at once.
CELLS = 4


def fit(run: Run, signal: Signal, dataset: Dataset) -> tuple[Run, Signal, list[Note]]:
    """Of samples of unequal lengths the patch, where it is auto, and the longest made whole patches by more padding."""
    encoder, notes = getattr(run.method, "encoder", None), []
    if (proposed := dataset.auto_patch(1 if isinstance(encoder, CNN) else CELLS)) is None:
        return run, signal, []
    patch = getattr(encoder, "patch", (1,))
    if patch is None:
        patch, why = proposed
        method = replace(cast(Any, run.method), encoder=replace(cast(Any, encoder), patch=patch))
        run = replace(run, method=method)
        notes.append(Note("method.encoder.patch", list(patch), why))
    if len(patch) != len(signal.size) or not dataset.is_padded(signal.size):
        return run, signal, notes
    steps = -(-signal.size[0] // patch[0]) * patch[0]
    return run, replace(signal, size=(steps, *signal.size[1:])), notes


def check(run: Run, method: Method, dataset: Dataset) -> None:
    """Raises ValueError where samples are of unequal lengths and the method cannot learn from the shortest."""
    size = method.signal.size
    if dataset.lengths is None or not dataset.is_padded(size):
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
