"""The settings of data: what every room asks of them, and those that all kinds share.

In config.yaml a kind's own settings come before those that all share; `shared_last` keeps that order.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from ..core.notes import Note
from .base import Corrupt, Dataset, Split
from .report import Progress, Report

Class = TypeVar("Class", bound=type)


class StrongAugmentation(NamedTuple):
    """An augmentation with views, the settings that make it strong, and why it has to be."""

    augment: Any
    keys: tuple[str, ...]
    why: str


@runtime_checkable
class Augmentation(Protocol):
    """How training samples are changed."""

    @property
    def views(self) -> tuple[Any, ...]:
        """Groups of further versions of each sample, each with `count`, `size` and `size_for(size of the signal)`."""
        ...

    @property
    def changes(self) -> bool:
        """Whether two versions of a sample differ."""
        ...

    def check(self, channels: int) -> None:
        """Raises ValueError where data of so many channels cannot be changed like that."""
        ...

    def strong(self, channels: int) -> StrongAugmentation:
        """The same with views, made strong where it says nothing yet. Raises ValueError where there can be no views."""
        ...


@dataclass(frozen=True)
class NoAugmentation:
    """Samples stay as they are: the augmentation of a kind that has none."""

    @property
    def views(self) -> tuple[Any, ...]:
        """Always empty."""
        return ()

    @property
    def changes(self) -> bool:
        """Always false."""
        return False

    def check(self, channels: int) -> None:
        """Do nothing: unchanged samples may have any channels."""

    def strong(self, channels: int) -> StrongAugmentation:
        """Raises ValueError: there are no views of unchanged samples."""
        raise ValueError("data of this kind are not augmented, so a sample has no two views; choose another method")


@dataclass(frozen=True)
class SourceConfig:
    """The settings of a data set or of a stream: where it lies, and how it is read.

    `arrives`: frames come one after the other, and nobody knows the last one. `axes` are the numbers of axes that
    samples may have (empty: any), `holds` what they are called in a sentence.
    `meanings` names the settings that mean something else here than in other kinds, so that they are not taken over.
    """

    path: str = ""

    arrives: ClassVar[bool] = False
    axes: ClassVar[tuple[int, ...]] = ()
    holds: ClassVar[str] = "data of another kind"
    meanings: ClassVar[frozenset[str]] = frozenset()

    if TYPE_CHECKING:
        # Not at run time: a dataclass would take an inherited property for the default of its field.
        @property
        def augment(self) -> Augmentation:
            """How training samples are changed."""

    @classmethod
    def recognises(cls, path: str) -> str:
        """Why the data at `path` are of this kind; "" where they are not. Reads no more than the head of a file."""
        return ""

    def open(self) -> Dataset:
        """The data. Raises ValueError, saying what to do, where they cannot be found or read."""
        raise NotImplementedError

    def claims(self, kind: str, path: str) -> bool:
        """Whether these settings read `path`, although it is recognised as another `kind`."""
        return False

    def at(self, path: str, **changes: Any) -> "SourceConfig":
        """The same settings for other data."""
        return dataclasses.replace(self, path=path, **changes)

    def with_channels(self, channels: int) -> "SourceConfig":
        """The same settings for samples of so many channels, where a kind can bring them to that."""
        return self

    def with_names(self, image: str, label: str) -> "SourceConfig":
        """The same settings with the names of the columns or arrays to read, where they are not empty."""
        known = {f.name for f in dataclasses.fields(self)}
        given = {"image": image, "label": label}
        return dataclasses.replace(self, **{key: name for key, name in given.items() if name and key in known})

    def training_part(self) -> "SourceConfig":
        """The same settings, of the training part alone where samples of all data overlap."""
        return self

    def test_part(self) -> "SourceConfig | None":
        """The settings of the test part where these are of the training part; else None."""
        return None

    def whole(self) -> "SourceConfig":
        """The same settings, of all data."""
        return self

    def without_views(self) -> "SourceConfig":
        """The same settings, with the sample itself alone."""
        return self

    def uncut(self) -> "SourceConfig":
        """The same settings, of whole series where samples are windows of them."""
        return self

    def without_overlap(self) -> "SourceConfig":
        """The same settings, with windows that follow one another."""
        return self

    def resolved(self, dataset: Dataset, needs: frozenset[str], method: str) -> tuple["SourceConfig", list[Note]]:
        """What was chosen when the data were opened, and what a `method` with such `needs` takes, with a note each.

        Other data are then read in the same way. Raises ValueError where the data cannot give what the method needs.
        """
        return self, []

    def report(self, progress: Progress = None) -> Report:
        """What `jepa check-data` prints, also where the data cannot be opened for training."""
        return self.open().report(progress)


@dataclass(frozen=True)
class DataConfig(SourceConfig):
    """The settings that all data sets share.

    `split` cuts off the part `held_out`; `limit` keeps so many items (0: all). `corrupt`: an item that cannot be read
    is skipped for the next one, or fails the run. `augment` says how training samples are changed. `contrast` is the
    deviation of normalised values, for training and whatever follows: 0.1 makes data of low variance of any data.
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
        """Whether samples share values, so that a random fifth of them is no test part."""
        return False

    def training_part(self) -> "DataConfig":
        """The same settings, of the training part alone where samples of all data overlap."""
        return dataclasses.replace(self, split="train") if self.overlapping and self.split == "all" else self

    def test_part(self) -> "DataConfig | None":
        """The settings of the whole test part where these are of the training part; else None."""
        return dataclasses.replace(self, split="test", limit=0) if self.split == "train" else None

    def whole(self) -> "DataConfig":
        """The same settings, of all data."""
        return dataclasses.replace(self, split="all", limit=0)

    def without_views(self) -> "DataConfig":
        """The same settings, with the sample itself alone."""
        if not self.augment.views:
            return self
        return dataclasses.replace(self, augment=dataclasses.replace(cast(Any, self.augment), views=()))

    def resolved(self, dataset: Dataset, needs: frozenset[str], method: str) -> tuple["DataConfig", list[Note]]:
        """These settings with two views of each sample, where the method compares views and they ask for none.

        Where nothing else is said of the augmentation, it is made strong.
        """
        if "views" not in needs or self.augment.views:
            return self, []
        try:
            chosen = self.augment.strong(dataset.picture_channels)
        except ValueError as error:
            raise ValueError(f"{method} compares views of one sample: {error}") from None
        notes = [Note("data.augment.views", "[{count: 2}]", f"{method} compares views of one sample")]
        if self.augment == type(self.augment)():
            value = ", ".join(f"{key} {_as_list(getattr(chosen.augment, key))}" for key in chosen.keys)
            notes.append(Note("data.augment", value, chosen.why))
        return dataclasses.replace(self, augment=chosen.augment), notes


def shared_last(**after: str) -> Callable[[Class], Class]:
    """Puts the settings that all kinds share behind a kind's own; `after` names those that one of them precedes.

    What is changed is the order of `dataclasses.fields`, and so that of config.yaml; not that of the arguments.
    """

    def ordered(cls: Class) -> Class:
        fields: Mapping[str, Any] = cls.__dataclass_fields__  # type: ignore[attr-defined]
        shared = [f.name for f in dataclasses.fields(DataConfig) if f.name != "path"]
        names = [name for name in fields if name not in shared and name not in after] + shared
        for name, before in after.items():
            names.insert(names.index(before) + 1, name)
        cls.__dataclass_fields__ = {name: fields[name] for name in names}  # type: ignore[attr-defined]
        return cls

    return ordered


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
