"""Frozen features: one vector per sample, computed in a single pass over the data."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from ..types import Batch
from .split import Part

Encode = Callable[[Batch], Tensor]
"""Maps a batch of raw samples to tokens (B, N, D); the caller puts the module in evaluation mode."""

Distance = Literal["cosine", "euclidean"]

Pool = Literal["mean", "flat"]
"""How tokens become one vector: their mean (D), or all of them side by side (N · D)."""


@dataclass(frozen=True, eq=False)
class Features(Part):
    """Row i of `x` is the feature vector of sample `id[i]`, whose label is `y[i]` (-1: none).

    `distance` is the one by which samples are near: that of representations, or of the values of raw series.
    """

    x: Float32[np.ndarray, "n d"]
    y: Int64[np.ndarray, " n"]
    id: Int64[np.ndarray, " n"]
    distance: Distance = "cosine"

    ROWS = ("x", "y", "id")

    def same(self, other: "Features") -> bool:
        """Whether both hold equal vectors."""
        return np.array_equal(self.x, other.x)

    def check_values(self) -> None:
        """Raise ValueError if a feature is not finite."""
        if not np.isfinite(self.x).all():
            bad = int((~np.isfinite(self.x)).any(1).sum())
            raise ValueError(
                f"the features of {bad} of {len(self)} samples are not finite; probe an earlier checkpoint"
            )


def pool_tokens(tokens: Float[Tensor, "b n d"], pool: Pool = "mean") -> Float[Tensor, "b _"]:
    """One float32 vector per sample: the mean of its tokens, or all of them."""
    return tokens.float().flatten(1) if pool == "flat" else tokens.float().mean(1)


def extract_features(
    encode: Encode, batches: Iterable[Batch], pool: Pool = "mean", device: torch.device | str = "cpu", n: int = 0
) -> Features:
    """The features of every sample in `batches`, in order. `n`, the number of samples if known, saves copying."""
    return extract_by_all({"value": encode}, batches, pool, device, n)["value"]


def extract_by_all(
    encoders: Mapping[str, Encode],
    batches: Iterable[Batch],
    pool: Pool = "mean",
    device: torch.device | str = "cpu",
    n: int = 0,
) -> dict[str, Features]:
    """The features from each of `encoders`, in a single pass: every image is read and decoded once.

    Memory holds one batch, and (n, D) float32 per encoder. Raises ValueError if `batches` is empty.
    """
    x = {name: _Rows(n) for name in encoders}
    y, ids = _Rows(n), _Rows(n)
    with torch.inference_mode():
        for batch in batches:
            y.add(np.full(len(batch), -1) if batch.label is None else batch.label.numpy())
            ids.add(batch.id.numpy())
            moved = batch.to(device)
            for name, encode in encoders.items():
                x[name].add(pool_tokens(encode(moved), pool).cpu().numpy())
    if not ids.used:
        raise ValueError("there is nothing to evaluate: the data have no readable sample")
    labels, index = y.array().astype(np.int64), ids.array().astype(np.int64)
    return {name: Features(rows.array(), labels, index) for name, rows in x.items()}


class _Rows:
    """An array that grows at its end: it is allocated for `n` rows, and doubled when it is full."""

    def __init__(self, n: int) -> None:
        self.n, self.used = n, 0
        self.rows: np.ndarray | None = None

    def add(self, part: np.ndarray) -> None:
        end = self.used + len(part)
        if self.rows is None:
            self.rows = np.empty((max(self.n, len(part)), *part.shape[1:]), part.dtype)
        if end > len(self.rows):
            grown = np.empty((max(end, 2 * len(self.rows)), *part.shape[1:]), part.dtype)
            grown[: self.used] = self.rows[: self.used]
            self.rows = grown
        self.rows[self.used : end] = part
        self.used = end

    def array(self) -> np.ndarray:
        assert self.rows is not None
        return self.rows[: self.used]


def count_classes(*labels: Int[np.ndarray, " _"]) -> int:
    """The number of classes: one more than the largest label."""
    return 1 + max(int(y.max()) for y in labels)
