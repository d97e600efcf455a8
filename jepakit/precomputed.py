"""A loss whose gradients are known when it is, such as those of forward propagation, as a node of the graph."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Work = Callable[[], tuple[Float[Tensor, ""], Sequence[Tensor]]]


def differentiable(work: Work, parameters: Sequence[nn.Parameter]) -> Float[Tensor, ""]:
    """The loss that `work` computes together with its gradients by `parameters`, as a node of the graph.

    Its backward returns those gradients times what comes from above, so that scaling, accumulation, weights of terms
    and DDP hold; it can be differentiated once. `work` runs without autocast: traces are float32 or float64.
    """
    return cast(Tensor, _Given.apply(work, *parameters))  # type: ignore[no-untyped-call]


class _Given(torch.autograd.Function):
    """A loss whose gradients are known when it is."""

    @staticmethod
    def forward(ctx: Any, work: Work, *parameters: Tensor) -> Tensor:
        with torch.autocast(parameters[0].device.type, enabled=False):
            loss, gradients = work()
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(grad * g for g in ctx.saved_tensors)
