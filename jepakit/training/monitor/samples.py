"""Chooses the samples that the panel measures: fixed, not augmented, and held out from training if possible."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from ...data import Dataset, fixed_sample
from ...data.loader import spread_order
from ...types import Batch, Signal


@dataclass(frozen=True, eq=False)
class Samples:
    """N samples with their actions, 8-bit where the data are; `dataset` is where they are from, `note` says it."""

    batch: Batch
    dataset: Dataset
    note: str


def choose_samples(data: Any, train: Dataset, signal: Signal, count: int, patch: int = 1) -> Samples:
    """`count` samples, the same every time: of the test part where training reads the train part, else trained on.

    A test part with fewer samples than asked for, where training has more, is not used.
    """
    held, why = test_part(data, signal)
    if held is not None:
        wanted = min(count, len(train))
        found = equal_length_samples(held, signal, count, patch)
        if len(found) >= wanted:
            said = f"panel: {describe_samples(found.x, signal)} of the test part, which training never sees"
            return Samples(found, held, said)
        why = f"the test part holds {len(found)} of the {wanted} that it takes"
    found = equal_length_samples(train, signal, count, patch)
    said = f"panel: {describe_samples(found.x, signal)} that are trained on, not augmented ({why})"
    return Samples(found, train, said)


def describe_samples(x: Shaped[Tensor, "n c ..."], signal: Signal) -> str:
    """How many samples, and of how many steps where that is not all."""
    return f"{len(x)} samples" + (f" of {x.shape[2]} steps" if x.shape[2] != signal.size[0] else "")


def equal_length_samples(dataset: Dataset, signal: Signal, count: int, patch: int) -> Batch:
    """Up to `count` samples of one length: where theirs are not, the first steps of those of the median and above.

    These are whole patches, so that no number of the panel is of padding.
    """
    if dataset.lengths is None or not dataset.is_padded(signal.size):
        return fixed_sample(dataset, signal, count)
    length = dataset.lengths
    steps = max(patch, int(np.median(length)) // patch * patch)
    order = spread_order(dataset)
    ids = order[length[order] >= steps][:count]
    found = dataset.read_beginnings(ids, (steps, *signal.size[1:])).batch()
    return Batch(found.x, action=found.action)


def test_part(data: Any, signal: Signal) -> tuple[Dataset | None, str]:
    """The test part, where the settings `data` read the train part; else why there is none."""
    part = data.test_part()
    if part is None:
        return None, "data.split=train would hold a test part out"
    try:
        held: Dataset = part.with_channels(signal.channels).open()
    except ValueError as error:
        return None, str(error)
    if held.channels != signal.channels:
        return None, f"the test part has {held.channels} channels"
    return held, ""


def view_samples(dataset: Dataset, signal: Signal, n: int, q: int) -> Shaped[Tensor, "n q c ..."]:
    """`q` versions of each of up to `n` readable items, changed as training changes its views, or else its samples.

    8-bit items stay uint8. They are the same every time.
    """
    order, found, at = spread_order(dataset), list[Tensor](), 0
    while (missing := n - sum(map(len, found))) and at < len(order):
        found.append(dataset.versions(order[at : at + missing], q, signal))
        at += missing
    return torch.cat([part for part in found if len(part)])
