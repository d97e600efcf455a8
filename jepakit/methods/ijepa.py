"""I-JEPA: predict the representations of target blocks of an image from the representation of a context.

    s_x = f(x at the context)             s_y = g(x), g the EMA of f, no gradient
    pred_i = P(s_x, positions of target block i)
    L = mean_i mean_{j in block i} d(pred_ij, LayerNorm(s_y)_ij),    d = smooth L1,    g <- tau g + (1 - tau) f

Source: Assran et al. 2023, arXiv:2301.08243. Deliberate differences from the reference implementation: the masks are
drawn without its sampling quirks (`compat="ijepa"` in masks/multiblock.py brings them back), positions come from the
input's own grid, and the last block of the target encoder and of the predictor is computed only for the tokens that are
read, which changes no value. Targets can be averaged over several blocks (`target_blocks`), by default they are not.
Nothing is particular to images: any masker that fits the grid will do.
"""

import math
from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import losses
from ..core.schedules import linear_schedule
from ..masks import need_tokens
from ..masks.base import Masker
from ..masks.multiblock import MultiBlock
from ..masks.random import Random
from ..nn import ema
from ..nn.encoder import EncoderConfig, masked, union
from ..nn.predictor import Predictor
from ..nn.transformer import ViT, tiny
from ..types import Batch, Masks, Rng, Signal, Terms, take
from .base import Weights
from .masked import Masked


@dataclass(frozen=True)
class Config:
    """Settings; `ema` is the decay at the first and the last step.

    With `target_blocks` above 1, targets are the mean over this many last blocks of the target encoder, each
    normalised, as in data2vec; this is not in the paper.
    """

    encoder: EncoderConfig = field(default_factory=ViT)
    predictor: Predictor = field(default_factory=Predictor)
    masks: tuple[Masker, ...] = (MultiBlock(),)
    distance: losses.Kind = "smooth_l1"
    target_blocks: int = 1
    ema: tuple[float, float] = (0.996, 1.0)

    def __post_init__(self) -> None:
        if not self.masks:
            raise ValueError("masks is empty, so nothing would be predicted; give one, e.g. {name: multiblock}")
        ema.check(self.ema)

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """The smallest settings that are still I-JEPA, with two maskers: for the contract."""
        return cls(tiny(signal), Predictor(width=48, depth=2, heads=2), (Random(), Random(num_targets=2)))


class IJEPA(Masked):
    """Context encoder, EMA target encoder and a narrow predictor; see the module's equations."""

    cfg: Config

    def __init__(self, cfg: Config, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.encoder = masked(cfg.encoder, signal, (m.check for m in cfg.masks))
        if not 1 <= cfg.target_blocks <= self.encoder.depth:
            raise ValueError(
                f"target_blocks is {cfg.target_blocks} of {self.encoder.depth} blocks; give 1 or more of them"
            )
        self.target_encoder = ema.target(self.encoder)
        self.predictor = cfg.predictor.build(self.encoder.dim, self.encoder.grid)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """Mean distance over the target blocks of every masker; the target encoder runs once per image."""
        drawn, target = self.hide(batch.x, rng)
        return self.compare([self.predict(batch.x, masks) for masks in drawn], target)

    def compare(self, pred: list[Float[Tensor, "b _ _ d"]], target: list[Float[Tensor, "b _ _ d"]]) -> Terms:
        """The loss of predictions, given the targets before their normalisation."""
        return super().compare(pred, [self.normalize_target(t) for t in target])

    @torch.no_grad()
    def hide(self, x: Float[Tensor, "b c ..."], rng: Rng) -> tuple[list[Masks], list[Float[Tensor, "b _ _ d"]]]:
        """The masks of a step and their targets, from one target encoding, whose tokens maskers may read."""
        tokens = self.whole(x) if need_tokens(self.cfg.masks) else None
        drawn = self.draw(len(x), rng, x.device, self.encoder.grid_of(x), tokens)
        return drawn, self.targets(x, drawn) if tokens is None else [take(tokens, m.targets) for m in drawn]

    def context(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b k d"]:
        """Representations (B, Kc, D) of the context patches; the other patches are never seen."""
        s: Tensor = self.encoder(self.normalize(x), keep=masks.context)
        return s

    def predict(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b m kt d"]:
        """The prediction of the target blocks from the context of x; the rest of x is never read."""
        return cast(Tensor, self.predictor(self.context(x, masks), masks))

    def expected(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b m kt d"]:
        """The targets of x, normalised, without gradients."""
        return self.expected_by(x, [masks])[0]

    def expected_by(self, x: Float[Tensor, "b c ..."], drawn: list[Masks]) -> list[Float[Tensor, "b m kt d"]]:
        """`expected` for several masks, from one pass of the target encoder."""
        return [self.normalize_target(target) for target in self.targets(x, drawn)]

    @torch.no_grad()
    def targets(self, x: Float[Tensor, "b c ..."], drawn: list[Masks]) -> list[Float[Tensor, "b m kt d"]]:
        """Target representations (B, M, Kt, D) for each Masks, before normalisation, from one pass."""
        blocks = [masks.targets for masks in drawn]
        read, where = union(torch.cat([b.flatten(1) for b in blocks], 1), math.prod(self.encoder.grid_of(x)))
        parts = torch.split(take(self.whole(x, read), where), [b[0].numel() for b in blocks], 1)
        return [part.reshape(*b.shape, -1) for part, b in zip(parts, blocks, strict=True)]

    def whole(self, x: Float[Tensor, "b c ..."], read: Int[Tensor, "b r"] | None = None) -> Float[Tensor, "b _ d"]:
        """The target representation of every token, or of those at `read`, before normalisation."""
        g, last = self.target_encoder, self.cfg.target_blocks
        s: Tensor = g(self.normalize(x), read=read) if last == 1 else g.average(self.normalize(x), last, read)
        return s

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """Representations (B, N, D) of every patch; sizes other than the training size get their own grid."""
        s: Tensor = (self.target_encoder if weights == "target" else self.encoder)(self.normalize(batch.x))
        return s

    def normalize_target(self, target: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Every target token with zero mean and unit variance over its features."""
        return losses.normalize_target(target)

    def after_step(self, progress: float) -> None:
        """The EMA; its decay moves linearly from `ema[0]` to `ema[1]`."""
        ema.update(self.target_encoder, self.encoder, linear_schedule(progress, *self.cfg.ema))
