"""Measures of predictions: the normalised loss, and whether the energy shows which samples belong together."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..losses import Kind, at_least_float32, elementwise


def normalized_loss(pred: Float[Tensor, "*n d"], target: Float[Tensor, "*n d"], kind: Kind = "smooth_l1") -> float:
    """The prediction loss over that of the best constant prediction: 1 is no better than the mean, 0 is perfect.

    Give both arguments as the loss compares them. Unlike the loss, the value does not fall when targets shrink. A
    constant target, which any predictor can match, gives 1. It does not show that the targets have become easy.
    """
    pred, target = at_least_float32(pred).flatten(0, -2), at_least_float32(target).flatten(0, -2)
    constant = elementwise(target, best_constant(target, kind), kind).mean().item()
    loss = elementwise(pred, target, kind).mean().item()
    return loss / constant if constant > 0 else 1.0


def best_constant(target: Float[Tensor, "n d"], kind: Kind) -> Float[Tensor, "1 d"]:
    """The single vector that predicts all tokens with the lowest loss: the mean (l2), the median (l1), or Huber's."""
    if kind == "l1":
        return target.median(0, keepdim=True).values
    centre = target.mean(0, keepdim=True)
    if kind == "l2":
        return centre
    for _ in range(20):  # Reweighted means never raise this loss and settle to 4 digits well before.
        weight = 1 / (target - centre).abs().clamp(min=1)
        centre = (weight * target).sum(0, keepdim=True) / weight.sum(0, keepdim=True)
    return centre


def energy_gap(energy: Float[Tensor, "q c"]) -> float:
    """Mean E(x, shuffled y) − mean E(x, y), from the energies of q samples with c candidates; 0 in a full collapse.

    `energy[i, i]` belongs to the true y. The gap has the units of the loss, and falls when the targets shrink. It does
    not show what both x and y leave out.
    """
    true = _true_pairs(energy)
    return (energy[~true].mean() - energy[true].mean()).item()


def retrieval_rate(energy: Float[Tensor, "q c"]) -> float:
    """The share of samples whose true y has strictly less energy than every other candidate; chance is 1 / c.

    Ties do not count, so a point retrieves nothing. A few features are enough: the rank may have collapsed all the
    same.
    """
    true = _true_pairs(energy)
    others = energy.masked_fill(true, torch.inf).min(1).values
    return (energy.diagonal() < others).double().mean().item()


def _true_pairs(energy: Float[Tensor, "q c"]) -> Bool[Tensor, "q c"]:
    return torch.eye(*energy.shape, dtype=torch.bool, device=energy.device)
