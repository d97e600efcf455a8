"""Which samples the panel measures: fixed, not augmented, held out from training where the data have such a part."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ...data import Dataset, sample
from ...data.base import Unreadable, uniform
from ...data.images.augment import BOX_DRAWS, PHOTO_DRAWS, Augment, Views, photometric, place
from ...data.images.box import Ask
from ...data.lengths import Uneven, shorter
from ...data.scanpaths import batches as gaze
from ...data.scanpaths.augment import GazeAugment
from ...data.scanpaths.dataset import Scanpaths
from ...data.series.augment import SeriesAugment
from ...data.series.batches import several
from ...data.series.dataset import Series
from ...data.unaugmented import read
from ...types import Batch, Rng, Signal, unit


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples `x` (N, C, *size), 8-bit where the data are; `dataset` is where they are from, `note` says it."""

    x: Shaped[Tensor, "n c ..."]
    dataset: Dataset
    note: str

    @property
    def batch(self) -> Batch:
        """The samples as a batch."""
        return Batch(self.x)


def choose(data: Any, train: Dataset, signal: Signal, count: int, patch: int = 1) -> Samples:
    """`count` samples, the same every time: of the test part where training reads the train part, else trained on.

    A test part with fewer samples than asked for, where training has more, is not used. See `equal` for `patch`.
    """
    held, why = test_part(data, signal)
    if held is not None:
        wanted = min(count, len(train))
        x = equal(held, signal, count, patch)
        if len(x) >= wanted:
            return Samples(x, held, f"panel: {told(x, signal)} of the test part, which training never sees")
        why = f"the test part holds {len(x)} of the {wanted} that it takes"
    x = equal(train, signal, count, patch)
    return Samples(x, train, f"panel: {told(x, signal)} that are trained on, not augmented ({why})")


def told(x: Shaped[Tensor, "n c ..."], signal: Signal) -> str:
    """How many samples, and of how many steps where that is not all."""
    return f"{len(x)} samples" + (f" of {x.shape[2]} steps" if x.shape[2] != signal.size[0] else "")


def equal(dataset: Dataset, signal: Signal, count: int, patch: int) -> Shaped[Tensor, "n c ..."]:
    """Up to `count` samples of one length: where theirs are not, the first steps of those of the median and above.

    These are whole patches, so that no number of the panel is of padding.
    """
    if not (isinstance(dataset, Uneven) and shorter(dataset, signal.size)) or dataset.lengths is None:
        return sample(dataset, signal, count)
    length = dataset.lengths
    steps = max(patch, int(np.median(length)) // patch * patch)
    order = torch.randperm(len(dataset), generator=Rng(0).fork("data", "sample").generator()).numpy()
    ids = order[length[order] >= steps][:count]
    if isinstance(dataset, Series):
        return dataset.part(ids, np.zeros_like(ids), np.full_like(ids, steps), steps)
    return read(dataset, ids, (steps, *signal.size[1:])).x


def test_part(data: Any, signal: Signal) -> tuple[Dataset | None, str]:
    """The test part, where the settings `data` read the train part; else why there is none."""
    if getattr(data, "split", "all") != "train":
        return None, "data.split=train would hold a test part out"
    known = {"channels": signal.channels} if hasattr(data, "channels") else {}
    try:
        held: Dataset = replace(data, split="test", limit=0, **known).open()
    except ValueError as error:
        return None, str(error)
    if held.channels != signal.channels:
        return None, f"the test part has {held.channels} channels"
    return held, ""


def changes(augment: Augment | SeriesAugment) -> bool:
    """Whether two views of a sample differ: by their crop, their colours, or in mirror image."""
    if isinstance(augment, SeriesAugment | GazeAugment):
        return augment.changes
    group = augment.views[0] if augment.views else augment
    return augment.photometric or augment.flip > 0 or group.crop != (1.0, 1.0) or augment.aspect != (1.0, 1.0)


def views(
    dataset: Dataset, augment: Augment | SeriesAugment, signal: Signal, n: int, q: int
) -> Shaped[Tensor, "n q c ..."]:
    """`q` pictures of each of up to `n` readable items, changed as training changes its views, or else its samples.

    8-bit items stay uint8. They are the same every time.
    """
    order = torch.randperm(len(dataset), generator=Rng(0).fork("data", "sample").generator()).tolist()
    if isinstance(dataset, Series) and isinstance(augment, SeriesAugment):
        return several(dataset, augment, signal, np.array(order[:n], dtype=np.int64), q)
    assert isinstance(augment, Augment)
    found: list[Tensor] = []
    for i in order:
        if len(found) == n:
            break
        try:
            found.append(_versions(dataset, augment, signal, i, q))
        except Unreadable:
            continue
    return torch.stack(found)


def _versions(dataset: Dataset, augment: Augment, signal: Signal, i: int, q: int) -> Shaped[Tensor, "q c ..."]:
    if isinstance(dataset, Scanpaths) and isinstance(augment, GazeAugment):
        return gaze.several(dataset, augment, signal, i, q)
    group = augment.views[0] if augment.views else augment
    size = (group.size or signal.size) if isinstance(group, Views) else signal.size

    def draw(stream: str, draws: int) -> Float[np.ndarray, "q draws"]:
        ids = np.array([i], dtype=np.int64)
        return np.concatenate([uniform(Rng(0).fork("panel", stream, k), ids, draws) for k in range(q)])

    def ask(u: list[float]) -> Ask:
        return Ask(size, lambda h, w: place(u, h, w, size, group.crop, augment.aspect, augment.flip))

    x = torch.stack(dataset.crops(i, [ask(u) for u in draw("box", BOX_DRAWS).tolist()]))
    if not augment.photometric:
        return x
    changed = photometric(unit(x), draw("photometric", PHOTO_DRAWS), augment)
    return changed.mul(255).round().to(torch.uint8) if x.dtype == torch.uint8 else changed
