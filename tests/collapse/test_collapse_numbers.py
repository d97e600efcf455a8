"""The numbers of the panel on features whose numbers are known: what each shows, and what it cannot see."""

import math

import pytest
import torch
from support import gaussian_noise, rotated_noise
from torch import Tensor
from torch.testing import assert_close

from jepakit import collapse
from jepakit.collapse import views as of_views

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
COLUMNS = ("raw", "centred", "entropy", "participation", "stable", "alpha", "std", "direction", "cosine")
# Measured once, with numpy and other samples.
TABLE = {
    "isotropic": (189.7, 189.7, 183.0, 175.2, 113.1, 0.19, 1.00, 1.00, 0.00),
    "k^-1": (155.6, 155.6, 58.7, 19.8, 5.6, 1.01, 0.17, 0.99, 0.00),
    "k^-2": (60.5, 60.5, 5.0, 2.5, 1.6, 2.01, 0.09, 0.95, 0.00),
    "rank 8": (8.0, 8.0, 8.0, 8.0, 7.4, None, 0.20, 0.97, 0.00),
    "point": (1.0, 189.7, 183.1, 175.3, 114.4, 0.19, 0.0001, 0.000, 1.00),
    "big mean": (3.4, 156.3, 59.5, 19.7, 5.5, 1.00, 0.17, 0.017, 1.00),
}


def numbers(x: Tensor) -> dict[str, float | None]:
    values = collapse.spectrum(x)
    return {
        "raw": collapse.raw_rank(x),
        "centred": collapse.effective_rank(x),
        "entropy": collapse.entropy_rank(values),
        "participation": collapse.participation_ratio(values),
        "stable": collapse.stable_rank(values),
        "alpha": collapse.alpha_req(values),
        "std": collapse.feature_std(x),
        "direction": collapse.direction_std(x),
        "cosine": collapse.mean_cosine(x),
    }


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, float | None]]:
    return {name: numbers(x) for name, x in FEATURES.items()}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", TABLE)
def test_known_features_have_the_numbers_that_were_measured(name: str, column: str, measured) -> None:
    # Within the spread over samples, and the table's rounding. The raw rank follows the length of the mean.
    relative = {"raw": 0.08, "std": 0.1, "stable": 0.05}.get(column, 0.04)
    absolute = {"raw": 0.05, "std": 5e-5, "direction": 0.01, "cosine": 0.01, "alpha": 0.02}.get(column, 0.05)
    expected = TABLE[name][COLUMNS.index(column)]
    assert measured[name][column] == (
        None if expected is None else pytest.approx(expected, rel=relative, abs=min(absolute, 0.3 * expected or 1))
    )


def test_only_the_std_relative_to_step_0_tells_a_full_collapse_from_a_healthy_run_with_a_big_mean(measured) -> None:
    lost, fine = measured["point"], measured["big mean"]
    # These three cry collapse for both …
    assert max(lost["raw"], fine["raw"]) < 5
    assert min(lost["cosine"], fine["cosine"]) > 0.99
    assert max(lost["direction"], fine["direction"]) < 0.03
    # … and these find the collapsed features the better ones.
    for column in ("centred", "entropy", "participation", "stable"):
        assert lost[column] > fine[column]
    start = collapse.feature_std(HEALTHY)
    assert lost["std"] / start < collapse.FULL_STD_RATIO
    assert fine["std"] / start == pytest.approx(1.0)


def test_a_power_law_that_fills_the_spectrum_is_found_and_none_in_a_few_directions() -> None:
    for alpha in (0.5, 1.0, 3.0):
        assert collapse.alpha_req(K**-alpha) == pytest.approx(alpha, rel=1e-9)
    assert collapse.alpha_req(torch.cat([K[:15] ** -1, torch.zeros(500, dtype=torch.float64)])) is None
    assert math.isnan(collapse.alpha_req(torch.full((100,), torch.nan, dtype=torch.float64)))


