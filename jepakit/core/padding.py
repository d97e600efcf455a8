"""Samples of unequal lengths: those of one length at a time, so that padding is never computed with.

A padded batch holds `length`, the steps of each sample along the first axis of its size. Every sample is cut at its
last whole patch, and those that come to one length make a batch of their own, on a grid of their own. So padded values
change no bit of any result, and every sample has the weight that it has in a batch of equal ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from ..types import Batch, Rng, Terms, averaged

Loss = Callable[[Batch, Rng], Terms]


def stride(method: nn.Module) -> int:
    """Steps in a patch of the method's encoder, 1 where it has none."""
    patch: tuple[int, ...] = getattr(getattr(method, "encoder", None), "patch", (1,))
    # An encoder of single frames has no patch along time.
    axes = len(getattr(getattr(method, "signal", None), "size", patch))
    return patch[0] if len(patch) == axes else 1


def groups(batch: Batch, patch: int) -> Iterator[tuple[Int64[Tensor, " k"], Batch]]:
    """The rows that hold equally many whole patches, and the batch that they make; short ones first."""
    assert batch.length is not None
    whole = batch.length // patch * patch
    for steps in torch.unique(whole).tolist():
        rows = (whole == steps).nonzero()[:, 0]
        part = batch[rows]
        action = None if part.action is None else part.action[:, : steps - 1]
        yield rows, replace(part, x=part.x[:, :, :steps], action=action, length=None)


def loss(of: Loss, batch: Batch, rng: Rng, patch: int) -> Terms:
    """The terms of every group, averaged over samples; each sample meets the masks that it has in any other split."""
    found = [(len(rows), of(part, rng.of(rows.tolist(), len(batch)))) for rows, part in groups(batch, patch)]
    return averaged([terms for _, terms in found], [count / len(batch) for count, _ in found])
