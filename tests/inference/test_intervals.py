"""Intervals of forecasts: they hold their share on data that nothing was chosen on, or the drift is told."""

import csv

import numpy as np
import pytest
from support import halves_run

import jepakit as jk
from jepakit.data.series.settings import Config as SeriesConfig
from jepakit.inference.intervals import INTERVAL_PERCENTS, Errors, drift_sentence, fit_intervals


def errors(n, horizon=6, channels=2, seed=0, scale=1.0):
    """Errors that grow with the step and differ between channels."""
    draw = np.random.default_rng(seed)
    growth = np.arange(1, horizon + 1) * np.array([1.0, 5.0])[:channels, None]
    return Errors(np.abs(draw.normal(size=(n, channels, horizon))) * growth * scale, float(n))


def test_intervals_cover_their_share_in_every_channel_and_step():
    found = fit_intervals(errors(3000), errors(3000), None)
    new = errors(6000, seed=1).ratio
    for share, q in found.quantile.items():
        covered = (new <= q[:, None] * found.usual).mean(0)
        np.testing.assert_allclose(covered, share / 100, atol=0.03)


def test_few_errors_keep_the_share_on_average():
    covered = {share: [] for share in INTERVAL_PERCENTS}
    for k in range(600):
        few, new = errors(25, 1, 1, seed=k), errors(200, 1, 1, seed=10_000 + k)
        for share, fraction in fit_intervals(few, few, None).coverage(new).items():
            covered[share].append(fraction)
    for share, fractions in covered.items():
        assert np.mean(fractions) >= share / 100 - 0.015


def test_a_calm_part_does_not_make_intervals_too_narrow():
    # All errors are twice as large elsewhere, as those of the last value show.
    calm, still, trained = errors(100, seed=1), errors(100, seed=2), errors(3000, seed=3, scale=2.0)
    alone, found = fit_intervals(calm, still, None), fit_intervals(calm, still, trained)
    later = errors(3000, seed=4, scale=2.0)
    assert alone.coverage(later)[90] < 0.75
    for share, fraction in found.coverage(later).items():
        assert fraction == pytest.approx(share / 100, abs=0.04)


def test_wider_shares_have_wider_intervals_whatever_the_last_value_says():
    odd = Errors(np.concatenate([np.full((90, 1, 1), 1.0), np.full((10, 1, 1), 1.1)]), 100.0)
    wild = Errors(np.abs(np.random.default_rng(0).normal(size=(100, 1, 1))), 100.0)
    q = [float(v[0]) for v in fit_intervals(odd, wild, odd).quantile.values()]
    assert q == sorted(q)


def test_a_forecast_that_is_never_wrong_has_no_width_and_no_warning():
    exact = Errors(np.zeros((50, 1, 4)), 50.0)
    found = fit_intervals(exact, exact, exact)
    assert all(float(w.max()) < 1e-200 for w in found.half_widths(np.ones((3, 1, 1))).values())
    assert found.coverage(exact)[80] == 1.0


def test_drift_is_told_only_where_the_first_half_does_not_hold_on_the_second():
    late = np.arange(400) >= 200
    same = errors(400)
    assert drift_sentence(same, same, None, late, "the held-out part") == ""
    ratio = same.ratio * np.where(late, 2.0, 1.0)[:, None, None]
    told = drift_sentence(Errors(ratio, 400.0), Errors(ratio, 400.0), None, late, "the held-out part")
    assert told.startswith("the series drift: 80 % intervals from the first half of the held-out part cover only 4")
    # Three independent forecasts in each half prove nothing.
    assert drift_sentence(Errors(ratio, 6.0), Errors(ratio, 6.0), None, late, "the held-out part") == ""


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


def test_a_channel_that_mostly_rests_keeps_intervals_with_a_width():
    # Rain: the last value is wrong in few of all steps, and in more of those that are judged on.
    draw = np.random.default_rng(0)

    def wet(n, share):
        return Errors(draw.exponential(size=(n, 1, 4)) * (draw.random((n, 1, 4)) < share), n)

    found = fit_intervals(wet(1000, 0.3), wet(1000, 0.3), wet(4000, 0.06))
    assert found.quantile[80][0] > 0
    assert found.coverage(wet(4000, 0.3))[80] > 0.7
