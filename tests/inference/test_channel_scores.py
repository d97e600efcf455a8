"""The scores of channels by themselves: against windows one by one, and what is not known yet is not used."""

import numpy as np
import pytest

from jepakit.inference.channel_scores import COMPONENTS, ChannelWindows, channel_scores, run_beginnings

WINDOWS = ChannelWindows(6, 20)
LEVEL, SPREAD, LONG_SPREAD, STILL, FLAT = range(len(COMPONENTS))


def noise(steps: int = 120, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(channels, steps))


def found(values: np.ndarray, causal: bool = False, windows: ChannelWindows = WINDOWS) -> np.ndarray:
    return channel_scores(values, np.ones(len(values)), windows, causal)


@pytest.mark.parametrize("window", [5, 6])
def test_every_component_is_that_of_its_windows_one_by_one(window: int) -> None:
    (x,) = values = noise(channels=1)
    scores = found(values, windows=ChannelWindows(window, 20))[:, 0]
    causal = found(values, causal=True, windows=ChannelWindows(window, 20))[:, 0]
    for t in (30, 61, 90):
        around, long, ending = (
            x[b : b + w] for b, w in ((t - window // 2, window), (t - 10, 20), (t - window + 1, window))
        )
        assert np.exp(scores[LEVEL, t]) == pytest.approx(abs(x[t] - np.median(around)), abs=2e-6)
        assert np.exp(scores[SPREAD, t]) == pytest.approx(around.std())
        assert np.exp(scores[LONG_SPREAD, t]) == pytest.approx(long.std())
        least = min(x[b : b + window].std() for b in range(t - window + 1, t + 1))
        assert np.exp(-scores[STILL, t]) == pytest.approx(least)
        assert np.exp(causal[LEVEL, t]) == pytest.approx(abs(x[t] - np.median(ending)), abs=2e-6)
        assert np.exp(causal[SPREAD, t]) == np.exp(-causal[STILL, t]) == pytest.approx(ending.std())


def test_a_channel_that_stands_still_is_flat_and_still_for_its_whole_length_and_the_other_is_not() -> None:
    values = noise()
    values[1, 40:80] = values[1, 40]
    scores = found(values)
    assert np.exp(scores[FLAT, 1, 40:80]) == pytest.approx(40)
    assert np.exp(scores[FLAT, 1, [39, 80]]) == pytest.approx(1)
    assert (scores[STILL, 1, 40:80] > 13).all()  # the least spread is a millionth
    assert (scores[STILL, 0] < 3).all()
    assert np.exp(found(values, causal=True)[FLAT, 1, 38:82]) == pytest.approx([1, 1, *range(1, 41), 1, 1])
    assert np.flatnonzero(~run_beginnings(values)[1]).tolist() == list(range(41, 80))


def test_causal_scores_know_nothing_of_later_steps_nor_of_how_many_there_are() -> None:
    values = noise()
    changed = values.copy()
    changed[:, 70:] = 5.0
    whole = found(values, causal=True)
    np.testing.assert_array_equal(found(changed, causal=True)[:, :, :70], whole[:, :, :70])
    assert not np.array_equal(found(changed)[:, :, :70], found(values)[:, :, :70])
    for steps in (3, 15, 70):
        np.testing.assert_array_equal(found(values[:, :steps], causal=True), whole[:, :, :steps])
    assert np.isnan(whole[[LEVEL, SPREAD, STILL], :, :5]).all()
    assert np.isfinite(whole[:, :, 19:]).all()


def test_a_series_shorter_than_the_windows_is_one_window() -> None:
    (x,) = values = noise(4, channels=1)
    assert np.exp(found(values)[SPREAD, 0]) == pytest.approx(np.full(4, x.std()))


def test_windows_are_those_of_the_run_and_at_most_a_quarter_of_its_longest_series() -> None:
    assert ChannelWindows.of_run(48, 8000) == (48, 192)
    assert ChannelWindows.of_run(48, 400) == (48, 100)
    assert ChannelWindows.of_run(48, 100) == (25, 25)
