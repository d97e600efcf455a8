"""Intervals of forecasts: they hold their share on data that nothing was chosen on, or the drift is told."""

import csv

import numpy as np
import pytest
from support import halves_run

import jepakit as jk
from jepakit.data.series.settings import Config as SeriesConfig
from jepakit.inference import forecast
from jepakit.inference.forecast import memorisation
from jepakit.inference.intervals import INTERVAL_PERCENTS, Errors, RecentErrors, drift_sentence, fit_intervals
from jepakit.inference.recent import SeenSteps, recent_errors
from jepakit.inference.unseen import Stretch


def errors(n, horizon=6, channels=2, seed=0, scale=1.0):
    """Errors that grow with the step and differ between channels."""
    draw = np.random.default_rng(seed)
    growth = np.arange(1, horizon + 1) * np.array([1.0, 5.0])[:channels, None]
    return Errors(np.abs(draw.normal(size=(n, channels, horizon))) * growth * scale, float(n))


def test_intervals_cover_their_share_in_every_channel_and_step():
    found = fit_intervals([errors(3000)])
    new = errors(6000, seed=1).ratio
    for share, width in found.half_widths().items():
        np.testing.assert_allclose((new <= width).mean(0), share / 100, atol=0.03)


def test_few_errors_keep_the_share_on_average():
    covered = {share: [] for share in INTERVAL_PERCENTS}
    for k in range(600):
        few, new = errors(25, 1, 1, seed=k), errors(200, 1, 1, seed=10_000 + k)
        for share, fraction in fit_intervals([few]).coverage(new).items():
            covered[share].append(fraction)
    for share, fractions in covered.items():
        assert np.mean(fractions) >= share / 100 - 0.015


def test_parts_count_by_their_independent_forecasts():
    # A wild part of few forecasts, and a calm one that counts three times as much, however many were tried of each.
    calm, wild = (
        errors(100, seed=1)._replace(independent=300.0),
        errors(900, seed=2, scale=4.0)._replace(independent=100.0),
    )
    mixed = [errors(3000, seed=3).ratio, errors(1000, seed=4, scale=4.0).ratio]
    found = fit_intervals([calm, wild]).coverage(Errors(np.concatenate(mixed), 4000.0))
    for share, fraction in found.items():
        assert fraction == pytest.approx(share / 100, abs=0.03)


def recent(n, scale, weight=1.0):
    found = errors(n, seed=5, scale=scale).ratio
    return RecentErrors(found, np.full((n, found.shape[2]), weight / found.shape[2]))


def test_recent_errors_widen_intervals_and_narrow_them_the_more_the_more_there_are():
    found = fit_intervals([errors(400)])
    former = found.half_widths()[90]
    assert (found.half_widths(recent(20, 3.0))[90] > 1.5 * former).all()
    assert (found.half_widths(recent(20, 0.3))[90] < 0.9 * former).all()
    many, new = found.half_widths(recent(400, 3.0)), errors(2000, seed=6, scale=3.0).ratio
    for share, width in many.items():
        assert (new <= width).mean() == pytest.approx(share / 100, abs=0.03)
    # What has not come yet weighs nothing.
    np.testing.assert_array_equal(found.half_widths(recent(20, 3.0, weight=0.0))[90], former)


def test_wider_shares_have_wider_intervals():
    odd = Errors(np.concatenate([np.full((90, 1, 1), 1.0), np.full((10, 1, 1), 1.1)]), 100.0)
    widths = [float(w[0, 0]) for w in fit_intervals([odd, errors(50, 1, 1)]).half_widths().values()]
    assert widths == sorted(widths)


def test_a_forecast_that_is_never_wrong_has_no_width_and_no_warning():
    exact = Errors(np.zeros((50, 1, 4)), 50.0)
    found = fit_intervals([exact])
    assert all(float(w.max()) == 0 for w in found.half_widths().values())
    assert found.coverage(exact)[80] == 1.0
    assert drift_sentence({"a": exact, "b": exact}) == ""
    late = RecentErrors(np.ones((50, 1, 4)), np.ones((50, 4)))
    assert float(found.half_widths(late)[95].max()) == pytest.approx(1.0)


def test_drift_is_told_only_where_intervals_from_the_rest_are_too_narrow():
    same = {name: errors(200, seed=k) for k, name in enumerate("abc")}
    assert drift_sentence(same) == ""
    assert drift_sentence({"a": same["a"]}) == ""
    wild = {**same, "the held-out part": errors(200, seed=9, scale=2.0)}
    told = drift_sentence(wild)
    assert told.startswith("the series drift: 95 % intervals from the rest of the data cover only 6")
    assert "of the held-out part" in told
    # Three independent forecasts prove nothing.
    assert drift_sentence({name: part._replace(independent=3.0) for name, part in wild.items()}) == ""


