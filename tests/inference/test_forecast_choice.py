"""The choice of a forecast: readers are fitted on the training part and judged on what the encoder never saw."""

from dataclasses import replace

import numpy as np
import pytest
from support import Recorder, halves_run, read_json

import jepakit as jk
from jepakit.data.series.settings import Config as SeriesConfig
from jepakit.inference import candidates, forecast, unseen
from jepakit.inference.choice import Comparison
from jepakit.inference.season import NEARLY, change_correlation, season_length


def write_values(path, values, entity=None):
    """A table of the values (T, C), or of several series of them by name."""
    parts = {"": values} if entity is None else entity
    names = [f"c{k}" for k in range(next(iter(parts.values())).shape[1])]
    lines = [",".join([*(["entity"] if entity else []), *names])]
    for name, rows in parts.items():
        lines += [",".join([*([name] if entity else []), *map(repr, row)]) for row in rows.tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def series_run(folder, values, split="train", window=16, entity=None, **data):
    """An untrained run on these values, and the path of their table."""
    path = write_values(folder / "a.csv", values, entity)
    channels = values.shape[1]
    columns = tuple(f"c{k}" for k in range(channels))
    cfg = SeriesConfig(str(path), window=window, stride=2, columns=columns, split=split, **data)
    spread = tuple(float(s) for s in values.std(0))
    mean = tuple(float(m) for m in values.mean(0))
    return halves_run(folder / "run", cfg, window // 2, channels, mean, spread), path


def autoregression(steps, weight=0.9, seed=0):
    draw = np.random.default_rng(seed)
    x = np.zeros((steps, 1))
    for t in range(1, steps):
        x[t] = weight * x[t - 1] + draw.normal()
    return x


def random_walk(steps, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=(steps, 1)), 0)


# Where readers are fitted, and where they are judged.


def fitted_windows(monkeypatch):
    """The windows that readers are first fitted to and the futures that they are judged on, once a forecast is made."""
    kept = {}

    def fit(division, size):
        found = unseen.fit_windows(division, size)
        kept.setdefault("fit", found)
        return found

    def judged(division, past, horizon, *most):
        found = unseen.judged_windows(division, past, horizon, *most)
        kept.setdefault("judged", found.truth)
        return found

    monkeypatch.setattr(forecast, "fit_windows", fit)
    monkeypatch.setattr(forecast, "judged_windows", judged)
    return kept


def test_readers_are_fitted_before_the_held_out_part_and_judged_within_it(tmp_path, monkeypatch):
    x = autoregression(1000)
    x[900:] += 1000
    run, path = series_run(tmp_path, x)
    kept = fitted_windows(monkeypatch)
    jk.forecast(run, path, 4, tmp_path / "f.csv")
    assert kept["fit"].max() < 500 < kept["judged"].min()
    assert kept["judged"].shape[0] == 97  # every future of 4 within the last 100 steps


def test_a_reader_that_could_see_the_held_out_part_would_do_better_there(tmp_path):
    # The sign of the next step turns around in the held-out part: who has not seen it is wrong there.
    draw = np.random.default_rng(0)
    x = np.zeros((1000, 1))
    for t in range(1, 1000):
        x[t] = (0.95 if t < 900 else -0.95) * x[t - 1] + 0.1 * draw.normal()
    run, path = series_run(tmp_path, x)
    done = jk.forecast(run, path, 1, tmp_path / "f.csv")
    std = x.std()
    honest = np.square(x[901:, 0] + 0.95 * x[900:-1, 0]).mean() / std**2
    assert done.errors["linear"] > 10 * honest


def test_series_that_were_held_out_are_judged_on_as_a_whole(tmp_path, monkeypatch):
    parts = {f"s{k}": autoregression(60, seed=k) + 100 * k for k in range(20)}
    run, path = series_run(tmp_path, parts["s0"], entity=parts, by="entity", held_out=0.25)
    kept = fitted_windows(monkeypatch)
    jk.forecast(run, path, 3, tmp_path / "f.csv")
    level = {key: set(np.round(values.mean((1, 2)) / 100).tolist()) for key, values in kept.items()}
    assert len(level["judged"]) == 5
    assert not level["judged"] & level["fit"]


def test_a_run_that_kept_nothing_from_training_says_seen_in_training_beside_its_numbers(tmp_path):
    run, path = series_run(tmp_path, autoregression(600), split="all")
    done = jk.forecast(run, path, 2, tmp_path / "f.csv")
    assert done.seen
    assert any("seen in training" in note for note in done.notes)
    assert read_json(done.details)["judged_on"] == "the last fifth of the data, seen in training"


def test_too_little_is_told_before_anything_is_fitted(tmp_path, monkeypatch):
    run, path = series_run(tmp_path, autoregression(300))
    told = Recorder()
    monkeypatch.setattr(forecast, "fit_candidates", lambda *_: pytest.fail("something was fitted"))
    with pytest.raises(
        ValueError, match="has 30 steps to forecast, fewer than the horizon of 31; give a --horizon of 12"
    ):
        jk.forecast(run, path, 31, tmp_path / "f.csv", progress=told)
    with pytest.raises(ValueError, match="room for 18 forecasts of 13 steps"):
        jk.forecast(run, path, 13, tmp_path / "f.csv", progress=told)
    with pytest.raises(ValueError, match=r"no reader 'last-season' for these data; give one of last-value, linear, "):
        jk.forecast(run, path, 2, tmp_path / "f.csv", reader="last-season", progress=told)
    assert told.notes == []
    assert [p.name for p in tmp_path.glob("f.*")] == []


# What is chosen.


def test_a_random_walk_is_continued_by_its_last_value(tmp_path):
    run, path = series_run(tmp_path, random_walk(3000, seed=1), held_out=0.3)
    done = jk.forecast(run, path, 6, tmp_path / "f.csv")
    assert done.reader == "last-value"
    assert any("the encoder adds nothing here: repeating the last value is" in note for note in done.notes)
    lines = (tmp_path / "f.csv").read_text().splitlines()[1:]
    last = float(path.read_text().splitlines()[-1])
    assert [float(line.split(",")[2]) for line in lines] == pytest.approx([last] * 6, rel=1e-6)


def test_a_linear_series_is_forecast_by_a_linear_model_of_its_values(tmp_path):
    x = autoregression(3000, weight=0.6)
    run, path = series_run(tmp_path, x, held_out=0.3)
    done = jk.forecast(run, path, 6, tmp_path / "f.csv")
    # What returns to its mean is read from its level.
    assert done.reader == "linear-level"
    assert done.errors["linear-level"] < done.errors["linear"] < 0.8 * done.errors["last-value"]
    assert any(
        "the encoder adds nothing here: a linear model of the values and their level is" in note for note in done.notes
    )


def test_an_encoder_that_helps_is_read(tmp_path):
    # The logistic map: what comes next is a parabola of the last value, and no linear function of it.
    x = np.full((3000, 1), 0.3)
    for t in range(1, 3000):
        x[t] = 3.9 * x[t - 1] * (1 - x[t - 1])
    run, path = series_run(tmp_path, x, held_out=0.3)
    done = jk.forecast(run, path, 1, tmp_path / "f.csv")
    assert done.reader.startswith(("representation", "prediction", "linear-corrected"))
    assert done.errors[done.reader] < 0.9 * min(done.errors["linear"], done.errors["last-value"])
    assert done.notes == ()


def test_the_reader_that_is_asked_for_is_used_and_the_best_is_stored_too(tmp_path):
    run, path = series_run(tmp_path, random_walk(3000, seed=1), held_out=0.3)
    done = jk.forecast(run, path, 3, tmp_path / "f.csv", reader="prediction")
    assert done.reader == "prediction"
    found = read_json(tmp_path / "f.json")
    assert (found["reader"], found["best"]) == ("prediction", "last-value")
    assert found["mean_squared_errors"] == done.errors
    assert tuple(done.errors) == candidates.candidate_names(1, 0)


def comparison(independent, **squared):
    kinds = {"last_value": candidates.Repeat(), "last_season": candidates.Repeat(4)}
    named = {kinds[key].name: np.asarray(values) for key, values in squared.items()}
    return Comparison([kinds[key] for key in squared], named, independent)


def test_the_simpler_wins_within_one_standard_error_of_the_difference():
    draw = np.random.default_rng(0)
    better = 1 + draw.normal(size=400)
    worse = better + 0.1 + draw.normal(size=400)
    # 0.1 is two standard errors of 400 independent forecasts, and less than one of 50.
    assert comparison(400.0, last_value=worse, last_season=better).choice.name == "last-season"
    assert comparison(50.0, last_value=worse, last_season=better).choice.name == "last-value"
    assert comparison(50.0, last_season=better, last_value=worse).choice.name == "last-season"
    # Two forecasts say nothing of their spread, so the lower error decides, and the command says so.
    few = comparison(2.0, last_value=worse, last_season=better)
    assert few.choice.name == "last-season"
    assert "only 2.0 independent forecasts" in few.caution
    assert not comparison(50.0, last_value=worse, last_season=better).caution


# The candidates themselves.


def test_a_season_is_found_where_there_is_one_and_its_last_is_repeated():
    time = np.arange(2000)
    draw = np.random.default_rng(0)
    daily = np.sin(2 * np.pi * time / 24) + 0.3 * np.sin(2 * np.pi * time / 8) + 0.002 * time
    assert season_length([(daily + 0.1 * draw.normal(size=2000))[None]], 300) == 24
    assert season_length([random_walk(2000).T], 600) == 0
    assert season_length([draw.normal(size=(1, 2000))], 600) == 0
    past = daily[None, None, :1000]
    found = candidates.Repeat(24).forecast(past, 60)[0, 0]
    np.testing.assert_array_equal(found, np.resize(past[0, 0, -24:], 60))


def test_of_a_season_and_its_double_that_tie_the_shorter_one_is_taken():
    time, draw = np.arange(800), np.random.default_rng(13)
    daily = 2.2 * np.sin(2 * np.pi * time / 24) ** 9 + 0.5 * draw.normal(size=800)
    correlation = change_correlation([daily[None]], 200)
    assert NEARLY * correlation[[48, 72, 96, 120]].max() > correlation[24]
    assert season_length([daily[None]], 200) == 24
    # Where two days differ by far more than noise, they are the season.
    other = np.where(time // 24 % 2, 2.0, -0.2) * daily
    assert season_length([other[None]], 200) == 48


def test_a_season_longer_than_the_given_series_is_not_used(tmp_path):
    x = np.sin(2 * np.pi * np.arange(1500) / 40)[:, None] + 0.02 * np.random.default_rng(0).normal(size=(1500, 1))
    run, path = series_run(tmp_path, x)
    assert jk.forecast(run, path, 3, tmp_path / "f.csv").season == 40
    short = write_values(tmp_path / "short.csv", x[:30])
    done = jk.forecast(run, short, 3, tmp_path / "g.csv")
    assert (done.season, "last-season" in done.errors) == (0, False)


def test_readers_of_a_half_window_follow_its_level_and_its_scale(tmp_path):
    run, _ = series_run(tmp_path, np.hstack([autoregression(600), autoregression(600, seed=1)]))
    method = jk.load(run).method
    x = np.stack([autoregression(16, seed=k).T[0] for k in range(80)]).reshape(40, 2, 16).astype(np.float32)
    view = candidates.window_view(method, "cpu", x, 8)
    past = x[..., :8].astype(np.float64)
    small = replace(view, least=1e-9 * view.least)
    for one in candidates.fit_candidates(small, x, 0):
        if one.name in ("last-value", "representation", "prediction"):
            np.testing.assert_allclose(one.forecast(7 * past + 90, 20), 7 * one.forecast(past, 20) + 90, rtol=1e-2)


def test_readers_of_the_level_see_the_half_as_it_is(tmp_path):
    run, _ = series_run(tmp_path, autoregression(600))
    x = np.stack([autoregression(16, seed=k).T for k in range(40)]).astype(np.float32)
    view = candidates.window_view(jk.load(run).method, "cpu", x, 8)
    past, level = x[..., :8].astype(np.float64), replace(view, level=True)
    one, other = (v.features(past + 5)["s"] - v.features(past)["s"] for v in (view, level))
    assert np.abs(one).max() < 1e-3 < np.abs(other).max()
    np.testing.assert_allclose(level.scale(7 * past), level.scale(past))
