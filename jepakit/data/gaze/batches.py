"""What a loader's worker does with scanpaths: item k is batch k, whole, as a pure function of k."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from ...types import Batch, Rng, Signal, unit
from ..augment import PHOTO_DRAWS, Augment, photometric
from ..base import Corrupt, Unreadable, first_of, refuse, stack, uniform
from ..batches import Packed, drawn, labels, unpacked
from .dataset import Clip, Scanpaths


@dataclass(frozen=True)
class GazeAugment(Augment):
    """How a scanpath is changed each time it is seen: mirrored, with its saccades, and its colours.

    A fixation is a crop already, so there is no `crop`, no `aspect`, and there are no `views`; the colours of all
    fixations of a scanpath change alike.
    """

    crop: tuple[float, float] = (1.0, 1.0)
    aspect: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views:
            raise ValueError("views are not cut from scanpaths; choose a method that predicts, such as ijepa or bijepa")
        if self.crop != (1.0, 1.0) or self.aspect != (1.0, 1.0):
            raise ValueError(
                f"crop is {self.crop} and aspect {self.aspect}, but a fixation is a crop already; give (1, 1) for both"
            )


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
    # Remembered only to save a second attempt; what is read does not depend on it.
    broken: dict[int, str] = field(default_factory=dict)

    def __getitem__(self, k: int) -> Packed:
        ids, rng = drawn(k, len(self.dataset), self.seed, self.batch, self.offset, self.total)
        samples, kept, skipped = [], [], dict[str, str]()
        for i in ids.tolist():
            sample, used = self._readable(i, skipped)
            samples.append(sample)
            kept.append(used)
        packed = pack(self.dataset, samples, np.array(kept, dtype=np.int64), skipped, self.signal)
        return changed(packed, self.augment, rng, self.dataset.view.levels)

    def unpack(self, packed: Packed) -> Batch:
        """The `Batch` it stands for."""
        return unpacked(packed, self.dataset)

    def _readable(self, i: int, skipped: dict[str, str]) -> tuple[Clip, int]:
        """Scanpath i or the first one after it whose picture can be read, and which it is."""
        for step in range(len(self.dataset)):
            j = (i + step) % len(self.dataset)
            if j not in self.broken:
                try:
                    return self.dataset.clip(j, self.signal.size, padded=True), j
                except Unreadable as error:
                    refuse(error, self.corrupt)
                    self.broken[j] = error.why
            skipped[self.dataset.name(j)] = self.broken[j]
        raise ValueError(f"none of {len(self.dataset)} scanpaths can be read, e.g. {first_of(skipped)}")


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


def changed(packed: Packed, augment: Augment, rng: Rng, levels: int) -> Packed:
    """The batch mirrored and in other colours, as drawn for each sample.

    Padding stays padding: what is black all over stays black under every change of colours.
    """
    x, action, ids = packed.pictures[0], packed.action, packed.id.numpy()
    assert action is not None
    if augment.flip:
        mirrored = torch.from_numpy(uniform(rng.fork("flip"), ids, 1)[:, 0] < augment.flip)
        x = torch.where(mirrored[:, None, None, None, None], x.flip(-1), x)
        action = action * torch.where(mirrored[:, None, None], torch.tensor([-1.0, 1.0]), 1.0)
    if augment.photometric:
        u = uniform(rng.fork("photometric"), ids, PHOTO_DRAWS)
        y = coloured(unit(x), u, augment, levels)
        x = y.mul(255).round().to(torch.uint8) if x.dtype == torch.uint8 else y
    return packed._replace(pictures=[x], action=action)


def coloured(
    x: Float[Tensor, "b c t h w"], u: Float[np.ndarray, "b draws"], augment: Augment, levels: int
) -> Float[Tensor, "b c t h w"]:
    """Colours of every fixation and level, changed by the draws of its sample."""
    b, c, t, h, w = x.shape
    each = x.reshape(b, levels, c // levels, t, h, w).permute(0, 3, 1, 2, 4, 5).flatten(0, 2)
    y: Shaped[Tensor, "n k h w"] = photometric(each, np.repeat(u, t * levels, axis=0), augment)
    return y.reshape(b, t, levels, c // levels, h, w).permute(0, 2, 3, 1, 4, 5).reshape(b, c, t, h, w)
