"""Series of unequal lengths, before step 1: the patch and the size that suit them, and what cannot work."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from . import methods, ragged
from .config import Run
from .data import Dataset
from .data.series.dataset import Series, refuse_padding, shorter
from .methods.base import Method
from .prepare import Note
from .types import Batch, Rng, Signal

# Patches that half of the series have at least, and the shortest, where the patch is chosen for them.
PATCHES, LEAST = 7, 4


def fit(run: Run, signal: Signal, dataset: Dataset) -> tuple[Run, Signal, list[Note]]:
    """Of series of unequal lengths the patch, where it is auto, and the longest made whole patches by more padding."""
    if not (isinstance(dataset, Series) and dataset.padded):
        return run, signal, []
    encoder, notes = getattr(run.method, "encoder", None), []
    patch = getattr(encoder, "patch", (1,))
    if patch is None:
        lengths = dataset.cut.length
        patch = (max(1, min(16, int(np.median(lengths)) // PATCHES, int(lengths.min()) // LEAST)),)
        method = replace(cast(Any, run.method), encoder=replace(cast(Any, encoder), patch=patch))
        run = replace(run, method=method)
        notes.append(Note("method.encoder.patch", list(patch), f"{PATCHES} patches or more in half of the series"))
    steps = -(-signal.size[0] // patch[0]) * patch[0]
    return run, replace(signal, size=(steps, *signal.size[1:])), notes


def check(run: Run, method: Method, dataset: Dataset) -> None:
    """Raises ValueError where samples are of unequal lengths and the method cannot learn from the shortest."""
    size = method.signal.size
    if not (isinstance(dataset, Series) and shorter(dataset, size)):
        return
    name, shortest, patch = methods.name_of(run.method), int(dataset.cut.length.min()), ragged.stride(method)
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
                method.loss(Batch(torch.zeros(2, dataset.channels, steps, *size[1:])), Rng(0))
    except ValueError as error:
        raise ValueError(
            f"the shortest series has {shortest} steps: {error}; or set data.unequal=stretch or data.unequal=cut"
        ) from None
