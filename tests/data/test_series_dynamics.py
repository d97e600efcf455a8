"""Generated series are what their equations say, each a function of (seed, index)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from jepakit import data
from jepakit.data.series.generated import Config, generate_series, lorenz_derivative, lorenz_states

IDS = np.arange(400, dtype=np.int64)


@pytest.mark.parametrize("path", ["sines", "lorenz"])
def test_a_series_depends_on_seed_and_index_alone(path):
    cfg = Config(path, count=60)
    whole, some = generate_series(cfg, IDS[:60]), generate_series(replace(cfg, count=1000), IDS[[41, 7]])
    assert np.array_equal(some, whole[[41, 7]])
    assert not np.array_equal(whole[0], whole[1])
    assert not np.array_equal(generate_series(replace(cfg, seed=1), IDS[:1]), whole[:1])
    train, test = (replace(cfg, split=part).open() for part in ("train", "test"))
    assert (len(train), len(test)) == (48, 12)
    assert np.array_equal(test.raw(0).numpy(), whole[48].astype(np.float32))
    assert test.name(0) == f"{path}[48]"


def test_sines_have_the_published_grid_frequencies_phases_and_noise():
    clean = generate_series(Config("sines", noise=0.0), IDS)
    assert clean.shape == (400, 1, 20)
    time = np.linspace(0, 4 * np.pi, 20)
    # For a sine, x(t + d) + x(t - d) = 2 cos(w d) x(t): the frequency without a fit of the phase.
    middle = clean[:, 0, 1:-1]
    ratio = ((clean[:, 0, 2:] + clean[:, 0, :-2]) * middle).sum(1) / (2 * (middle**2).sum(1))
    speed = np.arccos(ratio) / (time[1] - time[0])
    assert 0.8 <= speed.min() < 0.81
    assert 1.19 < speed.max() <= 1.2
    assert np.abs(clean[:, 0, 0]).max() > 0.99
    assert abs(clean[:, 0, 0].mean()) < 0.15  # phases over the whole circle
    noise = generate_series(Config("sines"), IDS) - clean
    assert noise.std() == pytest.approx(0.05, rel=0.03)
    assert generate_series(Config("sines", frequency=(0.6, 0.8)), IDS).shape == clean.shape


def test_lorenz_starts_where_the_paper_does_and_follows_its_equations_by_euler_steps():
    x = generate_series(Config("lorenz"), IDS)
    assert x.shape == (400, 3, 40)
    assert np.abs(x[:, :, 0]).max() <= 15
    assert np.abs(x[:, :, 0]).max(axis=0).min() > 14.5
    one = x[5]
    for t in range(39):
        a, b, c = one[:, t]
        step = 0.01 * np.array([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c])
        np.testing.assert_allclose(one[:, t + 1], one[:, t] + step, rtol=1e-12)


def test_rk45_is_the_limit_of_ever_smaller_euler_steps():
    start = generate_series(Config("lorenz"), IDS[:3])[:, :, 0]
    exact = lorenz_states(start, 21, 0.01, 28.0, "rk45")[:, :, -1]
    errors = [
        np.abs(lorenz_states(start, 20 * k + 1, 0.01 / k, 28.0, "euler")[:, :, -1] - exact).max() for k in (1, 5, 25)
    ]
    # Euler is of first order: a fifth of the step, a fifth of the error.
    assert errors[1] / errors[0] == pytest.approx(0.2, abs=0.05)
    assert errors[2] / errors[1] == pytest.approx(0.2, abs=0.02)


def test_rho_dt_and_the_integrator_are_options():
    plain = generate_series(Config("lorenz"), IDS[:4])
    for change in ({"rho": 24.0}, {"dt": 0.02}, {"integrator": "rk45"}, {"noise": 0.1}):
        other = generate_series(Config("lorenz", **change), IDS[:4])
        assert not np.allclose(other[:, :, 1:], plain[:, :, 1:])
    # The fixed points of the flow: nothing moves there.
    root = np.sqrt(8 / 3 * 27)
    assert not lorenz_derivative(np.array([[root, root, 27.0], [0.0, 0, 0]]), 28.0).round(9).any()


def test_generated_series_are_read_by_their_name():
    assert data.guess_kind("lorenz") == ("dynamics", "'lorenz' names a generated system")
    cfg = data.read_like(data.load("images")(), "lorenz")
    signal = cfg.open().signal()
    assert (signal.channels, signal.size) == (3, (40,))
    assert torch.equal(cfg.open().raw(3), cfg.open().raw(3))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "waves"}, r"no generated system 'waves'; set data\.path to one of sines, lorenz"),
        ({"path": "lorenz", "dt": 1.0}, r"leaves all bounds with dt 1 and rho 28; give a smaller dt"),
        ({"path": "lorenz", "dt": 0.0}, r"dt is 0"),
        ({"noise": -1.0}, r"noise is -1"),
        ({"frequency": (2.0, 1.0)}, r"frequency is \(2\.0, 1\.0\)"),
        ({"length": 1}, r"length 1"),
        ({"count": 2, "split": "test"}, r"test part of 2 series is empty"),
    ],
)
def test_what_cannot_be_generated_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Config(**settings).open()