def test_with_fewer_samples_than_features_the_spectrum_is_still_that_of_the_covariance() -> None:
    x = gaussian_noise(20, 50)
    values = collapse.spectrum(x)
    assert_close(values[:19], torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)[:19])
    assert values.shape == (50,)
    assert values[19:].max() < 1e-12


def test_a_point_has_no_direction_in_use() -> None:
    values = collapse.spectrum(torch.ones(10, 4))
    assert collapse.entropy_rank(values) == collapse.stable_rank(values) == collapse.participation_ratio(values) == 0.0


def test_redundancy_is_0_for_features_of_their_own_1_for_copies_and_ignores_features_without_spread() -> None:
    x = gaussian_noise(4096, 6)
    assert collapse.redundancy(x) == pytest.approx(math.sqrt(2 / (math.pi * 4096)), rel=0.5)
    assert collapse.redundancy(x[:, :1] * torch.tensor([1.0, -2.0, 3.0])) == pytest.approx(1.0)
    halves = torch.cat([x, x], 1)
    assert collapse.redundancy(halves) == pytest.approx(6 * 2 / (12 * 11), abs=0.02)
    assert collapse.redundancy(torch.cat([x, torch.ones(4096, 2)], 1)) == collapse.redundancy(x)
    assert collapse.redundancy(torch.ones(5, 3)) == 1.0


def test_the_spread_is_compared_with_the_length_of_the_mean() -> None:
    x = gaussian_noise(500, 8)
    assert collapse.std_to_mean(x + 100) == pytest.approx(0.01, rel=0.1)
    assert collapse.std_to_mean(torch.tensor([[1.0], [-1.0]])) is None


def grouped(n: int, q: int, d: int, name: str) -> Tensor:
    """Views of n samples: all directions informative, none, wrongly grouped, or 8 of them informative."""
    sample, view = 3 * gaussian_noise(n, 1, d, seed=1), gaussian_noise(n, q, d, seed=2)
    if name == "noise":
        return view
    if name == "8 dims":
        return sample * (torch.arange(d) < 8) + view
    views = sample + view
    shuffled = views.flatten(0, 1)[torch.randperm(n * q, generator=torch.Generator().manual_seed(3))]
    return views if name == "informative" else shuffled.reshape(n, q, d)


@pytest.mark.parametrize(
    ("n", "q", "name", "published", "corrected"),
    [
        (1000, 50, "informative", 91.4, 91.4),
        (1000, 50, "noise", 91.6, 0.0),
        (1000, 50, "wrong", 91.4, 0.0),
        (1000, 50, "8 dims", 9.2, 8.0),
        (200, 10, "informative", 73.9, 73.5),
        (200, 10, "noise", 73.0, 0.0),
        (200, 10, "wrong", 73.9, 0.0),
        (200, 10, "8 dims", 13.7, 7.8),
    ],
)
def test_lidar_as_published_cannot_tell_noise_from_signal_and_corrected_it_can(
    n: int, q: int, name: str, published: float, corrected: float
) -> None:
    views = grouped(n, q, 96, name)
    assert collapse.lidar(views) == pytest.approx(published, rel=0.04)
    assert collapse.lidar_corrected(views) == pytest.approx(corrected, rel=0.03, abs=1e-9)
    share = collapse.signal_share(views)
    assert (
        {"informative": 0.85, "8 dims": 0.35}.get(name, -0.01)
        < share
        < {"informative": 0.95, "8 dims": 0.45}.get(name, 0.01)
    )
    assert collapse.view_consistency(views) == pytest.approx(share, abs=0.05)


def test_corrected_lidar_weighs_directions_by_their_own_variance_without_what_the_noise_adds() -> None:
    # Beside noise of variance 1 the means of 2 views vary by 9 + 1/2 and by 1 + 1/2; the rank is that of 9 and 1.
    sample, view = gaussian_noise(20_000, 1, 2, seed=1), gaussian_noise(20_000, 2, 2, seed=2)
    rank = math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert collapse.lidar_corrected(torch.tensor([3.0, 1.0]) * sample + view) == pytest.approx(rank, rel=0.02)


