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

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import losses
from ..methods.base import Method, method_name
from ..methods.bidirectional import swap_masks
from ..methods.masked import Masked
from ..types import Masks, Rng


@dataclass(frozen=True, eq=False)
class Round:
    """One prediction: the masks of one sample, whether by the backward predictor, and the tokens that are scored.

    `counts` indexes the hidden tokens.
    """

    masks: Masks
    is_backward: bool
    scored_indices: Int[Tensor, " k"]

    @property
    def tokens(self) -> Int[Tensor, " k"]:
        """The cells of the grid that get an error, in the order of `token_errors`."""
        return self.masks.targets.flatten()[self.scored_indices]

    def token_errors(self, method: Masked, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b k"]:
        """The distance of each token's prediction to its target, as the loss compares them, averaged over features."""
        masks = self.masks.repeat_for(len(x), x.device)
        pred = method.predict_back(x, masks) if self.is_backward else method.predict(x, masks)
        target = method.expected(x, masks)
        each = losses.elementwise(losses.at_least_float32(pred), losses.at_least_float32(target), method.distance).mean(
            -1
        )
        return each.flatten(1)[:, self.scored_indices.to(x.device)]


def scorable_method(method: Method) -> Masked:
    """`method`, if it can be scored. Raises ValueError if it predicts no representation or is not for series."""
    name = method_name(type(method))
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
    return method


def scoring_rounds(method: Masked, causal: bool, tokens: int | None = None) -> list[Round]:
    """The rounds that score a window of `tokens` tokens, by default those of the method's signal.

    Predictors know the masks they were trained on, so a method with a predictor per direction keeps its own masks.
    Raises ValueError if `causal` and no predictor leads ahead.
    """
    tokens = tokens or prod(method.encoder.grid)
    own = method.draw(1, Rng(0).fork("score"), grid=(tokens,))[0]
    directions = method.directions
    if causal:
        return [_causal_round(own, tokens, directions)]
    if directions:
        return [_full_round(own, False), _full_round(swap_masks(own), True)][:directions]
    hidden = len(torch.unique(own.targets))
    blocks = torch.arange(tokens).tensor_split(max(2, ceil(tokens / hidden)))
    return [_full_round(_masks_hiding(block, tokens), False) for block in blocks]


def _causal_round(own: Masks, tokens: int, directions: int) -> Round:
    """The round that predicts the last token from tokens before it; `directions` of the run's own masks have one."""
    for masks, back in [(own, False), (swap_masks(own), True)][:directions]:
        hidden = masks.targets.flatten()
        if masks.context.max() < hidden.min():
            return Round(masks, back, (hidden == tokens - 1).nonzero().flatten())
    if directions and tokens == 2:
        raise ValueError(
            "the run predicts the past from the future alone; train with masks whose context is the first half"
        )
    return _full_round(_masks_hiding(torch.tensor([tokens - 1]), tokens), False)


def _masks_hiding(block: Int[Tensor, " k"], tokens: int) -> Masks:
    """Masks that hide the tokens `block` and show all others."""
    shown = torch.ones(tokens, dtype=torch.bool)
    shown[block] = False
    return Masks(shown.nonzero().flatten()[None], block[None, None], (tokens,))


def _full_round(masks: Masks, back: bool) -> Round:
    """A round in which all hidden tokens are scored."""
    return Round(masks, back, torch.arange(masks.targets.numel()))
