"""Writes the representations of a whole data set to one file: in the data's order, in constant memory, resumable.

While it runs, rows go to OUT.part (a growing .npy file) beside OUT.part.json (what they are rows of). After an
interruption, the same command resumes at the last whole batch and gives the same file to the byte; if the data, the
weights or the settings have changed, it starts over. OUT appears by one rename at the end.

    .parquet      `id`, `embedding`: a fixed-size list of float32, or of lists if there are tokens
    .npy          (n, D) or, with tokens, (n, N, D) float32; the ids are beside it: FILE.ids.csv for FILE.npy
    .safetensors  the same as the tensor `embedding`; the ids are beside it too
    .csv          `id`, `f0`, `f1`, …, with 9 digits, which give float32 back exactly; with tokens one row per token

If the data have classes, `label` follows `id`, the class of the item or nothing; in .safetensors it is also a tensor of
indices into `classes` of the metadata, -1 for none. An item that cannot be read keeps its row, filled with NaN, and is
named in the result.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import devices, padding
from ..core.progress import Progress as Watch
from ..core.progress import SilentProgress, progress_counter
from ..data import Dataset, refuse_padding
from ..data.loader import read_stream
from ..methods.base import Weights
from ..run import checkpoint
from ..run.checkpoint import LoadedRun
from ..training.request import PathLike
from ..types import Batch, Signal
from .embed_resume import ProgressCallback, Rows, Shape, UnfinishedRows
from .inputs import open_data
from .tables import Items, Name, check_embedding_file, empty_rows

__all__ = ["Embedded", "embed", "encoder_identity", "write_embeddings"]

Encode = Callable[[Batch], Tensor]
Blocks = Generator[Rows, None, None]


@dataclass(frozen=True)
class Embedded:
    """What was written: the file, the shape of its rows, the items whose row is NaN, how many rows were resumed."""

    out: Path
    shape: Shape
    missing: tuple[str, ...]
    resumed: int


def embed(
    run: PathLike,
    data: PathLike,
    out: PathLike,
    *,
    tokens: bool = False,
    weights: Weights = "target",
    batch: int = 64,
    workers: int | None = None,
    overwrite: bool = False,
    step: int | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Watch | None = None,
) -> Embedded:
    """Write the representation of every item of `data`, in its order, to a .parquet, .npy, .safetensors or .csv file.

    Ids, and labels if the data have any, stand beside the rows. After an interruption, the same call resumes where it
    was. `step` is that of a checkpoint, by default the newest; `settings` override how `data` are read, as
    {"data.fill": 30}.
    """
    if batch < 1:
        raise ValueError(f"the batch is {batch}; give 1 or more, e.g. --batch 64")
    check_embedding_file(Path(out), overwrite)
    progress = progress or SilentProgress()
    loaded = checkpoint.load_run(Path(run), step, note=progress.note)
    dataset, signal = open_data(loaded, os.fspath(data), settings), loaded.method.signal
    if tokens:
        refuse_padding(dataset, signal.size, "one vector per patch")
    for note in dataset.notes:
        progress.note(note)
    device, _ = devices.best_device()
    return write_embeddings(
        partial(loaded.method.to(device).encode, weights=weights),
        dataset,
        signal,
        Path(out),
        tokens=tokens,
        batch=batch,
        workers=(loaded.run.loop.workers or 0) if workers is None else workers,
        device=device,
        overwrite=overwrite,
        identity=encoder_identity(loaded, weights),
        patch=loaded.method.patch_steps,
        progress=progress_counter(progress, "embedding", "items"),
    )


def encoder_identity(loaded: LoadedRun, weights: str) -> str:
    """A hash of all that the representations depend on beside the data: step, settings of the method, weights."""
    about = (loaded.step, weights, loaded.run.method, checkpoint.module_hash(loaded.method))
    return blake2b(repr(about).encode(), digest_size=16).hexdigest()


def write_embeddings(
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
    progress: ProgressCallback = lambda done, total: None,
) -> Embedded:
    """Write `encode` of every item to `out`, pooled over tokens or, with `tokens`, one vector per token.

    `encode` is in evaluation mode and `identity` names it: rows begun under another identity are not resumed. Samples
    of unequal lengths are encoded up to their last whole `patch`. `progress` is called with (rows done, all rows).
    Raises ValueError if `out` has an unknown ending or exists, if no item can be read, or if a representation is not
    finite.
    """
    write = check_embedding_file(out, overwrite)

    def blocks(start: int, shape: Shape | None = None) -> Blocks:
        batches = read_stream(dataset, signal, batch=batch, workers=workers, start=start)
        try:
            encoded = _encode_batches(partial(_batch_rows, encode, tokens, patch), batches, device, dataset.name)
            yield from _complete_blocks(encoded, start, len(dataset), batch, shape)
        finally:
            batches.close()

    size = list(signal.size)
    about = {"data": dataset.fingerprint(), "size": size, "tokens": tokens, "batch": batch, "total": len(dataset)}
    about["identity"] = identity
    part = UnfinishedRows(out, about)
    resumed = _finish_rows(part, blocks, progress)
    rows = np.load(part.path, mmap_mode="r")
    missing = tuple(dataset.name(i) for i in empty_rows(rows))
    write(rows, Items(dataset.name, dataset.label, dataset.classes), out)
    part.remove()
    return Embedded(out, rows.shape, missing, resumed)


# --- rows, one block of `batch` at a time


def _encode_batches(
    rows: Callable[[Batch], Tensor], batches: Iterator[Batch], device: torch.device | str, name: Name
) -> Iterator[tuple[np.ndarray, Rows]]:
    """The ids and features of each batch.

    Raises ValueError if a value is not finite: NaN in the file marks unreadable items only.
    """
    for batch in batches:
        with torch.inference_mode():
            found = rows(batch.to(device)).cpu().numpy()
        ids = batch.id.numpy()
        bad = ids[~np.isfinite(found).reshape(len(found), -1).all(1)]
        if len(bad):
            raise ValueError(
                f"the representations of {len(bad)} of {len(found)} items are not finite, the first of them "
                f"{name(int(bad[0]))}; embed an earlier checkpoint or, if only some are, look for NaN in the data"
            )
        yield ids, found


def _batch_rows(encode: Encode, tokens: bool, patch: int, batch: Batch) -> Tensor:
    """All tokens of each sample (B, N, D), or their mean (B, D)."""
    if batch.length is None:
        found = encode(batch).float()
        return found if tokens else found.mean(1)
    means = [(rows, encode(part).float().mean(1)) for rows, part in padding.equal_length_groups(batch, patch)]
    order = torch.cat([rows for rows, _ in means]).argsort()
    return torch.cat([mean for _, mean in means])[order]


def _complete_blocks(
    encoded: Iterator[tuple[np.ndarray, Rows]], start: int, total: int, size: int, shape: Shape | None
) -> Iterator[Rows]:
    """Blocks of `size` rows from `start` (a multiple of `size`) to `total`, with NaN for ids that are not in `encoded`.

    `shape` is that of one row, if it is known before the first batch.
    """
    at = start

    def empty_block() -> Rows:
        assert shape is not None
        return np.full((min(size, total - at), *shape), np.nan, np.float32)

    for ids, features in encoded:
        shape = features.shape[1:]
        while at + size <= ids[0]:
            yield empty_block()
            at += size
        rows = empty_block()
        rows[ids - at] = features
        yield rows
        at += size
    if shape is None:
        raise ValueError("none of the items can be read, so there is nothing to embed; look at jepa check-data")
    while at < total:
        yield empty_block()
        at += size


def _finish_rows(part: UnfinishedRows, blocks: Callable[..., Blocks], progress: ProgressCallback) -> int:
    """Compute the rows that `part` lacks; returns how many it had already."""
    done, shape = part.resume_point()
    if done:
        # The last block is computed again: if it differs, something that `about` does not record has changed.
        first = (done - 1) // part.batch * part.batch
        rest = blocks(first, shape)
        if np.array_equal(next(rest), part.read_rows(first, done, shape), equal_nan=True):
            part.append(rest, done, shape, progress)
            return done
        rest.close()
    rest = blocks(0)
    block = next(rest)
    part.create_file(block.shape[1:])
    part.append(chain([block], rest), 0, block.shape[1:], progress)
    return 0
