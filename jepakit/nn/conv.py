"""A token-wise encoder: the same small convolutional network on every patch."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import Signal, Size
from .encoder import Encoder, cells_to_compute
from .heads import BatchNorm
from .mlp import build_perceptron
from .patch import check_patch, given_patch, grid_of, patches

Norm = Literal["group", "batch", "none"]


@dataclass(frozen=True)
class CNN:
    """Convolutions of `kernel` and `stride` (then GroupNorm, GELU), one per entry of `channels`, and a final linear.

    `patch` is the part of the signal that a token sees; each convolution divides its sides by the stride, down to one
    cell, and the linear reads the remaining map. `hidden` inserts more linears, each with LayerNorm, before the last.

    `norm` "batch" mixes the patches of a batch, as in the BiJEPA paper: gradient accumulation then changes the numbers.
    `norm` "none" also drops the LayerNorms.
    """

    patch: Size | None = (8, 8)
    width: int = 128
    channels: tuple[int, ...] = (32, 64, 128)
    hidden: tuple[int, ...] = ()
    norm: Norm = "group"
    activation: Literal["gelu", "relu"] = "gelu"
    kernel: int = 3
    stride: int = 2

    def __post_init__(self) -> None:
        if self.stride < 1 or self.kernel < self.stride or self.kernel % 2 == 0:
            raise ValueError(
                f"kernel is {self.kernel} and stride {self.stride}; give an odd kernel no smaller than the stride"
            )
        if self.patch is None:
            return
        check_patch(self.patch)
        if len(self.patch) > 3:
            raise ValueError(f"patch {self.patch} has {len(self.patch)} axes; convolutions take 1, 2 or 3")

    def build(self, signal: Signal) -> "CNNEncoder":
        """The encoder. Raises ValueError if the patch does not tile the signal."""
        return CNNEncoder(self, signal)


# The name of the registry, where the file's is another one.
ENCODERS = {"cnn": CNN()}


class CNNEncoder(Encoder):
    """The network that `CNN` describes; no token sees another."""

    def __init__(self, cfg: CNN, signal: Signal) -> None:
        super().__init__()
        self.dim, self.patch = cfg.width, given_patch(cfg.patch)
        self.grid = grid_of(signal.size, self.patch)
        # There is nothing to convolve along an axis of one cell.
        sides = tuple(side for side in self.patch if side > 1) or (1,)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(sides) - 1]
        activation = nn.GELU if cfg.activation == "gelu" else nn.ReLU
        layers: list[nn.Module] = []
        self.sides, before = sides, signal.channels
        for after in cfg.channels:
            # No stride over a single cell: in bfloat16, oneDNN leaves that weight's gradient uninitialised.
            stride: Any = tuple(min(side, cfg.stride) for side in sides)
            layers += [
                conv(before, after, cfg.kernel, stride, padding=cfg.kernel // 2),
                *conv_norm_layers(cfg.norm, after),
                activation(),
            ]
            before, sides = after, tuple(-(-side // step) for side, step in zip(sides, stride, strict=True))
        widths = [before * math.prod(sides), *cfg.hidden, self.dim]
        head = build_perceptron(widths, "none" if cfg.norm == "none" else "layer", activation)
        self.layers = nn.Sequential(*layers, nn.Flatten(), *head)

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """Tokens (B, K, D) of the patches at `keep`, or (B, R, D) at `read`; see `Encoder.forward`."""
        cut = patches(x, self.patch, cells_to_compute(keep, read))
        out: Tensor = self.layers(cut.reshape(-1, cut.shape[2], *self.sides))
        return out.reshape(*cut.shape[:2], self.dim)


class MapNorm(nn.Module):
    """Batch normalisation of maps (B, C, *sides), over samples and positions of all ranks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)

    def forward(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        """The maps, normalised."""
        out: Tensor = self.norm(x.movedim(1, -1))
        return out.movedim(-1, 1)


class PatchNorm(nn.GroupNorm):
    """GroupNorm with one group of all channels and positions, by LayerNorm's kernel, whose backward is vectorised."""

    def forward(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        """The maps, normalised."""
        scale, shift = (p.reshape(-1, *[1] * (x.ndim - 2)) for p in (self.weight, self.bias))
        return F.layer_norm(x, x.shape[1:], eps=self.eps) * scale + shift


def conv_norm_layers(norm: Norm, channels: int) -> list[nn.Module]:
    """The layers between a convolution and its activation."""
    if norm == "none":
        return []
    # With one group, every patch has its own statistics, so no token depends on another.
    return [MapNorm(channels) if norm == "batch" else PatchNorm(1, channels)]
