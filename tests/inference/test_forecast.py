"""Readers, forecasts and their intervals: against closed forms, definitions and systems that are known."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import support
import torch
from support import halves_run, read_json, write_table
from torch import nn

import jepakit as jk
from jepakit import methods
from jepakit.cli.text import describe_probes
from jepakit.core.files import write_text
from jepakit.data.series import generated
from jepakit.data.series.settings import Config as SeriesConfig
from jepakit.evals.kinds import forecast as kind
from jepakit.evals.metrics.readers import adam_train_error, choose_reader, fit_linear_changes, fit_ridge
from jepakit.evals.windows import Windows, as_raw, past_and_future, read_windows, represent_windows
from jepakit.inference.plots import BAND_COLORS, plot_title
from jepakit.methods import bijepa, vicreg
from jepakit.nn.mlp import MLP, Perceptron
from jepakit.reporting.probes import probe_row
from jepakit.run import checkpoint, optim, write
from jepakit.run.settings import Run
from jepakit.types import Batch, Rng, Signal


def linear_system(n=60, d=5, k=3, seed=0):
    draw = np.random.default_rng(seed)
    x, weight, bias = draw.normal(size=(n, d)), draw.normal(size=(d, k)), draw.normal(size=k)
    return x, x @ weight + bias


@pytest.mark.parametrize("d", [5, 90])
def test_a_ridge_without_noise_is_exact_whether_samples_or_features_are_more(d):
    x, y = linear_system(d=d)
    (reader,) = fit_ridge(x, y, (1e-12,))
    np.testing.assert_allclose(reader(x), y, atol=1e-8)


def test_a_ridge_minimises_its_objective_from_either_side_of_the_decomposition():
    x, y = linear_system(n=20)
    y = y + np.random.default_rng(1).normal(size=y.shape)
    (reader,) = fit_ridge(x, y, (0.3,))
    z = (x - x.mean(0)) / x.std(0)
    expected = np.linalg.solve(z.T @ z / 20 + 0.3 * np.eye(5), z.T @ (y - y.mean(0)) / 20)
    np.testing.assert_allclose(reader.weight, expected, atol=1e-10)
    wide = np.concatenate([x, x @ np.random.default_rng(2).normal(size=(5, 30))], 1)
    (reader,) = fit_ridge(wide, y, (0.3,))
    z = (wide - wide.mean(0)) / wide.std(0)
    expected = np.linalg.solve(z.T @ z / 20 + 0.3 * np.eye(35), z.T @ (y - y.mean(0)) / 20)
    np.testing.assert_allclose(reader.weight, expected, atol=1e-10)


def test_a_feature_that_does_not_vary_tells_nothing():
    x, y = linear_system()
    (reader,) = fit_ridge(np.concatenate([x, np.full((60, 1), 7.3)], 1), y, (1e-9,))
    assert np.abs(reader.weight[-1]).max() < 1e-6


def test_strength_is_chosen_for_every_step_by_itself_on_held_out_samples():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(80, 40))
    clean = x[:, :2]
    noise = draw.normal(size=(80, 2))
    y = np.stack([clean, noise], -1)  # of both channels step 0 is there to be read, step 1 is not
    held = np.arange(80) >= 60
    reader, l2 = choose_reader(x, y, held, (1e-8, 100.0))
    assert l2.tolist() == [1e-8, 100.0]
    single, _ = choose_reader(x, y[..., :1], held, (1e-8, 100.0))
    np.testing.assert_allclose(reader(x)[:, [0, 2]], single(x), atol=1e-10)


def test_a_linear_model_of_changes_continues_every_channel_from_its_own_past():
    draw = np.random.default_rng(0)
    past = draw.normal(size=(400, 2, 6))
    held = np.arange(400) >= 320
    last, before = past[..., -1:], past[..., -2:-1]
    slope = last + (last - before) * np.arange(1, 4)
    shared = fit_linear_changes(past, slope, held, l2=(1e-10,))
    np.testing.assert_allclose(shared(past[:5] + 100), slope[:5] + 100, atol=1e-4)
    # Weights of their own are needed where channels differ, and the level where they return to their mean.
    other = np.stack([slope[:, 0], np.repeat(before[:, 1], 3, 1)], 1)
    own = fit_linear_changes(past, other, held, shared=False, l2=(1e-10,))
    np.testing.assert_allclose(own(past[:5] + 100), other[:5] + 100, atol=1e-4)
    assert np.abs(fit_linear_changes(past, other, held, l2=(1e-10,))(past) - other).max() > 1
    level = fit_linear_changes(past, 0.5 * last, held, level=True, l2=(1e-10,))
    np.testing.assert_allclose(level(past), 0.5 * last, atol=1e-4)
    assert np.abs(fit_linear_changes(past, 0.5 * last, held, l2=(1e-10,))(past) - 0.5 * last).max() > 0.1


@pytest.mark.parametrize("steps", [1, 37])
def test_the_short_probe_is_a_linear_layer_after_so_many_full_batch_adam_steps(steps):
    x, y = (torch.from_numpy(v).float() for v in linear_system())
    found = adam_train_error(x, y, Rng(3), steps, 1e-2)
    layer = nn.Linear(5, 3)
    drawn = (2 * torch.rand(6, 3, generator=Rng(3).generator()) - 1) / 5**0.5
    with torch.no_grad():
        layer.weight.copy_(drawn[:5].T)
        layer.bias.copy_(drawn[5])
    search = torch.optim.Adam(layer.parameters(), lr=1e-2)
    for _ in range(steps):
        search.zero_grad()
        nn.functional.mse_loss(layer(x), y).backward()
        search.step()
    assert found == pytest.approx(float(nn.functional.mse_loss(layer(x), y).detach()), rel=1e-5)


def test_the_short_probe_fails_on_small_representations_of_the_same_content():
    x, y = (torch.from_numpy(v).float() for v in linear_system(n=200))
    assert adam_train_error(0.05 * x, y, Rng(0)) > 2 * adam_train_error(x, y, Rng(0))
    (small,) = fit_ridge(0.05 * x.numpy(), y.numpy(), (1e-9,))
    np.testing.assert_allclose(small(0.05 * x.numpy()), y.numpy(), atol=1e-4)


def windows(n=200, cut=8, future=6, seed=0, noise=0.0):
    """Sines of one speed: their future is linear in their past."""
    draw = np.random.default_rng(seed)
    x = np.sin(0.5 * np.arange(cut + future) + draw.uniform(0, 6, (n, 1)))[:, None]
    x = (x + noise * draw.normal(size=x.shape)).astype(np.float32)
    s = x[:, 0, :cut]
    return Windows(s, s[:, :1], x[..., :cut], x[..., cut:], np.arange(n))


def told(train, test, **settings):
    found = [{}]
    for key, value in kind.evaluate(train, test, kind.Config(**settings)):
        if key == "name":
            found.append({})
        found[-1][key] = value
    return {one["name"]: one for one in found[1:]}


def test_the_kind_scores_both_protocols_at_every_horizon_beside_the_last_value():
    found = told(windows(), windows(seed=1), horizons=(1, 3))
    assert list(found) == ["A-1", "A-3", "B-1", "B-3"]
    assert found["A-3"]["value"] < 1e-8  # the whole past tells all
    assert found["B-3"]["value"] > 0.1  # its first value does not
    test = windows(seed=1)
    still = ((test.past[..., -1:] - test.future[..., 2:3]) ** 2).mean()
    assert found["A-3"]["last_value"] == pytest.approx(float(still), rel=1e-5)
    # Of sines around 0, the past tells the change, too; what is noted is the same for all that is probed.
    assert found["A-3"]["linear_change"] == found["B-3"]["linear_change"] < 1e-4 * float(still)
    assert all(one["low"] <= one["value"] <= one["high"] for one in found.values())


def test_the_path_is_the_mean_error_of_all_steps_up_to_the_horizon():
    found = told(windows(), windows(seed=1), horizons=(1, 2, 3))
    every = [found[f"B-{h}"]["value"] for h in (1, 2, 3)]
    assert found["B-3"]["path"] == pytest.approx(np.mean(every))
    assert found["B-1"]["path"] == found["B-1"]["value"] != found["B-2"]["path"]


def test_an_interval_narrows_with_the_number_of_windows():
    wide, narrow = (told(windows(noise=0.3), windows(n, seed=1, noise=0.3), horizons=(1,))["A-1"] for n in (40, 4000))
    assert narrow["high"] - narrow["low"] < 0.3 * (wide["high"] - wide["low"])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"horizons": (0,)}, "below 1"), ({"horizons": (7,)}, "beyond the 6 steps"), ({"l2": ()}, "positive values")],
)
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        told(windows(), windows(), **settings)


def test_too_few_windows_are_refused():
    with pytest.raises(ValueError, match="there are 9 windows"):
        told(windows(9), windows())


@pytest.fixture
def run(tmp_path):
    write_table(tmp_path / "a.csv", 400)
    data = SeriesConfig(str(tmp_path / "a.csv"), window=16, stride=3, columns=("c0", "c1"), split="train")
    return halves_run(tmp_path / "run", data)


def test_what_follows_the_cut_never_reaches_a_forecast(run):
    method = jk.load(run).method
    x = torch.randn(4, 2, 16)
    other = torch.cat([x[..., :8], torch.full((4, 2, 8), torch.nan)], 2)
    for a, b in zip(represent_windows(method, x), represent_windows(method, other), strict=True):
        assert np.array_equal(a, b)
    assert past_and_future(method, 1).context.tolist() == [[0]]


@pytest.mark.parametrize("name", ["ijepa", "cjepa", "mae", "bijepa"])
def test_any_method_that_predicts_hidden_tokens_can_forecast(tmp_path, name):
    write_table(tmp_path / "a.csv", 300)
    data = SeriesConfig(str(tmp_path / "a.csv"), window=16, columns=("c0", "c1"), split="train")
    settings = methods.load(name).Config.tiny(Signal(2, (16,)))
    halves_run(tmp_path / "run", data, method=settings)
    done = jk.forecast(tmp_path / "run", tmp_path / "a.csv", 3, tmp_path / "f.csv")
    assert np.isfinite(list(done.errors.values())).all()


def test_the_raw_baseline_reads_the_past_itself():
    raw = as_raw(windows(cut=8))
    assert raw.s.shape == (200, 8)
    assert np.array_equal(raw.s, raw.pred)


def test_windows_hold_the_values_as_the_model_normalises_them():
    method = methods.build(bijepa.Config(MLP((8,), 24, 48, 1), Perceptron(48)), Signal(1, (16,), (2.0,), (0.5,)))
    x = torch.randn(3, 1, 16, generator=Rng(0).generator())
    found = read_windows(method, [Batch(x, id=torch.arange(3))])
    np.testing.assert_allclose(np.concatenate([found.past, found.future], 2), (x.numpy() - 2) / 0.5, rtol=1e-5)


def test_probing_a_run_on_unlabelled_series_tells_errors_and_which_way_is_better(run):
    path = jk.probe(run, "forecast", settings={"forecast.horizons": [1, 8]})
    files = sorted(p.stem for p in (run / "evals").iterdir())
    assert files == ["forecast-A-1", "forecast-A-8", "forecast-B-1", "forecast-B-8"]
    found = json.loads(path.read_text())
    assert found["lower_is_better"]
    assert found["weights"] == "context"
    assert found["raw"] < 1e-3  # waves of one speed are linear in their past
    assert "test part" in found["data"]
    shown = describe_probes([path])
    assert "%" not in shown.splitlines()[1]
    assert "clearly worse than the raw input" in shown
    near = {**found, "value": 0.5, "low": 0.4, "high": 0.6, "random_init": 1.0, "raw": 0.55, "baselines": {}}
    told = probe_row({**near, "raw": 0.8}, "r")
    assert (told["tone"], told["gain"], told["picture"]) == ("good", "-38 %", "an error: lower is better")
    assert probe_row(near, "r")["tone"] == "warn"


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_forecast_goes_on_where_the_table_ends_with_its_times_and_beyond_a_window(run, tmp_path):
    done = jk.forecast(run, tmp_path / "a.csv", 20, tmp_path / "f.csv", plot=tmp_path / "f.png")
    rows = read_csv(tmp_path / "f.csv")
    assert (done.series, done.horizon, len(rows)) == (1, 20, 20)
    last = np.datetime64("2024-01-01T00:00") + 399 * np.timedelta64(60, "m")
    times = [np.datetime64(r["time"]) for r in rows]
    assert times == [last + k * np.timedelta64(60, "m") for k in range(1, 21)]
    assert [r["step"] for r in rows] == [str(k) for k in range(1, 21)]
    # The waves of the table go on; even an untrained encoder tells two of them.
    truth = np.sin((400 + np.arange(20))[:, None] * (0.1 + 0.07 * np.arange(2)))
    found = np.array([[float(r["c0"]), float(r["c1"])] for r in rows])
    assert np.abs(found - truth)[:8].max() < 0.2
    assert np.abs(found - truth).max() < 0.6  # beyond the half window of 8, too
    for r in rows:
        ends = ["c0_low95", "c0_low90", "c0_low80", "c0", "c0_high80", "c0_high90", "c0_high95"]
        assert sorted(ends, key=lambda end: float(r[end])) == ends
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"
    assert done.errors[done.reader] < 0.3 * done.errors["last-value"]


def test_a_forecast_by_parquet_has_every_series_and_goes_on_without_times(run, tmp_path):
    waves = np.sin(np.arange(120)[:, None] * 0.1).repeat(2, 1)
    lines = ["entity,c0,c1", *(f"{name},{a},{b}" for name in "pq" for a, b in waves)]
    (tmp_path / "b.csv").write_text("\n".join(lines))
    jk.forecast(run, tmp_path / "b.csv", 3, tmp_path / "f.parquet")
    found = pq.read_table(tmp_path / "f.parquet")
    assert found["entity"].to_pylist() == ["b.csv/p"] * 3 + ["b.csv/q"] * 3
    assert found["step"].to_pylist() == [1, 2, 3] * 2
    assert "time" not in found.column_names


def test_a_run_on_many_short_series_is_judged_on_whole_ones_and_forecasts_others(tmp_path):
    data = generated.Config("sines", count=300, split="train")
    run = halves_run(tmp_path / "run", data, patch=10, channels=1, mean=(0.0,), std=(0.7,))
    time = np.linspace(0, 8 * np.pi, 39)[:30]
    (tmp_path / "a.csv").write_text("\n".join(["value", *map(str, np.sin(time))]))
    # Series of 20 steps say nothing of more than 10 after their middle.
    with pytest.raises(
        ValueError, match="has 10 steps to forecast, fewer than the horizon of 25; give a --horizon of 10"
    ):
        jk.forecast(run, tmp_path / "a.csv", 25, tmp_path / "f.csv")
    done = jk.forecast(run, tmp_path / "a.csv", 10, tmp_path / "f.csv")
    assert not done.seen
    rows = read_csv(tmp_path / "f.csv")
    truth = np.sin(time[-1] + time[1] * np.arange(1, 11))
    assert np.abs(np.array([float(r["value"]) for r in rows]) - truth).mean() < 0.4


def test_too_few_windows_to_fit_on_are_refused(tmp_path):
    run = halves_run(
        tmp_path / "run", generated.Config("sines", count=8), patch=10, channels=1, mean=(0.0,), std=(0.7,)
    )
    (tmp_path / "a.csv").write_text("\n".join(["value", *("0.5", "0.6") * 20]))
    with pytest.raises(ValueError, match="windows to fit readers on, and they need 10"):
        jk.forecast(run, tmp_path / "a.csv", 2, tmp_path / "f.csv")


def test_irregular_times_are_not_continued(run, tmp_path):
    draw = np.random.default_rng(0)
    clock = np.datetime64("2024-01-01T00:00") + np.cumsum(draw.integers(1, 90, 60)) * np.timedelta64(1, "m")
    (tmp_path / "b.csv").write_text("\n".join(["time,c0,c1", *(f"{t},{k},1.5" for k, t in enumerate(clock))]))
    jk.forecast(run, tmp_path / "b.csv", 2, tmp_path / "f.csv")
    assert "time" not in read_csv(tmp_path / "f.csv")[0]


def mistakes(run, tmp_path):
    short, other = tmp_path / "short.csv", tmp_path / "other.csv"
    short.write_text("c0,c1\n" + "\n".join("0.1,0.2" for _ in range(5)))
    other.write_text("c0,x\n" + "\n".join("0.1,0.2" for _ in range(50)))
    return {
        "the horizon is 0": {"horizon": 0},
        "has 5 steps, but a forecast starts from 8": {"data": short},
        "no column 'c1'": {"data": other},
        "names no format": {"out": tmp_path / "f.txt"},
        "use .png": {"plot": tmp_path / "f.svg"},
        "no reader 'linaer' for these data; give one of last-value": {"reader": "linaer"},
        "the held-out part has 42 steps to forecast, fewer than the horizon of 48; give a --horizon of 24": {
            "horizon": 48
        },
        "has room for 7 forecasts of 36 steps, but": {"horizon": 36},
    }


def test_mistakes_are_told_in_one_sentence_before_anything_is_written(run, tmp_path):
    for sentence, change in mistakes(run, tmp_path).items():
        asked = {"data": tmp_path / "a.csv", "horizon": 2, "out": tmp_path / "f.csv"} | change
        with pytest.raises(ValueError, match=sentence):
            jk.forecast(run, **asked)
    assert not (tmp_path / "f.csv").exists()
    for name in ("f.csv", "f.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ValueError, match=f"{name} exists already"):
            jk.forecast(run, tmp_path / "a.csv", 2, tmp_path / "f.csv")
        (tmp_path / name).unlink()
    jk.forecast(run, tmp_path / "a.csv", 2, tmp_path / "f.csv", overwrite=True)
    assert read_csv(tmp_path / "f.csv")


def test_a_run_that_cannot_predict_the_future_says_so(run, tmp_path):
    settings = vicreg.Config(MLP((8,), 16, 16, 1))
    signal = Signal(2, (16,), views=2)
    made = methods.build(settings, signal, 0)
    data = SeriesConfig(str(tmp_path / "a.csv"), window=16, split="train")
    write_text(tmp_path / "v" / "config.yaml", write.to_yaml(Run(method=settings, data=data)))
    checkpoint.save_checkpoint(tmp_path / "v", 0, made, optim.build_optimizer(Run(settings, data).optim, made), {})
    with pytest.raises(ValueError, match="vicreg does not predict a future"):
        jk.forecast(tmp_path / "v", tmp_path / "a.csv", 2, tmp_path / "f.csv")
    with pytest.raises(ValueError, match="vicreg does not predict a future"):
        jk.probe(tmp_path / "v", "forecast")


def test_the_command_prints_what_it_wrote(run, tmp_path):
    done = support.jepa_here("forecast", run, "--data", tmp_path / "a.csv", "--horizon", 3, "--out", tmp_path / "f.csv")
    assert done.returncode == 0, done.stderr
    assert "3 steps of 1 series" in done.stdout
    assert "data never seen in training" in done.stdout
    written = read_json(tmp_path / "f.json")
    for name, error in written["mean_squared_errors"].items():
        assert f"{name} " in done.stdout
        assert f"{error:.4g}" in done.stdout
    assert "← written" in next(line for line in done.stdout.splitlines() if line.startswith(written["reader"]))


def test_a_forecast_goes_on_at_the_offset_of_the_table(run, tmp_path):
    head, *lines = (tmp_path / "a.csv").read_text().splitlines()
    cut = [line.split(",", 1) for line in lines]
    (tmp_path / "b.csv").write_text("\n".join([head, *(f"{time}:00+05:30,{rest}" for time, rest in cut)]))
    jk.forecast(run, tmp_path / "b.csv", 2, tmp_path / "f.csv")
    assert [r["time"] for r in read_csv(tmp_path / "f.csv")] == [f"2024-01-17 1{k}:00:00+05:30" for k in (6, 7)]
    jk.forecast(run, tmp_path / "b.csv", 2, tmp_path / "g.parquet")
    times = pq.read_table(tmp_path / "g.parquet")["time"]
    assert [str(t) for t in times.to_pylist()] == [f"2024-01-17 1{k}:00:00+05:30" for k in (6, 7)]


def test_every_interval_has_a_color_of_its_own_that_the_legend_shows(run, tmp_path):
    from PIL import Image, ImageColor

    jk.forecast(run, tmp_path / "a.csv", 20, tmp_path / "f.csv", plot=tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    legend = {tuple(color) for color in pixels[:35].reshape(-1, 3).tolist()}
    assert len(set(BAND_COLORS)) == 3
    assert {ImageColor.getrgb(shade) for shade in BAND_COLORS} <= legend


def test_a_plot_says_how_many_of_the_channels_it_draws() -> None:
    assert plot_title("ETTh1", 6, 7) == "ETTh1 · the first 6 of 7 channels"
    assert plot_title("ETTh1", 6, 6) == "ETTh1"


def test_a_file_beside_the_named_one_is_explained(run, tmp_path):
    (tmp_path / "f.json").write_text("{}")
    with pytest.raises(ValueError, match=r"f\.json exists already, and .*f\.parquet comes with a file of that name"):
        jk.forecast(run, tmp_path / "a.csv", 2, tmp_path / "f.parquet")
