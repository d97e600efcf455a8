"""BiJEPA: each half of a signal predicts the representation of the other; one encoder, a predictor per direction.

    s_x = f(x), s_y = f(y)        t_x = g(x), t_y = g(y), g the EMA of f, no gradient
    L = α d(P_fwd(s_x), t_y) + (1 − α) d(P_bwd(s_y), t_x),        d = mean squared difference over tokens and features

x is the context of a mask, y its one target block; no encoder sees both. α = 1 is the one-directional JEPA. With
`cycle_weight`, d(P_bwd(P_fwd(s_x)), t_x) is added. Two directions may drive norms up; three options limit them:
- hard: `sphere` divides every token of both encoders by its length; predictions are not changed
- soft: LayerNorms in hidden layers (`encoder.norm`, `predictor.norm`) and `optim.weight_decay`
- a penalty: `norm_weight` · mean (|s| − `radius`)² over the tokens of f, both halves

Source: Huang 2026, arXiv:2603.00049. Its equation uses squared lengths (D times L) and its code the sum of the means, a
factor that affects AdamW only through eps; it has neither penalty nor cycle. With `buffers` batch, as in the paper, the
target's BatchNorm follows the target's own batches; otherwise it copies the statistics of f.
"""

from dataclasses import dataclass, field, replace
from math import inf, sqrt
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import losses
from ..core.schedules import linear_schedule
from ..masks.base import Masker
from ..masks.halves import Halves
from ..nn import ema
from ..nn.ema import Buffers
from ..nn.encoder import EncoderConfig, masked
from ..nn.predictor import Predictor, PredictorConfig
from ..nn.transformer import ViT, tiny
from ..types import Batch, Masks, Rng, Signal, Terms
from .base import Weights
from .bidirectional import Direction, cycle_error, direction_diagnostics, direction_errors, forward_rows, swap_masks
from .masked import Masked


@dataclass(frozen=True)
class Config:
    """Settings; both predictors are built from `predictor`, `radius` auto is √D, `ema` is the first and last decay."""

    encoder: EncoderConfig = field(default_factory=ViT)
    predictor: PredictorConfig = field(default_factory=Predictor)
    masks: tuple[Masker, ...] = (Halves(),)
    alpha: float = 0.5
    distance: losses.Kind = "l2"
    sphere: bool = False
    norm_weight: float = 0.0
    radius: float | None = None
    cycle_weight: float = 0.0
    ema: tuple[float, float] = (0.995, 0.995)
    buffers: Buffers = "copy"

    def __post_init__(self) -> None:
        ema.check(self.ema)
        losses.check_weights(self, "norm_weight", "cycle_weight")
        mistakes = {
            "masks is empty; give one, e.g. {name: halves}": not self.masks,
            f"alpha is {self.alpha:g}; give a number above 0 and up to 1 (1: forward only)": not 0 < self.alpha <= 1,
            "alpha 1 has no backward direction; give alpha below 1 or cycle_weight 0": self.alpha == 1
            and self.cycle_weight,
            "sphere fixes all norms; give norm_weight 0 or sphere false": self.sphere and self.norm_weight,
            f"radius is {self.radius}; give a length above 0": self.radius is not None and not 0 < self.radius < inf,
        }
        if found := [sentence for sentence, wrong in mistakes.items() if wrong]:
            raise ValueError(found[0])

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """The smallest BiJEPA, for the contract. Initial weights of std .02 would make targets mostly position."""
        parts = replace(tiny(signal), init="xavier"), Predictor(48, depth=1, heads=2, init="xavier")
        return cls(*parts, (Halves(context="either"),), norm_weight=0.01, cycle_weight=0.1, ema=(0.99, 1.0))


