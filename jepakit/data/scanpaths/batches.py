"""What a loader's worker does with scanpaths: item k is batch k, whole, as a pure function of k."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from ...types import Batch, Rng, Signal
from ..base import Corrupt, Unreadable, first_of, refuse, stack, uniform
from ..batches import Packed, drawn, labels, unpacked
from .augment import GazeAugment, Version, changed, mirrored, shown
from .dataset import Clip, Scanpaths


class Sample(NamedTuple):
    """What is read of one scanpath: its clip, where that is asked for, and its views."""

    clip: Clip | None
    views: list[Shaped[Tensor, "c _t _h _w"]]


@dataclass(frozen=True, eq=False)
class GazeBatches(TorchDataset[Packed]):
    """Item k is training batch k; see `batches.TrainBatches`."""

    dataset: Scanpaths
    augment: GazeAugment
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
        rows = self._rows(ids, rng)
        samples, kept, skipped = [], [], dict[str, str]()
        for b, i in enumerate(ids.tolist()):
            sample, used = self._readable(i, [each[b] for each in rows], rng, skipped)
            samples.append(sample)
            kept.append(used)
        clips = [sample.clip for sample in samples if sample.clip is not None]
        views = [stack(column) for column in zip(*[sample.views for sample in samples], strict=True)]
        packed = pack(self.dataset, clips, np.array(kept, dtype=np.int64), skipped, self.signal)
        return self._changed(packed, views, rng)

    def unpack(self, packed: Packed) -> Batch:
        """The `Batch` it stands for."""
        return unpacked(packed, self.dataset, [group.count for group in self.augment.views], self.whole)

    def _versions(self) -> list[Version]:
        return [
            Version(group.of(self.signal.size), group.crop, f"view {g} {v}")
            for g, group in enumerate(self.augment.views)
            for v in range(group.count)
        ]

    def _rows(self, ids: Int64[np.ndarray, " b"], rng: Rng) -> list[Int64[np.ndarray, "b _"]]:
        """The fixations that each view shows of scanpaths `ids`."""
        return [rows_of(self.dataset, self.signal, ids, rng, version) for version in self._versions()]

    def _readable(
        self, i: int, rows: list[Int64[np.ndarray, " _"]], rng: Rng, skipped: dict[str, str]
    ) -> tuple[Sample, int]:
        """Scanpath i or the first one after it whose picture can be read, and which it is."""
        for step in range(len(self.dataset)):
            j = (i + step) % len(self.dataset)
            if step:
                rows = [each[0] for each in self._rows(np.array([j], dtype=np.int64), rng)]
            if j not in self.broken:
                try:
                    return self._sample(j, rows), j
                except Unreadable as error:
                    refuse(error, self.corrupt)
                    self.broken[j] = error.why
            skipped[self.dataset.name(j)] = self.broken[j]
        raise ValueError(f"none of {len(self.dataset)} scanpaths can be read, e.g. {first_of(skipped)}")

    def _sample(self, i: int, rows: list[Int64[np.ndarray, " _"]]) -> Sample:
        clip = self.dataset.clip(i, self.signal.size, padded=True) if self.whole else None
        versions = zip(rows, self._versions(), strict=True)
        return Sample(clip, [self.dataset.seen(i, each, version.size[1:]) for each, version in versions])

    def _changed(self, packed: Packed, views: list[Shaped[Tensor, "b c _t _h _w"]], rng: Rng) -> Packed:
        """The batch with its views, changed as drawn for each sample; the clip keeps its padding."""
        ids, levels = packed.id.numpy(), self.dataset.view.levels
        facts = (ids, self.augment, self.signal, levels, rng)
        pictures = [changed(x, *facts, v.stream) for x, v in zip(views, self._versions(), strict=True)]
        if not self.whole:
            return packed._replace(pictures=pictures, action=None)
        x, action = changed(packed.pictures[0], *facts), packed.action
        if packed.length is not None:
            x = torch.where(torch.arange(x.shape[2])[:, None, None] < packed.length[:, None, None, None, None], x, 0)
        assert action is not None
        if self.augment.flip:
            turned = mirrored(ids, self.augment, rng)[:, None, None]
            action = action * torch.where(turned, torch.tensor([-1.0, 1.0]), 1.0)
        return packed._replace(pictures=[x, *pictures], action=action)


@dataclass(frozen=True, eq=False)
class OrderedGaze(TorchDataset[Packed]):
    """Item k is the k-th batch from sample `start` on, in order, unchanged."""

    dataset: Scanpaths
    corrupt: Corrupt
    signal: Signal
    batch: int
    start: int

    def __getitem__(self, k: int) -> Packed:
        first = self.start + k * self.batch
        samples, kept, skipped = [], [], dict[str, str]()
        for i in range(first, min(first + self.batch, len(self.dataset))):
            try:
                samples.append(self.dataset.clip(i, self.signal.size, padded=True))
                kept.append(i)
            except Unreadable as error:
                refuse(error, self.corrupt)
                skipped[error.name] = error.why
        return pack(self.dataset, samples, np.array(kept, dtype=np.int64), skipped, self.signal)

    def unpack(self, packed: Packed) -> Batch:
        """The `Batch` it stands for."""
        return unpacked(packed, self.dataset)


def pack(
    dataset: Scanpaths, samples: list[Clip], ids: Int64[np.ndarray, " b"], skipped: dict[str, str], signal: Signal
) -> Packed:
    """Samples of scanpaths `ids` as a batch, with their lengths where some of the data are padded."""
    if not samples:
        x, action = torch.empty(0, dataset.channels, *signal.size), torch.empty(0, signal.size[0] - 1, 2)
    else:
        x, action = stack([x for x, _ in samples]), stack([action for _, action in samples])
    length = np.minimum(dataset.lengths[ids], signal.size[0])
    uneven = bool((dataset.lengths < signal.size[0]).any())
    known = torch.from_numpy(length) if uneven else None
    return Packed([x], labels(dataset, ids), torch.from_numpy(ids), skipped, known, action)


def rows_of(
    dataset: Scanpaths, signal: Signal, ids: Int64[np.ndarray, " b"], rng: Rng, version: Version
) -> Int64[np.ndarray, "b _"]:
    """The fixations that a version shows of scanpaths `ids`, of those that are read; padding is none."""
    length = np.minimum(dataset.lengths[ids], signal.size[0])
    return shown(length, uniform(rng.fork("box", version.stream), ids, 2), version.crop, version.size[0])


def several(dataset: Scanpaths, augment: GazeAugment, signal: Signal, i: int, q: int) -> Shaped[Tensor, "q c t h w"]:
    """`q` versions of a sample, changed as training changes its first views; the same every time. Raises Unreadable."""
    group, ids, levels, found = augment.views[0], np.array([i], dtype=np.int64), dataset.view.levels, []
    version = Version(group.of(signal.size), group.crop, "view")
    for k in range(q):
        rng = Rng(0).fork("panel", k)
        x = dataset.seen(i, rows_of(dataset, signal, ids, rng, version)[0], version.size[1:])
        found.append(changed(x[None], ids, augment, signal, levels, rng, version.stream))
    return torch.cat(found)
