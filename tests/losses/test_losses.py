import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from jepakit import losses
from jepakit.losses import Kind
from jepakit.types import Rng

KINDS: list[Kind] = ["smooth_l1", "l1", "l2"]
TORCH = {"smooth_l1": F.smooth_l1_loss, "l1": F.l1_loss, "l2": F.mse_loss}


def pair(*shape: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(0)
    return scale * torch.randn(shape, generator=gen), scale * torch.randn(shape, generator=gen)


@pytest.mark.parametrize("kind", KINDS)
def test_the_distance_is_torchs_mean_over_all_entries(kind: Kind) -> None:
    pred, target = pair(3, 2, 5, 8, scale=2)
    assert_close(losses.prediction(pred, target, kind), TORCH[kind](pred, target))


@pytest.mark.parametrize("kind", KINDS)
def test_sums_run_in_fp32_whatever_the_precision_of_the_representations(kind: Kind) -> None:
    pred, target = (t.bfloat16() for t in pair(64, 50, 32))
    loss = losses.prediction(pred, target, kind)
    assert loss.dtype == torch.float32
    assert_close(loss.double(), losses.prediction(pred.double(), target.double(), kind), rtol=1e-5, atol=0)
    assert losses.prediction(pred.double(), target.double(), kind).dtype == torch.float64


def test_a_normalised_target_has_zero_mean_and_unit_variance_per_token() -> None:
    target = 5 + 3 * pair(4, 6, 32)[0]
    out = losses.normalize_target(target)
    assert_close(out.mean(-1), torch.zeros(4, 6), atol=1e-5, rtol=0)
    assert_close(out.var(-1, correction=0), torch.ones(4, 6), atol=1e-4, rtol=0)
    assert_close(
        out, (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    )
    assert losses.normalize_target(target.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_the_target(kind: Kind) -> None:
    pred, target = (t.requires_grad_() for t in pair(2, 3, 4))
    losses.prediction(pred, target, kind).backward()
    assert pred.grad is not None
    assert pred.grad.any()
    assert target.grad is None


@given(st.floats(-50, 50), st.sampled_from(KINDS))
def test_distances_are_symmetric_and_zero_only_at_zero(difference: float, kind: Kind) -> None:
    d = torch.tensor([difference], dtype=torch.float64)
    value, mirrored = (
        losses.elementwise(d, torch.zeros(1).double(), kind),
        losses.elementwise(-d, torch.zeros(1).double(), kind),
    )
    assert value == mirrored
    assert (value == 0) == (difference == 0) or abs(difference) < 1e-150


def samples(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_invariance_is_the_mean_squared_error_over_all_pairs_of_views() -> None:
    z = samples(4, 6, 3)
    pairs = torch.stack([F.mse_loss(z[i], z[j]) for i in range(4) for j in range(4) if i != j])
    assert_close(losses.invariance(z), pairs.mean())
    assert_close(losses.invariance(z[:2]), F.mse_loss(z[0], z[1]))


def test_variance_is_what_each_std_lacks_of_one() -> None:
    z = samples(50, 4) * torch.tensor([0.1, 0.5, 2.0, 5.0])
    short = (1 - (z.var(0) + 1e-4).sqrt()).clamp(min=0)
    assert short[2:].sum() == 0
    assert_close(losses.variance(z), short.mean())
    assert_close(losses.variance(torch.stack([z, 0.1 * z])), (losses.variance(z) + losses.variance(0.1 * z)) / 2)
    assert_close(losses.variance(torch.full((8, 3), 7.0)), torch.tensor(0.99))


def test_covariance_is_the_sum_of_squares_off_the_diagonal_over_the_width() -> None:
    z = samples(20, 5) @ samples(5, 5, seed=1)
    cov = z.T.cov()
    assert_close(losses.covariance(z), (cov - cov.diag().diag()).square().sum() / 5)
    assert_close(losses.covariance(torch.stack([z, 2 * z])), losses.covariance(z) * (1 + 2**4) / 2)


def test_covariance_with_unit_variances_has_the_stated_floor_and_reaches_it() -> None:
    n, d = 9, 40
    flat = torch.linalg.qr(torch.cat([torch.ones(n, 1).double(), samples(n, n - 1)], 1)).Q[:, 1:]
    rows = flat @ torch.linalg.qr(samples(d, n - 1)).Q.T
    floor = d / (n - 1) - 1
    for z in (rows, samples(n, d), samples(n, 3) @ samples(3, d)):
        assert losses.covariance((z - z.mean(0)) / z.std(0)) >= floor - 1e-9
    # A tight frame of n − 1 directions, its columns of equal length, has the floor itself.
    angles = torch.arange(d, dtype=torch.float64)[:, None] * torch.arange(1, n // 2 + 1) * 2 * torch.pi / d
    even = flat @ torch.cat([angles.cos(), angles.sin()], 1).T
    assert_close(losses.covariance(even / even.std(0)), torch.tensor(floor, dtype=torch.float64))


def test_vicreg_is_the_mean_over_ordered_pairs_of_views_of_the_published_loss_of_two() -> None:
    z = 0.7 * samples(4, 10, 6)
    found = {name: torch.zeros(()).double() for name in ("invariance", "variance", "covariance")}
    for i in range(4):
        for j in range(4):
            if i != j:
                found["invariance"] += F.mse_loss(z[i], z[j]) / 12
                for view in (z[i], z[j]):
                    std, cov = (view.var(0) + 1e-4).sqrt(), view.T.cov()
                    found["variance"] += F.relu(1 - std).mean() / 2 / 12
                    found["covariance"] += (cov - cov.diag().diag()).square().sum() / 6 / 12
    assert_close(losses.vicreg(z), found)


def test_a_projector_too_wide_for_the_batch_is_refused_and_the_numbers_given_are_accepted() -> None:
    losses.check_vicreg(2048, 8192, 25.0, 1.0)
    losses.check_vicreg(256, 8192, 25.0, 1.0)
    losses.check_vicreg(2, 10**6, 0.0, 1.0)
    losses.check_vicreg(2, 10**6, 25.0, 0.0)
    with pytest.raises(ValueError, match=r"need 2 samples at a time .* not 1; raise length\.batch"):
        losses.check_vicreg(1, 4, 25.0, 1.0)
    with pytest.raises(ValueError, match=r"give 97 samples or more, or method\.projector\.out 597 or less"):
        losses.check_vicreg(8, 8192, 25.0, 1.0)
    losses.check_vicreg(97, 8192, 25.0, 1.0)
    losses.check_vicreg(8, 597, 25.0, 1.0)


def test_the_refused_width_is_where_the_best_std_falls_below_a_third() -> None:
    s = torch.linspace(0.01, 1, 10_000)
    for width, above in ((597, True), (598, False)):
        best = s[(25 * (1 - s) + 2 * (width / 7 - 1) * s**4).argmin()]
        assert (best > 1 / 3) == above


@pytest.mark.parametrize(("samples", "width"), [(8, 256), (8, 50), (32, 256), (64, 256), (256, 8192)])
def test_the_best_std_is_where_variance_and_covariance_together_are_least(samples: int, width: int) -> None:
    s = torch.linspace(0.01, 1, 10_000)
    best = s[(25 * (1 - s) + 2 * (width / (samples - 1) - 1) * s**4).argmin()]
    assert losses.best_std(samples, width, 25.0, 1.0) == pytest.approx(float(best), abs=1e-3)


def test_a_width_at_which_the_std_stays_below_four_fifths_is_told_and_the_numbers_given_are_not() -> None:
    said = losses.vicreg_shortfall(8, 256, 25.0, 1.0)
    assert said.startswith("the std of 256 projected features comes to 0.44 at best, not to 1")
    assert said.endswith("give 38 samples or more, or method.projector.out 49 or less for 0.8")
    for samples, width in ((38, 256), (8, 49), (64, 256), (8, 4)):
        assert not losses.vicreg_shortfall(samples, width, 25.0, 1.0)
    assert losses.vicreg_shortfall(37, 256, 25.0, 1.0)
    assert losses.vicreg_shortfall(8, 50, 25.0, 1.0)
    assert not losses.vicreg_shortfall(8, 256, 25.0, 0.0)


def epps_pulley(x: torch.Tensor) -> torch.Tensor:
    """The integral over all t in closed form, from the pairwise differences."""
    pairs = torch.exp(-(x[:, None] - x).square() / 2).sum() / len(x)
    own = torch.exp(-x.square() / 4).sum() * 2**0.5
    return (2 * torch.pi) ** 0.5 * (pairs - own + len(x) / 3**0.5)


def test_sigreg_is_the_statistic_of_epps_and_pulley_along_every_direction() -> None:
    z, along = 0.5 + 1.7 * samples(30, 4), losses.unit_directions(4, 5, Rng(0)).double()
    exact = torch.stack([epps_pulley(z @ column) for column in along.T]).mean()
    assert_close(losses.sigreg(z, along, knots=200, end=12.0), exact, rtol=1e-6, atol=0)
    t = torch.linspace(0, 3, 17, dtype=torch.float64)
    found = torch.exp(1j * (z @ along)[..., None] * t).mean(0)
    weighted = (found - torch.exp(-t.square() / 2)).abs().square() * torch.exp(-t.square() / 2)
    assert_close(losses.sigreg(z, along), 2 * 30 * torch.trapezoid(weighted, t).mean())
    # What 17 knots up to 3 cost: nothing that matters.
    assert_close(losses.sigreg(z, along), exact, rtol=0.03, atol=0)
    assert_close(
        losses.sigreg(torch.stack([z, z + 1]), along), (losses.sigreg(z, along) + losses.sigreg(z + 1, along)) / 2
    )


def test_sigreg_is_about_one_for_normal_samples_and_grows_with_their_number_for_any_others() -> None:
    along = losses.unit_directions(8, 8, Rng(0))
    for n in (32, 256):
        # Its expectation is ∫ (1 − exp(−t²)) exp(−t²/2) dt, at any n.
        assert losses.sigreg(samples(300, n, 8), along).item() == pytest.approx(1.06, abs=0.1)
    assert 205 < float(losses.sigreg(torch.zeros(512, 8), along)) < 207
    heavy = samples(4096, 8) / samples(4096, 1, seed=1).abs()
    narrow = 0.5 * samples(4096, 8)
    two = samples(4096, 8) * 0.3 + torch.where(samples(4096, 1, seed=1) > 0, 1, -1)
    for z in (heavy, narrow, two):
        assert losses.sigreg(z, along) > 30
        assert losses.sigreg(z, along) > 8 * losses.sigreg(z[:256], along)


def test_sigreg_pulls_a_nearly_collapsed_batch_apart_but_a_point_stays_one() -> None:
    for spread, moves in ((0.01, True), (0.0, False)):
        z = (spread * samples(64, 4) + 0.3).requires_grad_()
        for step in range(300):
            (grad,) = torch.autograd.grad(losses.sigreg(z, losses.unit_directions(4, 32, Rng(0, step))), z)
            z = (z - 0.2 * grad).detach().requires_grad_()
        assert bool(z.std(0).mean() > 0.8) == moves
        assert bool((z == z[0]).all()) != moves


def test_directions_have_unit_length_and_depend_on_the_step_alone() -> None:
    along = losses.unit_directions(7, 9, Rng(3, step=2, offset=0, total=8))
    assert_close(along.norm(dim=0), torch.ones(9))
    assert torch.equal(along, losses.unit_directions(7, 9, Rng(3, step=2, offset=4, total=8)))
    assert not torch.equal(along, losses.unit_directions(7, 9, Rng(3, step=3)))


def test_contrast_is_the_cross_entropy_of_each_views_other_among_all_but_itself() -> None:
    a, b = samples(6, 5), samples(6, 5, seed=1)
    views = F.normalize(torch.cat([a, b]), dim=1)
    found = []
    for i in range(12):
        others = [j for j in range(12) if j != i]
        logits = torch.stack([views[i] @ views[j] for j in others]) / 0.2
        found.append(F.cross_entropy(logits, torch.tensor(others.index((i + 6) % 12))))
    assert_close(losses.info_nce(a, b, 0.2), torch.stack(found).mean())
    assert_close(losses.info_nce(3 * a, b, 0.2), losses.info_nce(a, b, 0.2))
    assert losses.info_nce(torch.eye(6), torch.eye(6), 0.02) < 1e-6
    assert_close(losses.info_nce(torch.ones(6, 5), torch.ones(6, 5), 0.1), torch.tensor(11.0).log())


def test_decoupled_contrast_leaves_the_pair_out_of_what_it_is_told_apart_from() -> None:
    a, b = samples(6, 5), samples(6, 5, seed=1)
    views = F.normalize(torch.cat([a, b]), dim=1)
    found = []
    for i in range(12):
        pair = (i + 6) % 12
        negatives = torch.stack([views[i] @ views[j] for j in range(12) if j not in (i, pair)]) / 0.2
        found.append(negatives.exp().sum().log() - views[i] @ views[pair] / 0.2)
    assert_close(losses.info_nce(a, b, 0.2, decoupled=True), torch.stack(found).mean())


def test_decoupled_contrast_pulls_a_pair_that_agrees_as_strongly_as_one_that_does_not() -> None:
    a = torch.eye(6)[:3].requires_grad_()
    near = F.normalize(torch.eye(6)[:3] + 0.1 * torch.eye(6)[3:], dim=1)

    def pull(decoupled: bool) -> float:
        (gradient,) = torch.autograd.grad(losses.info_nce(a, near, 0.05, decoupled), a)
        return float(gradient.norm())

    # The contrast of the coupled one is won already, so nothing moves; the decoupled one goes on.
    assert pull(decoupled=False) < 1e-6
    assert pull(decoupled=True) > 0.1


def test_autocast_changes_no_bit_of_the_terms_between_samples() -> None:
    z = 0.5 * samples(2, 16, 6).float()
    along = losses.unit_directions(6, 8, Rng(0))

    def terms() -> list[torch.Tensor]:
        return [*losses.vicreg(z).values(), losses.sigreg(z, along), losses.info_nce(z[0], z[1], 0.1)]

    plain = terms()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(terms(), plain, strict=True))
    low = z.bfloat16()
    assert losses.sigreg(low, along).dtype == losses.info_nce(low[0], low[1], 0.1).dtype == torch.float32
    assert all(v.dtype == torch.float32 for v in losses.vicreg(low).values())
