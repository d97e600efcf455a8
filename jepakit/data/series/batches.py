"""What a loader's worker does with series: item k is batch k, whole, as a pure function of k."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from ...types import Batch, Rng, Signal
from ..base import uniform
from ..batches import Packed, drawn, labels, unpacked
from .augment import SeriesAugment, changed, draws_for
from .dataset import Series


class Version(NamedTuple):
    """One version of a sample: its length, the share of the time it shows, and the stream it draws from."""

    size: int
    crop: tuple[float, float]
    stream: str


@dataclass(frozen=True, eq=False)
class SeriesBatches(TorchDataset[Packed]):
    """Item k is training batch k; see `batches.TrainBatches`."""

    dataset: Series
    augment: SeriesAugment
    signal: Signal
    seed: int
    batch: int
    offset: int
    total: int
    whole: bool = True

    def __getitem__(self, k: int) -> Packed:
        ids, rng = drawn(k, len(self.dataset), self.seed, self.batch, self.offset, self.total)
        x, length = self._first(ids, rng)
        views = [version(self.dataset, self.augment, self.signal, ids, rng, v) for v in self._views()]
        return Packed([x] * self.whole + views, labels(self.dataset, ids), torch.from_numpy(ids.copy()), {}, length)

    def unpack(self, packed: Packed) -> Batch:
        """The `Batch` it stands for."""
        return unpacked(packed, self.dataset, [group.count for group in self.augment.views], self.whole)

    def _first(
        self, ids: Int64[np.ndarray, " b"], rng: Rng
    ) -> tuple[Float[Tensor, "b c _"], Int64[Tensor, " b"] | None]:
        """The sample itself, which is cropped only where that was asked for; else padding stays padding."""
        if self.augment.crop != (1.0, 1.0):
            own = Version(self.signal.size[0], self.augment.crop, "x")
            return version(self.dataset, self.augment, self.signal, ids, rng, own), None
        x, length = self.dataset.whole(ids, self.signal.size)
        y = _changed(x, self.augment, self.signal, ids, rng, "x")
        if length is not None:
            y = torch.where(torch.arange(y.shape[2]) < length[:, None, None], y, 0.0)
        return y, length

    def _views(self) -> list[Version]:
        return [
            Version((group.size or self.signal.size)[0], group.crop, f"view {g} {v}")
            for g, group in enumerate(self.augment.views)
            for v in range(group.count)
        ]


@dataclass(frozen=True, eq=False)
class OrderedSeries(TorchDataset[Packed]):
    """Item k is the k-th batch from sample `start` on, in order, unchanged."""

    dataset: Series
    signal: Signal
    batch: int
    start: int

    def __getitem__(self, k: int) -> Packed:
        first = self.start + k * self.batch
        ids = np.arange(first, min(first + self.batch, len(self.dataset)), dtype=np.int64)
        x, length = self.dataset.whole(ids, self.signal.size)
        return Packed([x], labels(self.dataset, ids), torch.from_numpy(ids), {}, length)

    def unpack(self, packed: Packed) -> Batch:
        """The `Batch` it stands for."""
        return unpacked(packed, self.dataset)


def version(
    dataset: Series, augment: SeriesAugment, signal: Signal, ids: Int64[np.ndarray, " b"], rng: Rng, v: Version
) -> Float[Tensor, "b c _"]:
    """A random part of each sample's time at the length asked for, changed; padding is never a part of it."""
    u = uniform(rng.fork("box", v.stream), ids, 2)
    length = dataset.cut.length[ids]
    share = v.crop[0] + (v.crop[1] - v.crop[0]) * u[:, 0]
    count = np.clip(np.round(share * length).astype(np.int64), np.minimum(2, length), length)
    offset = (u[:, 1] * (length - count + 1)).astype(np.int64)
    return _changed(dataset.part(ids, offset, count, v.size), augment, signal, ids, rng, v.stream)


def _changed(
    x: Float[Tensor, "b c t"],
    augment: SeriesAugment,
    signal: Signal,
    ids: Int64[np.ndarray, " b"],
    rng: Rng,
    stream: str,
) -> Float[Tensor, "b c t"]:
    if not (augment.scale or augment.jitter or augment.drop):
        return x
    u = uniform(rng.fork("series", stream), ids, draws_for(*x.shape[1:]))
    return changed(x, u, augment, signal.mean, signal.std)


def several(
    dataset: Series, augment: SeriesAugment, signal: Signal, ids: Int64[np.ndarray, " n"], q: int
) -> Float[Tensor, "n q c t"]:
    """`q` versions of each sample, changed as training changes its views or else its samples; the same every time."""
    group = augment.views[0] if augment.views else augment
    size = (getattr(group, "size", None) or signal.size)[0]
    parts = [
        version(dataset, augment, signal, ids, Rng(0).fork("panel", k), Version(size, group.crop, "view"))
        for k in range(q)
    ]
    return torch.stack(parts, 1)
