"""Layers on top of representations: projectors, and BatchNorm over all ranks."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.distributed import global_moments, world_size


class BatchNorm(nn.Module):
    """Batch normalisation of features-last tensors (…, D) with the moments of all ranks, on CPU and GPU.

    Two ranks give the loss and gradients that one process gives for the same global batch; in one process it equals
    `torch.nn.BatchNorm1d`, and its state has the same names. Statistics are at least fp32.
    """

    held: bool = False  # stays in evaluation mode, so that the running moments do not change
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, dim: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def train(self, mode: bool = True) -> "BatchNorm":
        """Switch to training or evaluation mode; always to evaluation if the statistics are held."""
        return super().train(mode and not self.held)

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """x, normalised with the batch's moments in training and with the running ones in evaluation."""
        if world_size() == 1:
            return self._normalize_alone(x.flatten(0, -2)).reshape(x.shape)
        rows = x.flatten(0, -2).to(torch.promote_types(x.dtype, self.weight.dtype))
        mean, var = self._batch_moments(rows)
        out = (rows - mean) * (var + self.eps).rsqrt() * self.weight + self.bias
        return out.to(x.dtype).reshape(x.shape)

    def _normalize_alone(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        # The fused kernel gives the same numbers and is several times as fast on the maps of a convolution.
        if self.training:
            self.num_batches_tracked += 1
        return F.batch_norm(
            rows, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )

    def _batch_moments(self, rows: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        if not self.training:
            return self.running_mean, self.running_var
        mean, var, count = global_moments(rows)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = var * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return mean, var


@dataclass(frozen=True)
class Projector:
    """`layers` linears to `out` features; each but the last has `hidden` features, BatchNorm and ReLU.

    A width of None equals the input width. With 0 layers it is the identity, whatever the widths.
    """

    layers: int = 2
    hidden: int | None = None
    out: int | None = None

    def __post_init__(self) -> None:
        if self.layers < 0 or any(width is not None and width < 1 for width in (self.hidden, self.out)):
            raise ValueError(
                f"a projector has {self.layers} layers of {self.hidden} and {self.out} features; give 0 layers or more "
                "(0: none), and widths of 1 or more or auto"
            )

    def width(self, dim: int) -> int:
        """The number of output features for `dim` input features."""
        return self.out or dim if self.layers else dim

    def build(self, dim: int) -> nn.Sequential:
        """The network, for tensors (…, dim)."""
        layers: list[nn.Module] = []
        before = dim
        for _ in range(self.layers - 1):
            # No biases: the normalisation, and after the last layer the loss, would remove any constant.
            after = self.hidden or dim
            layers += [nn.Linear(before, after, bias=False), BatchNorm(after), nn.ReLU()]
            before = after
        return nn.Sequential(*layers, *[nn.Linear(before, self.width(dim), bias=False)] * bool(self.layers))
