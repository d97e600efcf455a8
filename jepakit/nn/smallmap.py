"""Convolutions for maps of a few cells, for which the CPU library computes the weight's gradient slowly or wrongly.

In bfloat16, oneDNN takes 3 to 5 times as long for this gradient as a single matrix product does: errors
(positions, out), transposed, times the kernel's inputs (positions, in · kernel²). On larger maps these inputs are too
large to write out. And for a volume two cells deep, oneDNN's padding leaves parts of the gradient uninitialised.
"""

from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

MAX_CELLS: Final = 16


class SmallMapConv(nn.Conv2d):
    """nn.Conv2d with a square kernel and no bias; faster for 16 cells or fewer in bfloat16 on a CPU."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d _ _"]:
        """The next map."""
        cells = x.shape[2] * x.shape[3] // self.stride[0] ** 2
        if x.device.type != "cpu" or cells > MAX_CELLS or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cpu")
        weight, stride, padding = self.weight.to(dtype), self.stride[0], int(self.padding[0])
        out: Tensor = _SmallMapProduct.apply(x.to(dtype), weight, stride, padding)  # type: ignore[no-untyped-call]
        return out


class VolumeConv(nn.Conv3d):
    """nn.Conv3d without bias, correct for volumes that are two cells deep as well."""

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d _ _ _"]:
        """The next volume."""
        if x.shape[2] != 2:
            return super().forward(x)
        sides = [int(side) for side in self.padding for _ in range(2)]
        return F.conv3d(F.pad(x, sides[::-1]), self.weight, stride=self.stride)


class _SmallMapProduct(torch.autograd.Function):
    """F.conv2d(x, weight, stride=stride, padding=padding) and its derivatives."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        return F.conv2d(x, weight, stride=stride, padding=padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
        x, weight, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, *_ = ctx.needs_input_grad
        back = conv2d_input(x.shape, weight, error, ctx.stride, ctx.padding) if by_x else None  # type: ignore[no-untyped-call]
        return back, weight_gradient(x, weight, error, ctx.stride, ctx.padding) if by_weight else None, None, None


def weight_gradient(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "d c k k"],
    error: Float[Tensor, "b d _ _"],
    stride: int,
    pad: int,
) -> Float[Tensor, "d c k k"]:
    """The gradient by the weight: the kernel's inputs at each position, weighted by the error there."""
    out, channels, kernel, _ = weight.shape
    last = F.pad(x, (pad,) * 4).movedim(1, -1)
    # Channels last, the order of the map in memory: other orders take three times as long to write.
    seen = last.unfold(1, kernel, stride).unfold(2, kernel, stride).permute(0, 1, 2, 4, 5, 3)
    product = error.movedim(1, -1).reshape(-1, out).t() @ seen.reshape(-1, kernel * kernel * channels)
    return product.reshape(out, kernel, kernel, channels).permute(0, 3, 1, 2)
