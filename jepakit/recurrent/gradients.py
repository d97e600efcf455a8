"""Gradients computed beside autograd: losses that know their own gradients, and sums over many losses in place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Work = Callable[[], tuple[Float[Tensor, ""], Sequence[Tensor]]]


def known_gradient_loss(work: Work, parameters: Sequence[nn.Parameter]) -> Float[Tensor, ""]:
    """A graph node for the loss that `work` computes together with its gradients by `parameters`.

    Its backward returns those gradients times the incoming gradient, so loss scaling, accumulation, term weights and
    DDP all work; it can be differentiated once. `work` runs without autocast: traces are float32 or float64.
    """
    return cast(Tensor, _KnownGradient.apply(work, *parameters))  # type: ignore[no-untyped-call]


class _KnownGradient(torch.autograd.Function):
    """A loss whose gradients are computed together with it."""

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


@dataclass(frozen=True, eq=False)
class SquaredError:
    """The mean squared error of a linear layer's prediction: a loss for `observe` with the layer's parameters.

    Its gradients are written out, because autograd takes three times as long.
    """

    layer: nn.Linear

    def __call__(self, before: Float[Tensor, "n w"], now: Float[Tensor, "n w"]) -> Float[Tensor, ""]:
        """The loss as an ordinary function, for autograd."""
        return F.mse_loss(self.layer(before), now)

    def known(self, before: Float[Tensor, "n w"], now: Float[Tensor, "n w"]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The loss, and its gradients by `before` and by the layer's parameters."""
        weight, bias = self.layer.weight, self.layer.bias
        wrong = F.linear(before, weight, bias).sub_(now)
        by = wrong * (2 / wrong.numel())
        loss = torch.dot(wrong.flatten(), by.flatten()) / 2
        return loss, by @ weight, [by.T @ before] if bias is None else [by.T @ before, by.sum(0)]


class GradientAccumulator(TorchFunctionMode):
    """Adds up the gradients of one loss after another in place: `sums` has the parameters' shapes and starts at zero.

    Compute a loss inside the context, then differentiate it with `grad`. If a linear layer applies some of the
    parameters, its gradient goes straight into the sum: autograd would make a second tensor of the weight's size.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.parameters = list(parameters)
        self.sums = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.adding = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation; a linear layer runs with its own gradient."""
        # Autocast and torch.func handle linear layers in their own way.
        if (
            func is F.linear
            and not kwargs
            and not torch.is_autocast_enabled(args[0].device.type)
            and not in_functorch_transform()
        ):
            x, weight, bias = (*args, None)[:3]
            to = [self.sum_of(p) for p in (weight, bias)]
            if all((p is None) == (t is None) for p, t in zip((weight, bias), to, strict=True)):
                return _Linear.apply(self, x, weight, bias, *to)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))

    def sum_of(self, p: Tensor | None) -> Tensor | None:
        """The sum for a parameter's gradient; None if p is not one of the parameters."""
        return next((s for q, s in zip(self.parameters, self.sums, strict=True) if q is p), None)

    def grad(self, loss: Float[Tensor, ""], wanted: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The gradients by `wanted`, zeros if there is none; gradients by the parameters are added to the sums."""
        self.adding = True
        try:
            found = torch.autograd.grad(loss, [*wanted, *self.parameters], allow_unused=True)
        finally:
            self.adding = False
        add_in_place(self.sums, found[len(wanted) :])
        return tuple(torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=False))


def in_functorch_transform() -> bool:
    """Whether a torch.func transform is active."""
    return bool(torch._C._are_functorch_transforms_active())


class _Linear(torch.autograd.Function):
    """x Wᵀ + b, whose gradients by W and b are added to their sums."""

    @staticmethod
    def forward(
        ctx: Any, added: GradientAccumulator, x: Tensor, weight: Tensor, bias: Tensor | None, *to: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.added, ctx.to = added, to
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by, rows = (t.reshape(-1, t.shape[-1]) for t in (grad, x))
        below = grad @ weight if ctx.needs_input_grad[1] else None
        if not ctx.added.adding:
            # A loss may compute its own gradients on the way.
            return None, below, by.T @ rows, by.sum(0) if ctx.needs_input_grad[3] else None, None, None
        to_weight, to_bias = ctx.to
        to_weight.addmm_(by.T, rows)
        if to_bias is not None:
            to_bias.add_(by.sum(0))
        return None, below, None, None, None, None


def add_in_place(sums: Sequence[Tensor], parts: Sequence[Tensor | None]) -> None:
    """Add each part that is not None to its sum, in place."""
    for total, part in zip(sums, parts, strict=True):
        if part is not None:
            total.add_(part)
