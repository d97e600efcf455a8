"""The base class of methods that compare views of a sample without predicting one from the other."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..types import Batch, Signal
from .base import Method, Weights


def check_views(signal: Signal) -> None:
    """Raise ValueError if the signal has fewer than two views to compare."""
    if signal.views < 2:
        raise ValueError(
            f"views are compared with one another, but there is {signal.views}; set data.augment.views to 2 or more, "
            "e.g. [{count: 2}]"
        )


class JointEmbedding(Method):
    """A method that compares views of a sample: one encoder, the mean of its tokens, a projector.

    `cfg` holds `encoder` and `projector`. A subclass adds the loss on the embeddings of all views, which `embed`
    returns.
    """

    needs = frozenset({"views"})
    batch_statistics = True
    reads_x = False
    # Another sample's view is independent of the target and equally far from the mean.
    chance_loss = 2.0

    def __init__(self, cfg: Any, signal: Signal) -> None:
        super().__init__(cfg, signal)
        check_views(signal)
        self.encoder = cfg.encoder.build(signal)
        self.projector = cfg.projector.build(self.encoder.dim)

    def embed(self, batch: Batch) -> Float[Tensor, "v b d"]:
        """The projected mean of every view. BatchNorm sees the views of all sizes together."""
        z: Tensor = self.projector(self.pooled(batch.views))
        return z

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """Representations (B, N, D) of every patch; there is one encoder."""
        s: Tensor = self.encoder(self.normalize(batch.x))
        return s

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The mean squared difference (B,) of the two projected means."""
        one, two = (self.projector(self.encode(side).mean(1)) for side in (batch, other))
        distance: Tensor = (one - two).square().mean(1)
        return distance
