"""Augmentation of scanpaths: flips, colour changes, value noise, and views of some of the fixations.

All draws come from `uniform(rng, ids, …)`, so they depend only on (seed, epoch, sample id).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ...core.draws import uniform_draws
from ...types import Ids, Rng, Signal, Size, unit
from ..config import StrongAugmentation
from ..images.augment import PHOTO_DRAWS, Augment, Views, change_colours, check_crop, keep_bits
from ..series import augment as series


class Version(NamedTuple):
    """One version of a sample: its size (T, h, w), the share of the fixations it shows, and its random stream."""

    size: Size
    crop: tuple[float, float]
    stream: str


@dataclass(frozen=True)
class GazeViews(Views):
    """`count` extra versions of each sample, each of consecutive fixations; `crop` is the share of fixations kept.

    A version is `steps` fixations long (None: as the signal), each crop of `size` (None: the signal's).
    """

    crop: tuple[float, float] = (0.5, 1.0)
    steps: int | None = None

    def __post_init__(self) -> None:
        check_crop(self.crop, "the share of the fixations")
        super().__post_init__()
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}; give at least 1 fixation, e.g. 8")

    def size_for(self, size: Size) -> Size:
        """The size (T, h, w) of a version for a signal of this size."""
        return (self.steps or size[0], *(self.size or size[1:]))


@dataclass(frozen=True)
class GazeAugment(Augment):
    """How a scanpath is augmented each time it is drawn: flips (with its saccades), colours and values.

    A fixation is already a crop, so there is no `crop` and no `aspect`; all fixations of a scanpath change alike.
    A factor in 1 ± `scale`, drawn per channel, scales values around the channel's mean. `noise` is the deviation of
    normal noise, in units of the channel's deviation. `drop` is the probability that a channel is set to its mean; at
    least one channel always stays. `views` adds extra versions (`Batch.views`).
    """

    crop: tuple[float, float] = (1.0, 1.0)
    aspect: tuple[float, float] = (1.0, 1.0)
    scale: float = 0.0
    noise: float = 0.0
    drop: float = 0.0
    views: tuple[GazeViews, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop != (1.0, 1.0) or self.aspect != (1.0, 1.0):
            raise ValueError(
                f"crop is {self.crop} and aspect {self.aspect}, but a fixation is already a crop; give (1, 1) for both"
            )
        if not (0 <= self.scale <= 1 and 0 <= self.noise < math.inf and 0 <= self.drop < 1):
            raise ValueError(
                f"scale is {self.scale:g}, noise {self.noise:g} and drop {self.drop:g}; give a scale in [0, 1], "
                "a noise of 0 or more in standard deviations of the channel, a drop in [0, 1)"
            )

    @property
    def values(self) -> series.SeriesAugment:
        """The value settings as a `SeriesAugment`: `jitter` means colour for images and noise for series."""
        return series.SeriesAugment(scale=self.scale, jitter=self.noise, drop=self.drop)

    @property
    def changes(self) -> bool:
        """Whether two views of a sample differ.

        There are no views by default: what follows a saccade depends on where it came from.
        """
        other = self.changes_colours or self.flip > 0 or self.values.changes
        return bool(self.views) and (other or self.views[0].crop != (1.0, 1.0))

    def strong(self, channels: int) -> StrongAugmentation:
        """Two views with the strong settings of images; each view shows some of the fixations."""
        return self.with_strong_views(channels, GazeViews())


def shown_fixations(
    length: Int64[np.ndarray, " b"], u: Float[np.ndarray, "b 2"], crop: tuple[float, float], steps: int
) -> Int64[np.ndarray, "b {steps}"]:
    """The fixations that a version shows of scanpaths of these lengths: a consecutive run of at least two.

    A run shorter than `steps` repeats fixations as evenly as possible; a longer run skips some. So every crop
    shows one real fixation, never a mixture of two.
    """
    first, count = series.crop_steps(length, u, crop)
    # The middle of each step, so that the choice favours neither end.
    rows: np.ndarray = first[:, None] + (2 * np.arange(steps) + 1) * count[:, None] // (2 * steps)
    return rows


def mirror_flags(ids: Ids, augment: Augment, rng: Rng, *stream: str) -> Bool[Tensor, " b"]:
    """Whether each sample is flipped left to right."""
    return torch.from_numpy(uniform_draws(rng.fork("flip", *stream), ids, 1)[:, 0] < augment.flip)


def change_clips(
    x: Shaped[Tensor, "b c t h w"],
    ids: Ids,
    augment: GazeAugment,
    signal: Signal,
    levels: int,
    rng: Rng,
    *stream: str,
) -> Shaped[Tensor, "b c t h w"]:
    """Clips with flips, colour and value changes, as drawn for each sample; 8-bit clips stay 8-bit."""
    if augment.flip:
        x = torch.where(mirror_flags(ids, augment, rng, *stream)[:, None, None, None, None], x.flip(-1), x)
    if not (augment.changes_colours or augment.values.changes):
        return x
    y = unit(x)
    if augment.changes_colours:
        y = change_clip_colours(y, uniform_draws(rng.fork("photometric", *stream), ids, PHOTO_DRAWS), augment, levels)
    if augment.values.changes:
        y = change_values(y, ids, augment, signal, rng.fork("values", *stream))
    return keep_bits(y, x.dtype)


def change_clip_colours(
    x: Float[Tensor, "b c t h w"], u: Float[np.ndarray, "b draws"], augment: Augment, levels: int
) -> Float[Tensor, "b c t h w"]:
    """Clips with colour changes; all fixations and levels of a sample share its draws."""
    b, c, t, h, w = x.shape
    each = x.reshape(b, levels, c // levels, t, h, w).permute(0, 3, 1, 2, 4, 5).flatten(0, 2)
    y: Shaped[Tensor, "n k h w"] = change_colours(each, np.repeat(u, t * levels, axis=0), augment)
    return y.reshape(b, t, levels, c // levels, h, w).permute(0, 2, 3, 1, 4, 5).reshape(b, c, t, h, w)


def change_values(
    x: Float[Tensor, "b c t h w"], ids: Ids, augment: GazeAugment, signal: Signal, rng: Rng
) -> Float[Tensor, "b c t h w"]:
    """Scale, noise and dropped channels; treats all pixels of all fixations as the steps of a series."""
    flat = x.flatten(2)
    draws = series.draws_for(flat.shape[1], flat.shape[2] if augment.noise else 0)
    # Noise is made one sample at a time: its draws take several times the memory of the pixels.
    step = 1 if augment.noise else len(flat)
    rows = [
        series.change_values(
            flat[b : b + step], uniform_draws(rng, ids[b : b + step], draws), augment.values, signal.mean, signal.std
        )
        for b in range(0, len(flat), step)
    ]
    return torch.cat(rows).reshape(x.shape)
