"""The limits of VICReg: every step of the prediction against the loss itself, then against embeddings trained by it."""

import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from jepakit import api, losses
from jepakit.studies.maps import Map, Scale, draw_map_grid
from jepakit.studies.study import Scores
from jepakit.studies.vicreg import vicreg_limits as limits
from jepakit.types import Rng

NOISE = torch.tensor(limits.NOISE_SHARES)


@pytest.fixture
def gen() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def spectrum(z: torch.Tensor) -> torch.Tensor:
    return torch.linalg.eigvalsh(z.T @ z)


def test_step_1_views_differ_by_twice_the_noise_that_is_embedded(gen: torch.Generator) -> None:
    weight = torch.randn(16, 4, generator=gen)
    found = losses.invariance(limits.draw_views(50_000, NOISE, gen) @ weight)
    torch.testing.assert_close(found, 2 / 4 * (NOISE @ weight.square().sum(1)), rtol=0.02, atol=0)


def test_views_have_unit_variance(gen: torch.Generator) -> None:
    torch.testing.assert_close(limits.draw_views(50_000, NOISE, gen).var(1), torch.ones(2, 16), rtol=0.05, atol=0)


@pytest.mark.parametrize("batch", [3, 8, 64])
def test_step_2_small_batches_fall_short_of_the_hinge_at_the_std_that_it_asks_for(
    batch: int, gen: torch.Generator
) -> None:
    grid, expected = limits.hinge_shortfall(batch)
    z = torch.randn(batch, 50_000, generator=gen, dtype=torch.float64)
    for at in (0, 1500, 2500, 2727, 2950):
        found = losses.variance(z * grid[at])
        torch.testing.assert_close(found, expected[at], rtol=0.01, atol=1e-3)
    assert abs(grid[2727] - 1) < 0.01
    assert expected[2727] > 0.3 / math.sqrt(batch)


def test_step_3_features_that_do_not_repeat_one_another_pay_for_small_batches(gen: torch.Generator) -> None:
    batch, width, sigma = 8, 5, 0.7
    weight = torch.randn(6, width, generator=gen, dtype=torch.float64)
    weight = sigma * weight / weight.norm(dim=0)
    x = torch.randn(100_000, batch, 6, generator=gen, dtype=torch.float64)
    mu = spectrum(weight)
    free = limits.expected_loss(
        mu[None], torch.tensor([sigma]).double(), torch.zeros(width).double(), batch, width, 1.0
    )
    torch.testing.assert_close(2 * losses.covariance(x @ weight), free[0], rtol=0.01, atol=0)


def test_step_4_what_is_filled_in_sums_up_and_costs_the_same_at_every_margin() -> None:
    price, total = torch.tensor([0.1, 0.5, 2.0]).double(), torch.tensor([0.0, 0.05, 1.0, 9.0]).double()
    mu = limits.fill_level(total, price, 2.0)
    torch.testing.assert_close(mu.sum(1), total)
    margin = price + 2 * mu
    for row, used in zip(margin[1:], mu[1:] > 0, strict=True):
        torch.testing.assert_close(row[used], row[used][:1].expand(int(used.sum())))
        assert (row[~used] >= row[used].max()).all()
    assert (mu > 0).sum(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.02])
def test_one_feature_of_one_noise_has_the_std_at_which_variance_and_invariance_balance(share: float) -> None:
    found = limits.predict_minimum(share * 4 * 3.0 * 0.2, 3.0, 10_000, 1, noise=(0.2,))
    assert found.std == pytest.approx(math.sqrt(share**2 - limits.EPS), rel=0.01)


@pytest.mark.parametrize(("batch", "width"), [(8, 4), (8, 64), (128, 16)])
def test_eps_sets_the_weight_below_which_everything_collapses_whatever_batch_and_width(batch: int, width: int) -> None:
    least = 4 * 64.0 * min(limits.NOISE_SHARES) * math.sqrt(limits.EPS)
    assert limits.predict_minimum(0.98 * least, 64.0, batch, width) == (0, 0)
    assert limits.predict_minimum(1.05 * least, 64.0, batch, width).std > 0


@pytest.mark.parametrize("std", [0.4, 0.8])
def test_without_invariance_the_std_is_what_covariances_of_the_batch_leave(std: float) -> None:
    needed = 8 * (16 - 1) / (1001 - 1) * std**3
    found = limits.predict_minimum(needed, 0.0, 1001, 16)
    assert found.std == pytest.approx(std, rel=0.01)
    assert found.rank == pytest.approx(16)


def test_without_covariance_one_direction_is_left() -> None:
    assert limits.predict_minimum(25.0, 1.0, 64, 16, cov=1e-6).rank == pytest.approx(1, abs=1e-3)
    assert limits.predict_minimum(25.0, 1.0, 64, 16).rank > 15


@pytest.mark.parametrize(("batch", "width"), [(8, 16), (32, 4)])
def test_trained_embeddings_have_the_predicted_std_and_rank(batch: int, width: int) -> None:
    pairs = [(0.4, 0.25), (4.0, 1.0), (4.0, 16.0), (40.0, 16.0), (40.0, 64.0)]
    weights = torch.tensor(pairs)
    found = limits.train_embeddings(weights[:, 0], weights[:, 1], batch, width, Rng(0), steps=300)
    for pair, one in zip(pairs, found, strict=True):
        theory = limits.predict_minimum(*pair, batch, width)
        assert one.std == pytest.approx(theory.std, rel=0.06), pair
        assert one.rank == pytest.approx(theory.rank, rel=0.15), pair
    # New samples in every batch: their number does not bound the rank over all.
    assert batch > 8 or found[0].rank > batch


