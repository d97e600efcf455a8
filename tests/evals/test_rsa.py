"""The probe rsa on simulated responses whose answer is known, and from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from support import halves_run, write_table

import jepakit as jk
from jepakit import methods
from jepakit.cli import __main__ as cli
from jepakit.cli.text import describe_probes
from jepakit.data.images import synthetic
from jepakit.data.series.settings import Config as SeriesConfig
from jepakit.evals import recorded
from jepakit.evals.features import Features
from jepakit.evals.kinds import rsa
from jepakit.evals.metrics.result import Value
from jepakit.evals.recorded import RecordedResponses
from jepakit.evals.runs import probe_run
from jepakit.reporting.probes import probe_row
from jepakit.types import Signal


def items(n: int = 30, d: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def orthogonal(d: int, seed: int = 1) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def noisy(x: np.ndarray, noise: float, repeats: int = 4, seed: int = 2) -> np.ndarray:
    """Each repeat is x turned another way, with noise of its own: units need not be the same ones."""
    draw = np.random.default_rng(seed)
    centred = x - x.mean(1, keepdims=True)
    return np.stack(
        [centred @ orthogonal(x.shape[1], seed + r) + noise * draw.normal(size=x.shape) for r in range(repeats)]
    )


def found(x: np.ndarray, y: np.ndarray) -> dict[str, Value]:
    y = y.astype(np.float64)
    part = RecordedResponses(x, y if y.ndim == 3 else y[None], np.arange(len(x)))
    pairs = rsa.evaluate(part.where(np.zeros(len(x), bool)), part, rsa.Config())
    return {key: value for key, value in pairs if key != "progress"}


# --- known answers


def test_responses_that_are_the_turned_and_scaled_representation_agree_fully() -> None:
    x = items()
    # Pearson's r is the cosine of what is centred over features; a turn that keeps (1, …, 1) keeps those means at 0.
    inner = np.linalg.qr(np.c_[np.ones(12), items(12, 11, 3)])[0][:, 1:]
    y = 3 * (x - x.mean(1, keepdims=True)) @ inner @ orthogonal(11) @ inner.T + 5
    told = found(x - x.mean(1, keepdims=True), y)
    assert told["value"] == pytest.approx(1, abs=1e-6)
    assert told["low"] == pytest.approx(1, abs=1e-6)
    assert told["cka"] == pytest.approx(1, abs=1e-6)
    assert told["cka_plain"] == pytest.approx(1, abs=1e-6)


def test_unrelated_responses_agree_by_chance_only() -> None:
    inside, unbiased, plain = [], [], []
    for seed in range(12):
        told = found(items(25, 40, seed), items(25, 40, 100 + seed))
        inside.append(told["low"] <= 0 <= told["high"])
        unbiased.append(told["cka"])
        plain.append(told["cka_plain"])
    assert sum(inside) >= 10
    assert abs(np.mean(unbiased)) < 0.03
    assert np.mean(plain) > 0.5  # more features than items


def test_less_noise_agrees_more_and_the_ceiling_brackets_the_true_model() -> None:
    x = items(40)
    x -= x.mean(1, keepdims=True)
    values = []
    for noise in (4.0, 1.0, 0.3):
        told = found(x, noisy(x, noise, repeats=8))
        values.append(told["value"])
        assert told["ceiling_low"] <= told["value"] + 0.03
        assert told["value"] <= told["ceiling_high"]
        assert told["repeats"] == 8
    assert 0 < values[0] < values[1] - 0.1 < values[2] - 0.2 < 0.8


def test_no_representation_is_above_the_upper_ceiling() -> None:
    y = noisy(items(), 1.0, repeats=3)
    best = [rsa.rank_levels(rsa.rdm(one)) for one in y]
    once = np.ones((1, len(best[0])))
    _, high = rsa.noise_ceiling(best)
    mean = rsa.rank_levels(np.mean([rsa.weighted_ranks(level, once)[0] for level in best], 0))
    for own in (mean, *best):
        assert rsa.mean_agreement(own, best, once) <= high
    assert rsa.mean_agreement(mean, best, once) > high - 0.01


def test_repeats_without_noise_have_a_ceiling_of_one() -> None:
    one = rsa.rank_levels(rsa.rdm(items()))
    assert rsa.noise_ceiling([one, one]) == pytest.approx((1, 1))


@pytest.mark.parametrize("alignment", [rsa.cka, rsa.cka_plain])
def test_cka_is_invariant_to_turn_scale_and_shift_but_not_to_a_stretch(alignment) -> None:
    x, y = items(20, 6), items(20, 6) + items(20, 6, 5)
    once = alignment(x, y)
    assert alignment(2.5 * x @ orthogonal(6) + 7, y) == pytest.approx(once, abs=1e-6)
    assert alignment(y, x) == pytest.approx(once)
    assert abs(alignment(x * np.array([9, 1, 1, 1, 1, 1], np.float32), y) - once) > 0.02


def test_plain_cka_is_the_formula_of_the_columns_and_unbiased_that_of_song() -> None:
    x, y = items(15, 4).astype(float), (items(15, 4) + items(15, 4, 9)).astype(float)
    cx, cy = x - x.mean(0), y - y.mean(0)
    plain = np.linalg.norm(cy.T @ cx) ** 2 / np.linalg.norm(cx.T @ cx) / np.linalg.norm(cy.T @ cy)
    assert rsa.cka_plain(x, y) == pytest.approx(plain)

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n, (k, m) = len(k), (g - np.diag(np.diag(g)) for g in (k, m))
        middle = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
        return float(np.trace(k @ m) + middle) / (n * (n - 3))

    k, m = x @ x.T, y @ y.T
    assert rsa.cka(x, y) == pytest.approx(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)))


# --- the pieces


def test_dissimilarities_are_one_less_the_correlation_of_items_in_order_of_the_upper_triangle() -> None:
    x = items(6, 5)
    np.testing.assert_allclose(rsa.rdm(x), (1 - np.corrcoef(x))[np.triu_indices(6, 1)], atol=1e-6)


def test_an_item_of_equal_features_is_as_far_from_all() -> None:
    x = items(6, 5)
    x[0] = 0.1
    np.testing.assert_array_equal(rsa.rdm(x)[:5], 1)


def test_weighted_correlation_of_ranks_is_that_of_the_pairs_written_out() -> None:
    draw = np.random.default_rng(0)
    a, b = (draw.integers(0, 6, 40).astype(float) for _ in range(2))
    weights = draw.integers(0, 4, 40).astype(float)
    own, other = rsa.rank_levels(a), rsa.rank_levels(b)
    many = weights.astype(int)
    first, second = (np.repeat(v, many) for v in (a, b))
    mean_rank = [np.array([(v < one).sum() + (v == one).sum() / 2 for one in v]) for v in (first, second)]
    both = np.stack([weights, np.ones(40)])
    assert rsa.mean_agreement(own, [other], both)[0] == pytest.approx(np.corrcoef(*mean_rank)[0, 1])


def test_an_item_drawn_twice_makes_no_pair_with_itself() -> None:
    (weights,) = rsa.pair_counts(np.array([[2, 0, 3, 1], [1, 1, 1, 1]]))
    assert weights.tolist() == [[0, 6, 2, 0, 0, 3], [1] * 6]


def test_the_interval_holds_the_agreement_over_many_items() -> None:
    mix = orthogonal(12)

    def world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        x = items(n, 12, seed)
        return x, (x @ mix + 1.2 * items(n, 12, 1000 + seed)).astype(np.float32)

    x, y = (rsa.rank_levels(rsa.rdm(v)) for v in world(700, 0))
    (true,) = rsa.mean_agreement(x, [y], np.ones((1, len(x))))
    told = [found(*world(30, seed)) for seed in range(1, 31)]
    held = np.mean([one["low"] <= true <= one["high"] for one in told])
    assert held >= 0.8
    assert np.mean([one["high"] - one["low"] for one in told]) < 0.35


def test_a_collapsed_representation_agrees_with_nothing() -> None:
    told = found(np.repeat(items(1), 20, 0), items(20, seed=4))
    assert (told["value"], told["low"], told["high"], told["cka"]) == (0, 0, 0, 0)


def test_responses_of_another_strength_alone_give_no_order() -> None:
    with pytest.raises(ValueError, match="all items are equally dissimilar by the responses of repeat 0"):
        found(items(10), np.arange(1.0, 11)[:, None] * items(1))


# --- reading


def test_items_without_a_response_or_that_cannot_be_read_are_left_out_and_counted() -> None:
    y = items(12, 4).astype(np.float64)[None].repeat(2, 0)
    y[1, 3, 2] = np.nan
    y[0, 5] = 1.0
    ids = np.array([8, 0, 1, 2, 3, 4, 5, 6, 9, 10])  # not 7, 11; and in another order
    x = items(12, 6)[ids]
    part = recorded.join_responses({"value": Features(x, ids * 0, ids)}, y)["value"]
    assert part.id.tolist() == [8, 0, 1, 2, 4, 6, 9, 10]
    assert (part.nan, part.flat, part.unread) == (1, 1, 2)
    np.testing.assert_array_equal(part.responses, y[:, part.id])
    np.testing.assert_array_equal(part.x, items(12, 6)[part.id])


def test_too_few_items_with_a_response_are_refused() -> None:
    y = items(8, 4).astype(np.float64)[None]
    y[0, :4] = np.nan
    ids = np.arange(8)
    with pytest.raises(ValueError, match=r"4 items have .* \(4 left out for NaN"):
        recorded.join_responses({"value": Features(items(8), ids, ids)}, y)


def wrong() -> dict[str, object]:
    gap = items(10)
    gap[0, 0] = np.inf
    return {
        "responses to 9 items": items(9),
        "responses to 12 items": items(10).T.copy(),
        "numpy.save, no objects": np.array([[None, 1]] * 10, object),
        "type <U1": np.full((10, 4), "a"),
        "type complex128": np.ones((10, 4), complex),
        "shape \\(10,\\)": np.arange(10.0),
        "10 items x 2 units": items(10)[:, :2],
        "infinite": gap,
        "constant responses, the same for each of 10 items \\(repeat 1": np.stack([items(10), items(1).repeat(10, 0)]),
    }


@pytest.mark.parametrize("sentence", wrong())
def test_what_is_no_recording_of_these_items_is_told_in_one_sentence(tmp_path: Path, sentence: str) -> None:
    np.save(tmp_path / "a.npy", wrong()[sentence], allow_pickle=True)
    with pytest.raises(ValueError, match=sentence):
        recorded.read_responses(str(tmp_path / "a.npy"), 10)


def test_fewer_than_five_items_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", items(4))
    with pytest.raises(ValueError, match="4 items x 12 units; give 5 items"):
        recorded.read_responses(str(tmp_path / "a.npy"), 4)


def test_files_that_are_no_array_are_told(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("1,2,3")
    (tmp_path / "empty.npy").touch()
    np.savez(tmp_path / "two.npz", a=items(), b=items())
    for name, sentence in {
        "text.npy": "cannot read",
        "empty.npy": "cannot read",
        "two.npz": "an archive",
        "none.npy": "no file",
        ".": "cannot read",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            recorded.read_responses(str(tmp_path / name), 30)
    with pytest.raises(ValueError, match=r"add --responses FILE\.npy"):
        recorded.read_responses("", 30)


# --- from the command line

SHAPES = synthetic.Config("shapes", count=40, size=(16, 16))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return support.untrained_run(tmp_path / "run", SHAPES, Signal(3, (16, 16)))


def represented(run: Path, x: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        tokens: torch.Tensor = jk.load(run).method.encode(x)
    return tokens.mean(1).numpy()


def test_the_command_holds_a_run_against_recordings_in_the_order_of_its_data(run: Path, tmp_path: Path) -> None:
    data = SHAPES.open()
    x = represented(run, torch.stack([data.raw(i) for i in range(40)]))
    y = np.stack([x + 0.1 * x.std() * items(40, x.shape[1], r) for r in range(3)])
    y[0, 7, 0] = np.nan
    np.save(tmp_path / "cells.npy", y)
    done = support.jepa_here("probe", run, "--kind", "rsa", "--responses", tmp_path / "cells.npy")
    assert done.returncode == 0, done.stderr
    assert "%" not in done.stdout.splitlines()[1]
    result = json.loads((run / "evals" / "rsa.json").read_text())
    assert result["metric"] == "RDM Spearman correlation"
    assert (result["n_train"], result["n_test"], result["data"]) == (0, 39, "shapes")
    assert result["value"] > 0.8
    assert result["value"] == result["random_init"]  # never trained
    assert result["raw"] < result["low"]
    notes = result["notes"]
    assert notes["ceiling_low"] <= result["value"] <= notes["ceiling_high"]
    assert 0.9 < notes["cka"] <= 1
    assert (notes["left_out_nan"], notes["repeats"]) == (1, 3)
    shown = probe_row(result, "r")
    assert "noise ceiling" in shown["picture"]
    assert "%" not in shown["value"] + shown["gain"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "no responses given"),
        (("--rsa.responses", "few.npy"), "responses to 30 items (its shape is (30, 12)), but the data hold 40"),
        (("--responses", "few.npy", "--test", "shapes"), "cannot use --test"),
        (("--kind", "knn", "--responses", "few.npy"), "--kind knn does not use --responses"),
    ],
)
def test_mistakes_leave_nothing_behind(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    np.save(tmp_path / "few.npy", items(30))
    words = tuple(str(tmp_path / w) if w.endswith(".npy") else w for w in words)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["probe", str(run), "--kind", "rsa", *words])
    assert sentence in capsys.readouterr().err
    assert not (run / "evals").exists()


def test_a_recurrent_run_on_series_is_held_against_recordings_of_every_window(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", 200)
    data = SeriesConfig(str(tmp_path / "a.csv"), window=16, stride=8, columns=("c0", "c1"), split="train")
    settings = methods.load("rjepa").Config.tiny(Signal(2, (16,)))
    run = halves_run(tmp_path / "run", data, method=settings)
    whole = SeriesConfig(str(tmp_path / "a.csv"), window=16, stride=8, columns=("c0", "c1")).open()
    x = represented(run, torch.stack([whole.raw(i) for i in range(len(whole))]))
    np.save(tmp_path / "cells.npy", x)
    path = jk.probe(run, "rsa", settings={"rsa.responses": str(tmp_path / "cells.npy")})
    result = json.loads(path.read_text())
    assert result["n_test"] == len(whole) > 20
    assert result["value"] == pytest.approx(1, abs=1e-3)
    assert result["raw"] < 0.99
    assert "ceiling_low" not in result["notes"]
    assert "%" not in describe_probes([path]).splitlines()[1]


def test_it_is_judged_beside_kinds_that_hold_a_part_out(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "cells.npy", items(40))
    settings = {"rsa.responses": str(tmp_path / "cells.npy")}
    paths = probe_run(run, ["knn", "rsa"], settings=settings)
    counts = [json.loads(path.read_text())["n_test"] for path in paths]
    assert counts == [8, 40]
