"""SimCLR: find a sample's other view among the views of all samples; the contrastive baseline.

    z_i = projector(mean over tokens of f(view i))
    L = mean over views of −log( exp(cos(z, z⁺) / τ) / Σ_{z' ≠ z} exp(cos(z, z') / τ) )

z⁺ is the other view of the same sample; z' runs over both views of the samples of all processes, so a batch of n has
2n − 2 negatives. With more than two views, L is the mean over their pairs. With `decoupled`, z⁺ is also left out of the
sum: a pair that already agrees then no longer weakens the gradient of its negatives, which matters if there are few.

Source: Chen et al. 2020, arXiv:2002.05709; decoupled: Yeh et al. 2022, arXiv:2110.06848. Deliberate differences: the
mean token of a vision transformer replaces a ResNet's pooled features; AdamW replaces LARS unless the settings say
otherwise. Its strength is the number of negatives: the paper's batches have 4096 samples.
"""

from dataclasses import dataclass, field
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..nn.encoder import EncoderConfig
from ..nn.heads import Projector
from ..nn.transformer import ViT, tiny
from ..types import Batch, Rng, Signal, Terms
from .joint import JointEmbedding


@dataclass(frozen=True)
class Config:
    """Settings; `temperature` is τ, `decoupled` leaves z⁺ out of the sum below the fraction."""

    encoder: EncoderConfig = field(default_factory=ViT)
    projector: Projector = field(default_factory=lambda: Projector(layers=2, hidden=2048, out=128))
    temperature: float = 0.1
    decoupled: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature:g}; give a number above 0, e.g. 0.1")

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """The smallest settings that are still SimCLR: for the contract."""
        return cls(encoder=tiny(signal), projector=Projector(layers=2, out=16), temperature=0.2)


class SimCLR(JointEmbedding):
    """One encoder and a projector; see the module's equations."""

    cfg: Config

    def check(self, samples: int) -> None:
        """Raise ValueError if there is only one sample, so that there are no negatives."""
        losses.check_samples(samples, "contrast needs")

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The mean over all pairs of views."""
        z = self.embed(batch)
        terms = [losses.info_nce(a, b, self.cfg.temperature, self.cfg.decoupled) for a, b in combinations(z, 2)]
        one, other, *_ = losses.on_sphere(z.detach())
        # Normalised a second time, which changes the last bit, to match the panel's numbers of earlier runs.
        return Terms({"contrast": torch.stack(terms).mean()}, compared=(one, losses.on_sphere(other)))

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """1 − cosine (B,) of the two projected means."""
        one, two = (self.projector(self.encode(side).mean(1)) for side in (batch, other))
        distance: Tensor = 1 - F.cosine_similarity(one, two)
        return distance
