"""What every encoder is: patches in, one token per patch out."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..types import Grid, Signal, Size


class Encoder(nn.Module):
    """Signals (B, C, *size) to tokens (B, N, D). Subclasses set `dim`, `patch` and `grid` (of the signal's own size)."""

    dim: int
    patch: Size
    grid: Grid

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """Tokens of the patches in `keep` (all where None), of which only those at positions `read` are returned.

        `keep` indexes the grid of x, row-major; what it leaves out is never seen. `read` indexes the kept tokens.
        Raises ValueError where the patch does not divide the size of x.
        """
        raise NotImplementedError


@runtime_checkable
class EncoderConfig(Protocol):
    """A frozen dataclass that builds an encoder for a signal; raises ValueError where they do not fit."""

    def build(self, signal: Signal) -> Encoder: ...
