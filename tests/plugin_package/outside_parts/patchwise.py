"""One linear layer on every patch."""

import math
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.nn.encoder import Encoder, cells_to_compute
from jepakit.nn.patch import grid_of, patches
from jepakit.types import Signal, Size


@dataclass(frozen=True)
class Patchwise:
    """A token of `width` features from each patch."""

    patch: Size = (4, 4)
    width: int = 16

    def build(self, signal: Signal) -> "PatchwiseEncoder":
        """The encoder; raises ValueError where the patch does not tile the signal."""
        return PatchwiseEncoder(self, signal)


class PatchwiseEncoder(Encoder):
    """No token sees another."""

    def __init__(self, cfg: Patchwise, signal: Signal) -> None:
        super().__init__()
        self.dim, self.patch, self.grid = cfg.width, tuple(cfg.patch), grid_of(signal.size, tuple(cfg.patch))
        self.linear = nn.Linear(signal.channels * math.prod(self.patch), self.dim)

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """Tokens of the patches at `keep`, of which those at `read`."""
        out: Tensor = self.linear(patches(x, self.patch, cells_to_compute(keep, read)).flatten(2))
        return out
