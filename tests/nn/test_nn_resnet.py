"""The residual network: its size, what a token sees, and where it cannot serve."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from jepakit import methods
from jepakit.nn import ResNet, smallmap
from jepakit.types import Signal

SMALL = ResNet(width=4, blocks=(1, 1), stem=2)


@pytest.mark.parametrize(
    ("signal", "grid"),
    [(Signal(3, (16, 24)), (4, 6)), (Signal(2, (20,)), (5,)), (Signal(1, (4, 8, 8)), (1, 2, 2))],
)
def test_one_token_per_cell_of_the_last_map_of_any_signal(signal: Signal, grid: tuple[int, ...]) -> None:
    encoder = SMALL.build(signal)
    assert encoder.grid == grid
    s = encoder(torch.randn(2, signal.channels, *signal.size))
    assert s.shape == (2, torch.tensor(grid).prod(), encoder.dim)


def test_the_default_has_the_weights_of_the_resnet_18_for_small_pictures() -> None:
    with torch.device("meta"):
        encoder = ResNet().build(Signal(3, (32, 32)))
    assert sum(p.numel() for p in encoder.parameters()) == 11_168_832
    assert encoder.grid == (4, 4)


@pytest.mark.parametrize("stem", [1, 2, 4])
def test_a_token_sees_its_own_cell_and_its_surroundings_and_no_further(stem: int) -> None:
    torch.manual_seed(0)
    encoder = ResNet(width=16, blocks=(1, 1), stem=stem).build(Signal(1, (16 * stem, 16 * stem))).eval()
    x = torch.randn(8, 1, 16 * stem, 16 * stem, requires_grad=True)
    encoder(x)[:, 8 * 3 + 4].square().sum().backward()
    assert x.grad is not None
    felt = x.grad.abs().reshape(8, 8, 2 * stem, 8, 2 * stem).sum((0, 2, 4))
    cells = torch.arange(8.0)
    centre = [float((felt.sum(1 - axis) * cells).sum() / felt.sum()) for axis in (0, 1)]
    assert centre == pytest.approx([3, 4], abs=0.5)
    assert (felt[1:6, 2:7] > 0).all()
    assert felt[7].sum() == felt[:, 0].sum() == 0


def test_read_gives_the_tokens_asked_for_and_no_other_size_than_its_strides_allow() -> None:
    encoder = SMALL.build(Signal(1, (16, 16))).eval()
    x = torch.randn(2, 1, 16, 16)
    read = torch.tensor([[3, 0], [7, 15]])
    whole = encoder(x)
    assert_close(encoder(x, read=read), torch.stack([whole[b, read[b]] for b in range(2)]), atol=1e-6, rtol=0)
    assert encoder(torch.randn(1, 1, 8, 24)).shape[1] == 12
    with pytest.raises(ValueError, match="does not divide size"):
        encoder(torch.randn(1, 1, 18, 16))


def test_fresh_maps_keep_their_scale_through_the_stages() -> None:
    torch.manual_seed(0)
    s = ResNet(width=16, blocks=(1, 1, 1)).build(Signal(3, (32, 32)))(torch.randn(16, 3, 32, 32))
    assert 0.3 < s.std() < 3


@pytest.mark.parametrize("name", ["ijepa", "cjepa", "mae"])
def test_methods_with_masks_refuse_it_when_they_are_built(name: str) -> None:
    with pytest.raises(ValueError, match=r"resnet cannot leave patches out.*vit, mlp or cnn"):
        methods.build(methods.load(name).Config(encoder=SMALL), Signal(3, (16, 16)))


def test_bad_settings_are_refused_with_their_values() -> None:
    with pytest.raises(ValueError, match=r"blocks \(\)"):
        ResNet(blocks=())
    with pytest.raises(ValueError, match="stem 0"):
        ResNet(stem=0)


@pytest.mark.parametrize(("side", "kernel", "stride"), [(3, 3, 1), (4, 3, 1), (6, 3, 2), (6, 1, 2), (8, 4, 2)])
def test_a_small_map_gets_the_gradients_of_an_ordinary_convolution(side: int, kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 4, side, side, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 4, kernel, kernel, dtype=torch.float64, requires_grad=True)
    padding = (kernel - stride + 1) // 2
    y = F.conv2d(x, weight, stride=stride, padding=padding)
    error = torch.randn_like(y)
    expected = torch.autograd.grad(y, (x, weight), error)
    y = smallmap._SmallMapProduct.apply(x, weight, stride, padding)
    assert_close(torch.autograd.grad(y, (x, weight), error), expected, atol=1e-12, rtol=0)


def test_in_bfloat16_the_small_maps_alone_take_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    ours = smallmap.weight_gradient
    monkeypatch.setattr(smallmap, "weight_gradient", lambda x, *rest: taken.append(x.shape[2]) or ours(x, *rest))
    encoder = ResNet(width=8, blocks=(1, 1, 1), stem=2).build(Signal(3, (24, 24)))
    encoder(torch.randn(2, 3, 24, 24)).sum().backward()
    assert not taken
    plain = [p.grad for p in encoder.parameters()]
    assert all(grad is not None for grad in plain)
    with torch.autocast("cpu", torch.bfloat16):
        encoder(torch.randn(2, 3, 24, 24)).sum().backward()
    assert sorted(taken) == [3, 6, 6]
