"""Keypoints: the places of things on a picture, and differences of places."""

import pytest
import torch
from torch.testing import assert_close

from jepakit.nn import FlatMLP, Keypoints, ResidualMLP
from jepakit.nn.keypoints import EXTENT
from jepakit.nn.mlp import count_with_differences, with_differences
from jepakit.types import Signal


def finder(points: int = 2) -> torch.nn.Module:
    """Keypoints whose k-th place is the brightest cell of channel k."""
    encoder = Keypoints((5, 9), points=points, width=points, depth=0, kernel=1, stride=1).build(Signal(points, (5, 9)))
    with torch.no_grad():
        for layer in (encoder.conv, encoder.heat, encoder.offset):
            layer.weight.zero_()
            layer.bias.zero_()
        encoder.conv.weight[..., 0, 0] = torch.eye(points)
        encoder.heat.weight.copy_(20 * torch.eye(points))
    return encoder


def test_places_are_where_things_are() -> None:
    x = torch.zeros(2, 2, 5, 9)
    x[0, 0, 0, 4] = x[0, 1, 2, 8] = x[1, 0, 4, 0] = x[1, 1, 2, 4] = 1.0
    places = finder()(x).reshape(2, 2, 2)
    expected = torch.tensor([[[-1.0, 0.0], [0.0, 1.0]], [[1.0, -1.0], [0.0, 0.0]]]) * EXTENT
    assert_close(places, expected, atol=1e-3, rtol=0)


def test_a_place_follows_a_thing_by_less_than_a_cell() -> None:
    torch.manual_seed(0)
    encoder = Keypoints((17,), points=1, width=16, depth=1, kernel=5, stride=4).build(Signal(1, (17,)))
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-2)
    for step in range(300):
        where = torch.rand(64, 1, generator=torch.Generator().manual_seed(step)) * 12 + 2
        x = torch.exp(-(torch.arange(17) - where).square() / 2)[:, None]
        error = encoder(x)[:, 0] - (where / 8 - 1) * EXTENT
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
    cell = 2 * EXTENT / 4
    assert error.detach().square().mean().sqrt().item() < cell / 10


def test_the_place_on_an_axis_of_one_cell_is_its_middle() -> None:
    encoder = Keypoints((2, 8), points=3, kernel=3, stride=2).build(Signal(1, (2, 8)))
    assert encoder.cells[..., 0].tolist() == [[0.0]] * 4


def test_every_frame_of_a_film_has_its_own_places() -> None:
    signal = Signal(2, (3, 12, 12))
    encoder = Keypoints((1, 12, 12), points=4).build(signal)
    x = torch.rand(2, 2, 3, 12, 12)
    assert encoder.dim == 8
    assert tuple(encoder.grid) == (3, 1, 1)
    one = Keypoints((1, 12, 12), points=4).build(Signal(2, (1, 12, 12)))
    one.load_state_dict(encoder.state_dict())
    assert_close(encoder(x)[:, 1:2], one(x[:, :, 1:2]))


def test_differences_are_those_of_all_pairs() -> None:
    found = with_differences(torch.tensor([[1.0, 4.0, 9.0]]))
    assert found.tolist() == [[1, 4, 9, -3, -8, -5]]
    assert found.shape[-1] == count_with_differences(3)


@pytest.mark.parametrize("differences", [True, False])
def test_networks_read_differences_where_the_settings_say_so(differences: bool) -> None:
    readout = FlatMLP(8, 1, norm="none", differences=differences).build(3, 4, (2,))
    predictor = ResidualMLP(8, 1, differences).build(3, 2, ())
    seen = [readout.layers[0].in_features, predictor.layers[0].in_features]
    assert seen == ([21, 8] if differences else [6, 5])
    assert readout(torch.randn(5, 2, 3)).shape == (5, 4)
    assert predictor(torch.randn(5, 1, 3), torch.randn(5, 2), ())[0].shape == (5, 1, 3)


def test_bad_settings_are_one_sentence_each() -> None:
    with pytest.raises(ValueError, match="points is 0"):
        Keypoints(points=0)
    with pytest.raises(ValueError, match="give an odd kernel no smaller than the stride"):
        Keypoints(kernel=4)
    with pytest.raises(ValueError, match=r"patch \(1,\) has no places to find"):
        Keypoints((1,)).build(Signal(2, (9,)))
