"""The signal of a data set: its size, its channels, and their mean and standard deviation."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..types import Rng, Signal, Size
from .base import Batched, Corrupt, Dataset, Settings, first_of
from .scanpaths.dataset import Scanpaths
from .series.dataset import Series
from .stream.first import First
from .unaugmented import read

SMALL = 96
LARGE = (224, 224)
PIXELS = 2**24
MOST = 4096
CHUNK = 32


def choose_size(dataset: Dataset, size: tuple[int, int] | None) -> tuple[Size, str]:
    """The size samples are brought to, and why."""
    if size:
        return tuple(size), "as set"
    native = dataset.native
    if native and (max(native) <= SMALL or isinstance(dataset, Batched)):
        return native, "the size all of them have"
    return LARGE, f"the usual size; the images are {'larger' if native else 'of different sizes'}"


def fit(dataset: Dataset, cfg: Settings) -> Signal:
    """Size, channels and per-channel statistics, from a fixed sample of 256 to 4,096 items, not augmented.

    The deviation is divided by `cfg.contrast`, where there is one: normalised samples then have that one, as those
    of paler data under the normalisation of ordinary ones would, without the rounding to 8 bits.

    Raises ValueError where none of the sample can be read, where one cannot and `cfg.corrupt` is "fail", and where
    values are not finite.
    """
    if isinstance(dataset, Series | Scanpaths | First):
        return dataset.fit(cfg)
    size, _ = choose_size(dataset, cfg.size)
    count = min(len(dataset), max(256, min(MOST, PIXELS // (size[0] * size[1]))))
    generator = Rng(0).fork("data", "fit").generator()
    ids = np.sort(torch.randperm(len(dataset), generator=generator)[:count].numpy())
    sums, squares, pixels = _moments(dataset, ids, size, cfg.corrupt)
    mean = sums / pixels
    std = (squares / pixels - mean**2).clamp(min=0).sqrt()
    if not bool(torch.isfinite(mean).all() and torch.isfinite(std).all()):
        raise ValueError("the data hold values that are not finite (NaN or infinite); replace them before training")
    contrast: float = getattr(cfg, "contrast", 1.0)
    # A constant channel is centred and left alone.
    scale = [float(value) / contrast if value > 1e-8 else 1.0 for value in std]
    views = sum(group.count for group in cfg.augment.views)
    return Signal(dataset.channels, size, tuple(mean.tolist()), tuple(scale), views=views, classes=len(dataset.classes))


def _moments(
    dataset: Dataset, ids: Int64[np.ndarray, " k"], size: Size, corrupt: Corrupt
) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"], int]:
    """Sum and sum of squares per channel in float64, and how many pixels."""
    sums, squares = torch.zeros(2, dataset.channels, dtype=torch.float64)
    pixels, skipped = 0, dict[str, str]()
    for part in np.array_split(ids, -(-len(ids) // CHUNK)):
        x, _, broken = read(dataset, part, size, corrupt)
        skipped |= broken
        y = x.double() / (255 if x.dtype == torch.uint8 else 1)
        sums += y.sum((0, 2, 3))
        squares += (y * y).sum((0, 2, 3))
        pixels += y.numel() // len(sums)
    if not pixels:
        raise ValueError(
            f"none of {len(ids)} items tried can be read, e.g. {first_of(skipped)}; look at jepa check-data"
        )
    return sums, squares, pixels
