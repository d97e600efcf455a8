"""Every kind of probe on a run folder: files, baselines, what is kept for the next probe, and mistakes."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import support
import torch

from jepakit.cli import __main__ as cli
from jepakit.cli.text import describe_probes
from jepakit.data.images import arrays, synthetic
from jepakit.data.series import settings as series
from jepakit.evals import cache, sources
from jepakit.evals.features import Features
from jepakit.evals.kinds import lowshot
from jepakit.evals.runs import open_sets, probe_run
from jepakit.evals.sources import Subject
from jepakit.methods import ijepa
from jepakit.run import folder
from jepakit.run.checkpoint import load_run
from jepakit.types import Batch, Signal

SIGNAL = Signal(3, (16, 16))
SHAPES = synthetic.Config("shapes", count=120, size=(16, 16))
FAST = {
    "attentive": {"attentive.epochs": 2, "attentive.lr": [1e-3], "attentive.seeds": [0]},
    "lowshot": {"lowshot.draws": 2},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return support.untrained_run(tmp_path / "run", SHAPES, SIGNAL)


class Counting:
    """Counts how many samples an encoder is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.samples, plain = 0, ijepa.IJEPA.encode

        def counted(method: ijepa.IJEPA, x: torch.Tensor, weights: str = "target") -> torch.Tensor:
            self.samples += len(x)
            return plain(method, x, weights)

        monkeypatch.setattr(ijepa.IJEPA, "encode", counted)

    def taken(self) -> int:
        taken, self.samples = self.samples, 0
        return taken


@pytest.mark.parametrize(("workers", "cores", "readers"), [(2, 1, 1), (2, 8, 2), (0, 8, 0)])
def test_a_probe_reads_by_no_more_processes_than_there_are_processors(
    run: Path, monkeypatch: pytest.MonkeyPatch, workers: int, cores: int, readers: int
) -> None:
    loaded = load_run(run)
    loaded = replace(loaded, run=replace(loaded.run, loop=replace(loaded.run.loop, workers=workers)))
    monkeypatch.setattr(sources.devices, "available_cores", lambda: cores)
    assert sources.reader_count(loaded) == readers


@pytest.mark.parametrize(
    ("kind", "files"), [("attentive", ["attentive"]), ("lowshot", ["lowshot-1pct", "lowshot-10pct"])]
)
def test_a_kind_leaves_results_beside_both_baselines(run: Path, kind: str, files: list[str]) -> None:
    paths = probe_run(run, [kind], settings=FAST[kind])
    assert [path.stem for path in paths] == files
    for path in paths:
        found = support.read_json(path)
        documented = "metric value low high random_init raw n_train n_test data weights step per_class"
        assert set(documented.split()) <= found.keys()
        assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
        assert (found["n_train"], found["n_test"]) == (96, 24)
        # The run was never trained, and both see the same: its encoder scores what an untrained one does.
        assert found["value"] == found["random_init"]
    assert any(support.read_json(path)["value"] != support.read_json(path)["raw"] for path in paths)
    assert len({support.read_json(path)["metric"] for path in paths}) == len(paths)


@pytest.mark.parametrize("kind", ["knn", "linear", "attentive"])
def test_the_score_is_the_same_without_the_baselines(run: Path, kind: str) -> None:
    (whole,) = probe_run(run, [kind], settings=FAST.get(kind), name="whole")
    (alone,) = probe_run(run, [kind], settings=FAST.get(kind), name="alone", baselines=False)
    without = {**support.read_json(whole), "random_init": None, "raw": None, "baselines": {}}
    assert support.read_json(alone) == without
    assert cli.main(["report", str(run)]) == 0


