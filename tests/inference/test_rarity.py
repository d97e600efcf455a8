"""How rare a step is: ranks, their extrapolation and combination, and how often normal steps are flagged."""

import numpy as np
import pytest

from jepakit.inference.channel_scores import COMPONENTS
from jepakit.inference.rarity import FLAT, PREDICTION, REASONS, Ranks, Reference, StepScores, Tail, fit_reference


def steps(count: int, seed: int = 0, channels: int = 3) -> StepScores:
    """Independent normal scores, as if no value came twice."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=count), draw.normal(size=(len(COMPONENTS), channels, count))
    return StepScores(*scores, np.ones((channels, count), dtype=bool))


def reference(count: int = 5000, held_out: int = 1000, quantile: float = 0.99, shift: float = 0.0) -> Reference:
    """That of `count` steps; `shift` is added to the prediction's errors in the later half of those left out."""
    own, at = steps(count), np.arange(count)
    later = (at >= count - held_out // 2) | ((at < count - held_out) & (at >= (count - held_out) // 2))
    unseen = at >= count - held_out
    own.prediction[unseen & later] += shift
    return fit_reference(own, unseen, later, quantile)


def test_within_what_is_normal_a_score_is_the_share_of_normal_steps_that_reach_it() -> None:
    tail = Tail(np.arange(1.0, 100.0))
    expected = -np.log10([1.0, 0.51, 0.5, 0.2])
    np.testing.assert_allclose(tail.surprise(np.array([-5.0, 50.0, 50.5, 81.0])), expected)
    assert np.isnan(tail.surprise(np.array([np.nan]))).all()


def test_beyond_what_is_normal_the_tail_of_a_power_law_is_continued() -> None:
    draw = np.random.default_rng(0)
    tail = Tail(np.log(draw.pareto(3.0, 20_000) + 1))
    far = np.log(np.array([10.0, 30.0]))
    np.testing.assert_allclose(tail.surprise(far), 3.0 * far / np.log(10), rtol=0.2)


def test_a_long_event_counts_once_in_the_tail() -> None:
    normal = np.random.default_rng(0).normal(size=5000)
    once, long = normal.copy(), normal.copy()
    once[2000] = long[2000:2040] = 8.0
    assert Tail(long).excess < 1.3 * Tail(once).excess
    assert Tail(np.random.default_rng(1).permutation(long)).excess > 2 * Tail(once).excess


def test_a_score_is_calibrated_whatever_the_dependence_of_the_components() -> None:
    own, new = steps(5000), steps(5000, seed=1)
    # All components alike: a sum of independent surprises would be far too large.
    same, later = (s._replace(channels=np.broadcast_to(s.prediction, s.channels.shape)) for s in (own, new))
    ranks = Ranks.fit(same, np.ones(5000, dtype=bool), np.zeros(5000, dtype=bool))
    for level in (1.0, 2.0):
        assert np.mean(ranks.rarity(later).score > level) == pytest.approx(10**-level, rel=0.35)


def test_the_channel_and_the_component_that_stand_out_are_named() -> None:
    new = steps(4, seed=1)
    new.channels[:] = new.prediction[:] = 0.0
    new.prediction[1] = 9.0
    new.channels[COMPONENTS.index("level"), 2, 2] = 9.0
    new.channels[COMPONENTS.index("still"), 0, 3] = 9.0
    found = reference().ranks.rarity(new)
    assert [REASONS[k] for k in found.reason[1:]] == [PREDICTION, "level", "still"]
    assert found.channel[2:].tolist() == [2, 0]
    assert found.score[0] < 1 < 2.5 < found.score[1:].min()


def test_one_dead_channel_among_many_stands_out_though_all_else_of_it_is_quiet() -> None:
    own = steps(4000, channels=20)
    own.channels[FLAT] = 0.0  # no value comes twice
    own.channels[FLAT, :, 1000:1024] = np.log(24.0)  # but once all stood still for a day
    own.begins[:, 1001:1024] = False
    everything = np.ones(4000, dtype=bool)
    ranks = Ranks.fit(own, everything, ~everything)
    new = steps(100, seed=1, channels=20)
    new.channels[FLAT] = 0.0
    new.channels[:FLAT, 7] = new.prediction[:] = -3.0
    new.channels[FLAT, 7, 50:] = np.log(2000.0)
    found = ranks.rarity(new)
    assert (found.score[50:] > 3).all()
    assert (found.channel[50:] == 7).all()
    assert {REASONS[k] for k in found.reason[50:]} == {"flat"}
    # As long as once before is nothing special.
    new.channels[FLAT, 7, 50:] = np.log(24.0)
    assert (ranks.rarity(new).score[50:] < 3).mean() > 0.9


def test_the_rate_of_false_alarms_is_that_of_steps_which_the_ranks_do_not_know() -> None:
    found = reference()
    assert (found.steps, found.seen) == (1000, False)
    assert found.false_alarms == pytest.approx(0.01, abs=0.008)
    # If the second half of what was left out is unlike the first, half of the steps are false alarms.
    drifting = reference(shift=50.0)
    assert 0.4 < drifting.false_alarms < 0.6
    assert "of 1000 steps that training left out" in drifting.false_alarm_text()
    assert "because the data drift" in drifting.false_alarm_text()
    assert "drift" not in found.false_alarm_text()


def test_errors_are_ranked_among_steps_left_out_if_there_are_enough() -> None:
    own, at = steps(2000), np.arange(2000)
    own.prediction[at < 1800] -= 5.0  # the model knows what it was trained on
    later = at % 2 == 1
    new = steps(1000, seed=1)
    honest = fit_reference(own, at >= 1800, later, 0.99)
    assert not honest.seen
    assert np.mean(honest.ranks.rarity(new).score > 1) == pytest.approx(0.1, abs=0.06)
    few = fit_reference(own, at >= 1950, later, 0.99)
    assert (few.seen, few.steps) == (True, 2000)
    assert "of 2000 steps of the run's own data, seen in training," in few.false_alarm_text()
    nothing = fit_reference(own, at < 0, later, 0.99)
    assert (nothing.seen, nothing.steps) == (True, 2000)


def test_a_step_without_a_prediction_has_no_score_and_components_without_one_count_as_usual() -> None:
    new = steps(3, seed=1)
    new.prediction[0] = np.nan
    new.channels[:, :, 1] = np.nan
    score = reference().ranks.rarity(new).score
    assert np.isnan(score[0])
    assert 0 <= score[1] < 2


def test_own_data_without_any_score_are_refused() -> None:
    own = steps(10)
    own.prediction[:] = np.nan
    with pytest.raises(ValueError, match="no step of the run's own data has a score"):
        fit_reference(own, np.zeros(10, dtype=bool), np.zeros(10, dtype=bool), 0.9)
