"""Every target is predicted from the mean of the context."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from jepakit.types import Grid, Masks


@dataclass(frozen=True)
class Average:
    """One linear layer on the mean of the context tokens, with or without a `bias`."""

    bias: bool = True

    def build(self, dim: int, grid: Grid, out: int | None = None) -> "AveragePredictor":
        """The predictor from `dim` features to `out`."""
        return AveragePredictor(dim, out or dim, self.bias)


class AveragePredictor(nn.Module):
    """Blind to positions."""

    def __init__(self, dim: int, out: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out, bias)

    def forward(self, context: Float[Tensor, "b k d"], masks: Masks) -> Float[Tensor, "b m kt _"]:
        """The same prediction for every target token."""
        pred: Tensor = self.linear(context.mean(1))
        return pred[:, None, None].expand(-1, *masks.targets.shape[1:], -1)