def loud_and_soft(folder: Path, name: str, seed: int) -> str:
    """Waves that are loud or soft, of two lengths, in a file with their labels: by cosine they are all alike."""
    rng = np.random.default_rng(seed)
    y = np.arange(40) % 2
    x = (1 + 4 * y[:, None, None]) * np.sin(np.arange(16) * 0.5) + 0.1 * rng.normal(size=(40, 1, 16))
    x[y == 0, :, 12:] = np.nan
    np.savez(folder / name, x=x.astype(np.float32), y=y)
    return str(folder / name)


@pytest.mark.parametrize("cached", [False, True])
def test_knn_compares_raw_series_by_their_values_and_representations_by_direction(tmp_path: Path, cached: bool) -> None:
    cfg = series.Config(path=loud_and_soft(tmp_path, "a.npz", 0), window=0)
    run = support.halves_run(tmp_path / "run", replace(cfg, unequal="stretch"), channels=1, mean=(0.0,), std=(1.0,))
    held = loud_and_soft(tmp_path, "b.npz", 1)
    for _ in range(1 + cached):
        (path,) = probe_run(run, ["knn"], test=held, settings={"knn.k": 1}, cache=cached)
    assert support.read_json(path)["raw"] == 1.0
    subject = Subject(load_run(run), open_sets(load_run(run), None, held), "cpu", "target", run if cached else None)
    parts = sources.pooled_features(subject, "mean", subject.sets.train)
    kinds = {"value": "cosine", "random_init": "cosine", "raw": "euclidean"}
    assert {name: part.distance for name, part in parts.items()} == kinds


def test_raw_pictures_are_near_by_their_direction(run: Path) -> None:
    subject = Subject(load_run(run), open_sets(load_run(run), None, None), "cpu", "target")
    parts = sources.pooled_features(subject, "mean", subject.sets.train)
    assert {part.distance for part in parts.values()} == {"cosine"}


