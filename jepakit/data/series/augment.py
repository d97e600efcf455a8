"""Augmentation of series: time crops, scaling, noise and dropped channels.

All draws come from `uniform(rng, ids, …)`, so they depend only on (seed, epoch, sample id).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...core.draws import normal_draws
from ...types import Size
from ..config import StrongAugmentation


def _check_crop(crop: tuple[float, float]) -> None:
    if not 0 < crop[0] <= crop[1] <= 1:
        raise ValueError(f"crop is {crop}; give a rising range of the share of the time kept, e.g. (0.5, 1.0)")


@dataclass(frozen=True)
class SeriesViews:
    """`count` extra versions of each sample: `crop` of its time, stretched to `size` (None: the sample's)."""

    count: int = 2
    size: tuple[int] | None = None
    crop: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a group of views has count {self.count}; give at least one view or drop the group")
        if self.size is not None and self.size[0] < 1:
            raise ValueError(f"size is {self.size}; give a length of at least 1, e.g. (96,)")
        _check_crop(self.crop)

    def size_for(self, size: Size) -> Size:
        """The size of these versions for a signal of this size."""
        return self.size or size


@dataclass(frozen=True)
class SeriesAugment:
    """How a training sample is augmented each time it is drawn; by default not at all.

    `crop` is the range of the share of time that is kept and stretched to the sample's length. A factor in
    1 ± `scale`, drawn per channel, scales values around the channel's mean. `jitter` is the deviation of normal noise,
    in units of the channel's deviation. `drop` is the probability that a channel is set to its mean; at least one
    channel always stays. `views` adds extra versions (`Batch.views`).
    """

    crop: tuple[float, float] = (1.0, 1.0)
    scale: float = 0.0
    jitter: float = 0.0
    drop: float = 0.0
    views: tuple[SeriesViews, ...] = ()

    def __post_init__(self) -> None:
        _check_crop(self.crop)
        if not (0 <= self.scale <= 1 and 0 <= self.drop < 1):
            raise ValueError(
                f"scale is {self.scale:g} and drop {self.drop:g}; give a scale in [0, 1], a drop in [0, 1)"
            )
        if not 0 <= self.jitter < math.inf:
            raise ValueError(f"jitter is {self.jitter:g}; give 0 or more, in standard deviations of the channel")

    @property
    def changes(self) -> bool:
        """Whether two views of a sample differ."""
        crop = (self.views[0] if self.views else self).crop
        return crop != (1.0, 1.0) or self.scale > 0 or self.jitter > 0 or self.drop > 0

    def check(self, channels: int) -> None:
        """Accept any number of channels: every change works on all of them."""

    def strong(self, channels: int) -> StrongAugmentation:
        """Two views of each sample; an augmentation at its defaults also gets scaling, noise and dropped channels."""
        chosen = self
        if self == SeriesAugment():
            chosen = SeriesAugment(scale=0.2, jitter=0.1, drop=0.2 if channels > 2 else 0.0)
        why = "parts of one series could be matched by their level alone"
        return StrongAugmentation(replace(chosen, views=(SeriesViews(),)), ("scale", "jitter", "drop"), why)


def crop_steps(
    length: Int64[np.ndarray, " b"], u: Float[np.ndarray, "b 2"], crop: tuple[float, float]
) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
    """The first of the steps that a version shows of samples of these lengths, and their number: at least two."""
    share = crop[0] + (crop[1] - crop[0]) * u[:, 0]
    count = np.clip(np.round(share * length).astype(np.int64), np.minimum(2, length), length)
    return (u[:, 1] * (length - count + 1)).astype(np.int64), count


def draws_for(channels: int, steps: int) -> int:
    """The number of uniform numbers that `change_values` takes per sample."""
    return 2 * channels + 1 + 2 * -(-channels * steps // 2)


def change_values(
    x: Float[Tensor, "b c t"],
    u: Float[np.ndarray, "b draws"],
    cfg: SeriesAugment,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Tensor, "b c t"]:
    """Scale, noise and dropped channels; `mean` and `std` per channel are those of the training part."""
    b, c, t = x.shape
    centre, spread = (torch.tensor(v, dtype=x.dtype)[:, None] for v in (mean, std))
    draws = torch.from_numpy(u)
    y = x - centre
    if cfg.scale:
        y = y * (1 + cfg.scale * (2 * draws[:, :c, None] - 1)).to(x.dtype)
    if cfg.jitter:
        y = y + cfg.jitter * spread * normal_draws(u[:, 2 * c + 1 :])[:, : c * t].reshape(b, c, t).to(x.dtype)
    if cfg.drop:
        stays = torch.arange(c)[None] == (draws[:, 2 * c, None] * c).long()
        y = torch.where(((draws[:, c : 2 * c] < cfg.drop) & ~stays)[..., None], 0.0, y)
    return y + centre
