"""Representations of a whole data set in one file: in the data's order, in constant memory, resumable.

While it runs, rows go to OUT.part (a .npy file that grows) beside OUT.part.json (what they are rows of). Run again
after an interruption it goes on from the last whole batch, and the result is the same to the byte; where the data, the
weights or the settings have changed it starts over. OUT appears by one rename at the end.

    .parquet    `id`, `embedding`: a fixed-size list of float32, of lists where there are tokens
    .npy        (n, D) or, with tokens, (n, N, D) float32; the ids stand beside it, FILE.npy with FILE.ids.csv
    .csv        `id`, `f0`, `f1`, …, 9 digits, which give float32 back exactly; with tokens one numbered row per token

An item that cannot be read keeps its row, filled with NaN, and is named in the result.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.padding import groups
from ..data.base import Dataset
from ..data.loader import stream
from ..run.checkpoint import Loaded, digest
from ..types import Batch, Signal
from .embed_resume import Part, Progress, Rows, Shape
from .embed_table import Name, check_out, empty_rows

__all__ = ["Embedded", "check_out", "embed", "identity"]

Encode = Callable[[Batch], Tensor]
Blocks = Generator[Rows, None, None]


@dataclass(frozen=True)
class Embedded:
    """What was written: the file, the shape of its rows together, the items whose row is NaN, the rows found done."""

    out: Path
    shape: Shape
    missing: tuple[str, ...]
    resumed: int


def embed(
    encode: Encode,
    dataset: Dataset,
    signal: Signal,
    out: Path,
    *,
    tokens: bool = False,
    batch: int = 64,
    workers: int = 0,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    identity: str = "",
    patch: int = 1,
    progress: Progress = lambda done, total: None,
) -> Embedded:
    """Write `encode` of every item to `out`, pooled over tokens or, with `tokens`, one vector per token.

    `encode` is in evaluation mode, and `identity` says which it is: rows begun under another are not gone on with.
    Samples of unequal lengths are encoded up to their last whole `patch`.
    `progress` is called with (rows done, rows in all). Raises ValueError where `out` has an unknown ending or exists
    already, where no item can be read, or where a representation is not finite.
    """
    write = check_out(out, overwrite)

    def blocks(start: int, shape: Shape | None = None) -> Blocks:
        batches = stream(dataset, signal, batch=batch, workers=workers, start=start)
        try:
            found = _encoded(partial(_rows, encode, tokens, patch), batches, device)
            yield from _aligned(_finite(found, dataset.name), start, len(dataset), batch, shape)
        finally:
            batches.close()

    size = list(signal.size)
    about = {"data": dataset.fingerprint(), "size": size, "tokens": tokens, "batch": batch, "total": len(dataset)}
    about["identity"] = identity
    part = Part(out, about)
    resumed = _fill(part, blocks, progress)
    rows = np.load(part.path, mmap_mode="r")
    missing = tuple(dataset.name(i) for i in empty_rows(rows))
    write(rows, dataset.name, out)
    part.remove()
    return Embedded(out, rows.shape, missing, resumed)


def identity(loaded: Loaded, weights: str) -> str:
    """A hash of what the representations depend on beside the data: step, settings of the method, weights."""
    about = (loaded.step, weights, loaded.run.method, digest(loaded.method))
    return blake2b(repr(about).encode(), digest_size=16).hexdigest()


# --- rows, one block of `batch` at a time


def _encoded(
    rows: Callable[[Batch], Tensor], batches: Iterator[Batch], device: torch.device | str
) -> Iterator[tuple[np.ndarray, Rows]]:
    """Ids and features of each batch."""
    for batch in batches:
        with torch.inference_mode():
            found = rows(batch.to(device)).cpu().numpy()
        yield batch.id.numpy(), found


def _rows(encode: Encode, tokens: bool, patch: int, batch: Batch) -> Tensor:
    """All tokens of each sample, or their mean."""
    if batch.length is None:
        found = encode(batch).float()
        return found if tokens else found.mean(1)
    means = [(rows, encode(part).float().mean(1)) for rows, part in groups(batch, patch)]
    order = torch.cat([rows for rows, _ in means]).argsort()
    return torch.cat([mean for _, mean in means])[order]


def _finite(encoded: Iterator[tuple[np.ndarray, Rows]], name: Name) -> Iterator[tuple[np.ndarray, Rows]]:
    """The same, so that NaN in the file always means an item that cannot be read. ValueError where some is computed."""
    for ids, rows in encoded:
        bad = ids[~np.isfinite(rows).reshape(len(rows), -1).all(1)]
        if len(bad):
            raise ValueError(
                f"the representations of {len(bad)} of {len(rows)} items are not finite, the first of them "
                f"{name(int(bad[0]))}; embed an earlier checkpoint or, if only some are, look for NaN in the data"
            )
        yield ids, rows


def _aligned(
    encoded: Iterator[tuple[np.ndarray, Rows]], start: int, total: int, size: int, shape: Shape | None
) -> Iterator[Rows]:
    """Blocks of `size` rows from `start` (a multiple of it) to `total`, with NaN for ids that did not come.

    `shape` is that of one row, where it is known before the first batch.
    """
    at = start

    def block() -> Rows:
        assert shape is not None
        return np.full((min(size, total - at), *shape), np.nan, np.float32)

    for ids, features in encoded:
        shape = features.shape[1:]
        while at + size <= ids[0]:
            yield block()
            at += size
        rows = block()
        rows[ids - at] = features
        yield rows
        at += size
    if shape is None:
        raise ValueError("none of the items can be read, so there is nothing to embed; look at jepa check-data")
    while at < total:
        yield block()
        at += size


def _fill(part: Part, blocks: Callable[..., Blocks], progress: Progress) -> int:
    """Bring `part` to all its rows; how many of them it held already."""
    done, shape = part.found()
    if done:
        # The last block is computed again: if it comes out otherwise, something that `about` does not tell has changed.
        first = (done - 1) // part.batch * part.batch
        rest = blocks(first, shape)
        if np.array_equal(next(rest), part.rows(first, done, shape), equal_nan=True):
            part.append(rest, done, shape, progress)
            return done
        rest.close()
    rest = blocks(0)
    block = next(rest)
    part.create(block.shape[1:])
    part.append(chain([block], rest), 0, block.shape[1:], progress)
    return 0
