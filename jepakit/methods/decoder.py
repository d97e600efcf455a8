"""A decoder: maps the tokens of a frozen run to the raw values of the patches at their positions.

    pred_i = D(t_i, position of i)        L = mean_i d(pred_i, patch_i),        d = mean squared difference

The mean is over the hidden patches i of every mask; patch_i are the values there, normalised by the parent's mean and
deviation. `reads` chooses t_i:
- prediction: the parent's prediction of the hidden patch i, so that a completion shows the model's own prediction
- target: the target encoder's token of patch i, which a prediction replaces in a completion
- context: the mean token of the visible patches; with two halves, the visible half, as in the BiJEPA paper

D is one perceptron for all tokens: linears, BatchNorm, ReLU. Source: Huang 2026, arXiv:2603.00049, whose decoder ends
in a sigmoid, reads only the left half and is fitted to pictures scaled to [0, 1] batch by batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import losses
from ..masks import draw_masks
from ..masks.base import Masker
from ..masks.halves import available_halves
from ..masks.random import Random
from ..nn.mlp import build_perceptron
from ..nn.patch import join_patches, patches
from ..nn.position import sincos_positions
from ..types import Batch, Masks, Rng, Signal, Terms, take
from .base import Method, token_rows
from .bidirectional import check_side, predictable_sides, predicts_backwards
from .head import Head
from .masked import Masked

POSITION_FEATURES = 32  # features of a position


@dataclass(frozen=True)
class Config:
    """Settings; if `masks` is empty, every half that the parent can predict is hidden in turn."""

    parents: tuple[str, ...] = ()
    parent_hashes: tuple[str, ...] = ()
    reads: Literal["prediction", "target", "context"] = "prediction"
    masks: tuple[Masker, ...] = ()
    hidden: tuple[int, ...] = (256, 512)
    norm: Literal["batch", "layer", "none"] = "batch"
    distance: losses.Kind = "l2"

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        """A small decoder, for the contract."""
        return cls(masks=(Random(),), hidden=(64,), norm="layer")


class Decoder(Head):
    """A perceptron from tokens and their positions to raw values; see the module's equations."""

    cfg: Config
    batch_statistics = True
    position: Tensor

    def __init__(self, cfg: Config, signal: Signal, parents: Sequence[Method] = ()) -> None:
        super().__init__(cfg, signal, parents)
        if len(self.parents) > 1:
            raise ValueError(f"a decoder reads one run, but {len(self.parents)} are given; give one")
        encoder: Any = self.encoder
        self.grid, self.patch = tuple(encoder.grid), tuple(encoder.patch)
        every = available_halves(self.grid)
        self.sides = (
            dict.fromkeys(every, False) if cfg.reads == "context" else predictable_sides(self.parent, self.grid)
        )
        self.masks = cfg.masks or tuple(every[name] for name in (self.sides if cfg.reads == "prediction" else every))
        if not self.masks:
            raise ValueError("the parent run predicts no half of its samples; give a run that does, or reads target")
        for masker in self.masks:
            masker.check(self.grid)
        self.register_buffer("position", sincos_positions(self.grid, POSITION_FEATURES), persistent=False)
        (masks,) = draw_masks(self.masks[:1], self.grid, 1, Rng(0), self.mean.device)
        dim = self.read(torch.zeros(1, signal.channels, *signal.size), masks, self.masks[0]).shape[-1]
        self.layers = build_perceptron(
            [dim + POSITION_FEATURES, *cfg.hidden, signal.channels * math.prod(self.patch)], cfg.norm
        )

    def check(self, samples: int) -> None:
        """Raise ValueError if BatchNorm would see a single sample."""
        if self.cfg.norm == "batch" and samples < 2:
            raise ValueError("BatchNorm needs 2 samples at a time, not 1; raise length.batch or set method.norm layer")

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The distance between decoded and hidden values, over every mask."""
        pred, target = self.compare(batch.x, batch.x, rng)
        loss = losses.prediction(pred, target, self.distance)
        return Terms({"values": loss}, compared=(token_rows([pred]), token_rows([target])))

    def compare(self, x: Tensor, y: Tensor, rng: Rng) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "b k p"]]:
        """The decoding from x at the hidden patches of every mask, and the values of y there."""
        drawn = draw_masks(self.masks, self.grid, len(x), rng, x.device)
        # All masks at once: BatchNorm would otherwise remove what the tokens of one side have in common.
        tokens = [self.read(x, m, masker).flatten(1, 2) for m, masker in zip(drawn, self.masks, strict=True)]
        where = torch.cat([m.targets.flatten(1) for m in drawn], 1)
        target = take(patches(self.normalize(y), self.patch).flatten(2), where)
        return self.decode(torch.cat(tokens, 1), where), target

    @torch.no_grad()
    def read(self, x: Float[Tensor, "b c ..."], masks: Masks, masker: Masker) -> Float[Tensor, "b m kt d"]:
        """The frozen tokens for the hidden patches in training; `masker` has drawn the masks."""
        if self.cfg.reads != "target":
            return self.predict_tokens(x, masks, masker)
        if isinstance(self.parent, Masked) and self.parent.latent:
            return self.parent.expected(x, masks)
        return take(self.parent.encode(Batch(x)), masks.targets)

    @torch.no_grad()
    def predict_tokens(self, x: Float[Tensor, "b c ..."], masks: Masks, masker: Masker) -> Float[Tensor, "b m kt d"]:
        """The tokens for hidden patches, without reading these: predictions, or the mean of the context."""
        if self.cfg.reads == "context":
            s = self.context(x, masks).mean(1)
            return s[:, None, None].expand(-1, *masks.targets.shape[1:], -1)
        parent = cast(Masked, self.parent)
        return (parent.predict_back if predicts_backwards(masker, self.sides, self.grid) else parent.predict)(x, masks)

    def decode(self, tokens: Float[Tensor, "b k d"], where: Int[Tensor, "b k"]) -> Float[Tensor, "b k p"]:
        """The normalised values of the patches at `where`."""
        values: Tensor = self.layers(torch.cat([tokens, self.position[where].to(tokens.dtype)], -1))
        return values

    @torch.no_grad()
    def complete(self, x: Float[Tensor, "b c ..."], side: str) -> Float[Tensor, "b c ..."]:
        """x with one side, such as "right", replaced by decoded values; that side is never read. Raw units.

        Raises ValueError if the parent cannot predict that side.
        """
        check_side(side, self.sides)
        masker = available_halves(self.grid)[side]
        (masks,) = draw_masks((masker,), self.grid, len(x), Rng(0), x.device)
        where, cut = masks.targets[:, 0], patches(x, self.patch)
        values = self.decode(self.predict_tokens(x, masks, masker)[:, 0], where).float()
        values = values.reshape(*where.shape, *cut.shape[2:])
        raw = (values * self.std + self.mean).flatten(2)
        return join_patches(cut.flatten(2).scatter(1, where[..., None].expand_as(raw), raw), self.grid, self.patch)

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The distance (B,) between the values decoded from x and those of y, for fixed masks."""
        pred, target = self.compare(batch.x, other.x, Rng(0).fork("energy"))
        return losses.elementwise(pred, target, self.distance).flatten(1).mean(1)
