"""Frozen tokens: all tokens of every sample, as float16 on disk, so that memory holds only a batch."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64, UInt8
from torch import Tensor

from ..types import Batch, Grid
from .features import Encode
from .split import Part

GIB = 2**30
ROWS_AT_ONCE = 512
"""How many samples are compared, or read for their moments, at a time."""
UNKNOWN_CLASS = 255
"""The value of a mask's pixel whose class is unknown."""

Shape = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Tokens(Part):
    """Row i is sample `id[i]` with label `y[i]` (-1: none); its tokens, row-major over `grid`, are on disk.

    `store` is memory-mapped and holds all samples that were read; `rows` are those of this part. `masks` of class ids
    (255: unknown) are memory-mapped too, and hold every item of the data set. Samples of one `sequence` are the frames
    of one film, in order. Tokens are read to `device`; those that are not finite are never written.
    """

    store: Float16[np.ndarray, "m n d"]
    rows: Int64[np.ndarray, " k"]
    y: Int64[np.ndarray, " k"]
    id: Int64[np.ndarray, " k"]
    grid: Grid = ()
    masks: UInt8[np.ndarray, "items h w"] | None = None
    sequence: Int64[np.ndarray, " k"] | None = None
    device: str = "cpu"

    ROWS = ("rows", "y", "id", "sequence")

    def read(self, index: Int64[np.ndarray, " b"]) -> Float[Tensor, "b n d"]:
        """The tokens of these rows, as float32."""
        return torch.from_numpy(self.store[self.rows[index]]).to(self.device).float()

    def truth(self, index: Int64[np.ndarray, " b"]) -> Int64[Tensor, "b h w"]:
        """The masks of these rows."""
        assert self.masks is not None
        return torch.from_numpy(self.masks[self.id[index]]).to(self.device).long()

    def classes(self) -> set[int]:
        """The class ids in the masks of this part."""
        parts = np.array_split(np.arange(len(self)), -(-len(self) // ROWS_AT_ONCE))
        return {int(c) for i in parts for c in np.unique(self.truth(i).cpu().numpy())} - {UNKNOWN_CLASS}

    def same(self, other: "Tokens") -> bool:
        """Whether both hold the same tokens."""
        if len(self) != len(other) or self.store.shape[1:] != other.store.shape[1:]:
            return False
        parts = np.array_split(np.arange(len(self)), max(1, len(self) // ROWS_AT_ONCE))
        return all(np.array_equal(self.store[self.rows[i]], other.store[other.rows[i]]) for i in parts)


def token_shapes(encoders: Mapping[str, Encode], batch: Batch) -> dict[str, Shape]:
    """Tokens and features of one sample, by each encoder."""
    with torch.inference_mode():
        found = {name: encode(batch) for name, encode in encoders.items()}
    return {name: (s.shape[1], s.shape[2]) for name, s in found.items()}


def check_room(sizes: Mapping[str, Shape], n: int, limit: float, folder: Path) -> None:
    """Raise ValueError if the tokens of `n` samples take more than `limit` GiB, or more than `folder` has free."""
    need = sum(2 * n * tokens * dim for tokens, dim in sizes.values()) / GIB
    free = shutil.disk_usage(folder).free / GIB
    if need > limit:
        raise ValueError(
            f"the tokens of {n:,} samples take {need:.2g} GiB on disk, more than the {limit:g} allowed; "
            f"raise the kind's disk_gib to {int(need) + 1}, or give fewer samples"
        )
    if need > free:
        raise ValueError(
            f"the tokens of {n:,} samples take {need:.2g} GiB, but {folder} has {free:.2g} free; "
            "set TMPDIR to a folder with more room, or give fewer samples"
        )


def extract_tokens(
    encoders: Mapping[str, Encode],
    batches: Iterable[Batch],
    folder: Path,
    n: int,
    sizes: Mapping[str, Shape],
    device: str = "cpu",
) -> dict[str, Tokens]:
    """The tokens from each of `encoders`, in a single pass over at most `n` samples, stored in files in `folder`.

    Raises ValueError if `batches` is empty, or if a token is not finite as float16.
    """
    stores = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, (n, *sizes[name]))
        for name in encoders
    }
    y, ids = np.full(n, -1, np.int64), np.empty(n, np.int64)
    used = 0
    with torch.inference_mode():
        for batch in batches:
            rows = slice(used, used + len(batch))
            used = rows.stop
            ids[rows] = batch.id.numpy()
            if batch.label is not None:
                y[rows] = batch.label.numpy()
            moved = batch.to(device)
            for name, encode in encoders.items():
                stores[name][rows] = _to_half(encode(moved))
    if not used:
        raise ValueError("there is nothing to evaluate: the data have no readable sample")
    every = np.arange(used)
    return {name: Tokens(store, every, y[:used], ids[:used], device=device) for name, store in stores.items()}


def _to_half(tokens: Float[Tensor, "b n d"]) -> Float16[np.ndarray, "b n d"]:
    half: np.ndarray = tokens.half().cpu().numpy()
    if not np.isfinite(half).all():
        bad = int((~np.isfinite(half)).any((1, 2)).sum())
        raise ValueError(
            f"the tokens of {bad} of {len(half)} samples are not finite, or beyond float16; probe an earlier checkpoint"
        )
    return half


def token_moments(part: Tokens) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """The mean and standard deviation (D,) over all tokens; the deviation of a constant feature is set to 1."""
    groups = np.array_split(np.arange(len(part)), -(-len(part) // ROWS_AT_ONCE))
    count = len(part) * part.store.shape[1]
    mean = torch.stack([part.read(i).double().sum((0, 1)) for i in groups]).sum(0) / count
    centred = [(part.read(i).double() - mean).square().sum((0, 1)) for i in groups]
    std = (torch.stack(centred).sum(0) / count).sqrt()
    return mean.float(), torch.where(std > 1e-6 * mean.abs(), std, 1.0).float()
