"""Finds samples that two data sets share, by a hash of every sample as it is read."""

from hashlib import blake2b

import numpy as np
from jaxtyping import Shaped

from ..core.words import percent
from ..types import Batch

Hashes = dict[int, int]
"""The hash of each sample, by its id."""


def hash_array(x: Shaped[np.ndarray, "..."]) -> int:
    """A hash of 64 bits of an array's type, shape and values."""
    digest = blake2b(repr((x.dtype.str, x.shape)).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
    return int.from_bytes(digest.digest(), "little")


def sample_hashes(batch: Batch) -> Hashes:
    """The hash of every sample of a batch; padding is left out, and so are samples that are flat in every channel.

    A sensor that rests, or an empty picture, is equal to another by itself.
    """
    steps = [None] * len(batch) if batch.length is None else batch.length.tolist()
    rows = (x if n is None else x[:, :n] for x, n in zip(batch.x, steps, strict=True))
    samples = {i: x.flatten(1) for i, x in zip(batch.id.tolist(), rows, strict=True)}
    return {i: hash_array(x.numpy()) for i, x in samples.items() if (x != x[:, :1]).any()}


def overlap_sentence(shared: int, total: int) -> str:
    """A sentence such as "12 of 2,000 test samples (0.6 %) are also training samples"."""
    return f"{shared:,} of {total:,} test samples ({percent(shared / max(total, 1), 1)}) are also training samples"
