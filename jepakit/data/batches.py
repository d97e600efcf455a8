"""What a loader's worker does: item k is batch k, whole, as a pure function of k."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from ..types import Batch, Rng, Signal, Size, unit
from .base import Batched, Corrupt, Dataset, Unreadable, first_of, refuse, stack, uniform
from .images.augment import BOX_DRAWS, PHOTO_DRAWS, Augment, photometric, place
from .images.box import Ask, Box
from .unaugmented import read


class Picture(NamedTuple):
    """One picture per sample: its size, the share of the area and aspects allowed, and the stream it draws from."""

    size: Size
    crop: tuple[float, float]
    stream: str


class Packed(NamedTuple):
    """A batch as it leaves a worker: one tensor per picture, and the items that could not be read."""

    pictures: list[Shaped[Tensor, "b c ..."]]
    label: Int64[Tensor, " b"]
    id: Int64[Tensor, " b"]
    skipped: dict[str, str]
    length: Int64[Tensor, " b"] | None = None
    action: Float[Tensor, "b t a"] | None = None


@runtime_checkable
class Source(Protocol):
    """What a worker is given: item k is batch k, packed, and `unpack` the `Batch` it stands for."""

    def __getitem__(self, k: int) -> Packed: ...

    def unpack(self, packed: Packed) -> Batch:
        """The `Batch` that a packed one stands for."""
        ...


@dataclass(frozen=True, eq=False)
class TrainBatches(TorchDataset[Packed]):
    """Item k is training batch k."""

    dataset: Dataset
    augment: Augment
    corrupt: Corrupt
    signal: Signal
    seed: int
    batch: int
    offset: int
    total: int
    whole: bool = True
    # Remembered only to save a second attempt; what is read does not depend on it.
    broken: dict[int, str] = field(default_factory=dict)

    def __getitem__(self, k: int) -> Packed:
        ids, rng = drawn(k, len(self.dataset), self.seed, self.batch, self.offset, self.total)
        pictures = self._pictures()
        packed = (
            self._whole(ids, rng, pictures) if isinstance(self.dataset, Batched) else self._each(ids, rng, pictures)
        )
        return self._changed(packed, rng, pictures) if self.augment.photometric else packed

    def unpack(self, packed: Packed) -> Batch:
        """The `Batch` it stands for."""
        return unpacked(packed, self.dataset, [group.count for group in self.augment.views], self.whole)

    def _pictures(self) -> list[Picture]:
        size = self.signal.size
        views = [
            Picture(group.size or size, group.crop, f"view {g} {v}")
            for g, group in enumerate(self.augment.views)
            for v in range(group.count)
        ]
        return [Picture(size, self.augment.crop, "x")] * self.whole + views

    def _draws(self, ids: Int64[np.ndarray, " b"], rng: Rng, pictures: list[Picture]) -> list[list[list[float]]]:
        """The numbers that place each picture's box, per picture and sample."""
        return [uniform(rng.fork("box", p.stream), ids, BOX_DRAWS).tolist() for p in pictures]

    def _place(self, u: list[float], height: int, width: int, picture: Picture) -> Box:
        return place(u, height, width, picture.size, picture.crop, self.augment.aspect, self.augment.flip)

    def _whole(self, ids: Int64[np.ndarray, " b"], rng: Rng, pictures: list[Picture]) -> Packed:
        assert isinstance(self.dataset, Batched)
        height, width = self.dataset.native or self.signal.size
        cut = []
        for picture, rows in zip(pictures, self._draws(ids, rng, pictures), strict=True):
            boxes = [self._place(u, height, width, picture) for u in rows]
            cut.append(self.dataset.crop_batch(ids, picture.size, np.array(boxes, dtype=np.int64)))
        return Packed(cut, labels(self.dataset, ids), torch.from_numpy(ids.copy()), {})

    def _each(self, ids: Int64[np.ndarray, " b"], rng: Rng, pictures: list[Picture]) -> Packed:
        rows, kept, skipped = [], [], {}
        for i, draws in zip(ids.tolist(), zip(*self._draws(ids, rng, pictures), strict=True), strict=True):
            row, used, failed = self._readable(i, draws, rng, pictures)
            rows.append(row)
            kept.append(used)
            skipped.update(failed)
        found = np.array(kept, dtype=np.int64)
        return Packed(
            [stack(column) for column in zip(*rows, strict=True)],
            labels(self.dataset, found),
            torch.from_numpy(found),
            skipped,
        )

    def _readable(
        self, i: int, draws: tuple[list[float], ...], rng: Rng, pictures: list[Picture]
    ) -> tuple[list[Tensor], int, dict[str, str]]:
        """The pictures of item i or of the first readable one after it, its id, and those passed over."""
        skipped: dict[str, str] = {}
        for step in range(len(self.dataset)):
            j = (i + step) % len(self.dataset)
            if step:
                draws = tuple(rows[0] for rows in self._draws(np.array([j], dtype=np.int64), rng, pictures))
            if j not in self.broken:
                try:
                    return self.dataset.crops(j, self._asks(draws, pictures)), j, skipped
                except Unreadable as error:
                    refuse(error, self.corrupt)
                    self.broken[j] = error.why
            skipped[self.dataset.name(j)] = self.broken[j]
        raise ValueError(
            f"none of {len(self.dataset)} items can be read, e.g. {first_of(skipped)}; look at jepa check-data"
        )

    def _asks(self, draws: tuple[list[float], ...], pictures: list[Picture]) -> list[Ask]:
        def asked(u: list[float], picture: Picture) -> Ask:
            return Ask(picture.size, lambda h, w: self._place(u, h, w, picture))

        return [asked(u, picture) for u, picture in zip(draws, pictures, strict=True)]

    def _changed(self, packed: Packed, rng: Rng, pictures: list[Picture]) -> Packed:
        changed = []
        for picture, x in zip(pictures, packed.pictures, strict=True):
            u = uniform(rng.fork("photometric", picture.stream), packed.id.numpy(), PHOTO_DRAWS)
            y = photometric(unit(x), u, self.augment)
            changed.append(y.mul_(255).round_().to(torch.uint8) if x.dtype == torch.uint8 else y)
        return packed._replace(pictures=changed)


