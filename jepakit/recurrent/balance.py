"""Measures of the balance between a linear circuit and a linear predictor that theory expects from weight decay.

Let h_t be linear in the input weights W with fixed gates, P a linear predictor, the target without gradient, and η the
weight decay on both. Then gradient flow keeps W Wᵀ − Pᵀ P = C exp(−2 η t) if the units share their gate, and its
diagonal if they do not. So both sides become equal, whatever they started from: a unit that predicts is also predicted.
Modes of the input with r² v / 4 > η (variance v, correlation r from step to step) can survive; all others die.

Source: the balance is in Velarde & Parra 2024, arXiv:2411.16695, stated there as Wᵀ W_Gh ∝ H Hᵀ, and in Tian et al.
2021, arXiv:2102.06810; the form above is our own derivation. We do not know exactly what W, W_Gh and H are there: we
measure Pᵀ P, which acts on states, for Wᵀ W_Gh, and the second moment E[h hᵀ] of the states for H Hᵀ. Our W are the
weights on the candidate, the first drive of every unit.
"""

from jaxtyping import Float
from torch import Tensor, nn

from .cells import Cell, Reciprocal


def candidate_weights(cell: Cell) -> Float[Tensor, "w d"]:
    """The weights (w, d) from the input to the units' candidates, without those of the gates."""
    half = 1 if isinstance(cell, Reciprocal) else cell.block
    return cell.weight[:, :half].flatten(0, 1).detach()


def linear_layer(predictor: nn.Module) -> nn.Linear | None:
    """The only layer of a linear predictor; None for any other predictor."""
    layers = list(predictor.children())
    return layers[0] if len(layers) == 1 and isinstance(layers[0], nn.Linear) else None


def balance_metrics(cell: Cell, predictor: nn.Linear, h: Float[Tensor, "n w"]) -> dict[str, Float[Tensor, ""]]:
    """The distance between W Wᵀ and Pᵀ P relative to the size of W Wᵀ, as whole matrices and for their diagonals.

    Also `cosine`, the cosine between both as vectors; `states`, the cosine between Pᵀ P and E[h hᵀ]; and
    `off_diagonal`, the share of the squares of Pᵀ P off its diagonal.
    """
    w = candidate_weights(cell)
    p = predictor.weight.detach()[:, : len(w)]
    mine, other = w @ w.T, p.T @ p
    gap, tiny = mine - other, mine.new_tensor(1e-30)
    return {
        "balance": gap.norm() / mine.norm().maximum(tiny),
        "balance/units": gap.diagonal().norm() / mine.diagonal().norm().maximum(tiny),
        "balance/cosine": matrix_cosine(mine, other),
        "balance/states": matrix_cosine(h.T @ h / len(h), other),
        "balance/off_diagonal": 1 - other.diagonal().square().sum() / other.square().sum().maximum(tiny),
    }


def matrix_cosine(a: Float[Tensor, "w w"], b: Float[Tensor, "w w"]) -> Float[Tensor, ""]:
    """The cosine between two matrices as vectors; 0 if one of them is zero."""
    size: Tensor = a.norm() * b.norm()
    return (a * b).sum() / size.clamp(min=1e-30)
