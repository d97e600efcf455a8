"""Chooses which tokens of a window to hide when scoring it: every token once if possible, or only the last.

A round hides some tokens of a window and predicts them from others. If the method has one predictor, the tokens are
hidden in blocks of neighbours, as many at a time as the method's own masks hide; so every token is predicted once, from
what lies before and after it. If it has predictors in both directions, the rounds are its own mask and the reversed
mask, which again hide every token once.

A causal score has a single round, in which the last token is predicted from tokens before it: by the run's own mask in
the direction that leads ahead, counting the last token only, or else from all other tokens.
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
    """One prediction: the masks of one sample, whether by the backward predictor, and the tokens that are scored.

    `counts` indexes the hidden tokens.
    """

    masks: Masks
    back: bool
    counts: Int[Tensor, " k"]

    @property
    def tokens(self) -> Int[Tensor, " k"]:
        """The cells of the grid that get an error, in the order of `token_errors`."""
        return self.masks.targets.flatten()[self.counts]

    def token_errors(self, method: Method, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b k"]:
        """The distance of each token's prediction to its target, as the loss compares them, averaged over features."""
        masks = self.masks.repeated(len(x), x.device)
        model = cast(Any, method)
        # `predict` takes the forward masks and swaps them itself for the way back.
        pred = model.predict(x, swapped(masks), back=True) if self.back else model.predict(x, masks)
        target = model.expected(x, masks)
        each = losses.elementwise(losses.wide(pred), losses.wide(target), method.distance).mean(-1)
        return each.flatten(1)[:, self.counts.to(x.device)]


def check_scorable(method: Method) -> None:
    """Raises ValueError if the method predicts no representation, or was not trained on series."""
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


def scoring_rounds(method: Method, causal: bool, tokens: int | None = None) -> list[Round]:
    """The rounds that score a window of `tokens` tokens, by default those of the method's signal.

    Predictors know the masks they were trained on, so a method with a predictor per direction keeps its own masks.
    Raises ValueError if `causal` and no predictor leads ahead.
    """
    model = cast(Any, method)
    tokens = tokens or prod(model.encoder.grid)
    both = isinstance(method, BiJEPA)
    own = model.draw(1, Rng(0).fork("score"), grid=(tokens,))[0]
    if causal:
        return [_causal_round(own, tokens, len(model.predictors) if both else 0)]
    if both:
        there = _full_round(own, False)
        return [there, _full_round(swapped(own), True)] if len(model.predictors) == 2 else [there]
    hidden = len(own.targets.unique())
    blocks = torch.arange(tokens).tensor_split(max(2, ceil(tokens / hidden)))
    return [_full_round(_masks_hiding(block, tokens), False) for block in blocks]


def _causal_round(own: Masks, tokens: int, predictors: int) -> Round:
    """The round that predicts the last token from tokens before it."""
    ways = [(own, False), (swapped(own), True)][:predictors]
    for masks, back in ways:
        hidden = masks.targets.flatten()
        if masks.context.max() < hidden.min():
            return Round(masks, back, (hidden == tokens - 1).nonzero().flatten())
    if predictors and tokens == 2:
        raise ValueError(
            "the run predicts the past from the future alone; train with masks whose context is the first half"
        )
    return _full_round(_masks_hiding(torch.tensor([tokens - 1]), tokens), False)


def _masks_hiding(block: Int[Tensor, " k"], tokens: int) -> Masks:
    """Masks that hide the tokens `block` and show all others."""
    seen = torch.ones(tokens, dtype=torch.bool)
    seen[block] = False
    return Masks(seen.nonzero().flatten()[None], block[None, None], (tokens,))


def _full_round(masks: Masks, back: bool) -> Round:
    """A round in which all hidden tokens are scored."""
    return Round(masks, back, torch.arange(masks.targets.numel()))