@dataclass(frozen=True, eq=False)
class OrderedBatches(TorchDataset[Packed]):
    """Item k is the k-th batch from sample `start` on, in order."""

    dataset: Dataset
    corrupt: Corrupt
    signal: Signal
    batch: int
    start: int

    def __getitem__(self, k: int) -> Packed:
        first = self.start + k * self.batch
        ids = np.arange(first, min(first + self.batch, len(self.dataset)), dtype=np.int64)
        x, found, skipped = read(self.dataset, ids, self.signal.size, self.corrupt)
        return Packed([x], labels(self.dataset, found), torch.from_numpy(found), skipped)

    def unpack(self, packed: Packed) -> Batch:
        """The `Batch` it stands for."""
        return unpacked(packed, self.dataset)


def drawn(k: int, items: int, seed: int, batch: int, offset: int, total: int) -> tuple[Int64[np.ndarray, " b"], Rng]:
    """The ids of training batch k, and the stream that its epoch's changes are drawn from.

    A rank's `batch` of the `total` samples of the global batch begin at `offset`.
    """
    epoch, j = divmod(k, items // total)
    first = j * total + offset
    return order(items, seed, epoch)[first : first + batch], Rng(seed, epoch).fork("data")


def unpacked(packed: Packed, dataset: Dataset, groups: Sequence[int] = (), whole: bool = True) -> Batch:
    """The `Batch` of a packed one with so many views in each group; not `whole`: the first view is `x` as well."""
    rest, views = packed.pictures[whole:], []
    for count in groups:
        views.append(torch.stack(rest[:count], dim=1))
        rest = rest[count:]
    label, length = packed.label if dataset.classes else None, packed.length if whole else None
    action = packed.action if whole else None
    return Batch(packed.pictures[0], tuple(views), action=action, label=label, id=packed.id, length=length)


@lru_cache(maxsize=2)
def order(n: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """The order of n samples in one epoch."""
    return torch.randperm(n, generator=Rng(seed, epoch).fork("data", "order").generator()).numpy()


def labels(dataset: Dataset, ids: Int64[np.ndarray, " b"]) -> Int64[Tensor, " b"]:
    """The label of each item, -1 where there is none."""
    return torch.tensor([dataset.label(i) for i in ids.tolist()], dtype=torch.int64)
