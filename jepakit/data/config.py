"""The base class of data settings, and the settings that all data sets share.

In config.yaml a kind's own settings come before the shared ones; `shared_last` keeps that order.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from ..core.notes import Note
from ..types import Size
from .base import Dataset, Split
from .collation import Corrupt
from .report import Progress, Report

Class = TypeVar("Class", bound=type)


class StrongAugmentation(NamedTuple):
    """An augmentation with views, the settings that make it strong, and the reason it must be strong."""

    augment: Any
    keys: tuple[str, ...]
    why: str


@runtime_checkable
class Augmentation(Protocol):
    """How training samples are augmented."""

    @property
    def views(self) -> tuple[Any, ...]:
        """Groups of extra versions of each sample, each with `count`, `size` and `size_for(size of the signal)`."""
        ...

    @property
    def changes(self) -> bool:
        """Whether two versions of a sample differ."""
        ...

    def check(self, channels: int) -> None:
        """Raises ValueError if the augmentation cannot apply to data with this number of channels."""
        ...

    def strong(self, channels: int) -> StrongAugmentation:
        """This augmentation with views, made strong if at its defaults. Raises ValueError if views are impossible."""
        ...


@dataclass(frozen=True)
class NoAugmentation:
    """The augmentation of a kind that has none: samples stay as they are."""

    @property
    def views(self) -> tuple[Any, ...]:
        """Always empty."""
        return ()

    @property
    def changes(self) -> bool:
        """Always false."""
        return False

    def check(self, channels: int) -> None:
        """Accept any number of channels: samples are unchanged."""

    def strong(self, channels: int) -> StrongAugmentation:
        """Raises ValueError: unchanged samples have no views."""
        raise ValueError("data of this kind are not augmented, so a sample has no two views; choose another method")


@dataclass(frozen=True)
class SourceConfig:
    """The settings of a data set or of a stream: where it is and how to read it.

    `arrives`: frames come one after the other, and their number is unknown.
    `axes` lists the numbers of axes that samples may have (empty: any); `holds` is the noun for the samples in a
    sentence.
    `meanings` names the settings that mean something else here than in other kinds, so they are not carried over.
    """

    path: str = ""

    arrives: ClassVar[bool] = False
    axes: ClassVar[tuple[int, ...]] = ()
    holds: ClassVar[str] = "data of another kind"
    meanings: ClassVar[frozenset[str]] = frozenset()

    if TYPE_CHECKING:
        # Only for the type checker: a dataclass would take an inherited property for the default of its field.
        @property
        def augment(self) -> Augmentation:
            """How training samples are augmented."""

    @property
    def is_generated(self) -> bool:
        """Whether the path names what makes the data, and no file."""
        return False

    @classmethod
    def recognises(cls, path: str) -> str:
        """The reason the data at `path` are of this kind; "" if they are not. Reads at most the head of a file."""
        return ""

    def open(self) -> Dataset:
        """The data. Raises ValueError, with the remedy, if they cannot be found or read."""
        raise NotImplementedError

    def claims(self, kind: str, path: str) -> bool:
        """Whether these settings read `path` even though it is recognised as another `kind`."""
        return False

    def at(self, path: str, **changes: Any) -> "SourceConfig":
        """The same settings for another path."""
        return dataclasses.replace(self, path=path, **changes)

    def with_channels(self, channels: int) -> "SourceConfig":
        """The same settings for samples with this number of channels, if the kind can convert them."""
        return self

    def with_names(self, image: str, label: str) -> "SourceConfig":
        """The same settings with these column or array names; empty names change nothing."""
        known = {f.name for f in dataclasses.fields(self)}
        given = {"image": image, "label": label}
        return dataclasses.replace(self, **{key: name for key, name in given.items() if name and key in known})

    def training_part(self) -> "SourceConfig":
        """The same settings, restricted to the training part if samples overlap."""
        return self

    def test_part(self) -> "SourceConfig | None":
        """The settings of the test part if these settings are for the training part; else None."""
        return None

    def whole(self) -> "SourceConfig":
        """The same settings for all data."""
        return self

    def without_views(self) -> "SourceConfig":
        """The same settings without views: only the sample itself."""
        return self

    def uncut(self) -> "SourceConfig":
        """The same settings for whole series instead of windows."""
        return self

    def without_overlap(self) -> "SourceConfig":
        """The same settings with consecutive windows that do not overlap."""
        return self

    def resolve(
        self, dataset: Dataset, needs: frozenset[str], method: str, patch: Size | None = None
    ) -> tuple["SourceConfig", list[Note]]:
        """The settings with all choices made on opening the data or for a `method` with these `needs`, and a note each.

        `patch` is that of the method's encoder, None if it has none or if it is still to be chosen. Other data are then
        read the same way. Raises ValueError if the data cannot give what the method needs.
        """
        return self, []

    def report(self, progress: Progress = None) -> Report:
        """The report that `jepa check-data` prints, even for data that cannot be opened for training."""
        return self.open().report(progress)


@dataclass(frozen=True)
class DataConfig(SourceConfig):
    """The settings that all data sets share.

    `split` chooses a part; `held_out` is the test fraction; `limit` keeps that many items (0: all). `corrupt`: skip an
    unreadable item for the next one, or fail the run. `augment` says how training samples are augmented. `contrast` is
    the standard deviation of normalised values in training and afterwards: 0.1 turns any data into low-variance data.
    """

    _: KW_ONLY
    split: Split = "all"
    held_out: float = 0.1
    limit: int = 0
    corrupt: Corrupt = "skip"
    augment: Augmentation = field(default_factory=NoAugmentation)
    contrast: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ValueError(
                f"held_out is {self.held_out}; give the fraction kept for the test part, e.g. held_out=0.1"
            )
        if self.limit < 0:
            raise ValueError(f"limit is {self.limit}; give how many items to keep, or 0 for all of them")
        if not 0 < self.contrast < float("inf"):
            raise ValueError(f"contrast is {self.contrast:g}; give a factor above 0, 1 for the data as they are")

    @property
    def overlapping(self) -> bool:
        """Whether samples share values, so that a random fifth of them is not a valid test part."""
        return False

    def training_part(self) -> "DataConfig":
        """The same settings, restricted to the training part if samples overlap."""
        return dataclasses.replace(self, split="train") if self.overlapping and self.split == "all" else self

    def test_part(self) -> "DataConfig | None":
        """The settings of the whole test part if these settings are for the training part; else None."""
        return dataclasses.replace(self, split="test", limit=0) if self.split == "train" else None

    def whole(self) -> "DataConfig":
        """The same settings for all data."""
        return dataclasses.replace(self, split="all", limit=0)

    def without_views(self) -> "DataConfig":
        """The same settings without views: only the sample itself."""
        if not self.augment.views:
            return self
        return dataclasses.replace(self, augment=dataclasses.replace(cast(Any, self.augment), views=()))

    def resolve(
        self, dataset: Dataset, needs: frozenset[str], method: str, patch: Size | None = None
    ) -> tuple["DataConfig", list[Note]]:
        """These settings, with two views per sample if the method compares views and the settings have none.

        An augmentation at its defaults is made strong.
        """
        if "views" not in needs or self.augment.views:
            return self, []
        try:
            chosen = self.augment.strong(dataset.picture_channels)
        except ValueError as error:
            raise ValueError(f"{method} compares views of one sample: {error}") from None
        notes = [Note("data.augment.views", "[{count: 2}]", f"{method} compares views of one sample")]
        if self.augment == type(self.augment)():
            values = {key: getattr(chosen.augment, key) for key in chosen.keys}
            value = ", ".join(f"{key} {list(v) if isinstance(v, tuple) else v}" for key, v in values.items())
            notes.append(Note("data.augment", value, chosen.why))
        return dataclasses.replace(self, augment=chosen.augment), notes


def shared_last(**after: str) -> Callable[[Class], Class]:
    """A decorator that moves the shared settings behind a kind's own.

    `after` maps one of the kind's own settings to the shared setting that it follows.
    The decorator changes the order of `dataclasses.fields`, and so of config.yaml, but not the order of the arguments.
    """

    def move_shared(cls: Class) -> Class:
        fields: Mapping[str, Any] = cls.__dataclass_fields__  # type: ignore[attr-defined]
        shared = [f.name for f in dataclasses.fields(DataConfig) if f.name != "path"]
        names = [name for name in fields if name not in shared and name not in after] + shared
        for name, before in after.items():
            names.insert(names.index(before) + 1, name)
        cls.__dataclass_fields__ = {name: fields[name] for name in names}  # type: ignore[attr-defined]
        return cls

    return move_shared
