"""The base class of image data sets: crops, resizes, flips and recolours each sample."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ...core.draws import uniform_draws
from ...core.notes import Note
from ...nn.auto import MIN_PATCHES, auto_patch
from ...types import Ids, Rng, Sample, Samples, Signal, Size, unit
from ..base import Dataset, Words
from ..collation import Unreadable, stack_groups, stack_samples
from ..overlap import hash_array
from ..report import Progress, Report
from .augment import BOX_DRAWS, PHOTO_DRAWS, Augment, centre_crop, change_colours, keep_bits, place_box
from .box import Box, CropRequest
from .decode import cut_all
from .report import Content, report_pictures

MAX_NATIVE_SIDE = 96
USUAL_SIZE, USUAL_PATCH, MIN_SIDE = 224, 16, 32
WORDS = Words("image", "images", "pixels", "give images of one size")
PictureConfig = TypeVar("PictureConfig", bound=Any)
UniformDraws = Float[np.ndarray, "b draws"]


class Picture(NamedTuple):
    """One crop per sample: its size, the allowed share of the area, and its random stream."""

    size: Size
    crop: tuple[float, float]
    stream: str


def choose_size(side: int, patch: Size | None) -> Size:
    """The size (H, W) for images whose median shorter side is `side`, none of it larger if that can be helped.

    A multiple of the encoder's `patch`, of 16 if that is open; 224 at most, and at least 7 patches or 32 pixels.
    """
    if patch is None or len(patch) != 2:
        return (min(max(side // USUAL_PATCH * USUAL_PATCH, MIN_SIDE), USUAL_SIZE),) * 2
    return tuple(max(min(max(side // p, MIN_PATCHES), USUAL_SIZE // p), 1) * p for p in patch)


def fit_size(cfg: PictureConfig, data: "PictureSet", patch: Size | None) -> tuple[PictureConfig, list[Note]]:
    """The settings with a size where theirs is open and images are not kept as they are; notes on it and on scaling up.

    `patch` is the encoder's, None where it is still to be chosen.
    """
    side = data.shorter_side
    fit = choose_size(side, patch)
    if cfg.size is None and not data.keeps_size:
        up = ", scaled up" if min(fit) > side else ""
        multiple = "16" if patch is None else " x ".join(map(str, patch))
        why = f"the median shorter side is {side} px{up}; a multiple of {multiple}, at most {USUAL_SIZE}"
        return replace(cfg, size=fit), [Note("data.size", list(fit), why)]
    size = data.sample_size()
    if min(size) <= side or prod(fit) >= prod(size):
        return cfg, []
    fewer = _patch_count(size, patch) / _patch_count(fit, patch)
    why = (
        f"pictures of {side} px are scaled up; --data.size '{list(fit)}' has {fewer:.2g} times fewer patches, "
        "and a step takes about as many times less"
    )
    return cfg, [Note("data.size", list(size), why)]


def _patch_count(size: Size, patch: Size | None) -> float:
    """The number of patches of a picture; with an open patch, as many as the encoder would choose."""
    cut = patch if patch is not None and len(patch) == 2 else tuple(auto_patch(side) for side in size)
    return prod(side / p for side, p in zip(size, cut, strict=True))


class PictureSet(Dataset):
    """Images (C, H, W) with crops and colour changes. A kind implements `raw`, or `crops` if it has a faster way.

    Item i is row `rows[i]` of the source, which has `labels` (empty: none); `given` replaces those of the items.
    """

    rows: Int64[np.ndarray, " k"]
    labels: Int64[np.ndarray, " n"]
    given: Int64[np.ndarray, " k"] | None
    words = WORDS

    def raw(self, i: int) -> Float[Tensor, "c h w"]:
        """The item at its own size; pixels in [0, 1], float arrays in their own units. Raises Unreadable."""
        raise NotImplementedError

    def crops(self, i: int, asks: Sequence[CropRequest]) -> list[Shaped[Tensor, "c _ _"]]:
        """The requested crops, from one decoding: uint8 for 8-bit items, else float32. Raises Unreadable."""
        return cut_all(self.raw(i), asks)

    @property
    def augment(self) -> Augment:
        """How training samples are augmented."""
        return cast(Augment, self.cfg.augment)

    @property
    def shorter_side(self) -> int:
        """The median of the images' shorter sides, in pixels."""
        return min(self.native or (USUAL_SIZE, USUAL_SIZE))

    @property
    def keeps_size(self) -> bool:
        """Whether images stay as large as they are without a configured size: all are of one size, and small."""
        return self.native is not None and max(self.native) <= MAX_NATIVE_SIDE

    def sample_size(self) -> Size:
        """The configured size, else the common size of all images if small, else what `choose_size` chooses."""
        size: Size | None = self.cfg.size
        if size:
            return tuple(size)
        return self.native if self.native and self.keeps_size else choose_size(self.shorter_side, None)

    def __len__(self) -> int:
        return len(self.rows)

    def label(self, i: int) -> int:
        """The index into `classes`, -1 if the item has no label."""
        if self.given is not None:
            return int(self.given[i])
        return int(self.labels[self.rows[i]]) if len(self.labels) else -1

    def subset(self, rows: Int64[np.ndarray, " k"], labels: Int64[np.ndarray, " k"] | None = None) -> "PictureSet":
        """The items `rows`, with their own labels or with `labels`."""
        given = self.given[rows] if labels is None and self.given is not None else labels
        return replace(self, rows=self.rows[rows], given=given)  # type: ignore[type-var]

    def sample(self, i: int, size: Size) -> Sample:
        """Item i, resized and centre-cropped. Raises Unreadable."""
        return Sample(self.crops(i, [centre_crop(size)])[0])

    def draw(self, ids: Ids, rng: Rng, signal: Signal, include_x: bool = True) -> Samples:
        """Random crops of items `ids` with colour changes, and the views; see `Dataset.draw`."""
        pictures = [Picture(signal.size, self.augment.crop, "x")] * include_x + [
            Picture(group.size or signal.size, group.crop, f"view {g} {v}")
            for g, group in enumerate(self.augment.views)
            for v in range(group.count)
        ]
        placed = [uniform_draws(rng.fork("box", p.stream), ids, BOX_DRAWS) for p in pictures]
        parts, found, skipped = self.cut(ids, placed, pictures, rng)
        if self.augment.changes_colours:
            parts = [self._change_colours(x, found, rng, p) for x, p in zip(parts, pictures, strict=True)]
        x, views = (
            parts[0] if include_x else None,
            stack_groups(parts[include_x:], (g.count for g in self.augment.views)),
        )
        return Samples(x, torch.from_numpy(found), skipped, self.labels_of(found), views)

    def cut(
        self, ids: Ids, placed: Sequence[UniformDraws], pictures: Sequence[Picture], rng: Rng
    ) -> tuple[list[Shaped[Tensor, "b c _ _"]], Int64[np.ndarray, " b"], dict[str, str]]:
        """One batch per requested image, the ids cropped, and items passed over; the `placed` draws place the boxes."""
        draws = {i: [u[b].tolist() for u in placed] for b, i in enumerate(ids.tolist())}

        def read_crops(i: int) -> tuple[list[Tensor], int]:
            if i not in draws:
                own = np.array([i], dtype=np.int64)
                draws[i] = [uniform_draws(rng.fork("box", p.stream), own, BOX_DRAWS)[0].tolist() for p in pictures]
            return self.crops(i, [self._crop_request(u, p) for u, p in zip(draws[i], pictures, strict=True)]), i

        skipped = dict[str, str]()
        rows, kept = zip(*[self.next_readable(i, read_crops, skipped) for i in ids.tolist()], strict=True)
        return [stack_samples(column) for column in zip(*rows, strict=True)], np.array(kept, dtype=np.int64), skipped

    def training_box(self, u: list[float], height: int, width: int, picture: Picture) -> Box:
        """The position of an image's box in an item, for `BOX_DRAWS` uniform numbers."""
        return place_box(u, height, width, picture.size, picture.crop, self.augment.aspect, self.augment.flip)

    def _crop_request(self, u: list[float], picture: Picture) -> CropRequest:
        return CropRequest(picture.size, lambda height, width: self.training_box(u, height, width, picture))

    def _change_colours(
        self, x: Shaped[Tensor, "b c h w"], ids: Ids, rng: Rng, picture: Picture
    ) -> Shaped[Tensor, "b c h w"]:
        u = uniform_draws(rng.fork("photometric", picture.stream), ids, PHOTO_DRAWS)
        return keep_bits(change_colours(unit(x), u, self.augment), x.dtype)

    def versions(self, ids: Int64[np.ndarray, " n"], count: int, signal: Signal) -> Shaped[Tensor, "_ q c h w"]:
        """`count` versions of each readable item, augmented like its first views, or like the item without views."""
        found, _, _ = self.all_readable(ids, lambda i: self._versions(i, count, signal))
        return torch.stack(found) if found else torch.empty(0, count, self.channels, *signal.size)

    def _versions(self, i: int, count: int, signal: Signal) -> Shaped[Tensor, "q c h w"]:
        group = self.augment.views[0] if self.augment.views else None
        size = (group.size if group else None) or signal.size
        picture = Picture(size, (group or self.augment).crop, "")

        def draws(stream: str, numbers: int) -> Float[np.ndarray, "q draws"]:
            ids = np.array([i], dtype=np.int64)
            return np.concatenate([uniform_draws(Rng(0).fork("panel", stream, k), ids, numbers) for k in range(count)])

        x = torch.stack(self.crops(i, [self._crop_request(u, picture) for u in draws("box", BOX_DRAWS).tolist()]))
        if not self.augment.changes_colours:
            return x
        return keep_bits(change_colours(unit(x), draws("photometric", PHOTO_DRAWS), self.augment), x.dtype)

    def height_and_width(self, i: int) -> tuple[int, int]:
        """The size of item i, without decoding it if possible. Raises Unreadable."""
        if self.native is None:
            _, height, width = self.raw(i).shape
            return height, width
        return self.native[0], self.native[1]

    def content(self, i: int) -> Content:
        """The content that identifies duplicates of item i, after decoding it once. Raises Unreadable."""
        x = self.raw(i)
        channels, height, width = x.shape
        return Content(x.numpy().tobytes(), channels, height, width)

    def content_hash(self, i: int) -> int | None:
        """A hash of the pixels of item i at its own size; None if it cannot be read."""
        try:
            return hash_array(self.raw(i).numpy())
        except Unreadable:
            return None

    def report(self, progress: Progress = None) -> Report:
        """Sizes, channels, classes, and unreadable, duplicate or tiny items; decodes every item once."""
        return report_pictures(self, self.content, progress)
