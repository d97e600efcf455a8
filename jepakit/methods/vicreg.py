"""VICReg: two views of a sample agree, while features keep their variance and are not redundant.

    z_i = projector(mean over tokens of f(view i))
    L = sim · mean |z_i − z_j|² + std · (1/d) Σ_k max(0, 1 − √(Var(z_k) + eps)) + cov · (1/d) Σ_{k≠l} Cov(z_k, z_l)²

L is the mean over all pairs of views; variance is averaged and covariance summed over the two views of a pair. The
statistics are over the samples of all processes. There is no prediction, no second encoder, no stop-gradient.

Source: Bardes, Ponce & LeCun 2022, arXiv:2105.04906. Deliberate differences: a vision transformer's mean token replaces
a ResNet's pooled features; the projector's BatchNorm sees all views together; the projector's width follows the batch
size, because n samples span at most n directions: 4 times 64 by default, as the paper has 8192 = 4 times 2048.
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
    """Settings; `sim`, `std` and `cov` weigh invariance, variance and covariance."""

    encoder: EncoderConfig = field(default_factory=ViT)
    projector: Projector = field(default_factory=lambda: Projector(layers=3, hidden=1024, out=256))
    sim: float = 25.0
    std: float = 25.0
    cov: float = 1.0

    def __post_init__(self) -> None:
        losses.check_weights(self, "sim", "std", "cov")

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """The smallest settings that are still VICReg: for the contract."""
        return cls(encoder=tiny(signal), projector=Projector(layers=2, out=16))


class VICReg(JointEmbedding):
    """One encoder and an expander; see the module's equations."""

    cfg: Config

    def check(self, samples: int) -> None:
        """Raise ValueError if `samples` samples are too few to estimate the covariances of the features."""
        losses.check_vicreg(samples, self.cfg.projector.width(self.encoder.dim), self.cfg.std, self.cfg.cov)

    def caution(self, samples: int) -> str:
        """A warning if the covariances of `samples` samples keep the std of the features well below 1."""
        return losses.vicreg_shortfall(samples, self.cfg.projector.width(self.encoder.dim), self.cfg.std, self.cfg.cov)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The three weighted terms over all views."""
        z = self.embed(batch)
        terms = losses.vicreg(z)
        weights = {"invariance": self.cfg.sim, "variance": self.cfg.std, "covariance": self.cfg.cov}
        one, other, *_ = z.detach()
        return Terms({k: weights[k] * v for k, v in terms.items()}, compared=(one, other))
