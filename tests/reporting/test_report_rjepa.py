"""The report on a method that unfolds in time: its errors per step, paths, gates, eigenvalues, scanpaths."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from jepakit import data, methods
from jepakit.data.images import synthetic
from jepakit.data.scanpaths import settings
from jepakit.data.series import generated
from jepakit.methods import ijepa, rjepa
from jepakit.nn import CNN, MLP
from jepakit.nn.predictor import Predictor
from jepakit.nn.transformer import ViT
from jepakit.recurrent.circuit import Circuit
from jepakit.reporting import figures, paths, write
from jepakit.reporting.records import read_record
from jepakit.reporting.time import TimeMeasures, run_through, summarize_steps, unfold_samples
from jepakit.run import checkpoint, optim
from jepakit.run.settings import Run
from jepakit.run.write import to_yaml

SINES = generated.Config("sines", count=12)
SERIES = rjepa.Config(MLP((4,), width=6, hidden=8, depth=1), Circuit(width=5))
FILMS = rjepa.Config(CNN((1, 4, 4), width=6, channels=(4,)), Circuit(width=5), saccade=True)


@pytest.fixture
def gaze(tmp_path: Path) -> settings.Config:
    """Made-up scanpaths over six pictures."""
    pictures = np.random.default_rng(0).integers(0, 256, (6, 24, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", x=pictures)
    return settings.Config(str(tmp_path / "pictures.npz"), size=(4, 4), count=4, synthetic="uniform")


def built(cfg: Any, source: Any) -> rjepa.RJEPA:
    made = methods.build(cfg, source.open().signal())
    assert isinstance(made, rjepa.RJEPA)
    return made.eval()


def write_run(folder: Path, source: Any, method: Any) -> Path:
    """A run folder with an untrained checkpoint and two rows."""
    run = Run(method=method, data=source)
    model = methods.build(method, source.open().signal())
    checkpoint.save_checkpoint(folder, 3, model, optim.build_optimizer(run.optim, model), {})
    (folder / "config.yaml").write_text(to_yaml(run))
    rows = [{"step": k, "loss": 1.0, "metrics": {"spectrum": {"target": [2.0, 1.0 / (1 + k)]}}} for k in (0, 10)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_errors_are_those_of_the_methods_own_states_and_predictions() -> None:
    method, dataset = built(SERIES, SINES), SINES.open()
    seen = unfold_samples(method, dataset, 12, "cpu")
    assert seen is not None
    x, _ = dataset.whole(np.arange(12), method.signal.size)
    with torch.no_grad():
        h = method.encode(x).double()
        pred = method.predict(h[:, :-1, None].float())[:, :, 0].double()
    expected = {
        "error": (h[:, 1:] - pred).square().mean((0, 2)),
        "still": (h[:, 1:] - h[:, :-1]).square().mean((0, 2)),
        "constant": h[:, 1:].var(0, correction=0).mean(1),
    }
    for key, value in expected.items():
        assert_close(torch.from_numpy(getattr(seen, key)), value, rtol=1e-5, atol=1e-9)
    assert_close(torch.from_numpy(seen.states), h.float())
    assert seen.names[0] == "sines[0]"


def test_the_saccade_that_leads_to_a_fixation_is_read(gaze: settings.Config) -> None:
    method, dataset = built(FILMS, gaze), gaze.open()
    parts = [next(data.loader.read_stream(dataset, method.signal, batch=6))]
    x, action = parts[0].x.float() / 255, parts[0].action
    assert action is not None
    with torch.no_grad():
        _, pred, _ = run_through(method, x, action)
        h = method.encode(x)[:, :, None].transpose(0, 1)
        assert_close(pred, method.predict(h[:-1], action.transpose(0, 1)))
        assert not torch.allclose(pred, method.predict(h[:-1]))


def test_a_sample_counts_up_to_its_end_and_steps_of_fewer_than_two_are_left_out() -> None:
    gen = torch.Generator().manual_seed(0)
    tokens = torch.randn(5, 3, 2, 4, generator=gen)
    pred = torch.randn(4, 3, 2, 4, generator=gen)
    real = torch.arange(5)[:, None] < torch.tensor([5, 3, 4])
    gate = torch.rand(5, 3, 4, generator=gen)
    seen = summarize_steps(tokens, pred, gate, real, SINES.open(), [0, 1, 2])
    assert seen.gate is not None
    assert_close(torch.from_numpy(seen.gate[3]), gate[3, [0, 2]].mean(0))
    assert seen.states.shape == (3, 4, 4)
    assert np.isnan(seen.states[1, 3]).all()
    assert np.isfinite(seen.states[0]).all()
    pair = (tokens[3, [0, 2]] - pred[2, [0, 2]]).square().mean()
    assert seen.error[2] == pytest.approx(float(pair))
    tokens[3, 1], gate[3, 1] = 1e9, torch.nan
    again = summarize_steps(tokens, pred, gate, real, SINES.open(), [0, 1, 2])
    for key in ("error", "still", "constant", "gate"):
        assert getattr(again, key).tolist() == getattr(seen, key).tolist()


def test_gates_are_those_of_the_circuit_unit_by_unit() -> None:
    method = built(SERIES, SINES)
    wanted = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    cell = method.circuits.top.cell
    with torch.no_grad():
        cell.weight[:, 1], cell.own[:, 1] = 0, 0
        cell.bias[:, 1] = wanted.logit()
    seen = unfold_samples(method, SINES.open(), 12, "cpu")
    assert seen is not None
    assert seen.gate is not None
    assert seen.gate.shape == (5, 5)
    assert_close(torch.from_numpy(seen.gate), wanted.expand(5, 5))


def test_gates_are_followed_over_time_by_their_mean_and_quartiles() -> None:
    gate = np.linspace(0, 1, 5) * np.array([1.0, 0.5, 0.1])[:, None]
    body = paths.gate_figure(gate).body
    for said in (
        "mean of all units: 0.5 at step 1",
        "upper quartile: 0.75 at step 1",
        "lower quartile: 0.25 at step 1",
    ):
        assert said in body
    assert "0.05 at step 3" in body


def test_paths_are_drawn_in_the_directions_of_most_variance_and_not_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 3)) * [3.0, 0.1, 1.0]
    axes, share = paths.principal_directions(rows)
    assert np.abs(axes) == pytest.approx(np.eye(3)[[0, 2]], abs=0.05)
    assert share == pytest.approx([0.9, 0.1], abs=0.02)
    assert paths.state_paths(np.ones((2, 4, 3)), ["a", "b"], np.ones((2, 4, 3))) == []
    (figure,) = paths.state_paths(rows.reshape(4, 100, 3)[:2], ["a", "b"], rows.reshape(4, 100, 3))
    assert figure.body.count("<circle") == 2
    assert figure.body.count("<polyline") >= 2


def test_an_error_below_both_baselines_is_told_as_such() -> None:
    one = np.ones(3)
    figure = paths.error_figure(TimeMeasures(np.zeros((2, 4, 3)), one, 2 * one, 3 * one, None, ("a", "b")))
    assert "prediction: 1 at step 2" in figure.body
    assert "state before: 2 at step 2" in figure.body
    assert "best constant: 3 at step 2" in figure.body


def test_the_page_shows_time_for_methods_that_unfold_alone(tmp_path: Path) -> None:
    html = write([write_run(tmp_path / "r", SINES, SERIES)], images=8).read_text()
    for said in ("Through time", "Error per step", "Paths of states", "Gates", "Eigenvalues over steps"):
        assert said in html
    assert "Scanpaths" not in html
    other = ijepa.Config(ViT(patch=(8, 8), width=16, depth=1, heads=2), Predictor(width=16, depth=1, heads=2))
    html = write([write_run(tmp_path / "i", synthetic.Config("shapes", count=8), other)], images=4).read_text()
    assert "Through time" not in html


def test_scanpaths_are_drawn_on_their_pictures(tmp_path: Path, gaze: settings.Config) -> None:
    folder = write_run(tmp_path / "r", gaze, FILMS)
    html = write([folder], images=6).read_text()
    assert html.count("with the places that were looked at") == 6


def test_data_that_are_gone_leave_a_sentence(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", SINES, SERIES)
    run = Run(method=SERIES, data=replace(SINES, path="pendulum"))
    (folder / "config.yaml").write_text(to_yaml(run))
    html = write([folder]).read_text()
    assert "Through time" in html
    assert "The data were not read: no generated system" in html


def test_eigenvalues_are_followed_in_order_and_end_where_nothing_is_left(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", SINES, SERIES)
    rows = [{"step": k, "metrics": {"spectrum": {"target": v}}} for k, v in ((0, [1.0, 4.0]), (5, [2.0, 0.0]))]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure = figures.eigenvalue_figure(read_record(folder), "target")
    assert figure is not None
    assert "direction 1: 4 at step 0, 2 at step 5" in figure.body
    assert "direction 2: 1 at step 0, 1 at step 0, 1 values not finite" in figure.body
    assert figures.eigenvalue_figure(read_record(folder), "context") is None