class BiJEPA(Masked):
    """Encoder, EMA target encoder and a predictor per direction, forward only if α = 1; see the module's equations."""

    cfg: Config

    def __init__(self, cfg: Config, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.encoder = masked(cfg.encoder, signal, (m.check for m in cfg.masks))
        if (blocks := max(m.targets.shape[1] for m in self.draw(1, Rng(0)))) > 1:
            raise ValueError(
                f"masks have {blocks} target blocks, but the backward direction starts from one; give num_targets 1"
            )
        self.target_encoder = ema.target(self.encoder).train(cfg.buffers == "batch")
        self.shares = {"forward": cfg.alpha, "backward": 1 - cfg.alpha} if cfg.alpha < 1 else {"forward": 1.0}
        self.predictors = nn.ModuleList(cfg.predictor.build(self.encoder.dim, self.encoder.grid) for _ in self.shares)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The weighted distances, penalty and cycle. The panel reads the forward direction."""
        cfg, pairs = self.cfg, self.pairs(batch.x, batch.x, rng)
        same = zip(self.shares.items(), zip(*pairs, strict=True), strict=True)
        terms = {name: share * direction_errors(ways, cfg.distance).mean() for (name, share), ways in same}
        if cfg.norm_weight:
            s = torch.cat([way.s.flatten(0, 1) for pair in pairs for way in pair])
            terms["norm"] = cfg.norm_weight * losses.norm_penalty(s, cfg.radius or sqrt(self.encoder.dim))
        if cfg.cycle_weight:
            terms["cycle"] = cfg.cycle_weight * cycle_error(pairs, self.predictors[1], cfg.distance)
        return Terms(
            terms, direction_diagnostics(pairs, self.predictors, self.shares, cfg.distance), forward_rows(pairs)
        )

    def pairs(self, x: Float[Tensor, "b c ..."], y: Float[Tensor, "b c ..."], rng: Rng) -> list[list[Direction]]:
        """For every mask, the direction from the context of x to the targets of y and, if α < 1, its reverse."""
        drawn = self.draw(len(x), rng, x.device, self.encoder.grid_of(x))
        sides = [((x, y, masks), (y, x, swap_masks(masks))) for masks in drawn]
        return [
            [self.make_direction(p, *side) for p, side in zip(self.predictors, both, strict=False)] for both in sides
        ]

    def make_direction(self, predictor: nn.Module, x: Tensor, y: Tensor, masks: Masks) -> Direction:
        """The prediction from the context of x, and the target encoder's tokens of the targets of y, encoded alone."""
        return Direction(masks, s := self.context(x, masks), predictor(s, masks), self.expected(y, masks))

    def encode_tokens(self, encoder: nn.Module, x: Tensor, keep: Tensor | None = None) -> Float[Tensor, "b k d"]:
        """An encoder's tokens of the patches at `keep`, on the unit sphere if `cfg.sphere`."""
        s = cast(Tensor, encoder(self.normalize(x), keep=keep))
        return losses.on_sphere(s) if self.cfg.sphere else s

    def context(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b k d"]:
        """Representations (B, Kc, D) of the context patches; the other patches are never seen."""
        return self.encode_tokens(self.encoder, x, masks.context)

    def predict(self, x: Tensor, masks: Masks | None = None, back: bool = False) -> Float[Tensor, "b 1 kt d"]:
        """P_fwd(f(context)) or, with `back`, P_bwd(f(targets)); default: the first mask. The rest is never seen."""
        masks = masks or self.draw(len(x), Rng(0).fork("energy"), x.device, self.encoder.grid_of(x))[0]
        if back:
            return self.predict_back(x, swap_masks(masks))
        return cast(Tensor, self.predictors[0](self.context(x, masks), masks))

    @property
    def directions(self) -> int:
        """2 if alpha is below 1, which adds the backward direction; else 1."""
        return len(self.predictors)

    def predict_back(self, x: Tensor, masks: Masks) -> Float[Tensor, "b 1 kt d"]:
        """P_bwd(f(context)) for masks of the backward direction."""
        if not self.both_ways:
            raise ValueError("alpha is 1, so there is no backward predictor; train with alpha below 1")
        return cast(Tensor, self.predictors[1](self.context(x, masks), masks))

    @torch.no_grad()
    def expected(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b 1 kt d"]:
        """The targets of predictions: the target encoder's tokens of the targets of x, encoded separately."""
        return self.encode_tokens(self.target_encoder, x, masks.targets[:, 0])[:, None]

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """Representations (B, N, D) of every patch, with the whole signal visible."""
        return self.encode_tokens(self.target_encoder if weights == "target" else self.encoder, batch.x)

    def after_step(self, progress: float) -> None:
        """The EMA; its decay moves linearly from `ema[0]` to `ema[1]`."""
        ema.update(self.target_encoder, self.encoder, linear_schedule(progress, *self.cfg.ema), self.cfg.buffers)

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The weighted distances (B,) from the context of x to the targets of y and back, for fixed masks."""
        ways = zip(*self.pairs(batch.x, other.x, Rng(0).fork("energy")), strict=True)
        each = [w * direction_errors(same, self.distance) for w, same in zip(self.shares.values(), ways, strict=True)]
        return torch.stack(each).sum(0)
