import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from jepakit import evals, methods, recipes
from jepakit.data.images import arrays, files
from jepakit.evals import probing
from jepakit.evals.features import Features, extract_by_all, extract_features
from jepakit.evals.kinds import knn, linear
from jepakit.evals.metrics import result
from jepakit.evals.runs import open_sets
from jepakit.evals.sources import Sets, Subject, encoders_under_test
from jepakit.evals.split import labelled_part
from jepakit.methods import ijepa
from jepakit.run.checkpoint import LoadedRun
from jepakit.types import Batch, Signal


def clusters(n: int, classes: int = 4, dim: int = 6, spread: float = 1.0, seed: int = 0) -> Features:
    """Gaussian clusters whose centres depend on `classes` and `dim` alone."""
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    x = centres[y] + spread * rng.normal(size=(n, dim))
    return Features(x.astype(np.float32), y.astype(np.int64), np.arange(n))


@dataclass
class Stream:
    """A stream of small images, which counts what it hands out."""

    n: int = 50
    batch: int = 8
    size: tuple[int, int] = (4, 4)
    classes: int = 2
    labels: bool = True
    seen: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.n, self.batch):
            ids = torch.arange(start, min(start + self.batch, self.n))
            self.seen.append(len(ids))
            y = ids % self.classes
            noise = torch.rand((len(ids), 1, *self.size), generator=torch.Generator().manual_seed(start))
            lit = (torch.arange(self.size[1]) < 2) == (y[:, None] == 0)  # class 0 is lit on the left
            x = 0.5 * noise + 0.5 * lit[:, None, None]
            yield Batch(x=x, id=ids, label=y if self.labels else None)


def tokens(batch: Batch) -> Tensor:
    """Every row of the image as a token."""
    return batch.x.flatten(1, 2)


def raw(batch: Batch) -> Tensor:
    """The raw input as one token."""
    return evals.raw_tokens(batch.x)


# --- features


def test_extract_keeps_order_labels_and_the_mean_over_tokens() -> None:
    found = extract_features(tokens, Stream())
    everything = [b.x for b in Stream()]
    assert found.id.tolist() == list(range(50))
    assert found.y.tolist() == [i % 2 for i in range(50)]
    np.testing.assert_allclose(found.x, torch.cat(everything).mean(2)[:, 0].numpy(), rtol=1e-6)


def test_a_known_number_of_samples_changes_nothing_but_the_copies() -> None:
    for n in (0, 7, 50, 80):
        np.testing.assert_array_equal(extract_features(tokens, Stream(), n=n).x, extract_features(tokens, Stream()).x)


def test_every_encoder_is_read_in_one_pass() -> None:
    stream = Stream()
    both = extract_by_all({"value": tokens, "raw": raw}, stream)
    assert sum(stream.seen) == 50
    assert both["raw"].x.shape == (50, 16)
    np.testing.assert_array_equal(both["value"].y, both["raw"].y)


def test_no_gradient_is_kept_while_extracting() -> None:
    layer, modes = nn.Linear(4, 3), []

    def encode(batch: Batch) -> Tensor:
        out: Tensor = layer(tokens(batch))
        modes.append(out.requires_grad)
        return out

    extract_features(encode, Stream())
    assert not any(modes)


def test_raw_pixels_are_the_image_where_it_is_small_and_bounded_where_it_is_large() -> None:
    small = torch.rand(2, 1, 28, 28)
    assert torch.equal(evals.raw_tokens(small), small.flatten(1)[:, None])
    assert evals.raw_tokens(torch.rand(2, 3, 32, 32)).shape == (2, 1, 3072)
    for shape in ((3, 224, 500), (13, 64, 64), (1, 100_000), (3, 16, 112, 112), (4, 9)):
        assert evals.raw_tokens(torch.rand(1, *shape)).numel() <= 3072


