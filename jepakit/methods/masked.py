"""The base class of methods that hide some tokens of a signal and predict them from the others.

It defines the interface for the panel, scores, forecasts and decoders, so that these work with any such method.
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from .. import losses, masks
from ..core.notes import Note
from ..masks.multiblock import MultiBlock
from ..masks.random import Random
from ..nn.encoder import Encoder
from ..types import Batch, Device, Grid, Masks, Rng, Signal, Size, Terms
from .base import Method, token_rows


class Masked(Method):
    """A method with maskers in `cfg.masks`: the visible context predicts the hidden target blocks.

    A subclass has an `encoder` and defines `context`, `predict` and `expected`; this class draws masks and computes the
    energy. `latent` says whether representations are predicted; otherwise targets are raw values.
    """

    latent: ClassVar[bool] = True
    encoder: Encoder

    @classmethod
    def fit_config(
        cls, cfg: Any, signal: Signal, proposal: tuple[Size, str] | None = None, frames: bool = False
    ) -> tuple[Any, list[Note]]:
        """As `Method.fit_config`; if x is not a picture, random masks replace the default rectangles."""
        cfg, notes = super().fit_config(cfg, signal, proposal, frames)
        if len(signal.size) == 2 or cfg.masks != type(cfg)().masks:
            return cfg, notes
        if not any(isinstance(mask, MultiBlock) for mask in cfg.masks):
            return cfg, notes
        note = Note("method.masks", "[{name: random, num_targets: 3}]", "multiblock masks are for pictures")
        return replace(cfg, masks=(Random(num_targets=3),)), [*notes, note]

    @property
    def directions(self) -> int:
        """The number of one-directional predictors for the method's own masks: 1 forward, or 2 with the backward one.

        0 if one predictor handles any masks. A method with 2 has `predict_back`.
        """
        return 0

    @property
    def both_ways(self) -> bool:
        """Whether there is also a backward predictor, from the target block to the context."""
        return self.directions == 2

    def draw(
        self, batch: int, rng: Rng, device: Device = "cpu", grid: Grid | None = None, tokens: Tensor | None = None
    ) -> list[Masks]:
        """One Masks per masker, by default on the signal's grid; `tokens` are for maskers that read them."""
        return masks.draw_masks(self.cfg.masks, grid or self.encoder.grid, batch, rng, device, tokens)

    def context(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b k d"]:
        """Representations (B, Kc, D) of the context patches; the other patches are never read."""
        raise NotImplementedError

    def predict(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b m kt d"]:
        """The prediction of the target blocks from the context of x; the rest of x is never read."""
        raise NotImplementedError

    def predict_back(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b m kt d"]:
        """The backward predictor's prediction of the target blocks, for masks of the backward direction."""
        raise ValueError(f"{type(self).__name__} has no backward predictor")

    def expected(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b m kt d"]:
        """The targets that the loss compares with `predict`: the target blocks of x, normalised, without gradients."""
        raise NotImplementedError

    def expected_by(self, x: Float[Tensor, "b c ..."], drawn: list[Masks]) -> list[Float[Tensor, "b m kt d"]]:
        """`expected` for several masks, which a method may compute in one pass."""
        return [self.expected(x, each) for each in drawn]

    def compare(self, pred: list[Float[Tensor, "b _ _ d"]], target: list[Float[Tensor, "b _ _ d"]]) -> Terms:
        """The mean over masks of the distance between prediction and target."""
        terms = [losses.prediction(p, t, self.distance) for p, t in zip(pred, target, strict=True)]
        return Terms({"prediction": torch.stack(terms).mean()}, compared=(token_rows(pred), token_rows(target)))

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The distance (B,) between the prediction from `batch` and the targets of `other`, for fixed masks."""
        x = batch.x
        drawn = self.draw(len(x), Rng(0).fork("energy"), x.device, self.encoder.grid_of(x))
        pairs = zip(drawn, self.expected_by(other.x, drawn), strict=True)
        each = [losses.elementwise(self.predict(x, m), target, self.distance) for m, target in pairs]
        return torch.stack([distance.flatten(1).mean(1) for distance in each]).mean(0)
