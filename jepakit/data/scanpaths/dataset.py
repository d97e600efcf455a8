"""Scanpaths as samples: for every fixation a crop of the picture, for every saccade where it leads."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ...types import ActionSpec, Rng, Signal, Size, unit
from ..base import Dataset, Unreadable, first_of, refuse, uniform
from ..images.box import Ask
from ..lengths import Words
from .paths import DRAWS, Order, Scanpath, Synthetic, made_up, reordered, saccades
from .pictures import Pictures, Reduced, View, cut, size_of

Label = Literal["class", "image", "subject"]
WORDS = Words("scanpath", "scanpaths", "fixations", "give data.least and data.steps the same number")
# What an action is: a step from one fixation to the next, in crop sides.
SACCADE = ActionSpec(2, names=("x", "y"))
FITTED = 2**24
REMEMBERED = 2**18


class Fixations(NamedTuple):
    """The fixations of all recorded scanpaths, one after the other; sample `key` k has rows first[k] … first[k + 1]."""

    xy: Float[np.ndarray, "f 2"]
    duration: Float[np.ndarray, " f"]
    first: Int64[np.ndarray, " _"]


class Rows(NamedTuple):
    """Which scanpath each sample is: its number among all, its picture, its subject, its fixations that are read."""

    key: Int64[np.ndarray, " n"]
    image: Int64[np.ndarray, " n"]
    subject: Int64[np.ndarray, " n"]
    length: Int64[np.ndarray, " n"]


class Clip(NamedTuple):
    """One sample: crops (C, T, h, w) at its own length, saccades (T - 1, 2)."""

    x: Shaped[Tensor, "c t h w"]
    action: Float[Tensor, "_ 2"]


@dataclass(frozen=True, eq=False)
class Scanpaths:
    """Samples (C, T, h, w) with saccades as actions. `recorded` None: places are made up, `synthetic` says how.

    `steps` is the length to which samples are padded, `subjects` what viewers are called; `given` are labels that stand
    in for those of `kind`.
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
    # Remembered only to save making them again; nothing depends on what is.
    named: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)
    made: dict[int, Float[np.ndarray, "_ 2"]] = field(default_factory=dict, init=False)

    @property
    def source(self) -> Dataset:
        """The pictures that are looked at."""
        return self.pictures.source

    @property
    def channels(self) -> int:
        """Those of the pictures, for every level."""
        return self.source.channels * self.view.levels

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of what labels are: classes of pictures, pictures, or subjects."""
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
        """How many fixations each sample has."""
        return self.rows.length

    @property
    def words(self) -> Words:
        """How to speak of them."""
        return WORDS

    def __len__(self) -> int:
        return len(self.rows.key)

    def name(self, i: int) -> str:
        """The picture's name and the subject's."""
        return f"{self.source.name(int(self.rows.image[i]))}@{self.subjects[int(self.rows.subject[i])]}"

    def label(self, i: int) -> int:
        """The index into `classes`, -1 where there is none."""
        if self.given is not None:
            return int(self.given[i])
        if self.kind == "subject":
            return int(self.rows.subject[i])
        picture = int(self.rows.image[i])
        return self.source.label(picture) if self.kind == "class" else picture

    def scanpath(self, i: int) -> Scanpath:
        """Image, subject, places and durations of a sample. Raises Unreadable where its picture is."""
        image = int(self.rows.image[i])
        return self._path(i, *size_of(self.source, image))

    def places(self, i: int) -> Float[np.ndarray, "t 2"]:
        """The places (T, 2) of a sample, (x, y) in pixels of its picture."""
        return self.scanpath(i).xy

    def durations(self, i: int) -> Float[np.ndarray, " t"]:
        """How long each place was looked at, in the unit of the file; NaN where that is unknown."""
        return self.scanpath(i).duration

    def _path(self, i: int, height: int, width: int) -> Scanpath:
        key, image, subject, length = (int(column[i]) for column in self.rows)
        who = (self.source.name(image), self.subjects[subject])
        if self.recorded is not None:
            rows = slice(int(self.recorded.first[key]), int(self.recorded.first[key]) + length)
            path = Scanpath(*who, self.recorded.xy[rows], self.recorded.duration[rows])
        else:
            path = Scanpath(*who, self._made_up(key, image, length), np.full(length, np.nan))
        if self.order == "human":
            return path
        return reordered(path, self.order, self._draws(key, length, "order"), height, width)

    def _made_up(self, key: int, image: int, length: int) -> Float[np.ndarray, "t 2"]:
        """The places of a scanpath that was not recorded."""
        if key in self.made:
            return self.made[key]
        picture, draws = self.pictures.reduced(image, self.view), self._draws(key, length, "places")
        places = made_up(self.synthetic, draws, picture, self.view)
        if len(self.made) < REMEMBERED:
            self.made[key] = places
        return places

    def _draws(self, key: int, length: int, what: str) -> Float[np.ndarray, "t 3"]:
        """Numbers that depend on the seed and on the scanpath alone."""
        u = uniform(Rng(self.seed).fork("gaze", what), np.array([key]), DRAWS * length)
        return u.reshape(length, DRAWS)

    def clip(self, i: int, size: Size, padded: bool = False) -> Clip:
        """Crops and saccades of the first size[0] fixations of a sample; `padded` by zeros where it has fewer.

        Raises Unreadable.
        """
        picture, view, xy = self._looked(i, size[1:])
        xy = xy[: size[0]]
        steps = size[0] if padded else len(xy)
        x = cut(picture, xy, view, steps)
        return Clip(x, saccades(xy, view.side(picture.height, picture.width), steps - 1))

    def seen(self, i: int, rows: Int64[np.ndarray, " k"], size: Size) -> Shaped[Tensor, "c k h w"]:
        """The crops at fixations `rows` of a sample, each (h, w) = `size`. Raises Unreadable."""
        picture, view, xy = self._looked(i, size)
        return cut(picture, xy[rows], view, len(rows))

    def _looked(self, i: int, size: Size) -> tuple[Reduced, View, Float[np.ndarray, "t 2"]]:
        """The picture of a sample for crops of `size` (h, w), and its places. Raises Unreadable."""
        view = self.view._replace(size=tuple(size))
        picture = self.pictures.reduced(int(self.rows.image[i]), view)
        return picture, view, self._path(i, picture.height, picture.width).xy

    def raw(self, i: int) -> Float[Tensor, "c t h w"]:
        """The crops of a sample at its own length. Raises Unreadable."""
        return unit(self.clip(i, self.native).x)

    def crops(self, i: int, asks: Sequence[Ask]) -> list[Shaped[Tensor, "c h w"]]:
        """The parts asked for of the picture that was looked at. Raises Unreadable."""
        return self.source.crops(int(self.rows.image[i]), asks)

    def chosen(self, rows: Int64[np.ndarray, " k"], y: Int64[np.ndarray, " k"]) -> "Scanpaths":
        """Some of the samples, with labels of their own."""
        return replace(self, rows=Rows(*(column[rows] for column in self.rows)), given=y)

    def fit(self, cfg: Any) -> Signal:
        """The signal: mean and deviation of every channel over the fixations of up to 4,096 samples.

        Padding counts nowhere. Raises ValueError where nothing can be read, or values are not finite.
        """
        each = self.steps * self.view.size[0] * self.view.size[1]
        count = min(len(self), max(256, min(4096, FITTED // each)))
        order = torch.randperm(len(self), generator=Rng(0).fork("data", "fit").generator())[:count]
        sums, squares = torch.zeros(2, self.channels, dtype=torch.float64)
        values, skipped = 0, dict[str, str]()
        for i in order.sort().values.tolist():
            try:
                x = unit(self.clip(i, self.native).x).double().flatten(1)
            except Unreadable as error:
                refuse(error, cfg.corrupt)
                skipped[error.name] = error.why
                continue
            sums += x.sum(1)
            squares += (x * x).sum(1)
            values += x.shape[1]
        if not values:
            raise ValueError(f"none of {count} scanpaths tried can be read, e.g. {first_of(skipped)}")
        return self._signal(sums / values, squares / values, cfg)

    def _signal(self, mean: Tensor, square: Tensor, cfg: Any) -> Signal:
        std = (square - mean**2).clamp(min=0).sqrt()
        if not bool(torch.isfinite(mean).all() and torch.isfinite(std).all()):
            raise ValueError("the pictures hold values that are not finite (NaN or infinite); replace them")
        # A constant channel is centred and left alone.
        scale = tuple(float(value) / cfg.contrast if value > 1e-8 else 1.0 for value in std)
        views, classes = sum(group.count for group in cfg.augment.views), len(self.classes)
        return Signal(self.channels, self.native, tuple(mean.tolist()), scale, views, SACCADE, classes)

    def fingerprint(self) -> str:
        """A hash of the pictures, of all places, and of what is made of them."""
        made = (self.view, self.steps, self.order, self.synthetic, self.seed, self.kind, self.subjects)
        digest = hashlib.blake2b(repr((self.source.fingerprint(), made)).encode(), digest_size=8)
        for column in (*self.rows, *(self.recorded or ())):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()