def test_raw_pixels_of_a_large_image_are_means_of_its_blocks() -> None:
    x = torch.rand(1, 3, 64, 64)
    want = x.reshape(1, 3, 32, 2, 32, 2).mean((3, 5)).flatten(1)[:, None]
    torch.testing.assert_close(evals.raw_tokens(x), want)


def test_a_random_encoder_depends_on_its_seed_and_leaves_the_global_state() -> None:
    signal = Signal(1, (16, 16))
    before = torch.get_rng_state()
    one, same, other = (evals.random_init(ijepa.Config.tiny(signal), signal, seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(one(x), same(x))
    assert not torch.equal(one(x), other(x))


def untrained(signal: Signal, data: object = None) -> LoadedRun:
    """What a run on such data would hold at step 0."""
    run, method = recipes.load_recipe("demo"), methods.build(ijepa.Config.tiny(signal), signal)
    return LoadedRun(dataclasses.replace(run, method=method.cfg, data=data or run.data), method, 0, {})


@pytest.mark.parametrize("trained_on", ["images", "arrays"])
def test_images_are_judged_in_the_channels_of_the_model(tmp_path: Path, trained_on: str) -> None:
    (tmp_path / "a").mkdir()
    for i in range(30):
        Image.new("RGB" if i < 20 else "L", (16, 16)).save(tmp_path / "a" / f"{i}.png")
    path = str(tmp_path)
    own = files.Config(path, split="train") if trained_on == "images" else arrays.Config()
    given = None if trained_on == "images" else path
    sets = open_sets(untrained(Signal(1, (16, 16)), own), given, given)
    assert [part and part.channels for part in (sets.train, sets.test)] == [1, 1]


def test_the_raw_baseline_is_the_input_as_the_encoder_sees_it() -> None:
    loaded = untrained(Signal(2, (16, 16), mean=(0.2, 0.7), std=(0.5, 0.1)))
    x = torch.rand(3, 2, 16, 16)
    seen = (x - torch.tensor([0.2, 0.7])[:, None, None]) / torch.tensor([0.5, 0.1])[:, None, None]
    subject = Subject(loaded, Sets(loaded.run.data.open(), None, ""), "cpu", "target")
    torch.testing.assert_close(encoders_under_test(subject)["raw"](Batch(x)), seen.flatten(1)[:, None])


# --- accuracy, recall


def test_recall_is_per_true_class_and_absent_for_a_class_without_samples() -> None:
    out = dict(result.accuracy_results(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 3]), 4))
    assert out["per_class"] == [0.5, 1.0, None, 0.0]
    assert out["value"] == 0.5


# --- kNN


@pytest.mark.parametrize("weights", ["uniform", "softmax"])
def test_knn_predicts_what_scikit_learn_predicts(weights: str) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    train, test = clusters(400, spread=1.5), clusters(300, spread=1.5, seed=1)
    cfg = knn.Config(k=7 if weights == "softmax" else 1, weights=weights)  # type: ignore[arg-type]
    vote = {"uniform": "uniform", "softmax": lambda d: np.exp(-d / cfg.temperature)}[weights]
    theirs = KNeighborsClassifier(cfg.k, metric="cosine", algorithm="brute", weights=vote).fit(train.x, train.y)
    assert 0.4 < (knn.predict_labels(train, test.x, cfg) == test.y).mean() < 0.95
    np.testing.assert_array_equal(knn.predict_labels(train, test.x, cfg), theirs.predict(test.x))


def test_a_majority_of_neighbours_wins_and_equal_votes_go_to_the_more_similar_class() -> None:
    from sklearn.neighbors import NearestNeighbors

    train, test, cfg = clusters(400, spread=2.0), clusters(300, spread=2.0, seed=1), knn.Config(k=6)
    distance, near = NearestNeighbors(n_neighbors=6, metric="cosine", algorithm="brute").fit(train.x).kneighbors(test.x)
    want, ties = [], 0
    for d, y in zip(distance, train.y[near], strict=True):
        votes = sorted(((y == c).sum(), (1 - d)[y == c].sum(), c) for c in range(4))
        ties += votes[-1][0] == votes[-2][0]
        want.append(votes[-1][2])
    assert ties > 20
    np.testing.assert_array_equal(knn.predict_labels(train, test.x, cfg), want)


