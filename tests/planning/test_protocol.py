import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from costs import planner
from scipy.stats import binomtest, ttest_rel
from torch import Tensor
from torch.testing import assert_close
from worlds import Counter, Plane

from jepakit.envs import EnvState
from jepakit.planning.diagnose import ghosting
from jepakit.planning.mpc import Act, Seen, planning_agent, random_agent, true_state
from jepakit.planning.oracle import true_cost, true_distance
from jepakit.planning.protocol import (
    Outcome,
    Protocol,
    compare_paired,
    draw_tasks,
    evaluate,
    mcnemar,
    mean_interval,
    results,
)
from jepakit.types import Rng

PLANE = Protocol("plane", "CEM()", episodes=8, steps=15, success_radius=0.1, min_distance=0.5)


def oracle(env: Plane, goal: EnvState) -> Act:
    energy = true_distance(env, goal)
    return planning_agent(true_state, lambda s: true_cost(env, s, energy), planner("cem"), env.action, 3)


def test_the_tasks_of_a_protocol_are_neither_solved_nor_nearer_than_it_says() -> None:
    env = Plane()
    tasks = draw_tasks(env, PLANE)
    assert tasks.goal is not None
    assert len(tasks.ids) == 8
    assert (env.distance(tasks.start, tasks.goal) >= 0.5).all()
    again = draw_tasks(env, replace(PLANE, episodes=20))
    assert again.ids[:8].tolist() == tasks.ids.tolist()
    assert draw_tasks(env, replace(PLANE, seed=1)).ids.tolist() != tasks.ids.tolist()


def test_starts_in_the_goal_are_rejected_and_counted() -> None:
    tasks = draw_tasks(Plane(), replace(PLANE, episodes=40, success_radius=0.8, min_distance=0.0))
    assert tasks.goal is not None
    assert tasks.rejected > 0
    assert (Plane().distance(tasks.start, tasks.goal) >= 0.8).all()
    # All ids up to the last one are either kept or rejected.
    assert tasks.rejected == tasks.ids[-1] + 1 - 40


def test_a_protocol_that_no_task_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="widen these distances"):
        draw_tasks(Plane(), replace(PLANE, min_distance=50.0))


def test_the_oracle_solves_what_the_random_policy_does_not() -> None:
    env = Plane()
    best = evaluate(env, PLANE, lambda goal: oracle(env, goal))
    floor = evaluate(env, PLANE, lambda goal: random_agent(env.action))
    assert best.score == 1
    assert floor.score < 0.5
    found = json.loads(json.dumps(results(best, floor, best)))
    assert found["success_end"] == found["success_ever"] == found["oracle"] == found["normalised"] == 1
    assert found["floor"] == floor.score
    assert found["low"] == pytest.approx(best.interval[0])
    assert found["protocol"] == asdict(PLANE)
    assert found["against_floor"]["only_first"] == round(8 * (1 - floor.score))
    assert found["seconds_per_action"] > 0
    assert found["seconds_per_decision"] == pytest.approx(8 * found["seconds_per_action"], rel=1e-6)


