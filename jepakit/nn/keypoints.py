"""An encoder that says where things are: the features of a picture are places on it, as coordinates.

    p_k = Σ_c softmax_c(3 h_k(m_c)) · (position of c + r o_k(m_c))            k = 1 … `points`

over the cells c of a map m, which a convolution and residual linears make of the picture; h and o are linears. An
offset o places a thing more finely than a cell, and r is about half a cell. Positions are between −3 and 3 along each
axis of the picture.

Source: deep spatial autoencoders, arXiv:1509.06113; there, cells do not move their positions.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import Signal, Size
from .encoder import Encoder, cells_to_compute
from .patch import check_patch, given_patch, grid_of, patches

EXTENT = 3.0  # half a side of the picture, in the units of coordinates
SHARPNESS = 3.0  # the factor on h


@dataclass(frozen=True)
class Keypoints:
    """`points` places on every patch, found by a convolution of `width` channels and `depth` residual linears.

    `patch` is the part of the signal that a token sees, usually a whole frame. A token holds the coordinates of its
    places, first along the first axis of the patch that has more than one cell: 2 · `points` features for a picture.
    """

    patch: Size | None = None
    points: int = 8
    width: int = 32
    depth: int = 2
    kernel: int = 7
    stride: int = 4

    def __post_init__(self) -> None:
        if min(self.points, self.width, self.stride) < 1 or self.depth < 0:
            raise ValueError(
                f"points is {self.points}, width {self.width}, stride {self.stride} and depth {self.depth}; give 1 or "
                "more, and a depth of 0 or more"
            )
        if self.kernel < self.stride or self.kernel % 2 == 0:
            raise ValueError(
                f"kernel is {self.kernel} and stride {self.stride}; give an odd kernel no smaller than the stride"
            )
        if self.patch is not None:
            check_patch(self.patch)

    def build(self, signal: Signal) -> "KeypointEncoder":
        """The encoder. Raises ValueError if the patch does not tile the signal, or has no places."""
        return KeypointEncoder(self, signal)


class KeypointEncoder(Encoder):
    """The network that `Keypoints` describes; no token sees another."""

    cells: Tensor

    def __init__(self, cfg: Keypoints, signal: Signal) -> None:
        super().__init__()
        self.patch = given_patch(cfg.patch)
        self.grid = grid_of(signal.size, self.patch)
        self.sides = tuple(side for side in self.patch if side > 1)
        if not 1 <= len(self.sides) <= 3:
            raise ValueError(
                f"patch {self.patch} has no places to find; give one with more than one cell along an axis"
            )
        axes = len(self.sides)
        self.dim = axes * cfg.points
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.conv = conv(signal.channels, cfg.width, cfg.kernel, cfg.stride, padding=cfg.kernel // 2)
        self.layers = nn.ModuleList(nn.Linear(cfg.width, cfg.width) for _ in range(cfg.depth))
        self.heat = nn.Linear(cfg.width, cfg.points)
        self.offset = nn.Linear(cfg.width, axes * cfg.points)
        counts = [-(-side // cfg.stride) for side in self.sides]
        # A single cell is in the middle.
        lines = [torch.linspace(-EXTENT, EXTENT, count) if count > 1 else torch.zeros(1) for count in counts]
        cells = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).reshape(math.prod(counts), 1, axes)
        self.register_buffer("cells", cells, persistent=False)
        self.half_cell = EXTENT / max(counts)

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """Tokens (B, K, D) of the patches at `keep`, or (B, R, D) at `read`; see `Encoder.forward`."""
        cut = patches(x, self.patch, cells_to_compute(keep, read))
        places = self.places(cut.reshape(-1, cut.shape[2], *self.sides))
        return places.reshape(*cut.shape[:2], self.dim)

    def places(self, picture: Float[Tensor, "r c ..."]) -> Float[Tensor, "r k a"]:
        """The coordinates (R, K, axes) of the places on R pictures (R, C, …), along each axis of the picture."""
        m = F.gelu(self.conv(picture)).flatten(2).transpose(1, 2)
        for linear in self.layers:
            m = m + F.gelu(linear(m))
        weight = (SHARPNESS * self.heat(m)).softmax(1)
        moved = self.cells + self.half_cell * self.offset(m).unflatten(-1, (weight.shape[-1], -1))
        places: Tensor = (weight[..., None] * moved).sum(1)
        return places
