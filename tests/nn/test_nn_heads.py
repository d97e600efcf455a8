"""The projector: widths as asked for, nothing that the loss cannot see."""

import pytest
import torch
from torch import nn

from jepakit.nn.heads import BatchNorm, Projector


def test_no_layers_are_the_identity_whatever_the_widths() -> None:
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Projector(layers=0, hidden=3, out=2).build(6)(z), z)
    assert Projector(layers=0, out=2).width(6) == 6


@pytest.mark.parametrize(
    ("projector", "shapes"),
    [
        (Projector(), [(6, 6), (6, 6)]),
        (Projector(layers=1, out=3), [(3, 6)]),
        (Projector(layers=3, hidden=8, out=2), [(8, 6), (8, 8), (2, 8)]),
    ],
)
def test_a_projector_has_the_layers_and_widths_asked_for(projector: Projector, shapes: list[tuple[int, int]]) -> None:
    built = projector.build(6)
    assert [tuple(m.weight.shape) for m in built if isinstance(m, nn.Linear)] == shapes
    kinds = [type(m) for m in built]
    assert kinds == [nn.Linear, BatchNorm, nn.ReLU] * (projector.layers - 1) + [nn.Linear]
    assert built(torch.zeros(2, 5, 6)).shape == (2, 5, projector.width(6))


def test_a_constant_added_to_its_input_leaves_no_trace() -> None:
    # Which is why its linears have no bias: it would be a parameter without a gradient.
    z = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)).double()
    built = Projector(layers=3, hidden=8).build(6).double()
    torch.testing.assert_close(built(z), built(z + 3))
    assert all(m.bias is None for m in built if isinstance(m, nn.Linear))


@pytest.mark.parametrize("wrong", [{"layers": -1}, {"hidden": 0}, {"out": 0}])
def test_a_projector_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="give 0 layers or more"):
        Projector(**wrong)
