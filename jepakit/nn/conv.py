"""A token-wise encoder: the same small convolutional network on every patch."""

import math
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..types import Signal, Size
from .encoder import Encoder, chosen
from .patch import check_patch, grid_of, patches


@dataclass(frozen=True)
class CNN:
    """Convolutions of kernel 3 and stride 2 (then GroupNorm, GELU), one per entry of `channels`, then a linear.

    `patch` is what a token sees at once; the convolutions halve it, and the linear reads all that is left.
    """

    patch: Size = (8, 8)
    width: int = 128
    channels: tuple[int, ...] = (32, 64, 128)

    def __post_init__(self) -> None:
        check_patch(self.patch)
        if len(self.patch) > 3:
            raise ValueError(f"patch {self.patch} has {len(self.patch)} axes; convolutions take 1, 2 or 3")

    def build(self, signal: Signal) -> "CNNEncoder":
        """The encoder; raises ValueError where the patch does not tile the signal."""
        return CNNEncoder(self, signal)


class CNNEncoder(Encoder):
    """The network a `CNN` describes; no token sees another."""

    def __init__(self, cfg: CNN, signal: Signal) -> None:
        super().__init__()
        self.dim, self.patch = cfg.width, tuple(cfg.patch)
        self.grid = grid_of(signal.size, self.patch)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(self.patch) - 1]
        layers: list[nn.Module] = []
        before, sides = signal.channels, self.patch
        for after in cfg.channels:
            # One group: the statistics of a patch are its own, so no token depends on another.
            layers += [conv(before, after, 3, stride=2, padding=1), nn.GroupNorm(1, after), nn.GELU()]
            before, sides = after, tuple(-(-s // 2) for s in sides)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * math.prod(sides), self.dim))

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """See Encoder.forward."""
        cut = patches(x, self.patch, chosen(keep, read))
        out: Tensor = self.layers(cut.flatten(0, 1))
        return out.reshape(*cut.shape[:2], self.dim)