@pytest.mark.parametrize(("n", "q", "d"), [(60, 6, 20), (20, 8, 32)])
def test_noise_exceeds_its_edge_once_in_a_hundred_and_the_median_every_other_time(
    n: int, q: int, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def above() -> int:
        return sum(collapse.lidar_corrected(gaussian_noise(n, q, d, seed=100 + k)) > 0 for k in range(100))

    assert above() <= 5
    monkeypatch.setattr(of_views, "TRACY_WIDOM_99", -1.27)  # the Tracy-Widom law's median
    assert 35 <= above() <= 65


def test_the_corrected_lidar_ignores_the_scale_and_the_basis_and_the_published_one_does_not() -> None:
    views = grouped(100, 8, 24, "8 dims")
    turned = 1e-3 * views @ (gaussian_noise(24, 24, seed=9) + 3 * torch.eye(24, dtype=torch.float64))
    assert collapse.lidar_corrected(turned) == pytest.approx(collapse.lidar_corrected(views), rel=1e-3)
    assert collapse.lidar(turned) != pytest.approx(collapse.lidar(views), rel=0.05)


def test_lidar_is_not_corrected_where_the_views_cannot_say_what_noise_is() -> None:
    assert collapse.lidar_corrected(gaussian_noise(4, 3, 10)) is None
    assert collapse.lidar_corrected(gaussian_noise(50, 1, 4).expand(50, 3, 4)) is None
    assert collapse.signal_share(torch.zeros(5, 3, 2)) is None


def test_consistency_is_1_for_equal_views_and_0_for_noise_whatever_the_mean() -> None:
    equal = gaussian_noise(200, 1, 32).expand(200, 4, 32)
    assert collapse.view_consistency(equal + 50) == pytest.approx(1.0, abs=0.02)
    assert collapse.view_consistency(gaussian_noise(200, 4, 32) + 50) == pytest.approx(0.0, abs=0.02)


def test_two_encoders_agree_fully_where_they_differ_by_mean_and_size_alone() -> None:
    x = gaussian_noise(300, 16)
    assert collapse.encoder_agreement(x, 3 * x + 7) == pytest.approx(1.0)
    assert collapse.encoder_agreement(x, -x) == pytest.approx(-1.0)
    assert collapse.encoder_agreement(x, gaussian_noise(300, 16, seed=1)) == pytest.approx(0.0, abs=0.05)


def test_energy_tells_the_true_partner_from_others_and_a_tie_is_no_retrieval() -> None:
    energy = torch.full((3, 5), 4.0)
    energy[torch.arange(3), torch.arange(3)] = torch.tensor([1.0, 1.0, 4.0])
    assert collapse.energy_gap(energy) == pytest.approx(2.0)
    assert collapse.retrieval_rate(energy) == pytest.approx(2 / 3)
    assert collapse.retrieval_rate(torch.zeros(3, 5)) == 0.0


def test_the_norm_is_the_mean_length_of_tokens_and_its_ratio_is_to_step_0_of_the_same_encoder() -> None:
    tokens = HEALTHY[:256].reshape(64, 4, D)
    at_start = collapse.start_panel(tokens, 2 * tokens)
    row = collapse.panel_row(3 * tokens, 2 * tokens, at_start)
    length = tokens.square().sum(-1).sqrt().mean().item()
    assert row["norm_target"] == pytest.approx(3 * length, rel=1e-5)
    assert row["norm_context"] == pytest.approx(2 * length, rel=1e-5)
    assert row["norm_ratio_target"] == pytest.approx(3.0, rel=1e-5)
    assert row["norm_ratio_context"] == pytest.approx(1.0, rel=1e-5)


def test_a_run_that_was_begun_before_norms_were_kept_has_no_ratio_of_them() -> None:
    tokens = HEALTHY[:256].reshape(64, 4, D)
    row = collapse.panel_row(tokens, None, collapse.Panel(std_target=1.0, std_context=0.0))
    assert "norm_target" in row
    assert "norm_ratio_target" not in row


def test_the_row_of_a_method_with_one_encoder_tells_of_one() -> None:
    tokens = HEALTHY[:256].reshape(64, 4, D)
    one = collapse.panel_row(tokens, None, collapse.start_panel(tokens, None))
    two = collapse.panel_row(tokens, tokens, collapse.start_panel(tokens, tokens))
    assert not [key for key in one if key.endswith("context") or key == "agreement"]
    assert one == {key: two[key] for key in one}
    assert {key.removesuffix("_target") + "_context" for key in one} | one.keys() | {"agreement"} == two.keys()


def test_the_panel_sees_features_that_follow_the_position_alone() -> None:
    by_position = gaussian_noise(1, 9, 16).expand(64, 9, 16)
    healthy = gaussian_noise(64, 9, 16, seed=1) + by_position
    start = collapse.start_panel(healthy, None)
    row = collapse.panel_row(by_position + 1e-3 * healthy, None, start)
    assert row["position_share_target"] > 0.99
    assert row["patch_std_ratio_target"] < 0.01
    assert row["patch_rank_target"] > 5


@pytest.mark.parametrize("side", [7, 8, 16])
def test_the_rank_of_patches_is_over_every_place_of_the_grid(side: int) -> None:
    # Many samples: not every token is looked at.
    by_position = gaussian_noise(1, side**2, 32).expand(512, side**2, 32)
    row = collapse.panel_row(by_position, None, collapse.start_panel(by_position, None))
    assert row["patch_rank_target"] == pytest.approx(collapse.effective_rank(by_position[0]), rel=0.02)


@pytest.mark.parametrize(("n", "most", "period"), [(12288, 1024, 12), (32768, 1024, 32), (32768, 4096, 64)])
def test_what_is_looked_at_falls_on_every_place_alike(n: int, most: int, period: int) -> None:
    rows = collapse.row_sample(n, most)
    assert len(rows) == len(rows.unique()) == most
    assert torch.equal(rows, collapse.row_sample(n, most))
    counts = torch.bincount(rows % period, minlength=period)
    expected = most / period
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)
    assert torch.equal(collapse.row_sample(most, most), torch.arange(most))