def test_a_probe_takes_the_settings_of_the_run_unless_it_is_given_others(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    assert "settings: []" in text
    (run / "config.yaml").write_text(text.replace("settings: []", "settings: [knn.k=3, 'linear.l2=[0.1]']"))
    (path,) = probe_run(run, ["knn"])
    assert support.read_json(path)["settings"]["k"] == 3
    (path,) = probe_run(run, ["knn"], settings={"knn.weights": "softmax"})
    assert [support.read_json(path)["settings"][key] for key in ("k", "weights")] == [3, "softmax"]
    (path,) = probe_run(run, ["linear"], settings={"linear.l2": [1.0]})
    assert support.read_json(path)["settings"]["l2"] == [1.0]


def test_a_name_follows_the_name_of_the_result(run: Path) -> None:
    paths = probe_run(run, ["lowshot"], settings=FAST["lowshot"], name="mine")
    assert [path.name for path in paths] == ["lowshot-1pct-mine.json", "lowshot-10pct-mine.json"]


# --- low-shot


def cloud(n: int, classes: int = 3, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    y = np.sort(rng.integers(classes, size=n))
    x = np.eye(classes, 5)[y] * 3 + rng.normal(size=(n, 5))
    return Features(x.astype(np.float32), y.astype(np.int64), np.arange(n))


def test_a_draw_is_stratified_holds_every_class_and_grows_with_the_fraction() -> None:
    train = cloud(600)
    train.y[:1] = 3  # a class of one sample
    few, more = (lowshot.few_labelled(train, f, 0) for f in (0.01, 0.1))
    for part, fraction in ((few, 0.01), (more, 0.1)):
        count = np.bincount(train.y)
        want = np.maximum(np.round(count * fraction), 1)
        np.testing.assert_array_equal(np.bincount(part.y), want)
    assert set(few.id) <= set(more.id)
    assert set(lowshot.few_labelled(train, 0.1, 1).id) != set(more.id)


def test_more_labels_score_higher_and_the_spread_of_the_draws_is_told() -> None:
    cfg = lowshot.Config(fractions=(0.01, 0.5), draws=4)
    pairs = list(lowshot.evaluate(cloud(300), cloud(200, seed=1), cfg))
    values = {k: [v for key, v in pairs if key == k] for k in ("name", "metric", "value", "labels", "each", "std")}
    assert values["name"] == ["1pct", "50pct"]
    assert values["metric"][0] == "accuracy with 1 % of the labels"
    assert values["labels"] == [3.0, pytest.approx(150, abs=2)]
    assert values["value"][0] < values["value"][1] - 0.02
    assert all(len(set(each)) > 1 for each in values["each"])
    assert values["std"][0] == pytest.approx(np.std(values["each"][0], ddof=1))


def test_one_label_per_class_is_enough_and_takes_the_strongest_regularisation() -> None:
    found = dict(lowshot.evaluate(cloud(60), cloud(60, seed=1), lowshot.Config(fractions=(0.01,), draws=1)))
    assert found["labels"] == 3
    assert found["l2"] == [1.0]
    assert found["value"] > 0.5


def test_few_labels_are_chosen_and_fitted_on_alone() -> None:
    train, cfg = cloud(300), lowshot.Config(fractions=(0.1,), draws=2)
    used = np.isin(train.id, np.concatenate([lowshot.few_labelled(train, 0.1, d).id for d in range(2)]))
    foul = Features(np.where(used[:, None], train.x, 1e4).astype(np.float32), train.y, train.id)
    fair = dict(lowshot.evaluate(train, cloud(60, seed=1), cfg))
    assert dict(lowshot.evaluate(foul, cloud(60, seed=1), cfg)) == fair


@pytest.mark.parametrize("wrong", [{"fractions": ()}, {"fractions": (1.0,)}, {"draws": 0}, {"l2": ()}])
def test_low_shot_settings_without_a_meaning_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"e\.g\."):
        lowshot.Config(**wrong)  # type: ignore[arg-type]


# --- what is kept


def test_another_kind_encodes_nothing_again_and_says_what_it_would_have_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    probe_run(run, ["knn"])
    assert counting.taken() == 2 * 120
    kept = [support.read_json(path) for path in probe_run(run, ["linear", "lowshot"], settings=FAST["lowshot"])]
    assert counting.taken() == 0
    fresh = [support.read_json(p) for p in probe_run(run, ["linear", "lowshot"], settings=FAST["lowshot"], cache=False)]
    assert counting.taken() == 2 * 120
    assert kept == fresh
    probe_run(run, ["linear"], settings={"linear.pool": "flat"})
    assert counting.taken() == 2 * 120


def test_without_the_cache_nothing_is_left_behind(run: Path) -> None:
    probe_run(run, ["knn"], cache=False)
    assert not (run / "cache").exists()


def pictures(path: Path, seed: int = 0) -> arrays.Config:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 255, (1100, 16, 16, 3), dtype=np.uint8)
    np.savez(path, x=x, y=np.arange(1100) % 3)
    return arrays.Config(str(path))


