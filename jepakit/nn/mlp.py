"""Perceptrons: as an encoder, the same one on every patch; as a predictor, from one token to another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..types import Grid, Masks, Signal, Size
from .encoder import Encoder, cells_to_compute
from .heads import BatchNorm
from .patch import check_patch, given_patch, grid_of, patches

Norm = Literal["layer", "none"]


@dataclass(frozen=True)
class MLP:
    """`depth` hidden layers (linear, LayerNorm, ReLU) of `hidden` features, then a linear to `width`.

    `patch` is the part of the signal that a token sees: half a window of 20 samples is patch (10,), on a grid of 2.
    None is half of the signal along its last axis.
    `norm` "none" drops the LayerNorms.
    """

    patch: Size | None = (10,)
    width: int = 64
    hidden: int = 128
    depth: int = 2
    norm: Norm = "layer"

    def __post_init__(self) -> None:
        if self.patch is not None:
            check_patch(self.patch)

    def build(self, signal: Signal) -> "MLPEncoder":
        """The encoder. Raises ValueError if the patch does not tile the signal."""
        return MLPEncoder(self, signal)


class MLPEncoder(Encoder):
    """The perceptron that `MLP` describes; no token sees another."""

    def __init__(self, cfg: MLP, signal: Signal) -> None:
        super().__init__()
        self.dim, self.patch = cfg.width, given_patch(cfg.patch)
        self.grid = grid_of(signal.size, self.patch)
        seen = signal.channels * math.prod(self.patch)
        self.layers = build_perceptron([seen, *[cfg.hidden] * cfg.depth, self.dim], cfg.norm)

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """Tokens (B, K, D) of the patches at `keep`, or (B, R, D) at `read`; see `Encoder.forward`."""
        out: Tensor = self.layers(patches(x, self.patch, cells_to_compute(keep, read)).flatten(2))
        return out


@dataclass(frozen=True)
class Perceptron:
    """A predictor from the visible token to the hidden one: `depth` hidden layers as in `MLP`, then a linear.

    For grids of two tokens, which need no positions. Source: BiJEPA, arXiv:2603.00049.
    """

    hidden: int = 128
    depth: int = 1
    norm: Norm = "layer"

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.depth < 0:
            raise ValueError(f"hidden is {self.hidden} and depth {self.depth}; give 1 feature and 0 layers or more")

    def build(self, dim: int, grid: Grid, out: int | None = None) -> "PerceptronPredictor":
        """The predictor from tokens of `dim` features to tokens of `out` (None: `dim`).

        Raises ValueError unless the grid has two tokens.
        """
        if math.prod(grid) != 2:
            raise ValueError(
                f"the mlp predictor maps one token to the other, but the grid {grid} has {math.prod(grid)}; give an "
                "encoder.patch of half the signal, or predictor.name transformer"
            )
        return PerceptronPredictor(self, dim, out or dim)


class PerceptronPredictor(nn.Module):
    """The network that `Perceptron` describes."""

    def __init__(self, cfg: Perceptron, dim: int, out: int) -> None:
        super().__init__()
        self.layers = build_perceptron([dim, *[cfg.hidden] * cfg.depth, out], cfg.norm)

    def forward(self, context: Float[Tensor, "b 1 d"], masks: Masks) -> Float[Tensor, "b 1 1 _"]:
        """The prediction at the other token."""
        out: Tensor = self.layers(context)
        return out[:, None]


def build_perceptron(
    sides: Sequence[int], norm: Norm | Literal["batch"] = "layer", activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Linears from each of `sides` to the next; all but the last are followed by the norm and by `activation`."""
    layers: list[nn.Module] = []
    *hidden, last = pairwise(sides)
    for before, after in hidden:
        # BatchNorm would remove a bias.
        layers += [nn.Linear(before, after, bias=norm != "batch"), *norm_layers(norm, after), activation()]
    return nn.Sequential(*layers, nn.Linear(*last))


def norm_layers(norm: Norm | Literal["batch"], width: int) -> list[nn.Module]:
    """The normalisation layers after a hidden linear."""
    if norm == "none":
        return []
    return [BatchNorm(width) if norm == "batch" else nn.LayerNorm(width)]


def with_differences(features: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
    """The features, and the differences of all pairs of them: D (D + 1) / 2 numbers.

    They are linear in the features, yet where something depends on the sign of a small difference, such as on the side
    of a wall, networks learn it from differences and hardly from the features.
    """
    first, second = torch.triu_indices(features.shape[-1], features.shape[-1], 1, device=features.device)
    return torch.cat([features, features[..., first] - features[..., second]], -1)


def count_with_differences(features: int) -> int:
    """The number of features that `with_differences` returns."""
    return features * (features + 1) // 2
