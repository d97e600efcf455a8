"""Whether a linear circuit and a linear predictor are balanced, as theory says that weight decay makes them.

For h_t linear in the input weights W with fixed gates, a linear predictor P, a target without gradient and weight decay
η on both, gradient flow keeps W Wᵀ − Pᵀ P = C exp(−2 η t) where the units share their gate, and its diagonal where they
do not. So both sides meet whatever they started from: no unit can be predicted with that does not also predict. Modes
of the input with r² v / 4 > η (variance v, correlation r from step to step) can live, all others die.

Source: the balance is in Velarde & Parra 2024, arXiv:2411.16695 (stated there with W_Gh and H, whose definition is not
known to us) and Tian et al. 2021, arXiv:2102.06810; the form above is our own derivation. W are the weights on the
candidate, the first drive of every unit.
"""

from jaxtyping import Float
from torch import Tensor, nn

from .nn.gated import Cell, Reciprocal


def candidate(cell: Cell) -> Float[Tensor, "w d"]:
    """The weights from the input to what the units take in, without those of the gates."""
    half = 1 if isinstance(cell, Reciprocal) else cell.block
    return cell.weight[:, :half].flatten(0, 1).detach()


def watch(cell: Cell, predictor: nn.Module, action: int = 0) -> dict[str, Float[Tensor, ""]]:
    """How far W Wᵀ and Pᵀ P are from one another, over the size of the first: all of it, and unit by unit.

    And `cosine`, the angle between both as vectors, and `off_diagonal`, the share of the squares of Pᵀ P that lies off
    its diagonal. Empty without a linear predictor.
    """
    layers = list(predictor.children())
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear):
        return {}
    w = candidate(cell)
    p = layers[0].weight.detach()[:, : len(w)]
    mine, other = w @ w.T, p.T @ p
    tiny = mine.new_tensor(1e-30)
    size = mine.norm().maximum(tiny)
    units = mine.diagonal().norm().maximum(tiny)
    total = other.square().sum().maximum(tiny)
    return {
        "balance": (mine - other).norm() / size,
        "balance/units": (mine - other).diagonal().norm() / units,
        "balance/cosine": (mine * other).sum() / (size * total.sqrt()),
        "balance/off_diagonal": 1 - other.diagonal().square().sum() / total,
    }
