import math

import pytest
import torch
from costs import BLOCK, BOX, CHOICES, SHORT, allowed
from torch.testing import assert_close

from jepakit.core.actions import project
from jepakit.planning import shift, start_plan
from jepakit.planning.plan import action_scale, single_action
from jepakit.types import ActionSpec


@pytest.mark.parametrize("spec", [BOX, SHORT, BLOCK, CHOICES], ids=["box", "short", "block", "choices"])
def test_projected_actions_are_allowed_and_projecting_them_again_changes_nothing(spec: ActionSpec) -> None:
    actions = 3 * torch.randn(50, spec.size, generator=torch.Generator().manual_seed(0))
    actions[0, 0], actions[1, 0], actions[2, 1] = math.nan, math.inf, -math.inf
    once = project(actions, spec)
    assert allowed(once, spec)
    assert_close(project(once, spec), once)


def test_an_action_within_its_bounds_is_left_to_the_bit() -> None:
    inside = torch.tensor([[0.3, -0.1], [0.0, 0.5]])
    assert torch.equal(project(inside, SHORT), inside)


def test_each_part_of_a_block_has_its_own_length() -> None:
    spec = ActionSpec(2, max_norm=1.0).repeat(2)
    assert_close(project(torch.tensor([3.0, 4.0, 0.3, 0.4]), spec), torch.tensor([0.6, 0.8, 0.3, 0.4]))


def test_actions_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="3 numbers where the environment takes 2"):
        project(torch.zeros(1, 3), BOX)


def test_bounds_without_zero_are_refused_where_lengths_are_bounded() -> None:
    with pytest.raises(ValueError, match="bounds exclude zero"):
        project(torch.zeros(1, 1), ActionSpec(1, (1.0,), (2.0,), max_norm=1.5))


def test_the_reach_of_an_action_is_half_its_range_and_no_more_than_its_length() -> None:
    assert action_scale(BOX) == (1.0, 1.0)
    assert action_scale(SHORT) == (0.5, 0.5)
    assert action_scale(ActionSpec(2, (-4.0, -0.1), (4.0, 0.1), max_norm=1.0)) == (1.0, 0.1)
    assert action_scale(ActionSpec(2, (-math.inf, -1.0), (math.inf, 1.0))) == (1.0, 1.0)


def test_a_start_is_at_zero_or_at_the_nearest_allowed_proposal() -> None:
    assert not start_plan(2, 3, BOX).mean.any()
    assert_close(start_plan(1, 1, ActionSpec(1, (2.0,), (3.0,))).mean, torch.full((1, 1, 1), 2.0))
    far = start_plan(2, 3, SHORT, mean=torch.full((2, 3, 2), 9.0))
    assert allowed(far.mean, SHORT)
    with pytest.raises(ValueError, match="the proposal has shape"):
        start_plan(2, 3, BOX, mean=torch.zeros(2, 4, 2))


def test_a_shifted_plan_begins_with_what_is_left_and_has_found_nothing_yet() -> None:
    actions = torch.arange(12.0).reshape(2, 3, 2)
    plan = shift(start_plan(2, 3, ActionSpec(2), mean=actions), 2)
    assert_close(plan.mean[:, 0], actions[:, 2])
    assert not plan.mean[:, 1:].any()
    assert plan.cost.isinf().all()
    assert plan.energy.shape == (0, 2)
    assert not shift(plan, 5).mean.any()


def test_a_shifted_plan_of_choices_is_undecided_at_its_end() -> None:
    chosen = torch.eye(3)[None]
    plan = shift(start_plan(1, 3, CHOICES, mean=chosen))
    assert plan.probabilities is not None
    assert_close(plan.probabilities[0, :2], chosen[0, 1:])
    assert_close(plan.probabilities[0, 2], torch.full((3,), 1 / 3))


def test_an_action_of_a_block_has_the_form_that_was_repeated() -> None:
    assert single_action(BOX.repeat(4)) == BOX
    assert single_action(SHORT) == SHORT
