"""An encoder without weights, where every pixel is a token: for circuits that have their own convolutions."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from ..types import Signal, take
from .encoder import Encoder, cells_to_compute


@dataclass(frozen=True)
class Pixels:
    """The signal unchanged: one token per pixel, made of its channels, and nothing to train."""

    def build(self, signal: Signal) -> "PixelEncoder":
        """The encoder."""
        return PixelEncoder(signal)


class PixelEncoder(Encoder):
    """The encoder that `Pixels` describes."""

    def __init__(self, signal: Signal) -> None:
        super().__init__()
        self.dim, self.patch, self.grid = signal.channels, (1,) * len(signal.size), tuple(signal.size)

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """The pixels at `keep` and `read` as tokens (B, _, C); see `Encoder.forward`."""
        tokens = x.flatten(2).transpose(1, 2)
        at = cells_to_compute(keep, read)
        return tokens if at is None else take(tokens, at)
