"""Selects the samples that the panel measures: fixed, not augmented, and held out from training if possible."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from ...core.words import count_text
from ...data import Dataset, fixed_sample
from ...data.loader import spread_order
from ...types import Batch, Signal


@dataclass(frozen=True, eq=False)
class Samples:
    """N samples with their actions, 8-bit if the data are; `dataset` is their source and `note` describes them.

    `division` says how many samples the training reads and how many are left out, whose fingerprint is `left_out`, ""
    if there are none.
    """

    batch: Batch
    dataset: Dataset
    note: str
    division: str
    left_out: str


def choose_samples(
    data: Any, train: Dataset, signal: Signal, count: int, patch: int = 1, seen: bool = False
) -> Samples:
    """`count` samples, always the same: from the test part if training reads the train part, else from training data.

    The test part is not used if it has fewer than `count` samples and the training data have more. `seen`: the weights
    come from a training that may have seen it, which the note then says.
    """
    held, why = test_part(data, signal)
    whole = describe_division(train, held), "" if held is None else held.fingerprint()
    if held is not None:
        wanted = min(count, len(train))
        found = equal_length_samples(held, signal, count, patch)
        if len(found) >= wanted:
            sight = "the training that the weights come from may have seen" if seen else "training never sees"
            said = f"panel: {describe_samples(found.x, signal)} of the test part, which {sight}"
            return Samples(found, held, said, *whole)
        why = f"the test part holds {len(found)} samples, but the panel needs {wanted}"
    found = equal_length_samples(train, signal, count, patch)
    said = f"panel: {describe_samples(found.x, signal)} from the training data, not augmented ({why})"
    return Samples(found, train, said, *whole)


def describe_division(train: Dataset, held: Dataset | None) -> str:
    """How many samples are trained on and how many are left out, in one sentence."""
    kept = "" if held is None else f", and {len(held):,} are left out for tests"
    return f"training reads {len(train):,} {train.words.many if len(train) != 1 else train.words.one}{kept}"


def describe_samples(x: Shaped[Tensor, "n c ..."], signal: Signal) -> str:
    """The number of samples, and of their steps unless they are whole."""
    steps = "" if x.shape[2] == signal.size[0] else f" of {count_text(x.shape[2], 'step')}"
    return count_text(len(x), "sample") + steps


def equal_length_samples(dataset: Dataset, signal: Signal, count: int, patch: int) -> Batch:
    """Up to `count` samples of one length. If lengths differ, the first steps of samples of at least the median length.

    The steps fill whole patches, so that the panel never measures padding.
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
    """The test part if the settings `data` read the train part; else None and the reason."""
    part = data.test_part()
    if part is None:
        return None, "data.split=train would hold out a test part"
    try:
        held: Dataset = part.with_channels(signal.channels).open()
    except ValueError as error:
        return None, str(error)
    if held.channels != signal.channels:
        return None, f"the test part has {held.channels} channels"
    return held, ""


def view_samples(dataset: Dataset, signal: Signal, n: int, q: int) -> Shaped[Tensor, "n q c ..."]:
    """`q` versions of each of up to `n` readable items, augmented like training's views or, without views, its samples.

    The versions are always the same. 8-bit items stay uint8.
    """
    order, found, at = spread_order(dataset), list[Tensor](), 0
    while (missing := n - sum(map(len, found))) and at < len(order):
        found.append(dataset.versions(order[at : at + missing], q, signal))
        at += missing
    return torch.cat([part for part in found if len(part)])
