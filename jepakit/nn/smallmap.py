"""Convolutions for maps of a few cells, where the processor's own way to the weight's gradient is slow, or wrong.

In bfloat16, oneDNN takes 3 to 5 times as long for it as one product of matrices does: errors (places, out), transposed,
times what the kernel saw (places, in · kernel²). On larger maps what the kernel saw is too much to write out. And where
a volume is two cells deep, it pads in such a way that parts of the gradient are uninitialised memory.
"""

from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

CELLS: Final = 16


class SmallMapConv(nn.Conv2d):
    """nn.Conv2d of a square kernel without bias; where a processor computes 16 cells or fewer in bfloat16, faster."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d _ _"]:
        """The next map."""
        cells = x.shape[2] * x.shape[3] // self.stride[0] ** 2
        if x.device.type != "cpu" or cells > CELLS or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cpu")
        weight, stride, padding = self.weight.to(dtype), self.stride[0], int(self.padding[0])
        out: Tensor = _Product.apply(x.to(dtype), weight, stride, padding)  # type: ignore[no-untyped-call]
        return out


class VolumeConv(nn.Conv3d):
    """nn.Conv3d without bias, also of volumes that are two cells deep."""

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d _ _ _"]:
        """The next volume."""
        if x.shape[2] != 2:
            return super().forward(x)
        sides = [int(side) for side in self.padding for _ in range(2)]
        return F.conv3d(F.pad(x, sides[::-1]), self.weight, stride=self.stride)


class _Product(torch.autograd.Function):
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
        return back, of_weight(x, weight, error, ctx.stride, ctx.padding) if by_weight else None, None, None


def of_weight(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "d c k k"],
    error: Float[Tensor, "b d _ _"],
    stride: int,
    pad: int,
) -> Float[Tensor, "d c k k"]:
    """The gradient by the weight: what the kernel saw at each place, weighted by the error there."""
    out, channels, kernel, _ = weight.shape
    last = F.pad(x, (pad,) * 4).movedim(1, -1)
    # Channels last, the order of the map in memory: the other orders take three times as long to write.
    seen = last.unfold(1, kernel, stride).unfold(2, kernel, stride).permute(0, 1, 2, 4, 5, 3)
    product = error.movedim(1, -1).reshape(-1, out).t() @ seen.reshape(-1, kernel * kernel * channels)
    return product.reshape(out, kernel, kernel, channels).permute(0, 3, 1, 2)
