"""Some items of a data set of any kind."""

import hashlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from ..types import ActionSpec, Rng, Samples, Signal, Size
from .base import Dataset


class Subset(Dataset):
    """Some items of a data set, perhaps with labels of their own: for kinds that cannot say it in their own fields."""

    def __init__(self, whole: Dataset, rows: Int64[np.ndarray, " k"], given: Int64[np.ndarray, " k"] | None) -> None:
        self.whole, self.rows, self.given = whole, rows, given
        # Attributes here are read-only properties to who reads them: set past the type checker.
        facts = {name: getattr(whole, name) for name in ("cfg", "channels", "classes", "native", "notes", "words")}
        vars(self).update(facts, lengths=None if whole.lengths is None else whole.lengths[rows])

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, i: int) -> str:
        """What the item is called in the whole."""
        return self.whole.name(int(self.rows[i]))

    def label(self, i: int) -> int:
        """The item's label here."""
        return self.whole.label(int(self.rows[i])) if self.given is None else int(self.given[i])

    def fingerprint(self) -> str:
        """A hash of the whole and of which items of it there are."""
        digest = hashlib.blake2b(self.whole.fingerprint().encode() + self.rows.tobytes(), digest_size=8)
        return digest.hexdigest()

    def read(self, ids: Int64[np.ndarray, " b"], size: Size) -> Samples:
        """As of the whole."""
        return self._counted(self.whole.read(self.rows[ids], size), self._known(ids))

    def draw(self, ids: Int64[np.ndarray, " b"], rng: Rng, signal: Signal, include_x: bool = True) -> Samples:
        """As of the whole; an unreadable item gives way to the next one of this part."""
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
        """The same part of the whole under other settings."""
        return Subset(self.whole.with_config(cfg), self.rows, self.given)

    def versions(self, ids: Int64[np.ndarray, " n"], count: int, signal: Signal) -> Shaped[Tensor, "_ q c ..."]:
        """As of the whole."""
        return self.whole.versions(self.rows[ids], count, signal)

    def read_beginnings(self, ids: Int64[np.ndarray, " b"], size: Size) -> Samples:
        """As of the whole."""
        return self._counted(self.whole.read_beginnings(self.rows[ids], size), self._known(ids))

    def sample_size(self) -> Size:
        """As of the whole."""
        return self.whole.sample_size()

    def action_spec(self) -> ActionSpec | None:
        """As of the whole."""
        return self.whole.action_spec()

    def auto_patch(self, cells: int) -> tuple[tuple[int, ...], str] | None:
        """As of the whole."""
        return self.whole.auto_patch(cells)

    @property
    def picture_channels(self) -> int:
        """As of the whole."""
        return self.whole.picture_channels

    @property
    def column_names(self) -> tuple[str, ...]:
        """As of the whole."""
        return self.whole.column_names

    def mask(self, i: int, size: Size) -> UInt8[np.ndarray, "_ _"]:
        """As of the whole."""
        return self.whole.mask(int(self.rows[i]), size)

    def film(self, i: int) -> str:
        """As of the whole."""
        return self.whole.film(int(self.rows[i]))

    def step_span(self, i: int) -> tuple[int, int] | None:
        """As of the whole."""
        return self.whole.step_span(int(self.rows[i]))

    def step_times(self, i: int) -> list[str] | None:
        """As of the whole."""
        return self.whole.step_times(int(self.rows[i]))

    def looked_at(self, i: int) -> tuple[Float[Tensor, "c h w"], Float[np.ndarray, "t 2"]] | None:
        """As of the whole."""
        return self.whole.looked_at(int(self.rows[i]))

    def _known(self, ids: Int64[np.ndarray, " b"]) -> dict[int, int]:
        return {int(self.rows[i]): int(i) for i in ids}

    def _counted(self, found: Samples, known: dict[int, int]) -> Samples:
        """Samples of the whole with the ids and labels that they have here."""
        ids = np.array([known[i] for i in found.id.tolist()], dtype=np.int64)
        return found._replace(id=torch.from_numpy(ids), label=self.labels_of(ids))
