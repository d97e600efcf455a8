"""A held-out part that depends only on the samples, not on seeds, order or the number of workers."""

from collections.abc import Hashable, Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Int


def held_out(
    keys: Sequence[Hashable], y: Int[np.ndarray, " n"], fraction: float = 0.2, salt: str = "test"
) -> Bool[np.ndarray, " n"]:
    """A mask of the samples to hold out: in each class, the `fraction` whose hashed keys are lowest.

    `keys` identify the samples (by id, or by name so that the split survives a new order). A class of two samples or
    more keeps at least one on each side; a class of one is never held out. `salt` makes independent splits.
    """
    digests = [blake2b(f"{salt}:{key}".encode(), digest_size=8).digest() for key in keys]
    hashed = np.array([int.from_bytes(digest, "little") for digest in digests], dtype=np.uint64)
    mask = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        mask[rows[np.argsort(hashed[rows], kind="stable")[:count]]] = True
    return mask


def held_for_choice(
    keys: Sequence[Hashable], y: Int[np.ndarray, " n"], salt: str, setting: str, advice: str
) -> Bool[np.ndarray, " n"]:
    """A mask of the fifth of the training samples on which the value of a `setting` is chosen.

    Raises ValueError, with the `advice`, if no class has two samples, so that nothing can be held out.
    """
    held = held_out(keys, y, salt=salt)
    if not held.any():
        raise ValueError(f"{setting} cannot be chosen: no class has two training samples; give one value{advice}")
    return held