SETTINGS = {"method": {"name": "vicreg", "std": 25.0, "cov": 1.0}, "optim": {"lr": 1e-3, "final_weight_decay": 0.4}}


@pytest.mark.parametrize("state", ["full", "dimensional", "drifting", "idle", "exploding", "slow"])
def test_no_advice_names_an_option_that_the_method_lacks(state: collapse.State) -> None:
    everything, mine = collapse.advise(state), collapse.advise(state, SETTINGS)
    assert mine
    assert "--method.ema" not in mine
    assert "--method.masks" not in mine
    if state in ("full", "dimensional"):
        assert "--method.ema" in everything
        assert ("--method.std" if state == "full" else "--method.cov") in mine


def test_what_a_verdict_reads_of_a_row_is_kept_and_what_is_not_finite_too() -> None:
    tokens = HEALTHY[:256].reshape(64, 4, D)
    row = {**collapse.panel_row(tokens, tokens, collapse.start_panel(tokens, tokens)), "normalized_loss": 0.5}
    later = {**row, "rank_target": 1.0, "rank_share_target": 0.01}
    broken = {**row, "redundancy_target": float("nan")}
    for history in ([row, row], [row, later], [row, broken]):
        kept = [collapse.verdict_inputs(r) for r in history]
        assert collapse.verdict(kept) == collapse.verdict(history)
        assert len(kept[0]) < len(row)
