"""Scores set against labels, their baselines, and the nearest series: against cases worked out by hand."""

import numpy as np
import pytest

from jepakit.studies.bijepa.anomaly import (
    bootstrap_interval,
    mark_windows,
    median_distance,
    roc_area,
    rolling_deviation,
    scaled_median_distance,
    step_distance,
)
from jepakit.studies.cjepa.nearest import classify_nearest, dtw_distances
from jepakit.types import Rng

NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "area"),
    [
        ([1.0, 2.0, 3.0, 4.0], 1.0),
        ([4.0, 3.0, 2.0, 1.0], 0.0),
        ([1.0, 3.0, 2.0, 4.0], 0.75),  # 3 of 4 pairs in order
        ([1.0, 1.0, 1.0, 1.0], 0.5),
    ],
)
def test_the_area_is_the_share_of_pairs_in_the_right_order(scores: list[float], area: float) -> None:
    kinds = np.array([False, False, True, True])
    assert roc_area(np.array(scores), kinds) == pytest.approx(area)


def test_a_step_without_a_score_takes_no_part() -> None:
    kinds = np.array([True, False, False, True])
    assert roc_area(np.array([NAN, 1.0, 2.0, 3.0]), kinds) == 1.0
    with pytest.raises(ValueError, match=r"0 of 2 scored steps are labelled anomalous"):
        roc_area(np.array([NAN, 1.0, 2.0, NAN]), kinds)


def test_windows_of_time_are_closed_at_both_ends() -> None:
    time = np.datetime64("2024-01-01", "s") + np.arange(6) * np.timedelta64(1, "h")
    windows = [["2024-01-01 01:00:00.000000", "2024-01-01 02:00:00.000000"], ["2024-01-01 05:00:00", "2024-01-02"]]
    assert mark_windows(time, windows).tolist() == [False, True, True, False, False, True]


def test_the_interval_of_equal_series_is_a_point_and_of_others_holds_their_mean() -> None:
    assert bootstrap_interval([0.7] * 5, Rng(0)) == pytest.approx((0.7, 0.7, 0.7))
    mean, low, high = bootstrap_interval([0.5, 0.6, 0.9, 1.0], Rng(0))
    assert mean == pytest.approx(0.75)
    assert 0.5 <= low < 0.7 < 0.8 < high <= 1.0
    assert bootstrap_interval([0.5, 0.6, 0.9, 1.0], Rng(0)) == bootstrap_interval([0.5, 0.6, 0.9, 1.0], Rng(0))


def test_the_distance_to_the_median_looks_back_alone() -> None:
    x = np.array([0.0, 1.0, 2.0, 1.0, 9.0, 1.0])
    plain, scaled = median_distance(x, 3), scaled_median_distance(x, 3)
    assert np.isnan([plain[:2], scaled[:2]]).all()
    # Of 0, 1, 2 the median is 1 and the MAD 1; of 2, 1, 9 they are 2 and 1.
    np.testing.assert_allclose(plain[[2, 4]], [1, 7])
    np.testing.assert_allclose(scaled[[2, 4]], [1 / 1.4826, 7 / 1.4826])
    for distance, found in ((median_distance, plain), (scaled_median_distance, scaled)):
        np.testing.assert_array_equal(distance(x[:5], 3), found[:5])


def test_the_rolling_deviation_is_that_of_the_steps_around() -> None:
    x = np.array([0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(rolling_deviation(x, 3), np.std([0, 0, 3]) * np.array([0, 0, 0, 1, 1, 1, 0, 0]))


def test_a_series_that_mostly_stands_still_has_finite_baselines() -> None:
    x = np.zeros(50)
    x[40] = 1.0
    found = scaled_median_distance(x, 10)
    assert np.isfinite(found[9:]).all()
    assert np.nanargmax(found) == 40
    assert np.nanargmax(step_distance(x)) in (40, 41)


def slow(a: np.ndarray, b: np.ndarray, band: int) -> float:
    """DTW cell by cell."""
    t = a.shape[1]
    least = np.full((t + 1, t + 1), np.inf)
    least[0, 0] = 0
    for i in range(t):
        for j in range(max(0, i - band), min(t, i + band + 1)):
            before = min(least[i, j], least[i, j + 1], least[i + 1, j])
            least[i + 1, j + 1] = np.square(a[:, i] - b[:, j]).sum() + before
    return float(least[t, t])


def test_warping_of_a_case_by_hand() -> None:
    a, b = np.array([[0.0, 0.0, 1.0, 2.0]]), np.array([[[0.0, 1.0, 2.0, 2.0]], [[3.0, 3.0, 3.0, 3.0]]])
    # One step late is free where one step may be made up; without a band that allows it each difference counts.
    assert dtw_distances(a, b, 1).tolist() == [0.0, 9 + 9 + 4 + 1]
    assert dtw_distances(a, b, 0).tolist() == [2.0, 23.0]


@pytest.mark.parametrize("band", [0, 1, 2, 5, 8, 20])
def test_warping_by_diagonals_is_warping_cell_by_cell(band: int) -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 9)), draw.normal(size=(5, 2, 9))
    np.testing.assert_allclose(dtw_distances(a, b, band), [slow(a, one, band) for one in b])


def test_a_series_that_comes_late_is_near_by_warping_and_far_by_euclid() -> None:
    bump = np.exp(-(((np.arange(40) - 15) / 2) ** 2))
    train = np.stack([bump, np.full(40, 0.1)])[:, None]
    late = np.roll(bump, 4)[None, None]
    y = np.array([0, 1])
    assert classify_nearest(train, y, late, "dtw").tolist() == [0]
    assert classify_nearest(train, y, late, "euclidean").tolist() == [1]
