"""Completed samples on their way to a file, and what writes them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from ..data import Dataset
from ..evals.generation import Tally


class Chunk(NamedTuple):
    """Which items they are, what was made of them, and what they are in truth; raw units, on the CPU."""

    id: list[int]
    made: Float[Tensor, "b c ..."]
    true: Float[Tensor, "b c ..."]


Write = Callable[[Iterator[Chunk], Path, Dataset, Bool[Tensor, "..."], Tensor, int], Tally]
"""Writes all chunks to a folder, knowing what of a sample (*size) is hidden, the deviations of the channels, and how
many items there are."""
