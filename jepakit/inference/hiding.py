"""What is hidden from a model to score a window: every token once where that can be, or the last one alone.

A round hides some tokens of a window and predicts them from others. Of a method with one predictor, the tokens are
hidden in blocks of neighbours, as many at a time as its own masks hide, so that every token is predicted once, from
what lies before and after it. Of a method with predictors both ways, the rounds are its own mask and the way back,
which again is every token once.

Causal is a single round, in which the last token is predicted from tokens before it: by the way of the run's own mask
that leads ahead, of which the last token alone counts, or else from all others.
"""

from dataclasses import dataclass
from math import ceil, prod
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import losses
from ..methods.base import Method
from ..methods.bidirectional import swapped
from ..methods.bijepa import BiJEPA
from ..methods.masked import Masked
from ..types import Masks, Rng


@dataclass(frozen=True, eq=False)
class Round:
    """One prediction: what of a window is seen and hidden (masks of one sample), which way, and the tokens that count.

    `counts` indexes the hidden tokens, `tokens` are those cells of the grid.
    """

    masks: Masks
    back: bool
    counts: Int[Tensor, " k"]

    @property
    def tokens(self) -> Int[Tensor, " k"]:
        """The cells of the grid that get an error, in the order of `errors`."""
        return self.masks.targets.flatten()[self.counts]

    def errors(self, method: Method, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b k"]:
        """The mean distance over features between prediction and target, as the loss compares them, of each token."""
        masks = self.masks.repeated(len(x), x.device)
        model = cast(Any, method)
        # The way back names its masks as those of the way there, and finds its own by itself.
        pred = model.predict(x, swapped(masks), back=True) if self.back else model.predict(x, masks)
        target = model.expected(x, masks)
        each = losses.elementwise(losses.wide(pred), losses.wide(target), method.distance).mean(-1)
        return each.flatten(1)[:, self.counts.to(x.device)]


def check(method: Method) -> None:
    """Raises ValueError where the method predicts nothing that could be wrong, or does not read series."""
    name = type(method).__module__.rsplit(".", 1)[-1]
    if not (isinstance(method, Masked) and method.latent):
        raise ValueError(
            f"{name} predicts no representation, so nothing tells what was not to be expected; train ijepa, cjepa or "
            "bijepa on the series"
        )
    if len(method.signal.size) != 1:
        raise ValueError(
            f"the run was trained on samples of size {method.signal.size}, but scores are those of series; train on a "
            "table or array of series"
        )


def rounds(method: Method, causal: bool, tokens: int | None = None) -> list[Round]:
    """The rounds by which windows of so many `tokens`, by default those of the method's signal, are scored.

    Predictors are trained on the masks of the run, so its own are taken where there is one predictor for each way.
    Raises ValueError where causal ones are asked for and no way leads ahead.
    """
    model = cast(Any, method)
    tokens = tokens or prod(model.encoder.grid)
    both = isinstance(method, BiJEPA)
    own = model.draw(1, Rng(0).fork("score"), grid=(tokens,))[0]
    if causal:
        return [_ahead(own, tokens, len(model.predictors) if both else 0)]
    if both:
        there = _whole(own, False)
        return [there, _whole(swapped(own), True)] if len(model.predictors) == 2 else [there]
    hidden = len(own.targets.unique())
    blocks = torch.arange(tokens).tensor_split(max(2, ceil(tokens / hidden)))
    return [_whole(_hiding(block, tokens), False) for block in blocks]


def _ahead(own: Masks, tokens: int, predictors: int) -> Round:
    """The last token from tokens before it."""
    ways = [(own, False), (swapped(own), True)][:predictors]
    for masks, back in ways:
        hidden = masks.targets.flatten()
        if masks.context.max() < hidden.min():
            return Round(masks, back, (hidden == tokens - 1).nonzero().flatten())
    if predictors and tokens == 2:
        raise ValueError(
            "the run predicts the past from the future alone; train with masks whose context is the first half"
        )
    return _whole(_hiding(torch.tensor([tokens - 1]), tokens), False)


def _hiding(block: Int[Tensor, " k"], tokens: int) -> Masks:
    """The masks that hide `block` and show the rest."""
    seen = torch.ones(tokens, dtype=torch.bool)
    seen[block] = False
    return Masks(seen.nonzero().flatten()[None], block[None, None], (tokens,))


def _whole(masks: Masks, back: bool) -> Round:
    """A round in which all hidden tokens count."""
    return Round(masks, back, torch.arange(masks.targets.numel()))
