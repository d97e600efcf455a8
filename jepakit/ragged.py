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

from .types import Batch, Rng, Terms

Loss = Callable[[Batch, Rng], Terms]


def stride(method: nn.Module) -> int:
    """Steps in a patch of the method's encoder, 1 where it has none."""
    patch: tuple[int, ...] = getattr(getattr(method, "encoder", None), "patch", (1,))
    return patch[0]


def groups(batch: Batch, patch: int) -> Iterator[tuple[Int64[Tensor, " k"], Batch]]:
    """The rows that hold equally many whole patches, and the batch that they make; short ones first."""
    assert batch.length is not None
    whole = batch.length // patch * patch
    for steps in torch.unique(whole).tolist():
        rows = (whole == steps).nonzero()[:, 0]
        part = batch.rows(rows)
        yield rows, replace(part, x=part.x[:, :, :steps], length=None)


def parts(batch: Batch, patch: int) -> Iterator[Batch]:
    """The batches of `groups`."""
    return (part for _, part in groups(batch, patch))


def loss(of: Loss, batch: Batch, rng: Rng, patch: int) -> Terms:
    """The terms of every group, averaged over samples; each sample meets the masks that it has in any other split."""
    found = [
        (len(rows) / len(batch), of(part, rng.of(rows.tolist(), len(batch)))) for rows, part in groups(batch, patch)
    ]
    weights = [weight for weight, _ in found]

    def mean(entries: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {
            key: torch.stack([w * e[key] for w, e in zip(weights, entries, strict=True)]).sum(0) for key in entries[0]
        }

    pred = [terms.pred for _, terms in found if terms.pred is not None]
    target = [terms.target for _, terms in found if terms.target is not None]
    return Terms(
        mean([dict(terms.loss) for _, terms in found]),
        mean([dict(terms.log) for _, terms in found]),
        torch.cat(pred) if pred else None,
        torch.cat(target) if target else None,
    )
