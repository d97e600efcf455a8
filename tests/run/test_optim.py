from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from jepakit.core import schedules
from jepakit.run import optim
from jepakit.run.optim import Optim

unit = st.floats(0, 1)
values = st.floats(1e-8, 10)
CFG = Optim(lr=1e-3, start_lr=2e-4, final_lr=1e-6, warmup=0.25)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.scale = nn.Parameter(torch.ones(()))
        self.units = nn.Module()
        self.units.bias = nn.Parameter(torch.zeros(2, 4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


@given(st.integers(2, 10_000))
def test_the_first_step_has_progress_0_and_the_last_has_1_exactly(steps: int) -> None:
    assert schedules.run_progress(0, steps) == 0.0
    assert schedules.run_progress(steps - 1, steps) == 1.0
    assert schedules.run_progress(steps + 5, steps) == 1.0


def test_the_only_step_of_a_run_is_its_last() -> None:
    assert schedules.run_progress(0, 1) == 1.0


@given(values, values)
def test_schedules_start_and_end_exactly_at_their_values(start: float, end: float) -> None:
    for schedule in (schedules.linear_schedule, schedules.cosine_schedule):
        assert schedule(0.0, start, end) == start
        assert schedule(1.0, start, end) == end
        assert schedule(1.7, start, end) == end


@given(unit, unit)
def test_a_cosine_moves_one_way_only_and_is_half_way_in_the_middle(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert schedules.cosine_schedule(low, 2.0, 1.0) >= schedules.cosine_schedule(high, 2.0, 1.0)
    assert schedules.cosine_schedule(0.5, 2.0, 1.0) == pytest.approx(1.5)
    assert schedules.linear_schedule(low, 1.0, 2.0) <= schedules.linear_schedule(high, 1.0, 2.0)


@given(values, values, values, st.floats(0.01, 0.9))
def test_the_learning_rate_passes_exactly_through_start_peak_and_final(
    start: float, peak: float, final: float, warmup: float
) -> None:
    cfg = Optim(lr=peak, start_lr=start, final_lr=final, warmup=warmup)
    assert optim.learning_rate(cfg, 0.0) == start
    assert optim.learning_rate(cfg, warmup) == peak
    assert optim.learning_rate(cfg, 1.0) == final
    assert optim.learning_rate(cfg, 2.0) == final


def test_the_learning_rate_climbs_in_a_straight_line_then_only_falls() -> None:
    rates = [optim.learning_rate(CFG, schedules.run_progress(k, 101)) for k in range(131)]
    climb = [b - a for a, b in pairwise(rates[:26])]
    assert climb == pytest.approx([(1e-3 - 2e-4) / 25] * 25)
    assert all(b <= a for a, b in pairwise(rates[25:]))
    assert rates[100:] == [1e-6] * 31


def test_without_a_warm_up_the_first_step_has_the_full_rate() -> None:
    assert optim.learning_rate(Optim(lr=0.5, warmup=0.0), 0.0) == 0.5


def test_biases_of_any_rank_and_parameters_of_one_axis_are_not_decayed_and_mask_tokens_are() -> None:
    module = Toy()
    decayed, plain = optim.parameter_groups(module)
    assert {id(p) for p in decayed["params"]} == {id(module.linear.weight), id(module.mask_token)}
    assert {id(p) for p in plain["params"]} == {
        id(p) for p in (module.linear.bias, module.norm.weight, module.norm.bias, module.scale, module.units.bias)
    }


def test_a_schedule_reaches_every_group_and_decays_one_only() -> None:
    optimizer = optim.build_optimizer(CFG, Toy())
    assert [g["lr"] for g in optimizer.param_groups] == [2e-4, 2e-4]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.04, 0.0]
    assert optim.set_schedule(optimizer, CFG, 1.0) == 1e-6
    assert [g["lr"] for g in optimizer.param_groups] == [1e-6, 1e-6]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.4, 0.0]


def test_a_step_without_gradient_shrinks_decayed_parameters_alone() -> None:
    module = Toy()
    nn.init.ones_(module.mask_token)
    optimizer = optim.build_optimizer(Optim(lr=0.1, start_lr=0.1, weight_decay=0.5), module)
    for p in module.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    assert torch.allclose(module.mask_token, torch.tensor(0.95))
    assert (module.norm.weight == 1).all()


def test_betas_and_eps_reach_adamw() -> None:
    group = optim.build_optimizer(Optim(betas=(0.8, 0.95), eps=1e-6), Toy()).param_groups[1]
    assert (group["betas"], group["eps"]) == ((0.8, 0.95), 1e-6)


def test_a_module_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no parameter to train"):
        optim.build_optimizer(CFG, nn.Linear(2, 2).requires_grad_(False))


@pytest.mark.parametrize("limit", [0.0, 1.0, 100.0])
def test_clipping_returns_the_norm_as_it_was_and_scales_only_what_is_above_the_limit(limit: float) -> None:
    module = Toy()
    for p in module.parameters():
        p.grad = torch.full_like(p, 3.0) if p.requires_grad else None
    count = sum(p.numel() for p in module.parameters() if p.requires_grad)
    norm = optim.clip_gradients(module.parameters(), limit)
    assert norm.item() == pytest.approx(3 * count**0.5)
    expected = limit / count**0.5 if limit == 1.0 else 3.0
    assert module.linear.weight.grad is not None
    assert torch.allclose(module.linear.weight.grad, torch.tensor(expected), rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"warmup": 1.0}, "warmup is 1"),
        ({"lr": -1.0}, "lr is -1"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Optim(**change)
