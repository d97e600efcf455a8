import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from jepakit import losses
from jepakit.losses import Kind

KINDS: list[Kind] = ["smooth_l1", "l1", "l2"]
TORCH = {"smooth_l1": F.smooth_l1_loss, "l1": F.l1_loss, "l2": F.mse_loss}


def pair(*shape: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(0)
    return scale * torch.randn(shape, generator=gen), scale * torch.randn(shape, generator=gen)


@pytest.mark.parametrize("kind", KINDS)
def test_the_distance_is_torchs_mean_over_all_entries(kind: Kind) -> None:
    pred, target = pair(3, 2, 5, 8, scale=2)
    assert_close(losses.prediction(pred, target, kind), TORCH[kind](pred, target))


@pytest.mark.parametrize("kind", KINDS)
def test_sums_run_in_fp32_whatever_the_precision_of_the_representations(kind: Kind) -> None:
    pred, target = (t.bfloat16() for t in pair(64, 50, 32))
    loss = losses.prediction(pred, target, kind)
    assert loss.dtype == torch.float32
    assert_close(loss.double(), losses.prediction(pred.double(), target.double(), kind), rtol=1e-5, atol=0)
    assert losses.prediction(pred.double(), target.double(), kind).dtype == torch.float64


def test_a_normalised_target_has_zero_mean_and_unit_variance_per_token() -> None:
    target = 5 + 3 * pair(4, 6, 32)[0]
    out = losses.normalize_target(target)
    assert_close(out.mean(-1), torch.zeros(4, 6), atol=1e-5, rtol=0)
    assert_close(out.var(-1, correction=0), torch.ones(4, 6), atol=1e-4, rtol=0)
    assert_close(
        out, (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    )
    assert losses.normalize_target(target.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [1e6, float("nan"), float("inf")])
def test_padding_changes_no_bit_of_the_loss_or_its_gradient(kind: Kind, padding: float) -> None:
    pred, target = pair(3, 7, 4)
    valid = torch.arange(7).expand(3, 7) < torch.tensor([[7], [3], [1]])

    def run(fill: float) -> tuple[torch.Tensor, torch.Tensor]:
        p = pred.where(valid[..., None], fill).requires_grad_()
        loss = losses.prediction(p, target.where(valid[..., None], fill), kind, valid)
        (grad,) = torch.autograd.grad(loss, p)
        return loss, grad

    (loss, grad), (other, other_grad) = run(0.0), run(padding)
    assert torch.equal(loss, other)
    assert torch.equal(grad, other_grad)
    assert not grad[~valid].any()
    assert_close(loss, TORCH[kind](pred[valid], target[valid]))


def test_a_batch_of_padding_alone_has_a_loss_of_zero() -> None:
    pred, target = pair(2, 3, 4)
    assert losses.prediction(pred, target, "l2", torch.zeros(2, 3, dtype=torch.bool)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_the_target(kind: Kind) -> None:
    pred, target = (t.requires_grad_() for t in pair(2, 3, 4))
    losses.prediction(pred, target, kind).backward()
    assert pred.grad is not None
    assert pred.grad.any()
    assert target.grad is None


@given(st.floats(-50, 50), st.sampled_from(KINDS))
def test_distances_are_symmetric_and_zero_only_at_zero(difference: float, kind: Kind) -> None:
    d = torch.tensor([difference], dtype=torch.float64)
    value, mirrored = (
        losses.elementwise(d, torch.zeros(1).double(), kind),
        losses.elementwise(-d, torch.zeros(1).double(), kind),
    )
    assert value == mirrored
    assert (value == 0) == (difference == 0) or abs(difference) < 1e-150
