"""C-JEPA: I-JEPA with VICReg's terms, which prevent a collapse that I-JEPA alone may allow.

    L = L_IJEPA + b_vic (25 invariance + 25 variance + 1 covariance)

The terms use two or more embeddings z of each image, over all n images of the global batch:

    invariance = mean |z_i − z_j|² over pairs i ≠ j        variance = (1/d) Σ_k max(0, 1 − √(Var(z_k) + eps))
    covariance = (1/d) Σ_{k≠l} Cov(z_k, z_l)²              each averaged over ordered pairs, as `losses.vicreg` has it

The paper defines z in two ways, and a summary of it in a third; `pairs` chooses:

- "blocks", its algorithm 1: z_i = projector(mean over the tokens of the predictions of target block i)
- "context-target", its short pseudo-code: invariance between the projected means of the context's tokens and of the
  target tokens (which carry no gradient), variance and covariance of the context's
- "views": z_i = projector(mean over the tokens of the context encoder on the whole augmented view i)

Source: Mo & Tong 2024, arXiv:2410.19560; I-JEPA, arXiv:2301.08243. Deliberate differences and readings: the algorithm
calls the tensor of "blocks" context embeddings, but only predictions have its shape; the projector, which the paper
leaves open, is Linear-BatchNorm-ReLU-Linear of the encoder's width; blocks of several maskers are all paired.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..masks.random import Random
from ..nn.heads import Projector
from ..nn.predictor import Predictor
from ..nn.transformer import tiny
from ..types import Batch, Rng, Signal, Terms
from . import ijepa
from .joint import check_views

Pairs = Literal["blocks", "context-target", "views"]


@dataclass(frozen=True)
class Config(ijepa.Config):
    """I-JEPA's settings, and the weights of the terms: b_vic · sim, b_vic · std and b_vic · cov."""

    pairs: Pairs = "blocks"
    b_vic: float = 0.001
    sim: float = 25.0
    std: float = 25.0
    cov: float = 1.0
    projector: Projector = field(default_factory=Projector)

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """The smallest settings that are still C-JEPA: blocks to pair, and terms that are not zero."""
        return cls(
            encoder=tiny(signal),
            predictor=Predictor(width=48, depth=2, heads=2),
            masks=(Random(num_targets=3),),
            b_vic=0.01,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        losses.check_weights(self, "b_vic", "sim", "std", "cov")


class CJEPA(ijepa.IJEPA):
    """I-JEPA with a projector and three more terms; see the module's equations."""

    cfg: Config
    batch_statistics = True

    def __init__(self, cfg: Config, signal: Signal) -> None:
        super().__init__(cfg, signal)
        if cfg.pairs == "views":
            check_views(signal)
        self.projector = cfg.projector.build(self.encoder.dim)

    @classmethod
    def requires(cls, cfg: Any) -> frozenset[str]:
        """Views, if these are paired."""
        return cls.needs | {"views"} if cfg.pairs == "views" else cls.needs

    def check(self, samples: int) -> None:
        """Raise ValueError if `samples` are too few for covariances, or if there is only one block to pair."""
        losses.check_vicreg(samples, self.projector_width, *self.held)
        blocks = sum(masks.targets.shape[1] for masks in self.draw(2, Rng(0)))
        if self.cfg.pairs == "blocks" and blocks < 2:
            raise ValueError("pairs is blocks but the masks have one target block; give num_targets 2 or more")

    def caution(self, samples: int) -> str:
        """A warning if the covariances of `samples` samples keep the std of the features well below 1."""
        return losses.vicreg_shortfall(samples, self.projector_width, *self.held)

    @property
    def held(self) -> tuple[float, float]:
        """The weights of variance and covariance, relative to pairs with two regularised sides."""
        cfg = self.cfg
        # Only the context of a context-target pair is regularised, so its covariance counts once, not twice.
        cov = cfg.cov / 2 if cfg.pairs == "context-target" else cfg.cov
        return (cfg.std, cov) if cfg.b_vic else (0.0, 0.0)

    @property
    def projector_width(self) -> int:
        """The number of features that the variance and covariance terms act on."""
        return self.cfg.projector.width(self.encoder.dim)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """I-JEPA's prediction loss and the weighted invariance, variance and covariance."""
        drawn, target = self.hide(batch.x, rng)
        context = [self.context(batch.x, masks) for masks in drawn]
        pred = [self.predictor(s, masks) for s, masks in zip(context, drawn, strict=True)]
        terms, cfg = self.compare(pred, target), self.cfg
        vic = self.regularizer_terms(batch, context, pred, target)
        weights = {"invariance": cfg.sim, "variance": cfg.std, "covariance": cfg.cov}
        return replace(terms, loss={**terms.loss, **{k: cfg.b_vic * weights[k] * v for k, v in vic.items()}})

    def regularizer_terms(
        self, batch: Batch, context: list[Tensor], pred: list[Tensor], target: list[Tensor]
    ) -> dict[str, Float[Tensor, ""]]:
        """The three unweighted terms of the embeddings that `pairs` selects."""
        if self.cfg.pairs == "blocks":
            return losses.vicreg(self.projector(torch.cat([p.mean(2) for p in pred], 1).transpose(0, 1)))
        if self.cfg.pairs == "views":
            return losses.vicreg(self.projector(self.pooled(batch.views)))
        sides = [torch.stack([s.mean(1), t.mean((1, 2))]) for s, t in zip(context, target, strict=True)]
        z = self.projector(torch.stack(sides))
        return {
            "invariance": losses.invariance(z),
            "variance": losses.variance(z[:, 0]),
            "covariance": losses.covariance(z[:, 0]),
        }
