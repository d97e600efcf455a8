"""Whether a linear circuit and a linear predictor are balanced, as theory says that weight decay makes them.

For h_t linear in the input weights W with fixed gates, a linear predictor P, a target without gradient and weight decay
η on both, gradient flow keeps W Wᵀ − Pᵀ P = C exp(−2 η t) where the units share their gate, and its diagonal where they
do not. So both sides meet whatever they started from: no unit can be predicted with that does not also predict. Modes
of the input with r² v / 4 > η (variance v, correlation r from step to step) can live, all others die.

Source: the balance is in Velarde & Parra 2024, arXiv:2411.16695, stated there as Wᵀ W_Gh ∝ H Hᵀ, and Tian et al. 2021,
arXiv:2102.06810; the form above is our own derivation. What W, W_Gh and H are there is not known to us: Pᵀ P, which
acts on states, is watched for Wᵀ W_Gh, and the second moment E[h hᵀ] of the states for H Hᵀ. Our W are the weights on
the candidate, the first drive of every unit.
"""

from jaxtyping import Float
from torch import Tensor, nn

from .cells import Cell, Reciprocal


def candidate(cell: Cell) -> Float[Tensor, "w d"]:
    """The weights from the input to what the units take in, without those of the gates."""
    half = 1 if isinstance(cell, Reciprocal) else cell.block
    return cell.weight[:, :half].flatten(0, 1).detach()


def linear(predictor: nn.Module) -> nn.Linear | None:
    """The one layer of a linear predictor; None of any other."""
    layers = list(predictor.children())
    return layers[0] if len(layers) == 1 and isinstance(layers[0], nn.Linear) else None


def watch(cell: Cell, predictor: nn.Linear, h: Float[Tensor, "n w"]) -> dict[str, Float[Tensor, ""]]:
    """How far W Wᵀ and Pᵀ P are from one another, over the size of the first: all of it, and unit by unit.

    And `cosine`, the angle between both as vectors; `states`, that between Pᵀ P and E[h hᵀ]; and `off_diagonal`, the
    share of the squares of Pᵀ P that lies off its diagonal.
    """
    w = candidate(cell)
    p = predictor.weight.detach()[:, : len(w)]
    mine, other = w @ w.T, p.T @ p
    gap, tiny = mine - other, mine.new_tensor(1e-30)
    return {
        "balance": gap.norm() / mine.norm().maximum(tiny),
        "balance/units": gap.diagonal().norm() / mine.diagonal().norm().maximum(tiny),
        "balance/cosine": angle(mine, other),
        "balance/states": angle(h.T @ h / len(h), other),
        "balance/off_diagonal": 1 - other.diagonal().square().sum() / other.square().sum().maximum(tiny),
    }


def angle(a: Float[Tensor, "w w"], b: Float[Tensor, "w w"]) -> Float[Tensor, ""]:
    """The cosine between two matrices as vectors; 0 where one of them is nought."""
    size: Tensor = a.norm() * b.norm()
    return (a * b).sum() / size.clamp(min=1e-30)
