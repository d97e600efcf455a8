"""Predict the representation of a clean signal from a noisy one.

pred = P(f(x + noise))        target = LayerNorm(g(x)), g the EMA of f, no gradient
L = smooth_l1(pred, target),  g <- d g + (1 - d) f
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit import losses
from jepakit.methods.base import Method, Weights
from jepakit.nn import ema
from jepakit.nn.encoder import EncoderConfig
from jepakit.nn.transformer import ViT
from jepakit.types import Batch, Rng, Signal, Terms


@dataclass(frozen=True)
class Config:
    """`noise` is the std of what is added, in units of the data's own std; `ema` the first and the last decay."""

    encoder: EncoderConfig = field(default_factory=ViT)
    noise: float = 0.5
    ema: tuple[float, float] = (0.99, 1.0)

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """At most 32 tokens: what the contract is run on."""
        patch = {1: (4,), 2: (4, 4), 3: (2, 4, 4)}[len(signal.size)]
        return cls(encoder=ViT(patch=patch, width=24, depth=1, heads=2))


class Denoise(Method):
    """An encoder, its EMA, and one linear layer as predictor."""

    cfg: Config

    def __init__(self, cfg: Config, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.encoder = cfg.encoder.build(signal)
        self.target_encoder = ema.target(self.encoder)
        self.predictor = nn.Linear(self.encoder.dim, self.encoder.dim)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The mean distance between the prediction from noise and the normalised target."""
        total, part = rng.global_batch(len(batch))
        noise = torch.randn(total, *batch.x.shape[1:], generator=rng.generator())[part].to(batch.x)
        pred = self.predictor(self.encoder(self.normalize(batch.x) + self.cfg.noise * noise))
        target = losses.normalize_target(self.encode(batch)).detach()
        loss = losses.prediction(pred, target)
        return Terms(loss={"prediction": loss}, compared=(pred.detach(), target))

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """Representations (B, N, D) of every patch."""
        encoder = self.target_encoder if weights == "target" else self.encoder
        s: Tensor = encoder(self.normalize(batch.x))
        return s

    def after_step(self, progress: float) -> None:
        """The EMA; its decay moves linearly."""
        start, end = self.cfg.ema
        ema.update(self.target_encoder, self.encoder, start + (end - start) * progress)

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The distance (B,) from the prediction of `batch` to the representation of `other`."""
        pred = self.predictor(self.encode(batch, "context"))
        target = losses.normalize_target(self.encode(other))
        return losses.elementwise(pred, target, "smooth_l1").flatten(1).mean(1)