def passes_by(seen: Seen, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
    return torch.tensor([[[0.2, 0.0]]]).expand(len(seen.x), 1, 2), None


def test_success_ever_counts_who_passes_by_and_success_at_the_end_who_stays() -> None:
    class Line(Plane):
        def tasks(self, ids: np.ndarray, rng: Rng) -> tuple[EnvState, EnvState]:
            return tuple({"position": torch.tensor([[x, 0.0]]).repeat(len(ids), 1)} for x in (-0.6, 0.0))

    outcome = evaluate(Line(), PLANE, lambda goal: passes_by)
    assert outcome.solved_ever is not None
    assert outcome.solved_ever.all()
    assert outcome.score == 0


def test_an_evaluation_in_groups_is_the_evaluation_at_once() -> None:
    env, few = Plane(), replace(PLANE, episodes=4, steps=8)
    at_once, in_groups = (evaluate(env, few, lambda goal: oracle(env, goal), n) for n in (None, 3))
    assert in_groups.ids.tolist() == at_once.ids.tolist()
    assert torch.equal(in_groups.returns, at_once.returns)
    assert torch.equal(in_groups.solved_end, at_once.solved_end)


@pytest.mark.parametrize(("copyable", "at_once"), [(True, None), (False, 1)])
def test_finished_episodes_are_kept_if_the_environment_raises_an_error(copyable: bool, at_once: int | None) -> None:
    env = Plane(breaks_at=0.3, copyable=copyable)

    def to_the_right(seen: Seen, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
        # Only those below the middle, by the observation that each episode has of itself.
        goes = (seen.x[:, -1, 1] < 0).float()
        return torch.stack([0.2 * goes, 0 * goes], 1)[:, None], None

    protocol = replace(PLANE, episodes=12)
    start = draw_tasks(env, protocol).start["position"]
    start_of = dict(zip(draw_tasks(env, protocol).ids.tolist(), start.tolist(), strict=True))
    outcome = evaluate(env, protocol, lambda goal: to_the_right, at_once)
    below = {i for i, (x, y) in start_of.items() if y < 0}
    assert below <= set(outcome.failed)
    assert all("the simulator broke" in reason for reason in outcome.failed.values())
    assert set(outcome.ids.tolist()) == set(start_of) - set(outcome.failed)
    assert len(outcome.returns) == len(outcome.ids) > 0
    assert results(outcome)["failed"].keys() == {str(i) for i in outcome.failed}


def test_an_environment_that_always_fails_is_an_error_that_says_why() -> None:
    with pytest.raises(ValueError, match="failed in all 8 episodes, first with RuntimeError at step 1"):
        evaluate(Plane(breaks_at=-2.0), PLANE, lambda goal: passes_by)


def test_returns_are_the_score_where_there_is_no_goal() -> None:
    protocol = Protocol("counter", "", episodes=9, steps=8)
    outcome = evaluate(Counter(), protocol, lambda goal: random_agent(Counter.action))
    assert outcome.solved_end is None
    assert outcome.score == pytest.approx(float(outcome.returns.mean()))
    found = results(outcome, outcome, outcome)
    assert found["success_end"] is None
    assert found["low"] < found["return"] < found["high"]
    assert "normalised" not in found
    assert found["against_floor"]["p"] == 1


def test_the_interval_of_a_mean_is_students() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    low, high = mean_interval(values)
    half = 3.182446 * np.std(values, ddof=1) / 2
    assert (low, high) == pytest.approx((3.75 - half, 3.75 + half), rel=1e-5)


def outcome_of(solved: list[int], ids: list[int] | None = None) -> Outcome:
    n = len(solved)
    rows = np.array(ids if ids is not None else range(n))
    flags = torch.tensor(solved).bool()
    return Outcome(PLANE, rows, torch.zeros(n), torch.zeros(n, dtype=torch.int64), flags, flags)


def test_a_paired_comparison_is_mcnemars_exact_test() -> None:
    first, second = outcome_of([1] * 12 + [0] * 8), outcome_of([1] * 4 + [0] * 8 + [1] + [0] * 7)
    paired = compare_paired(first, second)
    assert (paired.only_first, paired.only_second, paired.episodes) == (8, 1, 20)
    assert paired.p == pytest.approx(binomtest(8, 9).pvalue)
    assert paired.difference == pytest.approx(7 / 20)
    assert paired.low < paired.difference < paired.high
    assert mcnemar(0, 0, 5).p == 1
    assert mcnemar(0, 0, 5).low < 0 < mcnemar(0, 0, 5).high
    reverse = compare_paired(second, first)
    assert (reverse.difference, reverse.low, reverse.high) == pytest.approx(
        (-paired.difference, -paired.high, -paired.low)
    )


def test_only_episodes_that_both_finished_are_compared() -> None:
    paired = compare_paired(outcome_of([1, 0, 1], [0, 1, 2]), outcome_of([1, 0, 1], [1, 2, 7]))
    assert (paired.episodes, paired.only_first, paired.only_second) == (2, 1, 1)
    with pytest.raises(ValueError, match="share no finished episode"):
        compare_paired(outcome_of([1], [0]), outcome_of([1], [1]))
    other = replace(outcome_of([1]), protocol=replace(PLANE, seed=3))
    with pytest.raises(ValueError, match="protocols differ in seed"):
        compare_paired(outcome_of([1]), other)


def test_returns_are_compared_by_the_paired_t_test() -> None:
    protocol = Protocol("counter", "", episodes=6)
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 7.0], [0.5, 2.5, 1.0, 3.0, 5.0, 4.0]])
    first, second = (Outcome(protocol, np.arange(6), v, torch.zeros(6, dtype=torch.int64)) for v in values)
    paired = compare_paired(first, second)
    assert paired.p == pytest.approx(ttest_rel(values[0], values[1]).pvalue, rel=1e-5)
    assert paired.difference == pytest.approx(float((values[0] - values[1]).mean()))


def test_a_protocol_says_all_that_it_depends_on() -> None:
    text = "\n".join(replace(PLANE, max_distance=2.0, block=3).lines())
    for words in ("plane: 8 episodes of 15 steps, seed 0", "0.5 to 2 units away", "within 0.1 units", "CEM()"):
        assert words in text
    assert "actions of 3 steps" in text
    with pytest.raises(ValueError, match="steps of the protocol is 0"):
        Protocol("plane", "", steps=0)
    with pytest.raises(ValueError, match="version 7"):
        Protocol("plane", "", version=7)


# --- where it fails


def test_ghosting_counts_pushes_that_the_model_lets_through() -> None:
    # Four movements over two steps: a push that passes, one that does not, one that never reaches the wall, and one
    # through a door, which truly passes. The last one pushes from the other side, and passes at the second step.
    true = torch.tensor([[0.0, 0.9, 0.9], [0.0, 0.9, 0.9], [0.0, 0.2, 0.4], [0.0, 0.9, 1.8], [2.0, 1.1, 1.1]])
    model = torch.tensor([[0.0, 0.9, 1.5], [0.0, 0.9, 0.8], [0.0, 0.2, 1.4], [0.0, 0.9, 1.8], [2.0, 1.1, 0.4]])
    action = torch.tensor([[0.9, 0.9], [0.9, 0.9], [0.2, 0.2], [0.9, 0.9], [-0.9, -0.9]])
    pad = torch.zeros(5, 3, 1)
    found = ghosting(
        torch.cat([true[..., None], pad], 2),
        torch.cat([model[..., None], pad], 2),
        torch.cat([action[..., None], pad[:, 1:]], 2),
        torch.ones(5),
    )
    assert found.pushes.tolist() == [0, 3]
    assert found.share[0].isnan()
    assert_close(found.share[1], torch.tensor(2 / 3))
