"""Defines the parts of the data that kinds read, holds one part out, and checks the labels."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from jaxtyping import Bool, Int64

from ..data import Words
from ..data.overlap import Hashes
from .base import load_kind
from .heldout import held_out

P = TypeVar("P", bound="Part")


class Part:
    """Samples in a fixed order: `id` is that of each in its data set, `y` its label (-1: none).

    A kind of part is a frozen dataclass that names in `ROWS` its fields with an entry per sample. If it has a field
    `sequence`, the number of each sample's film or episode, whole ones are held out; `SEQUENCE` is their noun.
    """

    id: Int64[np.ndarray, " n"]
    y: Int64[np.ndarray, " n"]
    ROWS: ClassVar[tuple[str, ...]] = ()
    SEQUENCE: ClassVar[str] = "film"

    def __len__(self) -> int:
        return len(self.id)

    def where(self: P, rows: Bool[np.ndarray, " n"]) -> P:
        """The samples where `rows` is true."""
        values = {name: value for name in self.ROWS if (value := getattr(self, name)) is not None}
        return replace(self, **{name: value[rows] for name, value in values.items()})  # type: ignore[type-var]

    def same(self, other: Any) -> bool:
        """Whether both hold the same samples."""
        raise NotImplementedError

    def check_values(self) -> None:
        """Raise ValueError if a feature is not finite, or if there are too few samples; here nothing is checked."""


class Unlabelled(Part):
    """Samples that need no label."""

    @property
    def y(self) -> Int64[np.ndarray, " n"]:  # type: ignore[override]
        """-1 for every sample."""
        return np.full(len(self), -1, dtype=np.int64)


def held_rows(part: Part, name: Callable[[int], object] = int, salt: str = "test") -> Bool[np.ndarray, " n"]:
    """The fifth of a part to hold out: in each class, by the hash of `name(id)`; whole films and whole episodes."""
    films = getattr(part, "sequence", None)
    if films is None:
        return held_out([str(name(int(i))) for i in part.id], part.y, salt=salt)
    kinds, first = np.unique(films, return_index=True)
    chosen = held_out([str(name(int(i))) for i in part.id[first]], np.zeros(len(kinds), np.int64), salt=salt)
    held: np.ndarray = np.isin(films, kinds[chosen])
    return held


def count_shared(train: Part, test: Part, hashes: tuple[Hashes, Hashes], labelled: bool) -> int:
    """The number of test samples that equal a training sample; if `labelled`, only samples with labels count.

    `hashes` are those of all samples of the two sets.
    """
    fitted, scored = ((part.id[part.y >= 0] if labelled else part.id).tolist() for part in (train, test))
    known = {hashes[0][i] for i in fitted if i in hashes[0]}
    return sum(hashes[1][i] in known for i in scored if i in hashes[1])


def need_held(part: Part, held: Bool[np.ndarray, " n"]) -> None:
    """Raise ValueError, naming the fix, if nothing of a part is held out."""
    known = part.y >= 0
    if held.any() and (held[known].any() or not known.any()):
        return
    if getattr(part, "sequence", None) is not None:
        what = part.SEQUENCE
        raise ValueError(f"there is only one {what}, so none can be held out; give --test, or data of several {what}s")
    raise ValueError("no class has two labelled samples, so nothing can be held out; give --test")


def labelled_part(part: P) -> P:
    """The samples that have a label. Raises ValueError if there are none, or if a feature is not finite."""
    kept: P = part.where(part.y >= 0)
    if not len(kept):
        raise ValueError(
            "the data carry no labels, so nothing can be scored; give a folder with one sub-folder per class, "
            "or a manifest with a label column"
        )
    kept.check_values()
    return kept


def need_labels(classes: tuple[str, ...], fix: str = Words().labels) -> None:
    """Raise ValueError, with the `fix`, if there are fewer than two classes."""
    if len(classes) == 1:
        raise ValueError(
            f"the data carry only the class {classes[0]!r}, so nothing can be told apart; give two or more"
        )
    if not classes:
        raise ValueError(f"the data carry no labels, so nothing can be scored; {fix}")


def allowed_kinds(
    kinds: Sequence[str], classes: tuple[str, ...], required: bool = False, fix: str = Words().labels
) -> tuple[Sequence[str], list[str]]:
    """The kinds that data of these classes allow, and a note on those that are left out, as they need labels.

    Raises ValueError in place of the note where the kinds are `required`.
    """
    blind = [kind for kind in kinds if load_kind(kind).labels]
    try:
        if blind:
            need_labels(classes, fix)
    except ValueError as error:
        if required:
            raise ValueError(f"evals.kinds asks for {', '.join(blind)}, but {error}, or --evals.kinds '[]'") from None
        note = f"no {', '.join(blind)} after the last step: {error}"
        return [kind for kind in kinds if kind not in blind], [note]
    return kinds, []


def need_classes(missing: Sequence[str]) -> None:
    """Raise ValueError, naming the fix, if classes of the test data are `missing` from the training data."""
    if missing:
        shown = ", ".join(map(repr, missing[:3])) + (" …" if len(missing) > 3 else "")
        raise ValueError(
            f"the training data hold no sample of {len(missing)} of the classes of the test data ({shown}), so nothing "
            "can be learnt about them; give --data with samples of every class, or --test without those"
        )