@pytest.mark.parametrize("k", [1, 6])
def test_raw_series_are_near_by_euclidean_distance_and_equal_votes_go_to_the_nearer_class(k: int) -> None:
    from sklearn.neighbors import NearestNeighbors

    train, test = clusters(400, spread=1.5), clusters(300, spread=1.5, seed=1)
    near = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(train.x)
    distance, neighbours = near.kneighbors(test.x)
    want = []
    for d, y in zip(distance, train.y[neighbours], strict=True):
        # The sum of similarities is larger where that of the squares is smaller: a vote each, and then these.
        votes = sorted(((y == c).sum(), -(d[y == c] ** 2).sum(), c) for c in range(4))
        want.append(votes[-1][2])
    found = knn.predict_labels(dataclasses.replace(train, distance="euclidean"), test.x, knn.Config(k=k))
    np.testing.assert_array_equal(found, want)
    assert (found != knn.predict_labels(train, test.x, knn.Config(k=k))).any()


@pytest.mark.parametrize("weights", ["uniform", "softmax"])
def test_both_distances_vote_alike_where_all_features_are_equally_long(weights: Any) -> None:
    train, test = (
        dataclasses.replace(part, x=part.x / np.linalg.norm(part.x, axis=1, keepdims=True))
        for part in (clusters(200, spread=1.5), clusters(300, spread=1.5, seed=1))
    )
    cosine, euclid = (
        knn.predict_labels(dataclasses.replace(train, distance=d), test.x, knn.Config(k=9, weights=weights))  # type: ignore[arg-type]
        for d in ("cosine", "euclidean")
    )
    np.testing.assert_array_equal(cosine, euclid)


@pytest.mark.parametrize(("weights", "label"), [("uniform", 1), ("softmax", 2)])
def test_a_series_far_from_all_others_still_gets_the_label_of_its_neighbours(weights: Any, label: int) -> None:
    # Two of class 1 have the majority, the one of class 2 is the nearest.
    train = Features(np.array([[1.0], [1.1], [2.0]], np.float32), np.array([1, 1, 2]), np.arange(3), "euclidean")
    far = np.array([[1000.0]], np.float32)
    assert knn.predict_labels(train, far, knn.Config(k=3, weights=weights)).tolist() == [label]


def test_series_that_differ_by_a_ten_thousandth_are_told_apart_by_euclidean_distance() -> None:
    x = 100 + 1e-2 * np.arange(40, dtype=np.float32)[:, None] + np.zeros((40, 50), np.float32)
    train = Features(x, np.arange(40) % 2, np.arange(40), "euclidean")
    np.testing.assert_array_equal(knn.predict_labels(train, x + np.float32(4e-3), knn.Config(k=1)), train.y)


def test_knn_does_not_depend_on_how_the_queries_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = clusters(100), clusters(37, seed=1)
    whole = knn.predict_labels(train, test.x, knn.Config(k=5))
    monkeypatch.setattr(knn, "MAX_SIMILARITIES", 1000)
    np.testing.assert_array_equal(knn.predict_labels(train, test.x, knn.Config(k=5)), whole)


def test_knn_ignores_the_length_of_a_feature() -> None:
    train, test = clusters(200), clusters(50, seed=1)
    scaled = Features(train.x * np.linspace(0.1, 9, 200, dtype=np.float32)[:, None], train.y, train.id)
    np.testing.assert_array_equal(
        knn.predict_labels(scaled, test.x, knn.Config()), knn.predict_labels(train, test.x, knn.Config())
    )


