import pytest
import torch
from torch import nn
from torch.testing import assert_close

from jepakit.nn import ema


def pair():
    torch.manual_seed(0)
    online = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)).double()
    target = ema.target(online)
    for p in online.parameters():
        nn.init.normal_(p)
    online(torch.randn(8, 4, dtype=torch.float64))
    return online, target


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.996, 1.0])
def test_the_target_moves_by_exactly_the_stated_fraction(decay):
    online, target = pair()
    before = [p.clone() for p in target.parameters()]
    kept = [p.clone() for p in online.parameters()]
    ema.update(target, online, decay)
    for old, new, p, k in zip(before, target.parameters(), online.parameters(), kept, strict=True):
        assert_close(new, decay * old + (1 - decay) * p, atol=1e-14, rtol=1e-14)
        assert torch.equal(p, k)


def test_a_target_starts_equal_takes_no_gradient_and_shares_no_memory():
    online, target = nn.Linear(3, 3), None
    target = ema.target(online)
    assert torch.equal(online.weight, target.weight)
    assert online.weight.data_ptr() != target.weight.data_ptr()
    assert not target.training
    assert online.training
    assert not any(p.requires_grad for p in target.parameters())


def test_buffers_are_copied_or_left_to_follow_the_batch():
    online, target = pair()
    mean = target[1].running_mean.clone()
    ema.update(target, online, 0.9, buffers="batch")
    assert torch.equal(target[1].running_mean, mean)
    ema.update(target, online, 0.9)
    assert torch.equal(target[1].running_mean, online[1].running_mean)
    assert target[1].num_batches_tracked == online[1].num_batches_tracked == 1
