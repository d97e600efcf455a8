"""Samples without augmentation: brought to one size and cut to their centre."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ..types import Size
from .base import Batched, Corrupt, Dataset, Unreadable, refuse, stack
from .images.augment import centre, centred
from .scanpaths.dataset import Scanpaths
from .series.dataset import Series


class Plain(NamedTuple):
    """The samples that could be read, uint8 for 8-bit items, which they are, and the others with the reason."""

    x: Shaped[Tensor, "k c ..."]
    id: Int64[np.ndarray, " k"]
    skipped: dict[str, str]


def read(dataset: Dataset, ids: Int64[np.ndarray, " b"], size: Size, corrupt: Corrupt = "skip") -> Plain:
    """The items `ids` at `size`. Raises ValueError for one that cannot be read where `corrupt` is "fail"."""
    if isinstance(dataset, Series):
        return Plain(dataset.whole(ids, size)[0], ids, {})
    if isinstance(dataset, Batched):
        height, width = dataset.native or size
        boxes = np.tile(np.array(centre(height, width, size), dtype=np.int64), (len(ids), 1))
        return Plain(dataset.crop_batch(ids, size, boxes), ids, {})
    rows, kept, skipped = [], [], {}
    for i in ids.tolist():
        try:
            rows += (
                [dataset.clip(i, size, padded=True).x]
                if isinstance(dataset, Scanpaths)
                else dataset.crops(i, [centred(size)])
            )
            kept.append(i)
        except Unreadable as error:
            refuse(error, corrupt)
            skipped[error.name] = error.why
    x = stack(rows) if rows else torch.empty(0, dataset.channels, *size)
    return Plain(x, np.array(kept, dtype=np.int64), skipped)