def test_a_hidden_layer_finds_more_directions_than_there_are_in_the_input() -> None:
    weights = torch.tensor([[10.0, 1.0]])
    (found,) = limits.train_embeddings(weights[:, 0], weights[:, 1], 32, 32, Rng(0), steps=150, hidden=32)
    assert found.rank > len(limits.NOISE_SHARES) + 4


def test_weights_of_one_training_do_not_reach_another() -> None:
    def one(*pairs: tuple[float, float]) -> limits.FeatureSpread:
        weights = torch.tensor(pairs)
        return limits.train_embeddings(weights[:, 0], weights[:, 1], 8, 4, Rng(1), steps=20)[-1]

    assert one((4.0, 1.0)) == pytest.approx(one((90.0, 64.0), (4.0, 1.0)), rel=1e-4)
    assert one((4.0, 1.0)) != pytest.approx(one((90.0, 64.0)), rel=0.05)


@pytest.mark.parametrize("what", [0, 1])
def test_the_predicted_boundary_is_where_half_is_lost(what: int) -> None:
    at = limits.predicted_boundary(what, 16.0, 32, 16)
    assert at is not None
    assert limits.predict_minimum(at, 16.0, 32, 16)[what] == pytest.approx(limits.failure_level(what, 16), rel=0.02)
    assert limits.predicted_boundary(what, 1e-3 if what else 1e5, 32, 16) is None


def test_a_boundary_between_two_weights_is_found_as_on_a_power_law() -> None:
    values = [0.2 * (v / limits.VARIANCE_WEIGHTS[0]) ** 0.3 for v in limits.VARIANCE_WEIGHTS]
    assert limits.crossing_weight(values, 0.5) == pytest.approx(limits.VARIANCE_WEIGHTS[0] * 2.5 ** (1 / 0.3))
    assert limits.crossing_weight(values, 0.1) is None
    assert limits.crossing_weight(values, 9.0) is None


def test_what_is_far_off_the_prediction_is_named() -> None:
    metric = limits.METRICS[0]
    values = {
        ("linear · batch 8 · width 4 · invariance 0.25", metric): [1.0, 1.1],
        ("linear · batch 8 · width 4 · invariance 0.25", f"{metric}, predicted"): [1.05, 1.05],
        ("linear · batch 8 · width 4 · invariance 1", metric): [2.0, 2.0],
        ("linear · batch 8 · width 4 · invariance 1", f"{metric}, predicted"): [1.0, 1.0],
    }
    linear = limits.STUDY.claims[0]
    sentence = linear.sentence(Scores(values, ()))
    assert "does not hold, 1.00 to 2.00 times as much" in sentence
    assert sentence.endswith("further apart: linear · batch 8 · width 4 · invariance 1 (2.00).")
    sentence = linear.sentence(Scores({key: values[key] for key in list(values)[:2]}, ()))
    assert "equal within 15 %: holds" in sentence
    assert "over 1 pair" in sentence


def test_reproducing_it_needs_no_data_and_takes_no_seed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EMBEDDINGS", {"linear · batch 8 · width 4": (8, 4, 0)})
    monkeypatch.setattr(limits, "STEPS", 100)
    monkeypatch.setattr(limits, "FINE_INVARIANCE", limits.INVARIANCE_WEIGHTS)
    monkeypatch.delenv("JEPAKIT_DATA", raising=False)
    rows, page = api.reproduce("vicreg-limits", out=tmp_path, seeds=2)
    stored = json.loads((tmp_path / "table.json").read_text())
    assert set(stored["rows"][0]) >= {"name", "metric", "paper", "mean", "std", "seeds"}
    found = {(row["name"], row["metric"]): row for row in rows}
    name = "linear · batch 8 · width 4 · invariance 16"
    measured, theory = (found[name, f"{limits.METRICS[0]}{more}"] for more in ("", ", predicted"))
    assert measured["mean"] == pytest.approx(theory["mean"], rel=0.2)
    assert measured["seeds"] == 2
    html = page.read_text()
    assert not re.search(r'(src|href)="(?!#|data:)', html)
    assert stored["says"][1] in html
    for figure in ("standard-deviation", "rank"):
        svg = (tmp_path / "figures" / f"{figure}.svg").read_text()
        assert {e.tag.rpartition("}")[2] for e in ET.fromstring(svg).iter()} >= {"polyline", "circle", "rect"}
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "taken").iterdir()}
    again, _ = api.reproduce("vicreg-limits", out=tmp_path, seeds=2)
    assert again == rows
    api.reproduce("vicreg-limits", out=tmp_path, seeds=1, steps=2)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "taken").iterdir() if p in written} == written
    (sentence,) = json.loads((tmp_path / "table.json").read_text())["says"]
    assert sentence.startswith("A rehearsal of 2 steps")


def test_values_lie_in_the_middle_of_their_cells_and_what_lacks_a_y_is_left_out() -> None:
    scale = Scale((1.0, 10.0, 100.0), 30.0)
    assert [scale.place(v) for v in (1.0, 10.0, 100.0)] == pytest.approx([5, 15, 25])
    one = Map("<a>", [[0.0, 2.0], [0.5, 0.1]], [(1.0, 1.0), (10.0, None)], [(1.0, None), (10.0, 10.0)])
    root = ET.fromstring(draw_map_grid([one] * 4, (1.0, 10.0), (1.0, 10.0), "four maps", ("x", "y")))
    assert len(list(root.iter("circle"))) == 4
    assert all(" " not in line.attrib["points"] for line in root.iter("polyline"))
    shades = [rect.attrib["fill-opacity"] for rect in root.iter("rect") if "fill-opacity" in rect.attrib]
    assert shades[:4] == ["0.000", "0.900", "0.450", "0.090"]
