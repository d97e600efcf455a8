"""Statistics of long paths, against systems whose answers are known; paths that a model makes by itself."""

import numpy as np
import pytest
import torch

from jepakit import methods
from jepakit.data.series import generated
from jepakit.evals.metrics.readers import Reader
from jepakit.evals.windows import past_and_future
from jepakit.methods import bijepa
from jepakit.nn.mlp import MLP, Perceptron
from jepakit.studies.bijepa.dynamics import axis_distances, decode_path, lyapunov_exponent, unroll_blocks
from jepakit.types import Signal


def lorenz(length=4000, n=2):
    cfg = generated.Config("lorenz", length=length + 1000)
    return generated.generate_series(cfg, np.arange(n, dtype=np.int64)).transpose(0, 2, 1)[:, 1000:]


def test_neighbours_on_the_lorenz_attractor_part_at_the_known_rate():
    assert lyapunov_exponent(lorenz(), 0.01, 75, (20, 200), 1500) == pytest.approx(0.906, abs=0.15)


def test_a_turning_wheel_has_exponent_zero_and_a_spring_at_rest_a_negative_one():
    angle = 0.1 * np.arange(3000) + np.array([[0.0], [0.003]])
    wheel = np.stack([np.cos(angle), np.sin(angle)], -1)
    assert lyapunov_exponent(wheel, 0.01, 75, (0, 200)) == pytest.approx(0, abs=0.01)
    fading = wheel * np.exp(-0.5 * 0.01 * np.arange(3000))[None, :, None] * np.array([1.0, 1.3])[:, None, None]
    assert lyapunov_exponent(fading, 0.01, 75, (0, 200)) == pytest.approx(-0.5, abs=0.1)


def test_the_exponent_is_per_unit_of_time_and_paths_may_stand_still():
    path = lorenz(2500, 1)
    assert lyapunov_exponent(path, 0.02, 75, (20, 200), 500) == pytest.approx(
        lyapunov_exponent(path, 0.01, 75, (20, 200), 500) / 2
    )
    assert np.isfinite(lyapunov_exponent(np.zeros((2, 300, 3)), 0.01, 10, (5, 50)))


@pytest.mark.parametrize(("n", "length"), [(1, 300), (3, 200)])
def test_paths_too_short_to_follow_neighbours_are_refused(n, length):
    with pytest.raises(ValueError, match=f"the paths have {length} steps"):
        lyapunov_exponent(np.zeros((n, length, 3)), 0.01, 75, (20, 200))


def test_axes_are_as_far_apart_as_they_are_shifted():
    a = np.random.default_rng(0).normal(size=(500, 2))
    np.testing.assert_allclose(axis_distances(a, a + np.array([0.0, 3.0])), [0.0, 3.0], atol=1e-12)
    np.testing.assert_allclose(axis_distances(a, a[::-1]), 0, atol=1e-12)


@pytest.fixture
def method():
    settings = bijepa.Config(MLP((5,), 6, 16, 1), Perceptron(16))
    return methods.build(settings, Signal(3, (10,)), 0).eval()


def test_each_unrolled_block_is_what_the_predictor_makes_of_the_one_before(method):
    x = torch.randn(4, 3, 10)
    s = unroll_blocks(method, x, 3)
    torch.testing.assert_close(s[:, 0], method.predict(x)[:, 0, 0])
    torch.testing.assert_close(s[:, 2], method.predictors[0](s[:, 1:2], past_and_future(method, 4))[:, 0, 0])
    blind = torch.cat([x[..., :5], torch.full((4, 3, 5), torch.nan)], 2)
    torch.testing.assert_close(unroll_blocks(method, blind, 3), s)


def test_a_decoded_path_has_its_blocks_one_after_the_other(method):
    # A reader whose values are the number of the channel, the block and the step.
    weight = np.zeros((6, 15))
    weight[0] = 1
    reader = Reader(np.zeros(6), np.ones(6), weight, np.repeat([0.0, 100.0, 200.0], 5) + np.tile(np.arange(5), 3))
    s = torch.zeros(2, 4, 6)
    s[:, :, 0] = torch.tensor([10.0, 20.0, 30.0, 40.0])
    path = decode_path(reader, s, 3)
    assert path.shape == (2, 3, 20)
    assert path[0, 1, :7].tolist() == [110, 111, 112, 113, 114, 120, 121]


def test_halves_of_unequal_length_cannot_be_unrolled():
    settings = bijepa.Config(MLP((5,), 6, 16, 1), Perceptron(16))
    method = methods.build(settings, Signal(3, (10,)), 0)
    method.encoder.grid = (3,)
    with pytest.raises(ValueError, match="2 tokens and the future 1"):
        unroll_blocks(method, torch.zeros(1, 3, 15), 1)
