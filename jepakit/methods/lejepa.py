"""LeJEPA: views agree and embeddings are normally distributed, which alone prevents collapse.

    z_v = projector(mean over tokens of f(view v))         c = mean of z_v over the global views
    L = (1 − λ) mean |z_v − c|² + λ mean_v SIGReg(z_v)

SIGReg compares the samples of all processes with a standard normal along random directions, which are redrawn at each
step and the same on every rank (`losses.sigreg`). There is no second encoder, no stop-gradient, no predictor. The
global views are the first group of `data.augment.views`; further groups, usually smaller, are local and agree with the
global mean.

Source: Balestriero & LeCun 2025, arXiv:2511.08544. Deliberate differences: the mean token replaces the class token.
SIGReg grows with the number of samples, as published, so λ depends on the batch size (0.02 for 256 in its small
example).
"""

from dataclasses import dataclass, field

from .. import losses
from ..nn.encoder import EncoderConfig
from ..nn.heads import Projector
from ..nn.transformer import ViT, tiny
from ..types import Batch, Rng, Signal, Terms
from .joint import JointEmbedding


@dataclass(frozen=True)
class Config:
    """Settings; `weight` is λ, `directions` and `knots` set the resolution of SIGReg."""

    encoder: EncoderConfig = field(default_factory=ViT)
    projector: Projector = field(default_factory=lambda: Projector(layers=3, hidden=2048, out=16))
    weight: float = 0.02
    directions: int = 256
    knots: int = 17

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or self.directions < 1 or self.knots < 2:
            raise ValueError(
                f"weight is {self.weight:g}, directions {self.directions} and knots {self.knots}; give a weight from 0 "
                "to 1, 1 direction or more and 2 knots or more"
            )

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """The smallest settings that are still LeJEPA: for the contract."""
        return cls(encoder=tiny(signal), projector=Projector(layers=2, out=8), weight=0.1, directions=64)


class LeJEPA(JointEmbedding):
    """One encoder and a projector; see the module's equations."""

    cfg: Config

    def check(self, samples: int) -> None:
        """Raise ValueError if there is only one sample, which has no distribution."""
        losses.check_samples(samples, "a distribution needs")

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """Agreement with the mean of the global views, and the distance from a normal distribution."""
        z = losses.at_least_float32(self.embed(batch))
        centre = z[: batch.views[0].shape[1]].mean(0)
        slices = losses.unit_directions(z.shape[-1], self.cfg.directions, rng.fork("directions"))
        terms = {
            "invariance": (1 - self.cfg.weight) * (z - centre).square().mean(),
            "sigreg": self.cfg.weight * losses.sigreg(z, slices, self.cfg.knots),
        }
        one, other, *_ = z.detach()
        return Terms(terms, compared=(one, other))
