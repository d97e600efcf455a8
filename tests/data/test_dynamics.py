"""Why a joint embedding collapses or does not: what gradient flow does to it along the predictor's eigenvectors.

Representations z themselves are the parameters, the predictor is linear, symmetric and fixed with eigenvalues l, and
the loss is ½ |P z − z|². Along an eigenvector dz/dt is l (1 − l) z where no gradient passes the target (l between 0 and
1 grows), −(1 − l)² z where it does (everything shrinks but what is predicted perfectly), and 0 without a predictor.
Source: C-JEPA, arXiv:2410.19560, section 3.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jepakit import losses

STEPS, SPAN = 1500, 0.5
EIGENVALUES = torch.tensor([-0.5, 0.0, 0.2, 0.5, 0.8, 1.0, 1.5], dtype=torch.float64)


def flow(z: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """z after gradient flow for `SPAN`, by small steps; `loss` is a mean over entries, wanted is half a sum."""
    for _ in range(STEPS):
        z = z.detach().requires_grad_()
        (grad,) = torch.autograd.grad(loss(z) * z.numel() / 2, z)
        z = z - SPAN / STEPS * grad
    return z.detach()


@pytest.fixture
def predictor() -> tuple[Tensor, Tensor]:
    """A symmetric predictor with the eigenvalues above, and its eigenvectors as columns."""
    gen = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(7, 7, generator=gen, dtype=torch.float64)).Q
    return basis @ EIGENVALUES.diag() @ basis.T, basis


@pytest.fixture
def z() -> Tensor:
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_with_stop_gradient_what_is_predictable_in_part_grows(predictor: tuple[Tensor, Tensor], z: Tensor) -> None:
    p, basis = predictor
    after = flow(z, lambda z: losses.prediction(z @ p, z, "l2"))
    growth = (EIGENVALUES * (1 - EIGENVALUES) * SPAN).exp()
    torch.testing.assert_close(after @ basis, (z @ basis) * growth, rtol=1e-3, atol=0)
    assert (growth[2:5] > 1).all()


def test_without_stop_gradient_everything_shrinks(predictor: tuple[Tensor, Tensor], z: Tensor) -> None:
    p, basis = predictor
    after = flow(z, lambda z: losses.elementwise(z @ p, z, "l2").mean())
    decay = (-((1 - EIGENVALUES) ** 2) * SPAN).exp()
    torch.testing.assert_close(after @ basis, (z @ basis) * decay, rtol=1e-3, atol=0)
    assert (decay <= 1).all()


def test_without_a_predictor_nothing_moves(z: Tensor) -> None:
    assert torch.equal(flow(z, lambda z: losses.prediction(z, z, "l2")), z)