def test_other_data_under_the_same_name_are_encoded_again_though_their_fingerprint_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large sets a fingerprint reads a part only."""
    data = pictures(tmp_path / "a.npz")
    run, counting, before = support.untrained_run(tmp_path / "run", data, SIGNAL), Counting(monkeypatch), data.open()
    (first,) = probe_run(run, ["knn"])
    counting.taken()
    x, y = np.array(before.data.transpose(0, 2, 3, 1)), before.labels
    seen = set(np.linspace(0, 1099, 1024).astype(int).tolist())
    changed = next(i for i in range(1100) if i not in seen)
    x[changed] = 255 - x[changed]
    np.savez(tmp_path / "a.npz", x=x, y=y)
    assert data.open().fingerprint() == before.fingerprint()
    probe_run(run, ["knn"])
    assert counting.taken() == 2200
    probe_run(run, ["knn"])
    assert counting.taken() == 0
    # Labels are read anew each time.
    np.savez(tmp_path / "a.npz", x=x, y=np.zeros(1100, int) + (np.arange(1100) > 700))
    probe_run(run, ["knn"])
    assert counting.taken() == 0
    assert set(support.read_json(first)["per_class"]) == {"0", "1"}


def test_other_weights_are_encoded_again_though_the_step_is_the_same(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    probe_run(run, ["knn"])
    counting.taken()
    for change in ({"seed": 1}, {"step": 7}):
        support.untrained_run(run, SHAPES, SIGNAL, **change)
        probe_run(run, ["knn"])
        assert counting.taken() == 240
    probe_run(run, ["knn"], weights="context")
    assert counting.taken() == 240
    probe_run(run, ["knn"])
    assert counting.taken() == 0


def test_a_file_cut_short_is_computed_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = probe_run(run, ["knn"])
    (kept,) = (run / "cache").iterdir()
    whole, value = kept.read_bytes(), support.read_json(first)
    kept.write_bytes(whole[: len(whole) // 2])
    counting = Counting(monkeypatch)
    assert support.read_json(probe_run(run, ["knn"])[0]) == value
    assert counting.taken() == 240
    assert kept.read_bytes() == whole


def test_what_is_kept_stays_below_the_limit_and_the_unused_go_first(tmp_path: Path) -> None:
    raw = cloud(50)
    parts = {"value": cloud(50), "random_init": cloud(50), "raw": raw}
    for name in "abc":
        cache.keep_features(tmp_path / f"{name}.safetensors", parts, limit=5000)
    size = (tmp_path / "c.safetensors").stat().st_size
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["b", "c"]
    assert 2 * size <= 5000 < 3 * size
    assert cache.find_features(tmp_path / "b.safetensors", raw)
    cache.keep_features(tmp_path / "d.safetensors", parts, limit=5000)
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["b", "d"]
    cache.keep_features(tmp_path / "e.safetensors", parts, limit=100)
    assert not (tmp_path / "e.safetensors").exists()


def test_kept_features_belong_to_the_samples_in_their_order(tmp_path: Path) -> None:
    raw = cloud(50)
    cache.keep_features(tmp_path / "a.safetensors", {"value": raw, "raw": raw})
    assert cache.find_features(tmp_path / "a.safetensors", raw)
    other = Features(raw.x, raw.y, raw.id[::-1].copy())
    assert cache.find_features(tmp_path / "a.safetensors", other) is None


def test_what_is_kept_is_a_part_of_the_run_and_goes_with_it(run: Path) -> None:
    probe_run(run, ["knn"])
    assert list((run / "cache").iterdir())
    folder.check_free(run, replace=True)
    (run / "cache" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"cache/notes.txt is not part of a run"):
        folder.check_free(run, replace=True)


def test_the_raw_tokens_are_the_pixels_of_the_encoders_own_patches(run: Path) -> None:
    loaded = load_run(run)
    loaded.method.mean.fill_(0.3)
    loaded.method.std.fill_(0.2)
    subject = Subject(loaded, open_sets(loaded, None, None), "cpu", "target")
    x = torch.rand(2, 3, 16, 16)
    cut = sources.encoders_with_patches(subject)["raw"](Batch(x))
    assert cut.shape == (2, 4, 3 * 64)
    torch.testing.assert_close(cut[1, 2].reshape(3, 8, 8), (x[1, :, 8:, :8] - 0.3) / 0.2)
    assert sources.grid_of_tokens(subject, 4) == (2, 2)
    assert sources.grid_of_tokens(subject, 5) is None


@pytest.mark.parametrize("kind", ["knn", "attentive", "finetune"])
def test_test_samples_that_are_also_training_samples_are_counted_and_named(
    run: Path, tmp_path: Path, kind: str
) -> None:
    draw = np.random.default_rng(3)
    x, y = draw.integers(0, 256, (100, 16, 16, 3), dtype=np.uint8), np.arange(100) % 2
    np.savez(tmp_path / "train.npz", x=x[:60], y=y[:60])
    np.savez(tmp_path / "test.npz", x=x[50:], y=y[50:])
    np.savez(tmp_path / "new.npz", x=x[60:], y=y[60:])
    fast = FAST.get(kind, {}) | ({"finetune.epochs": 1, "finetune.lr": [1e-3]} if kind == "finetune" else {})
    probe = partial(probe_run, run, (kind,), str(tmp_path / "train.npz"), settings=fast)
    (path,) = probe(test=str(tmp_path / "test.npz"))
    found = support.read_json(path)
    assert (found["n_shared"], found["n_test"]) == (10, 50)
    assert "10 of 50 test samples (20.0 %) are also training samples" in found["notes"]["warning"]
    assert found["notes"]["warning"] in describe_probes([path])
    (path,) = probe(test=str(tmp_path / "new.npz"))
    found = support.read_json(path)
    assert "n_shared" not in found
    assert "warning" not in found["notes"]


# --- mistakes


def test_a_class_that_training_lacks_is_one_sentence_before_anything_is_encoded(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    x = np.random.default_rng(0).integers(0, 255, (60, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "train.npz", x=x, y=np.repeat([0, 1, 3], 20))
    np.savez(tmp_path / "test.npz", x=x[:40], y=np.arange(40) % 4)
    for kind in ("knn", "lowshot", "attentive"):
        with pytest.raises(ValueError, match=r"no sample of 1 of the classes .*\('2'\).*; give --data with samples of"):
            probe_run(run, [kind], str(tmp_path / "train.npz"), str(tmp_path / "test.npz"))
    assert counting.taken() == 0


def test_data_without_labels_are_one_sentence_before_anything_is_encoded(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    np.savez(tmp_path / "x.npz", x=np.zeros((60, 16, 16, 3), np.uint8))
    for kind in ("lowshot", "attentive", "finetune"):
        for paths in ([str(tmp_path / "x.npz")], [None, str(tmp_path / "x.npz")]):
            with pytest.raises(ValueError, match="the data carry no labels, so nothing can be scored; give a folder"):
                probe_run(run, [kind], *paths)
    assert counting.taken() == 0


def test_tokens_beyond_the_limit_are_one_sentence_and_leave_no_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    with pytest.raises(ValueError, match="more than the 1e-06 allowed"):
        probe_run(run, ["attentive"], settings={"attentive.disk_gib": 1e-6})
    assert not list((tmp_path / "scratch").iterdir())
    probe_run(run, ["attentive"], settings=FAST["attentive"])
    assert not list((tmp_path / "scratch").iterdir())


# --- from the command line


@pytest.mark.parametrize(
    ("kind", "options", "files"),
    [
        ("attentive", "--attentive.epochs 1 --attentive.lr [1e-3] --attentive.seeds [0,1]", ["attentive"]),
        ("lowshot", "--lowshot.draws 2 --lowshot.fractions [0.1,0.5]", ["lowshot-10pct", "lowshot-50pct"]),
        ("finetune", "--finetune.epochs 1 --finetune.layer_decay 0.9", ["finetune"]),
        ("dense", "--dense.films true --dense.l2 [1e-2]", ["dense-miou", "dense-jf"]),
    ],
)
def test_every_kind_is_a_command(
    tmp_path: Path, kind: str, options: str, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = synthetic.Config("scenes", count=80, size=(16, 16))
    run = support.untrained_run(tmp_path / "run", data, SIGNAL)
    assert cli.main(["probe", str(run), "--kind", kind, "--no-cache", *options.split()]) == 0
    told = capsys.readouterr()
    assert f"100/100  probing {kind}: raw input  ETA 0:00" in told.err
    table = told.out.splitlines()
    assert table[0].split()[:2] == ["probe", "trained"]
    assert [line.split()[0] for line in table[1 : len(files) + 1]] == files
    assert sorted(p.stem for p in (run / "evals").iterdir()) == sorted(files)
    assert not (run / "cache").exists()