@pytest.mark.parametrize(("weight", "horizon"), [(0.9, 12), (0.5, 4)])
def test_intervals_of_a_stationary_series_cover_their_share_of_what_comes(tmp_path, weight, horizon):
    draw = np.random.default_rng(0)
    x = np.zeros(14_000)
    for t in range(1, len(x)):
        x[t] = weight * x[t - 1] + draw.normal()
    (tmp_path / "past.csv").write_text("c0\n" + "\n".join(map(str, x[:5000])))
    data = SeriesConfig(str(tmp_path / "past.csv"), window=16, stride=2, columns=("c0",), split="train", held_out=0.2)
    run = halves_run(tmp_path / "run", data, channels=1, mean=(0.0,), std=(float(x.std()),))
    starts = range(5000, 13_900, 15)
    lines = ["entity,c0", *(f"{s},{v}" for s in starts for v in x[s - 30 : s])]
    (tmp_path / "new.csv").write_text("\n".join(lines))
    done = jk.forecast(run, tmp_path / "new.csv", horizon, tmp_path / "f.csv")
    hits = {share: [] for share in INTERVAL_PERCENTS}
    with (tmp_path / "f.csv").open() as file:
        for r in csv.DictReader(file):
            came = x[int(r["entity"].rsplit("/")[-1]) + int(r["step"]) - 1]
            for share, found in hits.items():
                found.append(float(r[f"c0_low{share}"]) <= came <= float(r[f"c0_high{share}"]))
    for share, found in hits.items():
        assert np.mean(found) == pytest.approx(share / 100, abs=0.04)
    assert not any("drift" in note for note in done.notes)


def test_an_encoder_that_memorised_its_training_part_does_not_make_intervals_narrow():
    def both(read, linear):
        return [Errors(np.full((10, 1, 2), float(error)), 10.0) for error in (read, linear)]

    # Read errors are a quarter of the linear ones where the encoder was trained, and half of them where it was not.
    assert memorisation(both(2, 4), [both(1, 4), both(1, 4)]) == pytest.approx(2.0)
    assert memorisation(both(4, 8), [both(1, 2), both(1, 2)]) == 1.0
    assert memorisation(both(1, 4), [both(1, 2)]) == 1.0


def noise_run(folder):
    """A run on 2000 steps of white noise, of which the last 400 were held out."""
    x = np.random.default_rng(0).normal(size=2000)
    (folder / "past.csv").write_text("c0\n" + "\n".join(map(str, x)))
    data = SeriesConfig(str(folder / "past.csv"), window=16, stride=2, columns=("c0",), split="train", held_out=0.2)
    return halves_run(folder / "run", data, channels=1, mean=(0.0,), std=(1.0,))


def relative_width(run, values, folder):
    """The width of the 90 % interval of the first step, in units of how much the last half window varies."""
    (folder / "new.csv").write_text("c0\n" + "\n".join(map(str, values)))
    jk.forecast(run, folder / "new.csv", 2, folder / "f.csv", reader="last-value", overwrite=True)
    with (folder / "f.csv").open() as file:
        row = next(csv.DictReader(file))
    return (float(row["c0_high90"]) - float(row["c0_low90"])) / np.std(values[-8:])


def test_intervals_follow_the_errors_that_a_series_made_last(tmp_path):
    run = noise_run(tmp_path)
    # A slow wave changes little between two steps, compared with how much eight of them vary.
    noise, wave = 50 * np.random.default_rng(1).normal(size=300), 50 * np.sin(0.1 * np.arange(300))
    widths = {name: relative_width(run, x, tmp_path) for name, x in (("noise", noise), ("wave", wave))}
    assert widths["noise"] > 1.15 * widths["wave"]
    # A series that is only as long as what is known before a forecast has none to try again.
    alone = [relative_width(run, x[-8:], tmp_path) for x in (noise, wave)]
    assert alone[0] == pytest.approx(alone[1], rel=0.05)


def test_steps_that_readers_are_fitted_to_are_recognised_and_not_tried_again():
    draw = np.random.default_rng(0)
    own = draw.normal(size=(2, 500)).astype(np.float32)
    seen = SeenSteps([Stretch(own, 0, 0, 300), Stretch(own, 300, 300, 400)], 8)
    assert seen.end(own) == 400
    assert seen.end(own[:, 100:250]) == 150
    assert seen.end(own[:, 400:]) == 0
    assert seen.end(own[:, 397:450]) == 0  # three steps in common are too few
    assert seen.end(own[:, :5]) == 0
    assert seen.end(own[::-1].copy()) == 0
    wrong = own.copy()
    wrong[1, 399] += 1
    assert seen.end(wrong) == 399


def test_a_forecast_from_the_runs_own_data_is_tried_again_on_the_held_out_part_only(tmp_path, monkeypatch):
    run = noise_run(tmp_path)
    firsts = []

    def recorded(dataset, span, seen, *rest):
        firsts.append(seen.end(dataset.steps.values[:, span.begin : span.end]))
        return recent_errors(dataset, span, seen, *rest)

    monkeypatch.setattr(forecast, "recent_errors", recorded)
    jk.forecast(run, tmp_path / "past.csv", 2, tmp_path / "f.csv")
    assert firsts == [1600]
