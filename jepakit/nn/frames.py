"""An encoder of pictures, applied to every frame of a video or scanpath."""

from dataclasses import dataclass, field, replace

from jaxtyping import Float, Int
from torch import Tensor

from ..types import Signal, take
from .encoder import Encoder, EncoderConfig, cells_to_compute
from .transformer import ViT


@dataclass(frozen=True)
class Frames:
    """Any encoder of pictures, applied to every frame by itself: one token per frame, the mean of its tokens.

    Without `pool`, each frame keeps all its tokens, on the encoder's own grid.
    """

    encoder: EncoderConfig = field(default_factory=ViT)
    pool: bool = True

    def build(self, signal: Signal) -> "FramesEncoder":
        """The encoder. Raises ValueError if samples are not sequences of pictures."""
        if len(signal.size) != 3:
            raise ValueError(f"only videos and scanpaths have frames, but samples have size {signal.size}")
        return FramesEncoder(self, signal)


class FramesEncoder(Encoder):
    """The network that `Frames` describes; `inner` encodes one picture."""

    def __init__(self, cfg: Frames, signal: Signal) -> None:
        super().__init__()
        self.pool, steps = cfg.pool, signal.size[0]
        self.inner = cfg.encoder.build(replace(signal, size=signal.size[1:]))
        self.dim = self.inner.dim
        self.patch = (1, *(signal.size[1:] if cfg.pool else self.inner.patch))
        self.grid = (steps, *((1, 1) if cfg.pool else self.inner.grid))
        # A single cell of a frame cannot be left out.
        self.leaves_out = cfg.pool

    def forward(
        self,
        x: Float[Tensor, "b c t h w"],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """One token per frame, or all tokens of all frames; see `Encoder.forward`."""
        tokens: Tensor = self.inner(x.transpose(1, 2).flatten(0, 1))
        tokens = tokens.mean(1, keepdim=True) if self.pool else tokens
        tokens = tokens.reshape(len(x), -1, self.dim)
        at = cells_to_compute(keep, read)
        return tokens if at is None else take(tokens, at)
