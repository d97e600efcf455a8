"""A residual network (ResNet) that sees the whole picture at once, for methods that compare views."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import Signal
from .conv import MapNorm
from .encoder import Encoder
from .patch import grid_of
from .smallmap import SmallMapConv, VolumeConv


@dataclass(frozen=True)
class ResNet:
    """Basic residual blocks, `blocks` per stage; each stage but the first halves the map and doubles the width.

    `stem` is the stride of the first convolution: 1 or 2 for pictures of 32 px, 4 for larger ones. A token is one cell
    of the last map. (2, 2, 2, 2) with width 64 and stem 1 is the usual ResNet-18 for CIFAR-10. It cannot leave patches
    out, so methods with masks cannot use it. Source: He et al. 2016, arXiv:1512.03385.
    """

    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    stem: int = 1

    def __post_init__(self) -> None:
        if min(self.width, self.stem, *self.blocks, len(self.blocks)) < 1:
            raise ValueError(
                f"width is {self.width}, blocks {self.blocks} and stem {self.stem}; give a width and a stem of 1 or "
                "more and one stage or more, each of 1 block or more"
            )

    def build(self, signal: Signal) -> "ResNetEncoder":
        """The encoder. Raises ValueError if its stride does not divide the signal's size."""
        return ResNetEncoder(self, signal)


class ResNetEncoder(Encoder):
    """The network that `ResNet` describes; every token sees its surroundings."""

    leaves_out = False
    mixes = True

    def __init__(self, cfg: ResNet, signal: Signal) -> None:
        super().__init__()
        axes, stages = len(signal.size), len(cfg.blocks)
        self.dim = cfg.width * 2 ** (stages - 1)
        self.patch = (cfg.stem * 2 ** (stages - 1),) * axes
        self.grid = grid_of(signal.size, self.patch)
        kernel = max(3, 2 * cfg.stem)
        self.stem = conv_layer(axes, signal.channels, cfg.width, kernel, cfg.stem)
        self.norm = MapNorm(cfg.width)
        blocks, before = [], cfg.width
        for stage, count in enumerate(cfg.blocks):
            after = cfg.width * 2**stage
            for k in range(count):
                blocks.append(Block(axes, before, after, stride=2 if stage and k == 0 else 1))
                before = after
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """The cells of the last map as tokens (B, N, D), or those at `read`. Raises ValueError if `keep` is given."""
        if keep is not None:
            raise ValueError("a residual network sees the whole picture; only encoders with patches can leave some out")
        grid_of(tuple(x.shape[2:]), self.patch)
        # Features last in memory, the order in which normalisations read: it saves a tenth of a step's time.
        x = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
        h = F.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            h = block(h)
        tokens = h.flatten(2).transpose(1, 2)
        return tokens if read is None else tokens.gather(1, read[..., None].expand(-1, -1, self.dim))


class Block(nn.Module):
    """x + two convolutions of kernel 3, each normalised; where the shape changes, the shortcut is a linear."""

    def __init__(self, axes: int, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv_layer(axes, before, after, 3, stride), MapNorm(after)
        self.conv2, self.norm2 = conv_layer(axes, after, after, 3, 1), MapNorm(after)
        self.shortcut = shortcut_layers(axes, before, after, stride)

    def forward(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b d ..."]:
        """The next map."""
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


def shortcut_layers(axes: int, before: int, after: int, stride: int) -> nn.Sequential:
    """The shortcut past a block: the identity, or a normalised linear if the shape changes."""
    changes = stride > 1 or before != after
    return nn.Sequential(*[conv_layer(axes, before, after, 1, stride), MapNorm(after)] if changes else [])


def conv_layer(axes: int, before: int, after: int, kernel: int, stride: int) -> nn.Module:
    """A convolution without bias over `axes` axes that divides every side by `stride`."""
    kind = (nn.Conv1d, SmallMapConv, VolumeConv)[axes - 1]
    layer = kind(before, after, kernel, stride=stride, padding=(kernel - stride + 1) // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
