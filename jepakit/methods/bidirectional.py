"""Predicts in both directions under one mask: from the context to the target block, and back.

Also computes diagnostics of the two predictors: whether predicting forward and back returns to the start, and which
gradient is larger.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..losses import Kind
from ..masks.halves import Halves, available_halves
from ..types import Grid, Masks
from .base import Method, token_rows
from .masked import Masked

MAX_SAMPLES: Final = 16
Predict = Callable[[Float[Tensor, "b k d"], Masks], Float[Tensor, "b 1 kt d"]]


class Direction(NamedTuple):
    """One direction: its masks, the representation s of the context, the prediction and the target."""

    masks: Masks
    s: Float[Tensor, "b k d"]
    pred: Float[Tensor, "b 1 kt d"]
    target: Float[Tensor, "b 1 kt d"]


def swap_masks(masks: Masks) -> Masks:
    """The masks of the backward direction: the target block becomes the context, and the context the target block."""
    return Masks(masks.targets[:, 0], masks.context[:, None], masks.grid)


def predictable_sides(method: Method, grid: Grid) -> dict[str, bool]:
    """The sides that a method can predict from the opposite one; True if the backward predictor predicts them.

    Masks other than halves hide any part, so every side can be predicted. With halves, only the sides that were hidden
    in training can. A method without masks can predict none.
    """
    if not isinstance(method, Masked):
        return {}
    every, own, axes = available_halves(grid), method.cfg.masks, len(grid)
    if not all(isinstance(masker, Halves) for masker in own):
        return dict.fromkeys(every, False)
    ahead = {name for name, half in every.items() if any(masker.can_hide(half, axes) for masker in own)}
    back = {
        name
        for name, half in every.items()
        if method.both_ways and any(m.can_hide(opposite_half(half), axes) for m in own)
    }
    return {name: name not in ahead for name in every if name in ahead | back}


def check_side(side: str, known: Mapping[str, bool]) -> None:
    """Raise ValueError, naming the `known` sides, if `side` is not one of them."""
    if side not in known:
        none = "its method predicts no hidden part"
        can = f"it can predict {' and '.join(known)}" if known else none
        raise ValueError(f"the run cannot predict the {side} of its samples; {can}")


def predicts_backwards(masker: object, known: Mapping[str, bool], grid: Grid) -> bool:
    """Whether the backward predictor predicts the part that a masker hides, given the `known` sides."""
    every, axes = available_halves(grid), len(grid)
    return isinstance(masker, Halves) and any(
        back and masker.axis % axes == every[name].axis and masker.context == every[name].context
        for name, back in known.items()
    )


def opposite_half(half: Halves) -> Halves:
    """The masker that hides the other side."""
    return replace(half, context="last" if half.context == "first" else "first")


def direction_errors(same: Sequence[Direction], kind: Kind) -> Float[Tensor, " b"]:
    """The distance between prediction and target of each sample, averaged over the masks of one direction."""
    each = [
        losses.elementwise(losses.at_least_float32(way.pred), losses.at_least_float32(way.target), kind)
        .flatten(1)
        .mean(1)
        for way in same
    ]
    return torch.stack(each).mean(0)


def forward_rows(pairs: Sequence[Sequence[Direction]]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Predictions and targets of the first direction of each pair, as rows, without gradients."""
    return token_rows([pair[0].pred for pair in pairs]), token_rows([pair[0].target for pair in pairs])


def cycle_error(pairs: Sequence[Sequence[Direction]], home: Predict, kind: Kind) -> Float[Tensor, ""]:
    """d(P_bwd(P_fwd(s_x)), t_x) for pairs (x to y, y to x); `home` is P_bwd.

    Its gradient reaches both predictors and the encoder of x. It is 0 if P_bwd inverts P_fwd and t_x equals s_x.
    """
    found = [losses.prediction(home(there.pred[:, 0], back.masks), back.target, kind) for there, back in pairs]
    return torch.stack(found).mean()


def gradient_length(predict: Predict, way: Direction, kind: Kind) -> Float[Tensor, ""]:
    """The norm, over all tokens, of the gradient of a direction's distance by s. No parameter gets a gradient."""
    with torch.enable_grad():
        # Cloned, because FLOP counters do not accept a gradient with respect to a leaf.
        s = way.s.detach().requires_grad_().clone()
        (gradient,) = torch.autograd.grad(losses.prediction(predict(s, way.masks), way.target, kind), s)
    return losses.norms(gradient.flatten())


@torch.no_grad()
def direction_diagnostics(
    pairs: Sequence[Sequence[Direction]], predictors: Iterable[Predict], shares: Mapping[str, float], kind: Kind
) -> dict[str, Float[Tensor, ""]]:
    """Scalars to log for a step; `shares` holds the name of each direction and its weight in the loss.

    `norm_online` and `norm_target` are mean token norms, `error_NAME` the unweighted distances. With two directions,
    there are also `error_cycle` and `balance` = a / (a + b), .5 if both pull equally: a and b are the norms of the
    gradients of the weighted distances by the representations that the directions start from. At this point the
    gradients enter the encoder; measuring whether they agree or cancel at its weights would cost a second backward
    pass. These two scalars use the first mask and at most 16 samples, so they cost only a small batch.
    """
    every = [way for pair in pairs for way in pair]
    found = {
        "norm_online": losses.norms(torch.cat([way.s.flatten(0, 1) for way in every])).mean(),
        "norm_target": losses.norms(torch.cat([way.target.flatten(0, 2) for way in every])).mean(),
        **{
            f"error_{name}": direction_errors(same, kind).mean()
            for name, same in zip(shares, zip(*pairs, strict=True), strict=True)
        },
    }
    if len(shares) == 2:
        few, ps = [_first_samples(way) for way in pairs[0]], list(predictors)
        a, b = (share * gradient_length(p, way, kind) for share, p, way in zip(shares.values(), ps, few, strict=True))
        found["error_cycle"] = cycle_error([few], ps[1], kind)
        found["balance"] = a / (a + b).clamp(min=torch.finfo(a.dtype).tiny)
    return found


def _first_samples(way: Direction) -> Direction:
    masks = Masks(way.masks.context[:MAX_SAMPLES], way.masks.targets[:MAX_SAMPLES], way.masks.grid)
    return Direction(masks, *(part.detach()[:MAX_SAMPLES] for part in way[1:]))
