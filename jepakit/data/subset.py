"""Some items of a data set as a data set, for kinds that have no field for a subset."""

import hashlib
from functools import wraps
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ..types import Ids, Rng, Samples, Signal, Size
from .base import Dataset


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
    sample_size, action_spec, auto_patch = map(_ask_parent, ("sample_size", "action_spec", "auto_patch"))
    mask, film, step_span, step_times, looked_at = map(
        _ask_parent_item, ("mask", "film", "step_span", "step_times", "looked_at")
    )

    @property
    def picture_channels(self) -> int:
        """The number of channels of one image in a sample of the parent data set."""
        return self.whole.picture_channels

    @property
    def column_names(self) -> tuple[str, ...]:
        """The channel names of the parent data set."""
        return self.whole.column_names

    def _known(self, ids: Ids) -> dict[int, int]:
        return {int(self.rows[i]): int(i) for i in ids}

    def _counted(self, found: Samples, known: dict[int, int]) -> Samples:
        """Samples of the parent data set, with the ids and labels of this subset."""
        ids = np.array([known[i] for i in found.id.tolist()], dtype=np.int64)
        return found._replace(id=torch.from_numpy(ids), label=self.labels_of(ids))
