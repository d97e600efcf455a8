"""A token-wise encoder: the same multilayer perceptron on every patch, for series and vectors."""

import math
from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..types import Signal, Size
from .encoder import Encoder, chosen
from .patch import check_patch, grid_of, patches


@dataclass(frozen=True)
class MLP:
    """`depth` hidden layers (linear, LayerNorm, ReLU) of `hidden` features, then a linear to `width`.

    `patch` is what a token sees at once: half a window of 20 samples is patch (10,), on a grid of 2.
    """

    patch: Size = (10,)
    width: int = 64
    hidden: int = 128
    depth: int = 2

    def __post_init__(self) -> None:
        check_patch(self.patch)

    def build(self, signal: Signal) -> "MLPEncoder":
        """The encoder; raises ValueError where the patch does not tile the signal."""
        return MLPEncoder(self, signal)


class MLPEncoder(Encoder):
    """The perceptron an `MLP` describes; no token sees another."""

    def __init__(self, cfg: MLP, signal: Signal) -> None:
        super().__init__()
        self.dim, self.patch = cfg.width, tuple(cfg.patch)
        self.grid = grid_of(signal.size, self.patch)
        sides = [signal.channels * math.prod(self.patch), *[cfg.hidden] * cfg.depth]
        layers: list[nn.Module] = []
        for before, after in pairwise(sides):
            layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sides[-1], self.dim))

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """See Encoder.forward."""
        out: Tensor = self.layers(patches(x, self.patch, chosen(keep, read)).flatten(2))
        return out
