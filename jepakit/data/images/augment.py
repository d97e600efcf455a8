"""Image augmentation: random crops per sample, and colour changes of whole batches.

All draws come from `uniform(rng, ids, …)`: they depend only on (seed, epoch, sample id), so a sample gets the
same augmentation however the batch is split and whichever worker makes it. kornia does the arithmetic through its
functional interface, which draws no random numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ...types import Size
from ..config import StrongAugmentation
from .box import Box, CropRequest, check_size

BOX_CANDIDATES = 10
BOX_DRAWS = 2 * BOX_CANDIDATES + 3
PHOTO_DRAWS = 9


@dataclass(frozen=True)
class Views:
    """`count` extra crops of each sample at one `size` (None: the signal's), each covering `crop` of its area."""

    count: int = 2
    size: tuple[int, int] | None = None
    crop: tuple[float, float] = (0.2, 1.0)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a group of views has count {self.count}; give at least one view or drop the group")
        check_size(self.size)
        check_crop(self.crop)

    def size_for(self, size: Size) -> Size:
        """The size of these views for a signal of this size."""
        return self.size or size


@dataclass(frozen=True)
class Augment:
    """How a training sample is augmented each time it is drawn.

    `crop` is the range of the area kept, `aspect` of the box's width / height relative to the output's; (1, 1) for both
    is the centre crop. `flip` (left to right), `gray`, `blur`, `solarize` and `jitter_prob` are probabilities; `jitter`
    holds the strengths of brightness, contrast, saturation and hue. `views` adds extra crops (`Batch.views`).
    """

    crop: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_prob: float = 0.8
    gray: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0
    views: tuple[Views, ...] = ()

    def __post_init__(self) -> None:
        check_crop(self.crop)
        if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise ValueError(f"aspect is {self.aspect}; give a rising range of width / height, e.g. (0.75, 1.33)")
        for name in ("flip", "jitter_prob", "gray", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a probability, give a number in [0, 1]")
        if not (all(0 <= strength < math.inf for strength in self.jitter) and self.jitter[3] <= 0.5):
            raise ValueError(
                f"jitter is {self.jitter}; give the strengths of brightness, contrast, saturation and hue: "
                "none below 0, hue at most 0.5, e.g. (0.4, 0.4, 0.2, 0.1)"
            )

    @property
    def changes_colours(self) -> bool:
        """Whether the augmentation changes more than the crop and the flip."""
        return any(self.jitter) or self.gray > 0 or self.blur > 0 or self.solarize > 0

    @property
    def changes(self) -> bool:
        """Whether two versions of a sample differ in crop, colour or flip."""
        crop = (self.views[0] if self.views else self).crop
        return self.changes_colours or self.flip > 0 or crop != (1.0, 1.0) or self.aspect != (1.0, 1.0)

    def strong(self, channels: int) -> StrongAugmentation:
        """Two views of each sample; an augmentation at its defaults also gets flips and strong colour changes.

        The values are BYOL's (arXiv:2006.07733), without its blur and its solarisation.
        """
        return self.with_strong_views(channels, Views())

    def with_strong_views(self, channels: int, views: Views) -> StrongAugmentation:
        """The result of `strong` with the view group `views`; `channels` is the number of channels of one image."""
        chosen = self
        if self == type(self)():
            jitter = (0.4, 0.4, 0.2, 0.1) if channels == 3 else (0.4, 0.4, 0.0, 0.0)
            chosen = replace(self, flip=0.5, jitter=jitter, gray=0.2 if channels == 3 else 0.0)
        why = "crops alone could be matched by their colours"
        return StrongAugmentation(replace(chosen, views=(views,)), ("flip", "jitter", "gray"), why)

    def check(self, channels: int) -> None:
        """Raises ValueError if colour changes are configured for data without three colour channels."""
        if channels != 3 and (self.jitter[2] or self.jitter[3] or self.gray):
            raise ValueError(
                f"saturation, hue and gray need 3 channels but the data have {channels}; "
                "set jitter[2], jitter[3] and gray to 0"
            )


def check_crop(crop: tuple[float, float], what: str = "the area") -> None:
    """Raises ValueError if `crop` is not a valid range; `what` names it."""
    if not 0 < crop[0] <= crop[1] <= 1:
        raise ValueError(f"crop is {crop}; give a rising range of {what} inside (0, 1], e.g. (0.3, 1.0)")


def place_box(
    u: Sequence[float],
    height: int,
    width: int,
    size: Size,
    crop: tuple[float, float],
    aspect: tuple[float, float],
    flip: float,
) -> Box:
    """The random-resized-crop box for `BOX_DRAWS` uniform numbers: area and log aspect uniform in their ranges.

    Takes the first of ten candidates that fits the image; if none fits, shrinks the first until it does.
    """
    low, high = math.log(aspect[0]), math.log(aspect[1])
    candidates = []
    for k in range(BOX_CANDIDATES):
        area = height * width * (crop[0] + (crop[1] - crop[0]) * u[k])
        ratio = size[1] / size[0] * math.exp(low + (high - low) * u[BOX_CANDIDATES + k])
        candidates.append((math.sqrt(area * ratio), math.sqrt(area / ratio)))
        if candidates[-1][0] <= width and candidates[-1][1] <= height:
            w, h = candidates[-1]
            break
    else:
        w, h = candidates[0]
    shrink = min(1.0, width / w, height / h)
    w, h = max(1, round(w * shrink)), max(1, round(h * shrink))
    left, top, mirror = u[2 * BOX_CANDIDATES :]
    return Box(int(left * (width - w + 1)), int(top * (height - h + 1)), w, h, int(mirror < flip))


def centre_box(height: int, width: int, size: Size) -> Box:
    """The largest centred box with the aspect of `size`."""
    scale = min(height / size[0], width / size[1])
    h, w = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def centre_crop(size: Size) -> CropRequest:
    """The request for the unaugmented image: a centre crop at `size`."""
    return CropRequest(size, lambda height, width: centre_box(height, width, size))


def change_colours(
    x: Float[Tensor, "b c h w"], u: Float[np.ndarray, "b draws"], cfg: Augment
) -> Float[Tensor, "b c h w"]:
    """Jitter, gray, blur and solarize of pixels in [0, 1], with `PHOTO_DRAWS` uniform numbers per row."""
    draws = torch.from_numpy(u).to(x.dtype)
    x = _apply_where(x, _jitter_colours(x, draws, cfg), draws[:, 4] < cfg.jitter_prob) if any(cfg.jitter) else x
    x = _apply_where(x, _to_gray(x), draws[:, 5] < cfg.gray) if cfg.gray else x
    x = _apply_where(x, _blur_pixels(x, 0.1 + 1.9 * draws[:, 7]), draws[:, 6] < cfg.blur) if cfg.blur else x
    return _apply_where(x, torch.where(x >= 0.5, 1 - x, x), draws[:, 8] < cfg.solarize) if cfg.solarize else x


def keep_bits(x: Float[Tensor, "*shape"], dtype: torch.dtype) -> Shaped[Tensor, "*shape"]:
    """Pixels in [0, 1] as 8-bit pixels if `dtype`, that of the pixels before a change, is uint8; else as they are."""
    return x.mul(255).round().clamp(0, 255).to(torch.uint8) if dtype == torch.uint8 else x


def _apply_where(x: Tensor, changed: Tensor, where: Tensor) -> Tensor:
    return torch.where(where[:, None, None, None], changed, x)


def _jitter_colours(x: Float[Tensor, "b c h w"], draws: Float[Tensor, "b d"], cfg: Augment) -> Float[Tensor, "b c h w"]:
    from kornia import enhance  # imported on use: the import takes seconds

    strength = torch.tensor(cfg.jitter, dtype=x.dtype)
    factor = 1 + strength * (2 * draws[:, :4] - 1)
    if cfg.jitter[0]:
        x = enhance.adjust_brightness_accumulative(x, factor[:, 0].clamp(min=0))
    if cfg.jitter[1]:
        # The mean over a single picture would be split over threads, and rounded otherwise than in a larger batch.
        alone = 2 if len(x) == 1 else 1
        pair, factors = x.repeat(alone, 1, 1, 1), factor[:, 1].clamp(min=0).repeat(alone)
        x = enhance.adjust_contrast_with_mean_subtraction(pair, factors)[: len(x)]
    if cfg.jitter[2]:
        x = enhance.adjust_saturation_with_gray_subtraction(x, factor[:, 2].clamp(min=0))
    if cfg.jitter[3]:
        x = enhance.adjust_hue(x, 2 * torch.pi * (factor[:, 3] - 1))
    return x.clamp(0, 1)


def _to_gray(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    from kornia.color import rgb_to_grayscale

    gray: Tensor = rgb_to_grayscale(x)
    return gray.expand_as(x)


def _blur_pixels(x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
    from kornia.filters import gaussian_blur2d

    # A tenth of the image, odd, as in SimCLR; reflection needs less than the image.
    kernel = max(3, min(x.shape[-2:]) // 10 | 1)
    blurred: Tensor = gaussian_blur2d(x, (kernel, kernel), sigma[:, None].expand(-1, 2))
    return blurred
