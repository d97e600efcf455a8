"""Completed samples on their way to a file."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Chunk(NamedTuple):
    """Which items they are, what was made of them, and what they are in truth; raw units, on the CPU."""

    id: list[int]
    made: Float[Tensor, "b c ..."]
    true: Float[Tensor, "b c ..."]