def test_whitened_neighbours_are_those_of_the_shrunk_covariance() -> None:
    from sklearn.covariance import ShrunkCovariance
    from sklearn.neighbors import KNeighborsClassifier

    train, test = clusters(400, spread=1.5), clusters(300, spread=1.5, seed=1)
    fitted = ShrunkCovariance(shrinkage=knn.SHRINKAGE).fit(train.x.astype(np.float64))
    values, vectors = np.linalg.eigh(fitted.precision_)
    ours = [(part.x - fitted.location_) @ (vectors * np.sqrt(values)) for part in (train, test)]
    theirs = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(ours[0], train.y).predict(ours[1])
    cfg = knn.Config(k=1, whiten=True)
    np.testing.assert_array_equal(knn.predict_labels(train, test.x, cfg), theirs)
    assert (theirs != knn.predict_labels(train, test.x, knn.Config(k=1))).any()


def test_whitening_brings_back_classes_that_a_few_loud_directions_hid() -> None:
    rng = np.random.default_rng(0)
    train, test = (
        Features(np.hstack([part.x, 12 * rng.normal(size=(len(part), 2))]).astype(np.float32), part.y, part.id)
        for part in (clusters(400, spread=0.5), clusters(300, spread=0.5, seed=1))
    )
    plain, white = ((knn.predict_labels(train, test.x, knn.Config(whiten=w)) == test.y).mean() for w in (False, True))
    assert plain < 0.7
    assert white > 0.9


@pytest.mark.parametrize("n", [3, 30])
def test_whitening_survives_fewer_samples_than_features_and_features_that_do_not_vary(n: int) -> None:
    train, test = clusters(n), clusters(30, seed=1)
    for scale in (1.0, 0.0):
        parts = [torch.from_numpy(part.x) * scale + 5 for part in (train, test)]
        for part in knn.whiten_features(*parts):
            assert part.isfinite().all()
            assert scale or not part.any()


def test_more_neighbours_than_samples_is_an_error_that_names_the_limit() -> None:
    with pytest.raises(ValueError, match="give k=5 or less"):
        knn.predict_labels(clusters(5), clusters(5).x, knn.Config(k=20))


@pytest.mark.parametrize(("n", "k"), [(5, 5), (19, 19), (20, 20), (100, 20)])
def test_without_a_number_the_usual_neighbours_vote_or_all_there_are(n: int, k: int) -> None:
    train, test = clusters(n), clusters(30, seed=1)
    out = dict(knn.evaluate(train, test, knn.Config()))
    assert str(out["k"]).startswith(f"{k}: ")
    np.testing.assert_array_equal(
        knn.predict_labels(train, test.x, knn.Config()), knn.predict_labels(train, test.x, knn.Config(k=k))
    )


# --- linear


@pytest.mark.parametrize("solver", ["lbfgs", "ridge"])
def test_a_linear_probe_separates_what_is_separable(solver: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 10)).astype(np.float32) * 10.0 ** np.arange(-4, 6, dtype=np.float32) + 3
    y = (((x - 3) / 10.0 ** np.arange(-4, 6)) @ rng.normal(size=10) > 0).astype(np.int64)
    train, test = Features(x[:400], y[:400], np.arange(400)), Features(x[400:], y[400:], np.arange(200))
    out = dict(linear.evaluate(train, test, linear.Config(solver=solver)))  # type: ignore[arg-type]
    assert out["value"] >= 0.97  # type: ignore[operator]


def test_lbfgs_finds_scikit_learns_optimum() -> None:
    from sklearn.linear_model import LogisticRegression

    train, test, l2 = clusters(300, spread=1.5), clusters(100, spread=1.5, seed=1), 1e-2
    (ours,) = linear.fit_classifiers(train, "lbfgs", (l2,), 200, 4)
    scaled = ours.standard(torch.from_numpy(train.x)).numpy()
    theirs = LogisticRegression(C=1 / (len(train) * l2), tol=1e-8, max_iter=1000).fit(scaled, train.y)
    np.testing.assert_allclose(ours.weight.numpy().T, theirs.coef_, atol=2e-3)
    want = theirs.predict(ours.standard(torch.from_numpy(test.x)).numpy())
    assert (ours.predict(test.x) == want).mean() > 0.985


