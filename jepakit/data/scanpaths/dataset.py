"""The data set of scanpaths: an image crop for every fixation, a displacement for every saccade."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ...core.draws import uniform_draws
from ...types import ActionSpec, Ids, Rng, Sample, Samples, Signal, Size, unit
from ..base import Dataset, Words
from ..collation import Unreadable, refuse_unreadable, stack_groups
from ..config import DataConfig
from ..images.dataset import PictureSet
from ..report import Progress, Report
from .augment import GazeAugment, Version, change_clips, mirror_flags, shown_fixations
from .paths import DRAWS_PER_FIXATION, Order, Scanpath, Synthetic, make_up_places, reorder_path, saccades_between
from .pictures import Pictures, Reduced, View, cut_crops

Label = Literal["class", "image", "subject"]
WORDS = Words("scanpath", "scanpaths", "fixations", "give data.least and data.steps the same number")
# An action is the step from one fixation to the next, in crop sides.
SACCADE_SPEC = ActionSpec(2, names=("x", "y"))
MAX_PATHS_KEPT = 2**18


class Fixations(NamedTuple):
    """The fixations of all recorded scanpaths, concatenated; sample `key` k has rows first[k] … first[k + 1]."""

    xy: Float[np.ndarray, "f 2"]
    duration: Float[np.ndarray, " f"]
    first: Int64[np.ndarray, " _"]


class Rows(NamedTuple):
    """The scanpath of each sample: its number among all, its image, its subject, the number of fixations read."""

    key: Int64[np.ndarray, " n"]
    image: Int64[np.ndarray, " n"]
    subject: Int64[np.ndarray, " n"]
    length: Int64[np.ndarray, " n"]


class Clip(NamedTuple):
    """One sample: crops (C, T, h, w) at its own length, saccades (T - 1, 2)."""

    x: Shaped[Tensor, "c t h w"]
    action: Float[Tensor, "_ 2"]


def _default_config() -> DataConfig:
    return DataConfig(augment=GazeAugment())


@dataclass(frozen=True, eq=False)
class Scanpaths(Dataset):
    """Samples (C, T, h, w) with saccades as actions. `recorded` None: `synthetic` says how places are generated.

    `steps` is the length to which samples are padded, `subjects` the names of viewers; `given` replaces the labels of
    `kind`.
    """

    pictures: Pictures
    rows: Rows
    recorded: Fixations | None
    subjects: tuple[str, ...]
    view: View
    steps: int
    order: Order
    synthetic: Synthetic
    seed: int
    kind: Label
    notes: tuple[str, ...]
    given: Int64[np.ndarray, " _"] | None = None
    cfg: Any = field(default_factory=_default_config, kw_only=True)
    # Caches that only save recomputation; no sample depends on what they hold.
    named: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)
    synthetic_places: dict[int, Float[np.ndarray, "_ 2"]] = field(default_factory=dict, init=False)

    words = WORDS

    @property
    def augment(self) -> GazeAugment:
        """How training samples are augmented."""
        return cast(GazeAugment, self.cfg.augment)

    @property
    def picture_channels(self) -> int:
        """The number of channels of one image at one level."""
        return self.source.channels

    @property
    def source(self) -> PictureSet:
        """The data set of images that viewers look at."""
        return self.pictures.source

    @property
    def channels(self) -> int:
        """The number of image channels times the number of levels."""
        return self.source.channels * self.view.levels

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels: image classes, images or subjects."""
        if self.kind == "class":
            return self.source.classes
        if self.kind == "subject":
            return self.subjects
        if "image" not in self.named:
            self.named["image"] = tuple(self.source.name(i) for i in range(len(self.source)))
        return self.named["image"]

    @property
    def native(self) -> Size:
        """(T, h, w)."""
        return (self.steps, *self.view.size)

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """The number of fixations of each sample."""
        return self.rows.length

    def __len__(self) -> int:
        return len(self.rows.key)

    def name(self, i: int) -> str:
        """The image's name and the subject's."""
        return f"{self.source.name(int(self.rows.image[i]))}@{self.subjects[int(self.rows.subject[i])]}"

    def label(self, i: int) -> int:
        """The index into `classes`, -1 if the item has no label."""
        if self.given is not None:
            return int(self.given[i])
        if self.kind == "subject":
            return int(self.rows.subject[i])
        picture = int(self.rows.image[i])
        return self.source.label(picture) if self.kind == "class" else picture

    def scanpath_of(self, i: int) -> Scanpath:
        """Image, subject, places and durations of a sample. Raises Unreadable if its image is unreadable."""
        image = int(self.rows.image[i])
        return self._scanpath_in(i, *self.source.height_and_width(image))

    def places(self, i: int) -> Float[np.ndarray, "t 2"]:
        """The places (T, 2) of a sample, (x, y) in pixels of its image."""
        return self.scanpath_of(i).xy

    def _scanpath_in(self, i: int, height: int, width: int) -> Scanpath:
        key, image, subject, length = (int(column[i]) for column in self.rows)
        who = (self.source.name(image), self.subjects[subject])
        if self.recorded is not None:
            rows = slice(int(self.recorded.first[key]), int(self.recorded.first[key]) + length)
            path = Scanpath(*who, self.recorded.xy[rows], self.recorded.duration[rows])
        else:
            path = Scanpath(*who, self._made_up_places(key, image, length), np.full(length, np.nan))
        if self.order == "human":
            return path
        return reorder_path(path, self.order, self._uniform_draws(key, length, "order"), height, width)

    def _made_up_places(self, key: int, image: int, length: int) -> Float[np.ndarray, "t 2"]:
        """The places of a synthetic scanpath."""
        if key in self.synthetic_places:
            return self.synthetic_places[key]
        picture, draws = self.pictures.picture_for(image, self.view), self._uniform_draws(key, length, "places")
        places = make_up_places(self.synthetic, draws, picture, self.view)
        if len(self.synthetic_places) < MAX_PATHS_KEPT:
            self.synthetic_places[key] = places
        return places

    def _uniform_draws(self, key: int, length: int, what: str) -> Float[np.ndarray, "t 3"]:
        """Uniform numbers that depend only on the seed and on the scanpath."""
        u = uniform_draws(Rng(self.seed).fork("gaze", what), np.array([key]), DRAWS_PER_FIXATION * length)
        return u.reshape(length, DRAWS_PER_FIXATION)

    def clip(self, i: int, size: Size, padded: bool = False) -> Clip:
        """Crops and saccades of the first size[0] fixations of a sample; `padded` fills missing fixations with zeros.

        Raises Unreadable.
        """
        picture, view, xy = self._picture_and_places(i, size[1:])
        xy = xy[: size[0]]
        steps = size[0] if padded else len(xy)
        x = cut_crops(picture, xy, view, steps)
        return Clip(x, saccades_between(xy, view.crop_side(picture.height, picture.width), steps - 1))

    def crops_at(self, i: int, rows: Int64[np.ndarray, " k"], size: Size) -> Shaped[Tensor, "c k h w"]:
        """The crops at fixations `rows` of a sample, each (h, w) = `size`. Raises Unreadable."""
        picture, view, xy = self._picture_and_places(i, size)
        return cut_crops(picture, xy[rows], view, len(rows))

    def _picture_and_places(self, i: int, size: Size) -> tuple[Reduced, View, Float[np.ndarray, "t 2"]]:
        """The image of a sample, reduced for crops of `size` (h, w), and its places. Raises Unreadable."""
        view = self.view._replace(size=tuple(size))
        picture = self.pictures.picture_for(int(self.rows.image[i]), view)
        return picture, view, self._scanpath_in(i, picture.height, picture.width).xy

    def raw(self, i: int) -> Float[Tensor, "c t h w"]:
        """The crops of a sample at its own length. Raises Unreadable."""
        return unit(self.clip(i, self.native).x)

    # --- samples for training and evaluation

    def sample(self, i: int, size: Size) -> Sample:
        """Crops and saccades of sample i, padded to size[0] fixations. Raises Unreadable."""
        x, action = self.clip(i, size, padded=True)
        return Sample(x, action=action)

    def collate(self, rows: Sequence[Sample], ids: Sequence[int], skipped: Mapping[str, str], size: Size) -> Samples:
        """A batch of samples, with their lengths if some of the data are padded at that size."""
        found = super().collate(rows, ids, skipped, size)
        if not rows:
            found = found._replace(action=torch.empty(0, size[0] - 1, 2))
        length = torch.from_numpy(np.minimum(self.lengths[found.id.numpy()], size[0])) if self.is_padded(size) else None
        return found._replace(length=length)

    def draw(self, ids: Ids, rng: Rng, signal: Signal, include_x: bool = True) -> Samples:
        """Samples `ids` and their views, augmented as drawn for each; clips keep their padding. See `Dataset.draw`."""
        groups = [
            [Version(group.size_for(signal.size), group.crop, f"view {g} {v}") for v in range(group.count)]
            for g, group in enumerate(self.augment.views)
        ]
        versions = [version for group in groups for version in group]
        rows = [self._rows(ids, rng, signal, version) for version in versions]
        known = {i: [each[b] for each in rows] for b, i in enumerate(ids.tolist())}

        def read_sample(i: int) -> tuple[Sample, int]:
            one = np.array([i], dtype=np.int64)
            shows = known[i] if i in known else [self._rows(one, rng, signal, version)[0] for version in versions]
            clip = self.sample(i, signal.size) if include_x else Sample()
            parts = zip(shows, versions, strict=True)
            return clip._replace(views=tuple(self.crops_at(i, each, version.size[1:]) for each, version in parts)), i

        skipped = dict[str, str]()
        rows_read, kept = zip(*[self.next_readable(i, read_sample, skipped) for i in ids.tolist()], strict=True)
        found = self.collate(rows_read, kept, skipped, signal.size)
        each = [self._changed(x, found, rng, signal, v.stream) for x, v in zip(found.views, versions, strict=True)]
        found = found._replace(views=stack_groups(each, map(len, groups)))
        return self._changed_clip(found, rng, signal) if include_x else found._replace(length=None)

    def _changed(
        self, x: Shaped[Tensor, "b c _t _h _w"], found: Samples, rng: Rng, signal: Signal, *stream: str
    ) -> Shaped[Tensor, "b c _t _h _w"]:
        return change_clips(x, found.id.numpy(), self.augment, signal, self.view.levels, rng, *stream)

    def _changed_clip(self, found: Samples, rng: Rng, signal: Signal) -> Samples:
        """The clips and their saccades, augmented as drawn for each sample."""
        assert found.x is not None
        assert found.action is not None
        x, action = self._changed(found.x, found, rng, signal), found.action
        if found.length is not None:
            x = torch.where(torch.arange(x.shape[2])[:, None, None] < found.length[:, None, None, None, None], x, 0)
        if self.augment.flip:
            turned = mirror_flags(found.id.numpy(), self.augment, rng)[:, None, None]
            action = action * torch.where(turned, torch.tensor([-1.0, 1.0]), 1.0)
        return found._replace(x=x, action=action)

    def _rows(self, ids: Ids, rng: Rng, signal: Signal, version: Version) -> Int64[np.ndarray, "b _"]:
        """The fixations that a version shows of samples `ids`, among those that are read; never padding."""
        length = np.minimum(self.lengths[ids], signal.size[0])
        return shown_fixations(
            length, uniform_draws(rng.fork("box", version.stream), ids, 2), version.crop, version.size[0]
        )

    def versions(self, ids: Int64[np.ndarray, " n"], count: int, signal: Signal) -> Shaped[Tensor, "_ q c _ _ _"]:
        """`count` versions of each readable sample, augmented like training's first views."""
        group = self.augment.views[0]
        version = Version(group.size_for(signal.size), group.crop, "view")
        found, _, _ = self.all_readable(ids, lambda i: self._versions(i, count, signal, version))
        return torch.stack(found) if found else torch.empty(0, count, self.channels, *version.size)

    def _versions(self, i: int, count: int, signal: Signal, version: Version) -> Shaped[Tensor, "q c _ _ _"]:
        one, found = np.array([i], dtype=np.int64), list[Tensor]()
        for k in range(count):
            rng = Rng(0).fork("panel", k)
            x = self.crops_at(i, self._rows(one, rng, signal, version)[0], version.size[1:])
            found.append(change_clips(x[None], one, self.augment, signal, self.view.levels, rng, version.stream))
        return torch.cat(found)

    def subset(self, rows: Int64[np.ndarray, " k"], labels: Int64[np.ndarray, " k"] | None = None) -> "Scanpaths":
        """The samples `rows`, with their own labels or with `labels`."""
        given = self.given[rows] if labels is None and self.given is not None else labels
        return replace(self, rows=Rows(*(column[rows] for column in self.rows)), given=given)

    # --- statistics of all samples

    def moments(self, ids: Int64[np.ndarray, " k"], size: Size) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"], int]:
        """Sum and sum of squares per channel over the fixations of samples `ids`, computed one sample at a time."""
        sums, squares = torch.zeros(2, self.channels, dtype=torch.float64)
        values, skipped = 0, dict[str, str]()
        for i in ids.tolist():
            try:
                x = unit(self.clip(i, size).x).double().flatten(1)
            except Unreadable as error:
                skipped[error.name] = error.why
                refuse_unreadable(skipped, self.cfg.corrupt)
                continue
            sums += x.sum(1)
            squares += (x * x).sum(1)
            values += x.shape[1]
        self.need_values(values, len(ids), skipped)
        return sums, squares, values

    def action_spec(self) -> ActionSpec:
        """The horizontal and vertical length of a saccade, in crop sides."""
        return SACCADE_SPEC

    def auto_patch(self, cells: int) -> tuple[tuple[int, ...], str]:
        """A patch of one fixation, with at least `cells` patches along each side of its crop, and the reason."""
        sides = [max(p for p in range(1, 17) if n % p == 0 and (n // p >= cells or p == 1)) for n in self.native[1:]]
        return (1, *sides), f"one fixation, {cells} patches or more along each side of it"

    def report(self, progress: Progress = None) -> Report:
        """The report on all scanpaths of this data path, with the problems of each."""
        report: Report = self.cfg.report(progress)
        return report

    def looked_at(self, i: int) -> tuple[Float[Tensor, "c h w"], Float[np.ndarray, "t 2"]]:
        """The image of a sample, and the places of its fixations in it. Raises Unreadable."""
        return self.source.raw(int(self.rows.image[i])), self.places(i)

    def fingerprint(self) -> str:
        """A hash of the images, of all places, and of the settings that shape samples."""
        made = (self.view, self.steps, self.order, self.synthetic, self.seed, self.kind, self.subjects)
        digest = hashlib.blake2b(repr((self.source.fingerprint(), made)).encode(), digest_size=8)
        for column in (*self.rows, *(self.recorded or ())):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()
