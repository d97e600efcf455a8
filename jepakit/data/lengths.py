"""Data whose samples differ in length along the first axis of their size, and come padded."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from ..types import Size


class Words(NamedTuple):
    """What one sample, several, and their parts are called, and how all are brought to one length."""

    one: str
    many: str
    parts: str
    fix: str


@runtime_checkable
class Uneven(Protocol):
    """A data set whose samples may be padded."""

    @property
    def lengths(self) -> Int64[np.ndarray, " n"] | None:
        """The length of each sample; None where all are brought to one."""
        ...

    @property
    def words(self) -> Words:
        """How to speak of them."""
        ...


def shorter(dataset: object, size: Size) -> bool:
    """Whether some samples are shorter than `size` and come with padding and their lengths."""
    if not isinstance(dataset, Uneven) or dataset.lengths is None:
        return False
    return bool((dataset.lengths < size[0]).any())


def refuse_padding(dataset: object, size: Size, what: str) -> None:
    """Raises ValueError where samples are padded, which `what` cannot leave out."""
    if isinstance(dataset, Uneven) and dataset.lengths is not None and shorter(dataset, size):
        low, high, words = int(dataset.lengths.min()), int(dataset.lengths.max()), dataset.words
        have = f"{low} to {high} {words.parts}" if low < high else f"{low} {words.parts} each"
        need = "equal lengths" if low < high else f"{size[0]} without padding"
        raise ValueError(f"the {words.many} have {have}, but {what} needs {need}; {words.fix}")