def test_fewer_samples_than_features_lose_nothing_of_the_optimum() -> None:
    from sklearn.linear_model import LogisticRegression

    train, l2 = clusters(50, dim=80), 1e-2
    (ours,) = linear.fit_classifiers(train, "lbfgs", (l2,), 200, 4)
    scaled = ours.standard(torch.from_numpy(train.x)).numpy()
    theirs = LogisticRegression(C=1 / (len(train) * l2), tol=1e-8, max_iter=1000).fit(scaled, train.y)
    np.testing.assert_allclose(ours.weight.numpy().T, theirs.coef_, atol=2e-3)


def test_ridge_finds_scikit_learns_optimum() -> None:
    from sklearn.linear_model import Ridge

    train, l2 = clusters(300), 0.1
    (ours,) = linear.fit_classifiers(train, "ridge", (l2,), 0, 4)
    scaled = ours.standard(torch.from_numpy(train.x)).numpy()
    theirs = Ridge(alpha=l2 * len(train)).fit(scaled, np.eye(4)[train.y])
    np.testing.assert_allclose(ours.weight.numpy().T, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.bias.numpy(), theirs.intercept_, atol=1e-5)


def test_the_regularisation_is_chosen_without_the_test_set() -> None:
    train, test, cfg = clusters(200, dim=40, spread=2), clusters(100, dim=40, spread=2, seed=1), linear.Config()
    poisoned = Features(np.full_like(test.x, 1e3), (test.y + 1) % 4, test.id)
    fair, foul = dict(linear.evaluate(train, test, cfg)), dict(linear.evaluate(train, poisoned, cfg))
    assert fair["l2"] == foul["l2"]
    assert fair["value"] > foul["value"]  # type: ignore[operator]


def test_the_regularisation_is_the_best_on_the_held_out_fifth_of_train() -> None:
    train, cfg = clusters(120, dim=60, spread=3), linear.Config(solver="ridge", l2=(1e-5, 0.1, 1.0, 10.0))
    held = evals.held_out(train.id.tolist(), train.y, salt="l2")
    models = linear.fit_classifiers(train.where(~held), "ridge", cfg.l2, 0, 4)
    scores = {s: (m.predict(train.x[held]) == train.y[held]).mean() for s, m in zip(cfg.l2, models, strict=True)}
    assert len(set(scores.values())) > 1
    best = max(s for s in cfg.l2 if scores[s] == max(scores.values()))
    assert linear.choose_l2(train, "ridge", cfg, 4) == best


def test_of_equally_good_regularisations_the_strongest_is_taken() -> None:
    easy = clusters(200, spread=0.01)
    for solver in ("lbfgs", "ridge"):
        assert linear.choose_l2(easy, solver, linear.Config(l2=(1e-3, 1e-2, 1e-4)), 4) == 1e-2  # type: ignore[arg-type]


