"""MAE: predict the pixels of hidden patches from the visible ones; the generative baseline.

    s = f(x at the visible patches)        pred = decoder(s, positions of the hidden patches)
    L = mean |pred − patch|² over the hidden patches, each patch brought to zero mean and unit variance over its pixels

This is an I-JEPA whose target is the input itself: nothing can collapse, but every detail must be predicted. The
encoder is the same.

Source: He et al. 2022, arXiv:2111.06377. Deliberate differences: the variance of a patch divides by its number of
pixels, with eps 1e-5; no class token; the decoder, the predictor's network with pixels as output, computes its last
block for hidden patches only, which changes no value; its default size suits a ViT-Tiny (the paper's is 512 wide and 8
deep). If masks split the hidden patches into several target blocks, each block is decoded separately.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..masks import need_tokens
from ..masks.base import Masker
from ..masks.random import Random
from ..nn.encoder import EncoderConfig, masked
from ..nn.patch import patches
from ..nn.predictor import Predictor
from ..nn.transformer import ViT, tiny
from ..types import Batch, Masks, Rng, Signal, Terms, take
from .base import Weights
from .masked import Masked


@dataclass(frozen=True)
class Config:
    """Settings; `normalize` subtracts each target patch's own mean and divides by its own std."""

    encoder: EncoderConfig = field(default_factory=lambda: ViT(init="xavier"))
    decoder: Predictor = field(default_factory=lambda: Predictor(width=192, depth=4, heads=3, init="xavier"))
    masks: tuple[Masker, ...] = (Random(ratio=0.75),)
    normalize: bool = True

    def __post_init__(self) -> None:
        if not self.masks:
            raise ValueError("masks is empty, so nothing would be predicted; give one, e.g. {name: random}")

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """The smallest settings that are still MAE: for the contract."""
        return cls(
            encoder=replace(tiny(signal), init="xavier"),
            decoder=Predictor(width=48, depth=1, heads=2, init="xavier"),
            masks=(Random(ratio=0.5),),
        )


class MAE(Masked):
    """An encoder of visible patches and a small decoder; see the module's equations."""

    cfg: Config
    latent = False

    def __init__(self, cfg: Config, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.encoder = masked(cfg.encoder, signal, (m.check for m in cfg.masks))
        pixels = signal.channels * math.prod(self.encoder.patch)
        self.decoder = cfg.decoder.build(self.encoder.dim, self.encoder.grid, out=pixels)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The mean squared error over the hidden patches of every masker."""
        drawn = self.hide(batch, rng)
        return self.compare([self.predict(batch.x, masks) for masks in drawn], self.expected_by(batch.x, drawn))

    @torch.no_grad()
    def hide(self, batch: Batch, rng: Rng) -> list[Masks]:
        """The masks of a step; maskers that read tokens get the encoder's tokens of the whole input."""
        tokens = self.encode(batch) if need_tokens(self.cfg.masks) else None
        return self.draw(len(batch), rng, batch.x.device, self.encoder.grid_of(batch.x), tokens)

    def context(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b k d"]:
        """Representations (B, Kc, D) of the visible patches; the hidden ones are never seen."""
        s: Tensor = self.encoder(self.normalize(x), keep=masks.context)
        return s

    def predict(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b m kt p"]:
        """The pixels of the hidden patches, from the visible ones."""
        pred: Tensor = self.decoder(self.context(x, masks), masks)
        return pred

    def expected(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b m kt p"]:
        """The hidden patches, channels first in each, normalised if the settings say so."""
        pixels = take(patches(self.normalize(x), self.encoder.patch).flatten(2), masks.targets)
        return self.normalize_target(pixels)

    def normalize_target(self, target: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Every patch, with zero mean and unit variance over its pixels if the settings say so."""
        return losses.normalize_target(target) if self.cfg.normalize else target

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """Representations (B, N, D) of every patch, none hidden; there is one encoder."""
        s: Tensor = self.encoder(self.normalize(batch.x))
        return s
