"""The measured table of known features, and the verdict on histories whose state is known."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import gaussian_noise, rotated_noise
from torch import nn
from torch.testing import assert_close

from jepakit import collapse, losses
from jepakit.collapse import Panel
from jepakit.losses import Kind

N, D = 2048, 192


K = torch.arange(1, D + 1, dtype=torch.float64)
HEALTHY = rotated_noise(K**-0.5, N)
FEATURES = {
    "isotropic": gaussian_noise(N, D),
    "k^-1": HEALTHY,
    "k^-2": rotated_noise(K**-1, N),
    "rank 8": rotated_noise((K <= 8).double(), N),
    "point": gaussian_noise(1, D) + 1e-4 * gaussian_noise(N, D, seed=2),
    "big mean": HEALTHY + 10 * gaussian_noise(1, D, seed=3),
}


@pytest.mark.parametrize(
    ("name", "rank", "std"),
    [
        ("isotropic", 189.7, 1.0),
        ("k^-1", 155.6, 0.17),
        ("k^-2", 60.5, 0.09),
        ("rank 8", 8.0, 0.20),
        ("point", 189.7, 1e-4),
        ("big mean", 155.6, 0.17),
    ],
)
def test_known_features_have_the_rank_and_spread_that_were_measured(name: str, rank: float, std: float) -> None:
    # Ranks within 2 %, as the samples differ from those of the table; spreads within its rounding.
    assert collapse.effective_rank(FEATURES[name]) == pytest.approx(rank, rel=0.02)
    assert collapse.feature_std(FEATURES[name]) == pytest.approx(std, rel=0.1)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("k^-1", "healthy"),
        ("big mean", "healthy"),
        ("isotropic", "healthy"),
        ("point", "full"),
        ("rank 8", "dimensional"),
    ],
)
def test_the_verdict_tells_known_features_apart(name: str, state: str) -> None:
    tokens, now = FEATURES["isotropic"][:, None], FEATURES[name][:, None]
    at_start = collapse.start_panel(tokens, tokens)
    rows = [collapse.panel_row(tokens, tokens, at_start), collapse.panel_row(now, tokens, at_start)]
    assert collapse.verdict(rows).name == state
    # The other encoder collapsing is as bad.
    assert collapse.verdict([rows[0], collapse.panel_row(tokens, now, at_start)]).name == state


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_the_rank_ignores_scale_and_mean_and_the_spread_follows_the_scale(scale: float, mean: float) -> None:
    x = gaussian_noise(64, 8)
    assert collapse.effective_rank(scale * x + mean) == pytest.approx(collapse.effective_rank(x), rel=1e-6)
    assert collapse.feature_std(scale * x + mean) == pytest.approx(scale * collapse.feature_std(x), rel=1e-9)


def test_the_rank_equals_the_entropy_of_singular_values() -> None:
    x = gaussian_noise(100, 12) * torch.arange(1, 13)
    p = torch.linalg.svdvals(x - x.mean(0))
    p = p / p.sum() + 1e-7
    assert collapse.effective_rank(x) == pytest.approx((-(p * p.log()).sum()).exp().item(), rel=1e-9)


def test_the_spectrum_holds_the_variances_in_falling_order() -> None:
    x = gaussian_noise(500, 6) * torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
    values = collapse.spectrum(x)
    assert_close(values, torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0))
    assert (values.diff() <= 0).all()
    assert values.sum().item() == pytest.approx(x.var(0, correction=0).sum().item())


def test_a_single_point_has_no_rank_and_no_spread() -> None:
    x = torch.ones(10, 4)
    assert (collapse.effective_rank(x), collapse.feature_std(x)) == (0.0, 0.0)


def test_the_position_share_is_1_where_samples_leave_no_trace_and_small_where_positions_do_not() -> None:
    by_position, by_sample = gaussian_noise(1, 9, 4).expand(50, 9, 4), gaussian_noise(50, 1, 4).expand(50, 9, 4)
    assert collapse.position_share(by_position.float()) == pytest.approx(1.0)
    assert collapse.position_share(by_sample) == pytest.approx(0.0, abs=1e-9)
    assert collapse.position_share(by_position + by_sample) == pytest.approx(0.5, abs=0.2)
    assert collapse.position_share(torch.ones(3, 2, 4)) == 1.0


def test_the_position_share_does_not_see_a_shrunken_scale_a_single_direction_or_noise() -> None:
    mixed = torch.randn(40, 6, 8, generator=torch.Generator().manual_seed(0))
    assert collapse.position_share(1e-4 * mixed) == pytest.approx(collapse.position_share(mixed))
    assert collapse.position_share(mixed) < 0.05, "each token is noise"
    one_direction = mixed[:, :1, :1].expand(40, 6, 1) * torch.ones(8)
    assert collapse.position_share(one_direction) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("kind", ["smooth_l1", "l1", "l2"])
def test_no_constant_prediction_beats_the_best_constant(kind: Kind) -> None:
    target = gaussian_noise(501, 3).exp() * torch.tensor([0.1, 1.0, 5.0])
    best = collapse.best_constant(target, kind)
    lowest = losses.elementwise(target, best, kind).mean(0)
    for shift in (-1e-2, 1e-2):
        assert (losses.elementwise(target, best + shift, kind).mean(0) >= lowest - 1e-7).all()


@pytest.mark.parametrize("kind", ["smooth_l1", "l1", "l2"])
def test_the_normalised_loss_is_1_for_the_best_constant_0_for_the_truth_and_blind_to_shrinking_l2_targets(
    kind: Kind,
) -> None:
    target = gaussian_noise(40, 5, 6)
    constant = collapse.best_constant(target.flatten(0, 1), kind).expand_as(target)
    assert collapse.normalized_loss(constant, target, kind) == pytest.approx(1.0)
    assert collapse.normalized_loss(target, target, kind) == 0.0
    assert collapse.normalized_loss(target + 1, target, kind) > 0.5
    assert collapse.normalized_loss(gaussian_noise(40, 5, 6), torch.ones(40, 5, 6, dtype=torch.float64), kind) == 1.0
    if kind != "smooth_l1":  # Huber's distance has a scale of its own.
        worse = target + 0.3 * gaussian_noise(40, 5, 6, seed=4)
        shrunk = collapse.normalized_loss(1e-3 * worse, 1e-3 * target, kind)
        assert shrunk == pytest.approx(collapse.normalized_loss(worse, target, kind), rel=1e-4)


def test_the_panel_of_step_0_survives_json_exactly() -> None:
    at_start = collapse.start_panel(HEALTHY.float()[:64].reshape(16, 4, D), HEALTHY.float()[64:128].reshape(16, 4, D))
    assert Panel(**json.loads(json.dumps(asdict(at_start)))) == at_start


def test_a_panel_row_compares_each_encoder_with_its_own_start() -> None:
    tokens = HEALTHY[:256].reshape(64, 4, D)
    at_start = collapse.start_panel(tokens, 2 * tokens)
    row = collapse.panel_row(0.5 * tokens, 2 * tokens, at_start)
    assert row["std_ratio_target"] == pytest.approx(0.5)
    assert row["std_ratio_context"] == pytest.approx(1.0)
    assert row["rank_share_target"] == pytest.approx(row["rank_target"] / 64)
    assert row["patch_rank_target"] > row["rank_target"]
    assert all(isinstance(value, float) for value in row.values())


def row(
    loss: float = 0.5, rank: float = 100.0, share: float = 0.5, std: float = 1.0, norm: float = 1.0
) -> dict[str, float]:
    both = {"rank": rank, "rank_share": share, "std_ratio": std, "norm_ratio": norm}
    return {f"{key}_{side}": v for side in ("target", "context") for key, v in both.items()} | {"normalized_loss": loss}


def moving(within: float, energy: float) -> dict[str, float]:
    """A row of a world model."""
    return {**row(std=1 + energy / 10), "spread/within": within, "actions/energy_ratio": energy}


@pytest.mark.parametrize(
    ("history", "state", "option"),
    [
        ([], "unknown", ""),
        ([row()], "unknown", ""),
        ([row(), row(0.4)], "healthy", ""),
        ([row(), row(std=0.3), row(std=0.11)], "healthy", ""),
        ([row(), row(std=0.3), row(std=0.09)], "full", "--method.ema"),
        ([row(), row(std=0.009)], "full", "--method.ema"),
        ([row(), row(std=0.009, share=0.01, loss=float("nan"))], "exploding", "--optim.lr"),
        ([row(), row(std=101.0)], "exploding", "--optim.clip"),
        ([row(), row(norm=101.0)], "exploding", "--optim.clip"),
        ([row(), row(norm=99.0)], "healthy", ""),
        ([row(), row(std=0.05, norm=101.0)], "exploding", "--optim.clip"),
        ([row(), row(share=0.2), row(share=0.07)], "dimensional", "--method.ema"),
        ([row(share=0.075), row(share=0.075), row(share=0.074)], "healthy", ""),
        ([row(1.0, 50.0), row(0.9, 100.0), row(0.8, 65.0), row(0.7, 64.0), row(0.6, 63.0)], "drifting", "--optim.lr"),
        ([row(1.0, 50.0), row(0.9, 100.0), row(0.8, 65.0), row(0.7, 75.0), row(0.6, 63.0)], "healthy", ""),
        ([row(1.0, 50.0), row(0.6, 100.0), row(0.7, 65.0), row(0.8, 64.0), row(0.9, 63.0)], "healthy", ""),
        # An untrained encoder's rank is no work of training: that it is lost at first says nothing.
        ([row(0.9, 100.0), row(0.8, 65.0), row(0.7, 64.0), row(0.6, 66.0), row(0.5, 40.0)], "healthy", ""),
        # But a fall to under a quarter is no healthy start, whatever the loss does.
        ([row(0.9, 113.0), row(0.8, 60.0), row(0.7, 27.0), row(0.6, 20.0), row(0.7, 13.0)], "drifting", "--optim.lr"),
        ([row(0.9, 113.0), row(0.8, 60.0), row(0.7, 27.0), row(0.6, 29.0), row(0.7, 13.0)], "healthy", ""),
        ([row(1.0) for _ in range(6)], "idle", "--optim.lr"),
        ([row(1.5 + 0.1 * (k % 2)) for k in range(6)], "idle", "--optim.lr"),
        ([row(1.0) for _ in range(5)], "unknown", ""),
        ([row(1.9 - 0.1 * k) for k in range(6)], "unknown", ""),
        ([row(0.9), *(row(1.0, 90.0 + k) for k in range(5))], "healthy", ""),
        ([*(row(1.0) for _ in range(5)), row(0.95, 98.0)], "healthy", ""),
        ([row(0.9), row(0.8, std=1.001), row(0.7), row(0.6)], "idle", "--optim.lr"),
        ([row(0.9), row(0.8, std=1.01), row(0.7, std=1.02), row(0.6)], "healthy", ""),
        ([row(), row(5.2)], "unknown", ""),
        ([row(1.2), row(0.97)], "healthy", ""),
        ([moving(0.5, 1.0), moving(0.25, 0.06), moving(0.25, 0.02)], "healthy", ""),
        ([moving(0.1, 1.0), moving(0.002, 0.6), moving(0.002, 0.6)], "slow", "--method.inverse"),
        ([moving(0.1, 1.0), moving(0.03, 0.6), moving(0.002, 0.6)], "healthy", ""),
        # A wall that differs between samples has most of the variance: that is not all that the latents show.
        ([moving(0.57, 1.0), moving(0.06, 0.16), moving(0.05, 0.15)], "healthy", ""),
        ([moving(0.1, 1.0), moving(0.1, 0.97)], "unknown", ""),
        ([moving(0.1, 1.0), moving(0.1, 0.97), moving(0.1, 0.98), moving(0.1, 0.97)], "passive", "--method.inverse"),
        ([moving(0.1, 1.0), moving(0.1, 0.97), moving(0.1, 0.98), moving(0.1, 0.85)], "healthy", ""),
        ([row(std=0.0), row(std=0.0)], "full", "jepa check-data"),
        ([row(std=0.0), row(), row(std=0.5)], "full", "jepa check-data"),
    ],
)
def test_each_state_is_named_with_its_numbers_and_the_option_to_change(
    history: list[dict[str, float]], state: str, option: str
) -> None:
    verdict = collapse.verdict(history)
    assert verdict.name == state
    assert option in verdict.advice
    assert bool(verdict.advice) == (state not in ("healthy", "unknown"))
    assert any(character.isdigit() for character in verdict.reason.replace("nan", "0"))


def test_a_verdict_speaks_in_words_and_not_in_keys() -> None:
    found = collapse.verdict([row(0.9), row(0.264, share=0.4)])
    assert found.reason == (
        "the prediction loss is 26.4 % of the loss of a prediction that does not know the sample, "
        "target std is 100 % of its value at step 0, target rank is 40.0 % of the possible rank"
    )
    broken = collapse.verdict([row(), {**row(), "rank_share_context": float("nan")}])
    assert broken.reason == "share of the possible rank, context encoder is nan"


@pytest.mark.parametrize("losses", [[1.9 - 0.1 * k for k in range(6)], [1.5 + 0.1 * (k % 2) for k in range(6)]])
def test_a_verdict_on_the_loss_gives_its_last_value_and_no_other(losses: list[float]) -> None:
    reason = collapse.verdict([row(loss) for loss in losses]).reason
    assert f"{100 * losses[-1]:.1f} %" in reason
    assert reason.count("%") == 1


def test_a_rank_that_has_only_fallen_is_named_in_a_healthy_run() -> None:
    fallen = [row(0.9 - 0.1 * k, rank) for k, rank in enumerate((113.0, 90.0, 70.0, 60.0))]
    assert "rank has fallen from 113 at step 0 to 60, its lowest" in collapse.verdict(fallen).reason
    assert "fallen" not in collapse.verdict([*fallen, row(0.4, 65.0)]).reason
    assert "fallen" not in collapse.verdict(fallen[:3]).reason


def test_representations_that_run_off_together_explode_at_an_even_spread() -> None:
    tokens = HEALTHY[:256].reshape(64, 4, D)
    at_start = collapse.start_panel(tokens, tokens)
    far = tokens + 1000 * tokens[0, 0].norm()
    rows = [collapse.verdict_inputs(collapse.panel_row(x, x, at_start)) for x in (tokens, far)]
    assert rows[1]["std_ratio_target"] == pytest.approx(1.0)
    assert collapse.verdict(rows).name == "exploding"
    assert "target norm is" in collapse.verdict(rows).reason


def test_a_verdict_needs_no_loss_in_the_row_of_step_0() -> None:
    first = {key: value for key, value in row().items() if key != "normalized_loss"}
    assert collapse.verdict([first, row()]).name == "healthy"


@pytest.mark.parametrize("trained", [0.0, 1e-7, 0.3])
def test_samples_that_are_all_the_same_are_said_to_be_so_and_no_setting_is_blamed(trained: float) -> None:
    # Rounding alone makes the representations of one picture differ a little.
    constant, varied = 5 + 1e-7 * gaussian_noise(64, 4, 8).float(), gaussian_noise(64, 4, 8).float()
    at_start = collapse.start_panel(constant, constant)
    assert replace(at_start, norm_target=0.0, norm_context=0.0) == Panel(0.0, 0.0)
    later = 5 + trained * varied
    rows = [collapse.panel_row(constant, constant, at_start), collapse.panel_row(later, later, at_start)]
    verdict = collapse.verdict(rows)
    assert verdict.name == "full"
    assert "already 0 at step 0" in verdict.reason
    assert "check-data" in verdict.advice
    assert "--" not in verdict.advice
    assert collapse.start_panel(5 + 1e-3 * varied, varied).std_target > 0


@pytest.mark.parametrize(("stopped", "state"), [(False, "full"), (True, "healthy")])
def test_a_collapse_that_is_forced_raises_the_alarm_and_training_that_keeps_its_targets_does_not(
    stopped: bool, state: str
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student, teacher, predictor = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 8)
    x = gaussian_noise(256, 16).float()
    y = x + 0.5 * gaussian_noise(256, 16, seed=1).float()
    target = teacher if stopped else student
    optimizer = torch.optim.Adam([*student.parameters(), *predictor.parameters()], 0.02)
    at_start = collapse.start_panel(target(y)[:, None].detach(), student(x)[:, None].detach())
    rows = [collapse.panel_row(target(y)[:, None].detach(), student(x)[:, None].detach(), at_start)]
    for step in range(600):
        pred, goal = predictor(student(x)), target(y)
        # Without the stop both sides shrink to a point, where the loss is zero.
        loss = (pred - (goal.detach() if stopped else goal)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            values = collapse.panel_row(target(y)[:, None].detach(), student(x)[:, None].detach(), at_start)
            rows.append({**values, "normalized_loss": collapse.normalized_loss(pred.detach(), goal.detach(), "l2")})
    assert collapse.verdict(rows).name == state


def test_a_head_of_which_nothing_is_measured_is_not_called_healthy() -> None:
    verdict = collapse.verdict([{"multiplier": 1.0}, {"multiplier": 2.0}])
    assert verdict.name == "unknown"
    assert "look at the loss" in verdict.reason
