"""Readouts: from the tokens of a frame, on a grid, to one vector.

mlp         the tokens side by side through a perceptron; for one token, or where places matter by themselves
conv        convolutions over the grid, then a perceptron on the mean and the maximum over cells: relations between
            neighbours, wherever they are
attention   transformer blocks with relative positions, then a perceptron on the mean token: relations between any
            cells, by their offset
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import Grid
from .dynamics import frame_grid
from .mlp import Norm, build_perceptron, count_with_differences, with_differences
from .transformer import Attention, FeedForward, check_heads, check_stack


@runtime_checkable
class ReadoutConfig(Protocol):
    """A frozen dataclass that builds a network (…, N, dim) → (…, out)."""

    def build(self, dim: int, out: int, grid: Grid) -> nn.Module:
        """The readout of tokens of `dim` features on `grid`. Raises ValueError if the settings do not fit."""
        ...


@dataclass(frozen=True)
class FlatMLP:
    """A perceptron of `depth` hidden layers (linear, LayerNorm, ReLU) of `hidden` features on all tokens in a row.

    `norm` "none" drops the LayerNorms. With `differences`, it also reads the differences of all pairs of features; for
    features that are coordinates.
    """

    hidden: int = 256
    depth: int = 2
    norm: Norm = "layer"
    differences: bool = False

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.depth < 0:
            raise ValueError(f"hidden is {self.hidden} and depth {self.depth}; give 1 feature and 0 layers or more")

    def build(self, dim: int, out: int, grid: Grid) -> "FlatMLPReadout":
        """The readout; see `ReadoutConfig.build`."""
        return FlatMLPReadout(self, dim * prod(grid), out)


class FlatMLPReadout(nn.Module):
    """The network that `FlatMLP` describes."""

    def __init__(self, cfg: FlatMLP, width: int, out: int) -> None:
        super().__init__()
        self.differences = cfg.differences
        seen = count_with_differences(width) if cfg.differences else width
        self.layers = build_perceptron([seen, *[cfg.hidden] * cfg.depth, out], cfg.norm)

    def forward(self, tokens: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b o"]:
        """The vector of every frame."""
        features = tokens.flatten(-2)
        vector: Tensor = self.layers(with_differences(features) if self.differences else features)
        return vector


@dataclass(frozen=True)
class ConvReadout:
    """`depth` convolutions of kernel 3 and `width` channels over the grid, then a perceptron with `hidden` features.

    The perceptron reads the mean and the maximum over cells.
    """

    width: int = 64
    depth: int = 3
    hidden: int = 256

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.hidden) < 1:
            raise ValueError(f"width is {self.width}, depth {self.depth} and hidden {self.hidden}; give 1 or more")

    def build(self, dim: int, out: int, grid: Grid) -> "ConvReadoutNetwork":
        """The readout; see `ReadoutConfig.build`."""
        return ConvReadoutNetwork(self, dim, out, grid)


class ConvReadoutNetwork(nn.Module):
    """The network that `ConvReadout` describes."""

    def __init__(self, cfg: ConvReadout, dim: int, out: int, grid: Grid) -> None:
        super().__init__()
        self.grid = frame_grid(grid)
        kernel = 3 if prod(self.grid) > 1 else 1
        layers: list[nn.Module] = []
        for a, b in pairwise([dim, *[cfg.width] * cfg.depth]):
            layers += [nn.Conv2d(a, b, kernel, padding=kernel // 2), nn.GELU()]
        self.convs = nn.Sequential(*layers)
        self.layers = build_perceptron([2 * cfg.width, cfg.hidden, out], "layer")

    def forward(self, tokens: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b o"]:
        """The vector of every frame."""
        maps = self.convs(tokens.flatten(0, -3).transpose(1, 2).reshape(-1, tokens.shape[-1], *self.grid)).flatten(2)
        vector: Tensor = self.layers(torch.cat([maps.mean(-1), maps.amax(-1)], -1))
        return vector.reshape(*tokens.shape[:-2], -1)


@dataclass(frozen=True)
class AttentionReadout:
    """`depth` transformer blocks of `width` features with relative positions, then a perceptron; `heads` divides it."""

    width: int = 64
    depth: int = 2
    heads: int = 4
    mlp_ratio: float = 2.0
    hidden: int = 256

    def __post_init__(self) -> None:
        check_stack(self.width, self.depth, self.mlp_ratio)
        check_heads(self.width, self.heads)
        if self.hidden < 1:
            raise ValueError(f"hidden is {self.hidden}; give 1 or more")

    def build(self, dim: int, out: int, grid: Grid) -> "AttentionReadoutNetwork":
        """The readout; see `ReadoutConfig.build`."""
        return AttentionReadoutNetwork(self, dim, out, grid)


class AttentionReadoutNetwork(nn.Module):
    """The network that `AttentionReadout` describes."""

    def __init__(self, cfg: AttentionReadout, dim: int, out: int, grid: Grid) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, cfg.width)
        cells = frame_grid(grid)
        self.blocks = nn.ModuleList(RelativeBlock(cfg, cells) for _ in range(cfg.depth))
        self.layers = build_perceptron([cfg.width, cfg.hidden, out], "layer")

    def forward(self, tokens: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b o"]:
        """The vector of every frame."""
        x = self.embed(tokens.flatten(0, -3))
        for block in self.blocks:
            x = block(x)
        vector: Tensor = self.layers(x.mean(1))
        return vector.reshape(*tokens.shape[:-2], -1)


class RelativeBlock(nn.Module):
    """A pre-norm transformer block whose attention adds a learned number per head and offset of two cells.

    Source of the bias: Swin, arXiv:2103.14030.
    """

    offsets: Tensor

    def __init__(self, cfg: AttentionReadout, grid: Grid) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(cfg.width), nn.LayerNorm(cfg.width)
        self.attn = Attention(cfg.width, cfg.heads)
        self.mlp = FeedForward(cfg.width, int(cfg.width * cfg.mlp_ratio))
        h, w = grid
        rows, columns = (axis.flatten() for axis in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))
        offsets = (rows[:, None] - rows + h - 1) * (2 * w - 1) + (columns[:, None] - columns + w - 1)
        self.register_buffer("offsets", offsets, persistent=False)
        # A single cell has one offset, to itself, which attention cannot tell from none.
        self.bias = nn.Parameter(0.02 * torch.randn(cfg.heads, (2 * h - 1) * (2 * w - 1))) if h * w > 1 else None

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        """The tokens after the block."""
        q, k, v = self.attn.project_qkv(self.norm1(x))
        bias = None if self.bias is None else self.bias[:, self.offsets].to(q.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, bias)
        x = x + self.attn.proj(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


# The names of the registry.
READOUTS = {"mlp": FlatMLP(), "conv": ConvReadout(), "attention": AttentionReadout()}
