"""Series and scanpaths of unequal lengths, before step 1: the patch and size that suit them, and what cannot work."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from .. import methods
from ..core import padding
from ..data import Dataset
from ..data.lengths import Uneven, refuse_padding, shorter
from ..data.scanpaths.dataset import Scanpaths
from ..data.series.dataset import Series
from ..methods.base import Method
from ..nn.conv import CNN
from ..run.settings import Run
from ..types import Rng, Signal
from .resolve import Note

# Patches that half of the series have at least, and the shortest, where the patch is chosen for them.
PATCHES, LEAST = 7, 4
# Patches along each side of a fixation, at least; a convolutional encoder sees as much as it can of one at once.
CELLS = 4


def fit(run: Run, signal: Signal, dataset: Dataset) -> tuple[Run, Signal, list[Note]]:
    """Of samples of unequal lengths the patch, where it is auto, and the longest made whole patches by more padding."""
    if not (isinstance(dataset, Scanpaths) or (isinstance(dataset, Series) and dataset.padded)):
        return run, signal, []
    encoder, notes = getattr(run.method, "encoder", None), []
    patch = getattr(encoder, "patch", (1,))
    if patch is None:
        patch, why = patch_for(dataset, 1 if isinstance(encoder, CNN) else CELLS)
        method = replace(cast(Any, run.method), encoder=replace(cast(Any, encoder), patch=patch))
        run = replace(run, method=method)
        notes.append(Note("method.encoder.patch", list(patch), why))
    if len(patch) != len(signal.size) or not shorter(dataset, signal.size):
        return run, signal, notes
    steps = -(-signal.size[0] // patch[0]) * patch[0]
    return run, replace(signal, size=(steps, *signal.size[1:])), notes


def patch_for(dataset: Series | Scanpaths, cells: int) -> tuple[tuple[int, ...], str]:
    """The patch of an encoder, and why; `cells` of it or more lie along each side of a fixation."""
    lengths = dataset.lengths
    if isinstance(dataset, Scanpaths) or lengths is None:
        sides = [max(p for p in range(1, 17) if n % p == 0 and (n // p >= cells or p == 1)) for n in dataset.native[1:]]
        return (1, *sides), f"one fixation, {cells} patches or more along each side of it"
    steps = max(1, min(16, int(np.median(lengths)) // PATCHES, int(lengths.min()) // LEAST))
    return (steps,), f"{PATCHES} patches or more in half of the series"


def check(run: Run, method: Method, dataset: Dataset) -> None:
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
