"""Samples of unequal lengths, one length at a time, so that nothing is ever computed from padding.

In a padded batch, `length` counts the steps of each sample along the first axis of its size. Every sample is cut after
its last whole patch, and the samples of one resulting length form a batch of their own, with its own grid. So padded
values do not change a bit of any result, and every sample weighs as much as in a batch of equal lengths.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ..types import Batch, Rng, Terms, averaged

Loss = Callable[[Batch, Rng], Terms]


def equal_length_groups(batch: Batch, patch: int) -> Iterator[tuple[Int64[Tensor, " k"], Batch]]:
    """The rows (K,) of each length in whole patches, and their batch without padding; shortest first.

    A batch of equal lengths is its own only group.
    """
    if batch.length is None:
        yield torch.arange(len(batch)), batch
        return
    whole = batch.length // patch * patch
    for steps in torch.unique(whole).tolist():
        rows = (whole == steps).nonzero()[:, 0]
        part = batch[rows]
        fields = {"action": steps - 1, "reward": steps - 1, "done": steps - 1, "proprio": steps}
        kept: dict[str, Any] = {
            name: value[:, :count] for name, count in fields.items() if (value := getattr(part, name)) is not None
        }
        yield rows, replace(part, x=part.x[:, :, :steps], length=None, **kept)


def loss_by_length(of: Loss, batch: Batch, rng: Rng, patch: int) -> Terms:
    """The terms of all groups, averaged over samples; each sample gets the masks that it gets in any other split."""
    found = [
        (len(rows), of(part, rng.of(rows.tolist(), len(batch)))) for rows, part in equal_length_groups(batch, patch)
    ]
    return averaged([terms for _, terms in found], [count / len(batch) for count, _ in found])