def test_standardisation_is_fitted_on_train_and_survives_a_constant_feature() -> None:
    train = clusters(100)
    dead = Features(np.c_[train.x, np.full(100, 0.1, np.float32)], train.y, train.id)
    for solver in ("lbfgs", "ridge"):
        (model,) = linear.fit_classifiers(dead, solver, (1e-3,), 100, 4)  # type: ignore[arg-type]
        np.testing.assert_allclose(model.mean.numpy(), dead.x.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(model.std.numpy()[:-1], dead.x.std(0)[:-1], rtol=1e-4)
        assert model.std[-1] == 1
        assert (model.predict(dead.x) == train.y).mean() > 0.7


def test_the_solver_says_why_and_is_the_same_for_every_number_of_features() -> None:
    assert linear.choose_solver("auto", 1000, 10)[0] == "lbfgs"
    solver, reason = linear.choose_solver("auto", 1_281_167, 1000)
    assert solver == "ridge"
    assert "1281167 samples x 1000 classes" in reason
    assert linear.choose_solver("ridge", 10, 2) == ("ridge", "as configured")


def test_one_sample_per_class_leaves_nothing_to_choose_on() -> None:
    few = Features(np.eye(3, dtype=np.float32), np.arange(3), np.arange(3))
    with pytest.raises(ValueError, match="give one value"):
        list(linear.evaluate(few, few, linear.Config()))
    assert dict(linear.evaluate(few, few, linear.Config(l2=(1e-3,))))["value"] == 1.0


# --- split


def test_the_held_out_part_is_stratified_and_follows_the_sample_not_its_place() -> None:
    rng = np.random.default_rng(0)
    keys, y = [f"img{i}.png" for i in range(500)], rng.choice(3, 500, p=[0.7, 0.25, 0.05])
    held = evals.held_out(keys, y)
    for c in range(3):
        assert held[y == c].mean() == pytest.approx(0.2, abs=0.02)
    order = rng.permutation(500)
    np.testing.assert_array_equal(evals.held_out([keys[i] for i in order], y[order]), held[order])
    assert (evals.held_out(keys, y, salt="other") != held).any()


def test_small_classes_stay_on_both_sides() -> None:
    held = evals.held_out(range(6), np.array([0, 1, 1, 2, 2, 2]))
    assert [held[0], held[1:3].sum(), held[3:].sum()] == [False, 1, 1]


# --- kinds


def test_kinds_are_found_by_file_name() -> None:
    names = set(evals.KINDS.names())
    assert {"attentive", "dense", "finetune", "knn", "linear", "lowshot"} <= names
    assert not {"cache", "features", "films", "live", "result", "probing", "tokens"} & names
    for kind in sorted(names):
        judge = evals.load_kind(kind)
        assert judge.reads != "pooled" or judge.Config().pool == "mean"


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"No kind of evaluation 'linaer'\. Did you mean 'linear'\? Available: .*knn"):
        evals.load_kind("linaer")


# --- probe


def probe(kind: str = "knn", **changes: object) -> dict[str, object]:
    encoders = {"value": tokens, "random_init": lambda x: torch.ones_like(tokens(x)), "raw": raw}
    options = {"classes": ("left", "right"), "data": "photos/", "step": 10, **changes}
    parts = (extract_by_all(encoders, stream) for stream in (Stream(), Stream(n=30)))
    return compare(kind, evals.load_kind(kind).Config(), *parts, **options)


def compare(*what: Any, **facts: Any) -> dict[str, Any]:
    """The result of a kind that has one."""
    (one,) = evals.probe_results(*what, **facts)
    return one


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_a_result_has_every_documented_key_and_stands_beside_its_baselines(kind: str) -> None:
    out = probe(kind)
    documented = "metric value low high random_init raw n_train n_test data weights step per_class"
    assert set(documented.split()) <= out.keys()
    assert (out["n_train"], out["n_test"], out["step"], out["data"], out["weights"]) == (
        50,
        30,
        10,
        "photos/",
        "target",
    )
    assert out["value"] == 1.0
    assert out["per_class"] == {"left": 1.0, "right": 1.0}
    assert out["random_init"] == 0.5
    assert out["raw"] == 1.0
    assert json.loads(json.dumps(out, allow_nan=False)) == json.loads(json.dumps(out))


def test_without_a_test_set_the_same_fifth_is_held_out_for_every_encoder() -> None:
    features = extract_by_all({"value": tokens, "raw": raw}, Stream())
    out = compare("knn", knn.Config(), features, classes=("a", "b"), data="d", step=0)
    assert (out["n_train"], out["n_test"]) == (40, 10)
    train, test = probing.split_parts(features, lambda i: f"{i}.png")
    assert not set(train["value"].id) & set(test["value"].id)
    np.testing.assert_array_equal(test["value"].id, test["raw"].id)


