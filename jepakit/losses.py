"""Prediction distances. Sums run in fp32 at least, whatever the precision of the representations."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .distributed import all_reduce_sum, world

Kind = Literal["smooth_l1", "l1", "l2"]


def normalize_target(target: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """The target with zero mean and unit variance over its features, each token by itself (eps 1e-5, no affine)."""
    return F.layer_norm(wide(target), target.shape[-1:], eps=1e-5)


def prediction(
    pred: Float[Tensor, "*n d"],
    target: Float[Tensor, "*n d"],
    kind: Kind = "smooth_l1",
    valid: Bool[Tensor, "*n"] | None = None,
) -> Float[Tensor, ""]:
    """The mean distance over tokens and features; "smooth_l1" is quadratic below a difference of 1.

    Tokens that are not `valid` have no part in it, whatever they hold; the mean is then over the valid tokens of all
    ranks, so that ranks with more padding do not weigh more. No gradient reaches the target.
    """
    pred, target = wide(pred), wide(target.detach())
    if valid is None:
        return elementwise(pred, target, kind).mean()
    # Zeroed before the distance: a NaN in the padding would survive the multiplication by a zero gradient.
    pred, target = (t.where(valid[..., None], 0) for t in (pred, target))
    count = all_reduce_sum(valid.sum().to(pred.dtype)) / world()
    return elementwise(pred, target, kind).sum() / (count * pred.shape[-1]).clamp(min=1)


def elementwise(pred: Float[Tensor, "*n"], target: Float[Tensor, "*#n"], kind: Kind) -> Float[Tensor, "*n"]:
    """The distance of every entry, before any mean. The target may broadcast."""
    if kind == "l2":
        return (pred - target).square()
    if kind == "l1":
        return (pred - target).abs()
    return F.smooth_l1_loss(pred, target.expand_as(pred), reduction="none")


def wide(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """In fp32, or in float64 where it is so already."""
    return x if x.dtype == torch.float64 else x.float()
