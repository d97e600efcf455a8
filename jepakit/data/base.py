"""The interface of a data set: what a kind defines, and what follows from that for every kind."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, wraps
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from ..types import ActionSpec, Ids, Rng, Sample, Samples, Signal, Size
from .collation import Unreadable, example_of, refuse_unreadable, stack_samples, without_padding
from .overlap import hash_array
from .report import Problem, Progress, Report, finish_report

Split = Literal["all", "train", "test"]
Item = TypeVar("Item")
SAMPLE_FIELDS = ("x", "action", "reward", "done", "proprio")
FIT_VALUES, FIT_ITEMS_RANGE, FIT_CHUNK = 2**24, (256, 4096), 32


class Words(NamedTuple):
    """The nouns for one sample, for several and for their parts; how lengths become equal, and what gives labels."""

    one: str = "item"
    many: str = "items"
    parts: str = "steps"
    fix: str = "give items of one length"
    labels: str = "give a folder with one sub-folder per class, or a manifest with a label column"


class Place(NamedTuple):
    """Where a sample lies in its episode: frame t of the sample is frame `first` + t · `every` of `episode`."""

    episode: str
    first: int = 0
    every: int = 1


DEFAULT_FACTS: Mapping[str, Any] = {"classes": (), "native": None, "lengths": None, "notes": (), "words": Words()}


class Dataset:
    """Samples 0 … len - 1, decoded on access. Every kind of data is a subclass.

    A kind defines `cfg`, `channels` and any other facts below that apply, as fields or properties. It implements
    `__len__`, `name`, `fingerprint` and either `sample` or `read` and `draw`. `cfg` holds the settings that opened the
    data: how samples are augmented, what happens to unreadable items. A kind that cannot answer a question raises
    ValueError with one sentence.
    """

    if TYPE_CHECKING:
        # Only for the type checker: a dataclass would take an inherited property for the default of its field.
        @property
        def cfg(self) -> Any:
            """The settings that opened the data."""

        @property
        def channels(self) -> int:
            """The number of channels of every sample."""

        @property
        def classes(self) -> tuple[str, ...]:
            """The class names; empty if there are no labels."""

        @property
        def native(self) -> Size | None:
            """The size (H, W), (T, H, W) or (T,) that all samples share; None if sizes differ."""

        @property
        def lengths(self) -> Int64[np.ndarray, " n"] | None:
            """The number of steps of each sample if short samples are padded; None if all have one length."""

        @property
        def notes(self) -> tuple[str, ...]:
            """The decisions made on opening the data, one sentence each."""

        @property
        def words(self) -> Words:
            """The nouns that messages use for the samples."""
    else:

        def __getattr__(self, name: str) -> Any:
            """The default for a fact that the kind does not define."""
            if name in DEFAULT_FACTS:
                return DEFAULT_FACTS[name]
            raise AttributeError(f"{type(self).__name__} has no {name}; give it one")

    arrives: ClassVar[bool] = False
    """Whether this is the warm-up set of a stream, whose length is unknown."""

    @property
    def group(self) -> int:
        """How many samples in a row belong together, and are drawn together in training; 1 if each is by itself."""
        return 1

    @property
    def samples_per_epoch(self) -> int:
        """The number of samples that an epoch of training can draw: those of whole groups."""
        return len(self) // self.group * self.group

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, i: int) -> str:
        """The item's name in its source."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """A hash that changes when items are added, removed, renamed or resized."""
        raise NotImplementedError

    def label(self, i: int) -> int:
        """The index into `classes`, -1 if the item has no label."""
        return -1

    # --- samples

    def sample(self, i: int, size: Size) -> Sample:
        """Item i at `size`, not augmented. Raises Unreadable."""
        raise NotImplementedError

    def read(self, ids: Ids, size: Size) -> Samples:
        """Items `ids` at `size`, in that order, not augmented; unreadable items are left out, listed in `skipped`."""
        rows, kept, skipped = self.all_readable(ids, lambda i: self.sample(i, size))
        return self.collate(rows, kept, skipped, size)

    def all_readable(self, ids: Ids, make: Callable[[int], Item]) -> tuple[list[Item], list[int], dict[str, str]]:
        """The results of `make` for items `ids`, their ids, and the names of unreadable items with the reason."""
        found, kept, skipped = list[Item](), list[int](), dict[str, str]()
        for i in ids.tolist():
            try:
                found.append(make(i))
                kept.append(i)
            except Unreadable as error:
                skipped[error.name] = error.why
        return found, kept, skipped

    def draw(self, ids: Ids, rng: Rng, signal: Signal, include_x: bool = True) -> Samples:
        """Items `ids` as training sees them, with their views; without `include_x` only the views.

        The next readable item replaces an unreadable one. An item's augmentation depends only on `rng` and its id, so a
        batch can be split. Raises ValueError if nothing can be read, or if an item cannot be read and `cfg.corrupt` is
        "fail".
        """
        skipped = dict[str, str]()
        found = [self.next_readable(i, lambda j: (self.sample(j, signal.size), j), skipped) for i in ids.tolist()]
        return self.collate([row for row, _ in found], [j for _, j in found], skipped, signal.size)

    def versions(self, ids: Int64[np.ndarray, " n"], count: int, signal: Signal) -> Shaped[Tensor, "_ q c ..."]:
        """`count` augmented versions of each item, made like training's first views; the same on every call.

        Unreadable items are left out.
        """
        readable = self.read(ids, signal.size).id.numpy()
        drawn = [self.draw(readable, Rng(0).fork("panel", k), signal).batch() for k in range(count)]
        return torch.stack([batch.views[0][:, 0] if batch.views else batch.x for batch in drawn], 1)

    def next_readable(self, i: int, make: Callable[[int], Item], skipped: dict[str, str]) -> Item:
        """The result of `make` for item i or the first readable item after it; adds items passed over to `skipped`."""
        for step in range(len(self)):
            j = (i + step) % len(self)
            if j not in self.broken:
                try:
                    return make(j)
                except Unreadable as error:
                    refuse_unreadable({error.name: error.why}, self.cfg.corrupt)
                    self.broken[j] = error.why
            skipped[self.name(j)] = self.broken[j]
        raise ValueError(
            f"none of {len(self)} {self.words.many} can be read, e.g. {example_of(skipped)}; look at jepa check-data"
        )

    @cached_property
    def broken(self) -> dict[int, str]:
        """Items that could not be read. A cache that saves a second attempt: no sample depends on it."""
        return {}

    def collate(self, rows: Sequence[Sample], ids: Sequence[int], skipped: Mapping[str, str], size: Size) -> Samples:
        """The samples of items `ids` as one batch, with their labels; fields that the samples lack stay None."""
        kept = np.array(ids, dtype=np.int64)
        found = Samples(None, torch.from_numpy(kept), skipped, self.labels_of(kept))
        if not rows:
            return found._replace(x=torch.empty(0, self.channels, *size))
        present = [name for name in SAMPLE_FIELDS if getattr(rows[0], name) is not None]
        values: dict[str, Any] = {name: stack_samples([getattr(row, name) for row in rows]) for name in present}
        if rows[0].length is not None:
            values["length"] = torch.tensor([row.length for row in rows], dtype=torch.int64)
        values["views"] = tuple(stack_samples(column) for column in zip(*[row.views for row in rows], strict=True))
        return found._replace(**values)

    def labels_of(self, ids: Ids) -> Int64[Tensor, " b"] | None:
        """The label of each item, -1 if it has none; None if the data have no classes."""
        return torch.tensor([self.label(i) for i in ids.tolist()], dtype=torch.int64) if self.classes else None

    # --- statistics of all samples

    def signal(self) -> Signal:
        """Size, channels and per-channel statistics, from a fixed sample of 256 to 4,096 items, not augmented.

        The standard deviation is divided by `cfg.contrast`, so normalised samples have that deviation. They look like
        low-contrast data normalised with ordinary statistics, but without the rounding to 8 bits. Raises ValueError if
        no item of the sample can be read, if one cannot and `cfg.corrupt` is "fail", or if values are not finite.
        """
        size = self.sample_size()
        count = min(len(self), max(FIT_ITEMS_RANGE[0], min(FIT_ITEMS_RANGE[1], FIT_VALUES // prod(size))))
        order = torch.randperm(len(self), generator=Rng(0).fork("data", "fit").generator())
        sums, squares, values = self.moments(np.sort(order[:count].numpy()), size)
        mean = sums / values
        std = (squares / values - mean**2).clamp(min=0).sqrt()
        if not bool(torch.isfinite(mean).all() and torch.isfinite(std).all()):
            raise ValueError("the data hold values that are not finite (NaN or infinite); replace them before training")
        # A constant channel is centred but not scaled.
        scale = tuple(float(value) / self.cfg.contrast if value > 1e-8 else 1.0 for value in std)
        return self.as_signal(size, tuple(mean.tolist()), scale)

    def as_signal(self, size: Size, mean: tuple[float, ...], std: tuple[float, ...]) -> Signal:
        """The signal with these statistics, plus the views, actions, classes and proprioception that batches carry."""
        views, classes = sum(group.count for group in self.cfg.augment.views), len(self.classes)
        action, proprio = self.action_spec(), self.proprio_size()
        return Signal(self.channels, size, mean, std, views=views, action=action, classes=classes, proprio=proprio)

    def action_spec(self) -> ActionSpec | None:
        """The meaning of the action between two frames; None if the data have no actions."""
        return None

    def proprio_size(self) -> int:
        """The number of proprioceptive values beside each frame."""
        return 0

    def sample_size(self) -> Size:
        """The size to which samples are resized. Raises ValueError if sizes differ and no setting chooses one."""
        if self.native is None:
            raise ValueError(f"the {self.words.many} differ in size; give {self.words.many} of one size")
        return self.native

    def moments(self, ids: Int64[np.ndarray, " k"], size: Size) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"], int]:
        """Sum and sum of squares per channel over `ids` in float64, and the number of values; padding is excluded."""
        sums, squares = torch.zeros(2, self.channels, dtype=torch.float64)
        values, skipped = 0, dict[str, str]()
        for part in np.array_split(ids, -(-len(ids) // FIT_CHUNK)):
            found = self.read(part, size)
            refuse_unreadable(found.skipped, self.cfg.corrupt)
            skipped |= found.skipped
            for x in without_padding(found):
                y = x.double() / (255 if x.dtype == torch.uint8 else 1)
                axes = (0, *range(2, y.ndim))
                sums += y.sum(axes)
                squares += (y * y).sum(axes)
                values += y.numel() // len(sums)
        self.need_values(values, len(ids), skipped)
        return sums, squares, values

    def need_values(self, values: int, tried: int, skipped: Mapping[str, str]) -> None:
        """Raises ValueError if none of the items tried could be read."""
        if not values:
            raise ValueError(
                f"none of {tried} {self.words.many} tried can be read, e.g. {example_of(skipped)}; "
                "look at jepa check-data"
            )

    def is_padded(self, size: Size) -> bool:
        """Whether some samples are shorter than `size` along its first axis and come with padding and `length`."""
        return self.lengths is not None and bool((self.lengths < size[0]).any())

    def can_lengthen(self, size: Size) -> bool:
        """Whether samples can be read at more steps than `size` has, because they are padded or stretched anyway."""
        return self.is_padded(size)

    def read_beginnings(self, ids: Ids, size: Size) -> Samples:
        """The first size[0] steps of every item that has at least that many."""
        return self.read(ids, size)

    def auto_patch(self, cells: int) -> tuple[tuple[int, ...], str] | None:
        """The encoder's patch and the reason; None: chosen from the size alone. `cells` is the patch count per side."""
        return None

    @property
    def picture_channels(self) -> int:
        """The number of channels of one image in a sample; colour changes apply to each image."""
        return self.channels

    def check_augment(self) -> None:
        """Raises ValueError if the augmentation does not fit the data."""
        self.cfg.augment.check(self.picture_channels)

    def check_views(self, signal: Signal) -> None:
        """Raises ValueError if `draw` does not make the views that the settings ask for, as where it is inherited."""
        if not signal.views:
            return
        drawn = self.draw(np.zeros(1, dtype=np.int64), Rng(0).fork("check"), signal, include_x=False).views
        if (made := sum(group.shape[1] for group in drawn)) != signal.views:
            kind = type(self).__name__
            raise ValueError(
                f"data.augment.views asks for {signal.views} views of each {self.words.one}, but {kind}.draw makes "
                f"{made}; give {kind} a draw that makes them, or choose a method that needs no views"
            )

    # --- derived data sets

    def with_config(self, cfg: Any) -> "Dataset":
        """The same items with other settings for augmentation, normalisation or skipping."""
        return dataclasses.replace(self, cfg=cfg)  # type: ignore[type-var]

    def subset(self, rows: Int64[np.ndarray, " k"], labels: Int64[np.ndarray, " k"] | None = None) -> "Dataset":
        """The items `rows`, with their own labels or with `labels`."""
        return Subset(self, rows, labels)

    def in_memory(self) -> "Dataset":
        """The same items, decoded once and kept in memory if that saves time."""
        return self

    # --- questions that only some kinds answer

    def report(self, progress: Progress = None) -> Report:
        """The report that `jepa check-data` prints; reads every item once."""
        problems, total, size = list[Problem](), len(self), self.sample_size()
        for i in range(total):
            found = self.read(np.array([i], dtype=np.int64), size)
            problems += [Problem(name, "unreadable", why) for name, why in found.skipped.items()]
            if progress:
                progress(i + 1, total)
        counts = np.bincount([k for i in range(total) if (k := self.label(i)) >= 0], minlength=len(self.classes))
        classes = ", ".join(f"{name}: {n}" for name, n in zip(self.classes, counts.tolist(), strict=True) if n)
        rows = [
            (self.words.many, str(total)),
            ("readable", str(total - len(problems))),
            ("unreadable", str(len(problems))),
            ("size", " x ".join(map(str, size))),
            ("channels", str(self.channels)),
            (f"{self.words.many} per class", classes or "no labels"),
        ]
        return finish_report(rows, self.notes, problems, "--csv FILE lists them")

    def content_hash(self, i: int) -> int | None:
        """A hash of item i as it is read, not augmented; None if it cannot be read."""
        found = next(without_padding(self.read(np.array([i], dtype=np.int64), self.sample_size())), None)
        return None if found is None else hash_array(found[0].numpy())

    def mask(self, i: int, size: Size) -> UInt8[np.ndarray, "h w"]:
        """The class of every pixel of item i at `size`, cropped like the image; 255 if unknown. Raises ValueError."""
        raise ValueError(NO_MASKS)

    def film(self, i: int) -> str:
        """The film that item i is a frame of. Raises ValueError if the data are not films."""
        raise ValueError(NO_MASKS)

    def factors(self, i: int) -> Float[np.ndarray, "t k"] | None:
        """The true quantities at every frame of item i, with `factor_names`; None if the data have none."""
        return None

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The names of the true quantities; empty if the data have none."""
        return ()

    def as_series(self) -> Any:
        """The data as series whose steps can be scored and forecast; None if they are not series."""
        return None

    def step_span(self, i: int) -> tuple[int, int] | None:
        """The first step of item i in its source series and the step after its last; None if there is no series."""
        return None

    def step_times(self, i: int) -> list[str] | None:
        """The time of each step of item i, as text; None if the data have no times."""
        return None

    @property
    def column_names(self) -> tuple[str, ...]:
        """The channel names."""
        return tuple(f"channel {c}" for c in range(self.channels))

    def place(self, i: int) -> Place:
        """Where item i lies in the episode that it is cut from; by default every item is an episode of its own."""
        return Place(self.name(i))

    def looked_at(self, i: int) -> tuple[Float[Tensor, "c h w"], Float[np.ndarray, "t 2"]] | None:
        """The image that item i looks at and its fixations (x, y) in pixels of it; None if items have no gaze."""
        return None


def refuse_padding(dataset: Dataset, size: Size, what: str) -> None:
    """Raises ValueError if samples are padded at `size`; `what` names the use that cannot handle padding."""
    if dataset.lengths is not None and dataset.is_padded(size):
        low, high, words = int(dataset.lengths.min()), int(dataset.lengths.max()), dataset.words
        have = f"{low} to {high} {words.parts}" if low < high else f"{low} {words.parts} each"
        need = "equal lengths" if low < high else f"{size[0]} without padding"
        raise ValueError(f"the {words.many} have {have}, but {what} needs {need}; {words.fix}")


NO_MASKS = (
    "masks lie beside image files, so these data cannot have any; give a folder of images with a.mask.png beside "
    "each a.jpg, or the generated set scenes"
)


def _ask_parent(name: str) -> Any:
    """The method `name` of a data set, answered by the parent of a subset."""

    @wraps(getattr(Dataset, name))
    def ask(self: "Subset", *args: Any) -> Any:
        return getattr(self.whole, name)(*args)

    return ask


def _ask_parent_item(name: str) -> Any:
    """The method `name` of a data set, whose first argument is an item, answered by the parent of a subset."""

    @wraps(getattr(Dataset, name))
    def ask(self: "Subset", i: int, *args: Any) -> Any:
        return getattr(self.whole, name)(int(self.rows[i]), *args)

    return ask


class Subset(Dataset):
    """Some items of a data set, optionally with their own labels; for kinds that have no field for a subset."""

    def __init__(self, whole: Dataset, rows: Int64[np.ndarray, " k"], given: Int64[np.ndarray, " k"] | None) -> None:
        self.whole, self.rows, self.given = whole, rows, given
        # These attributes are read-only properties for the type checker, so they are set past it.
        facts = {name: getattr(whole, name) for name in ("cfg", "channels", "classes", "native", "notes", "words")}
        vars(self).update(facts, lengths=None if whole.lengths is None else whole.lengths[rows])

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, i: int) -> str:
        """The item's name in the parent data set."""
        return self.whole.name(int(self.rows[i]))

    def label(self, i: int) -> int:
        """The item's label in this subset."""
        return self.whole.label(int(self.rows[i])) if self.given is None else int(self.given[i])

    def fingerprint(self) -> str:
        """A hash of the parent data set and of the chosen items."""
        digest = hashlib.blake2b(self.whole.fingerprint().encode() + self.rows.tobytes(), digest_size=8)
        return digest.hexdigest()

    def read(self, ids: Ids, size: Size) -> Samples:
        """Items `ids` at `size`, read from the parent data set."""
        return self._counted(self.whole.read(self.rows[ids], size), self._known(ids))

    def draw(self, ids: Ids, rng: Rng, signal: Signal, include_x: bool = True) -> Samples:
        """Items `ids` as training sees them; the next item of this subset replaces an unreadable one."""
        ids, skipped = ids.copy(), dict[str, str]()
        for _ in range(len(self)):
            found = self.whole.draw(self.rows[ids], rng, signal, include_x)
            skipped |= found.skipped
            wrong = found.id.numpy() != self.rows[ids]
            if not wrong.any():
                return self._counted(found._replace(skipped=skipped), self._known(ids))
            ids[wrong] = (ids[wrong] + 1) % len(self)
        raise ValueError(f"none of {len(self)} {self.words.many} can be read; look at jepa check-data")

    def with_config(self, cfg: Any) -> "Subset":
        """The same subset of the parent data set with other settings."""
        return Subset(self.whole.with_config(cfg), self.rows, self.given)

    def versions(self, ids: Int64[np.ndarray, " n"], count: int, signal: Signal) -> Shaped[Tensor, "_ q c ..."]:
        """`count` augmented versions of each item, made by the parent data set."""
        return self.whole.versions(self.rows[ids], count, signal)

    def read_beginnings(self, ids: Ids, size: Size) -> Samples:
        """The first size[0] steps of every item that has at least that many."""
        return self._counted(self.whole.read_beginnings(self.rows[ids], size), self._known(ids))

    # What a question about the whole data set, or about one item, gets: the parent's answer.
    sample_size, action_spec, proprio_size, auto_patch = map(
        _ask_parent, ("sample_size", "action_spec", "proprio_size", "auto_patch")
    )
    mask, film, step_span, step_times, place, factors, looked_at = map(
        _ask_parent_item, ("mask", "film", "step_span", "step_times", "place", "factors", "looked_at")
    )

    @property
    def picture_channels(self) -> int:
        """The number of channels of one image in a sample of the parent data set."""
        return self.whole.picture_channels

    @property
    def column_names(self) -> tuple[str, ...]:
        """The channel names of the parent data set."""
        return self.whole.column_names

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The names of the true quantities of the parent data set."""
        return self.whole.factor_names

    def _known(self, ids: Ids) -> dict[int, int]:
        return {int(self.rows[i]): int(i) for i in ids}

    def _counted(self, found: Samples, known: dict[int, int]) -> Samples:
        """Samples of the parent data set, with the ids and labels of this subset."""
        ids = np.array([known[i] for i in found.id.tolist()], dtype=np.int64)
        return found._replace(id=torch.from_numpy(ids), label=self.labels_of(ids))