def test_one_sample_per_class_cannot_be_held_out_whatever_has_no_label() -> None:
    lone = Features(np.eye(5, dtype=np.float32), np.array([0, 1, 2, -1, -1]), np.arange(5))
    with pytest.raises(ValueError, match="no class has two labelled samples, so nothing can be held out; give --test"):
        compare("knn", knn.Config(), {"value": lone}, classes=("a", "b", "c"), data="d", step=0)


def test_a_score_on_the_training_data_carries_a_warning() -> None:
    cfg, one = knn.Config(), {"value": clusters(40), "raw": clusters(40)}
    other = {"value": clusters(40, seed=1), "raw": clusters(40, seed=1)}
    facts: dict[str, Any] = {"classes": tuple("abcd"), "data": "d", "step": 0}
    assert "test data are the training data" in compare("knn", cfg, one, one, **facts)["notes"]["warning"]
    for test in (other, None):
        assert "warning" not in compare("knn", cfg, one, test, **facts)["notes"]


def test_samples_without_a_label_take_no_part() -> None:
    one = clusters(100, classes=2)
    mixed = Features(one.x, np.where(np.arange(100) < 30, -1, one.y), one.id)
    out = compare("knn", knn.Config(), {"value": mixed}, {"value": one}, classes=("a", "b"), data="d", step=0)
    want = dict(knn.evaluate(one.where(mixed.y >= 0), one, knn.Config()))
    assert (out["n_train"], out["n_test"], out["value"]) == (70, 100, want["value"])


def test_data_without_labels_or_with_one_class_are_one_clear_error() -> None:
    stream = Stream(labels=False)
    for classes, message in (((), "carry no labels"), (("cat",), "only the class 'cat'")):
        with pytest.raises(ValueError, match=message):
            evals.probe_results("knn", knn.Config(), {"value": clusters(40)}, classes=classes, data="d", step=0)
    with pytest.raises(ValueError, match="carry no labels"):
        labelled_part(extract_features(tokens, stream))


def test_features_that_are_not_finite_are_refused() -> None:
    one = clusters(20)
    one.x[3, 2] = np.nan
    with pytest.raises(ValueError, match="features of 1 of 20 samples are not finite"):
        labelled_part(one)


def test_a_probe_leaves_the_global_random_state_and_says_the_same_twice() -> None:
    features = {"value": clusters(200, dim=20, spread=2)}
    before = torch.get_rng_state()
    for kind in ("knn", "linear"):
        cfg = evals.load_kind(kind).Config()
        runs = [compare(kind, cfg, features, classes=tuple("abcd"), data="d", step=0) for _ in range(2)]
        assert runs[0] == runs[1]
    assert torch.equal(before, torch.get_rng_state())


# --- save


def test_a_result_is_replaced_only_by_one_of_the_same_step_data_weights_and_settings(tmp_path: Path) -> None:
    base = probe()
    assert evals.save_result(tmp_path, "knn", base) == tmp_path / "evals" / "knn.json"
    assert evals.save_result(tmp_path, "knn", {**base, "value": 0.1}).name == "knn.json"
    others = [{"step": 20}, {"step": 20, "data": "other/"}, {"weights": "context"}, {"settings": {"k": 5}}]
    paths = [evals.save_result(tmp_path, "knn", {**base, **change}) for change in others]
    assert paths[0].name == "knn-step-00000020.json"
    assert len({*paths, tmp_path / "evals" / "knn.json"}) == 5
    assert [evals.save_result(tmp_path, "knn", {**base, **change}) for change in others] == paths
    assert json.loads((tmp_path / "evals" / "knn.json").read_text())["value"] == 0.1
    assert len(list((tmp_path / "evals").iterdir())) == 5  # and no temporary file


def test_a_name_becomes_part_of_the_file_name_and_nothing_else(tmp_path: Path) -> None:
    assert evals.save_result(tmp_path, "knn", probe(), "grocery").name == "knn-grocery.json"
    with pytest.raises(ValueError, match="use letters"):
        evals.save_result(tmp_path, "knn", probe(), "../../x")
