"""A study: its trainings for every seed, what is reused, the table, the page."""

import gzip
import io
import json
import re
from collections import defaultdict
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import support
from PIL import Image
from support import Recorder

from jepakit import methods, studies
from jepakit.core.progress import SilentProgress
from jepakit.run import parse
from jepakit.studies import pace
from jepakit.studies import reproduce as engine
from jepakit.studies.cjepa import cjepa
from jepakit.studies.collapse import families
from jepakit.studies.page import score_figures, score_table
from jepakit.studies.study import MEMORY_METRIC, Arm, Gain, Own, Scores, Study, table_row
from jepakit.types import Signal


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of two labelled sets of small pictures, bright and dark."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for name, size in (("train", 64), ("test", 24)):
        y = np.arange(size) % 2
        x = (rng.normal(100 + 20 * y[:, None, None], 60, (size, 16, 16))).clip(0, 255).astype(np.uint8)
        np.savez(folder / f"{name}.npz", x=x, y=y)
    return folder


def study(tmp_path: Path) -> Study:
    """Two lengths of one tiny training."""
    file = support.write_settings(tmp_path, "train.npz", data={"name": "arrays", "size": [16, 16]}, length={"steps": 4})
    run = parse.from_yaml(file)
    longer = replace(run, length=replace(run.length, steps=6))
    arms = (
        Arm("Tiny", "I-JEPA", run, "test.npz", "4 steps", {"linear accuracy": 0.637}),
        Arm("Tiny", "I-JEPA", longer, "test.npz", "6 steps"),
    )
    return Study(
        "Lengths", "nobody, 2026", "Longer is <better>.", arms, conclusions=_conclusions, figures=cjepa.attention_maps
    )


def _conclusions(scores: Scores) -> list[str]:
    return [f"longer: {scores.gain(*scores.arms[:2], 'knn accuracy')}"]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    found = study(tmp_path)
    monkeypatch.setattr(engine, "load", lambda name: found)
    return found


def test_a_study_leaves_a_table_figures_and_a_page_and_goes_on_where_it_was(
    tiny: Study, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rows, page = engine.reproduce("tiny", data, out, SilentProgress(), seeds=2)
    table = json.loads((out / "table.json").read_text())
    assert [(r["name"], r["metric"], r["paper"], r["seeds"]) for r in table["rows"]] == [
        (f"Tiny · I-JEPA · {n} steps", metric, 0.637 if (n, metric) == (4, "linear accuracy") else None, 2)
        for metric in ("knn accuracy", "linear accuracy", "seconds")
        for n in (4, 6)
    ]
    for r in table["rows"]:
        assert r["mean"] == pytest.approx(np.mean(r["values"]))
        assert r["std"] == pytest.approx(np.std(r["values"], ddof=1))
    assert table["says"][0].startswith("longer: ")
    html = page.read_text()
    assert "Longer is &lt;better&gt;." in html
    assert "63.7\N{NO-BREAK SPACE}%" in html
    assert all(f"Tiny · I-JEPA · {n} steps: attention of the last block" in html for n in (4, 6))
    assert not re.search(r'(src|href)="(?!#|data:)', html)
    assert {p.name for p in (out / "figures").iterdir()} >= {"tiny-knn-accuracy.svg", "tiny-seconds.svg"}
    written = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    evals = {p: p.stat().st_mtime_ns for p in out.rglob("evals/*.json")}
    (last := out / "runs" / "tiny-i-jepa-6-steps-seed-1" / "evals" / "knn.json").unlink()
    again, _ = engine.reproduce("tiny", data, out, SilentProgress(), seeds=2)
    assert again == rows
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors") if p in written} == written
    assert {p for p, t in evals.items() if p.stat().st_mtime_ns != t} == {last}


def test_baselines_stand_beside_the_first_training_of_each_set(
    tiny: Study, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    engine.reproduce("tiny", data, out, SilentProgress(), seeds=2)
    monkeypatch.setattr(engine, "load", lambda name: replace(tiny, baselines=True))
    rows, page = engine.reproduce("tiny", data, out, SilentProgress(), seeds=2)
    found = {(r.name, r.metric): r.values for r in rows}
    for seed in (0, 1):
        for kind in ("knn", "linear"):
            first = json.loads(
                (out / "runs" / f"tiny-i-jepa-4-steps-seed-{seed}" / "evals" / f"{kind}.json").read_text()
            )
            for name, key in {"I-JEPA · 4 steps": "value", "untrained": "random_init", "raw input": "raw"}.items():
                assert found[f"Tiny · {name}", f"{kind} accuracy"][seed] == first[key]
    assert ("Tiny · untrained", "seconds") not in found
    assert "raw input" in page.read_text()


def test_a_claim_holds_only_beyond_the_scatter_of_seeds() -> None:
    for values, verdict in {
        (0.01, 0.02, 0.03): "holds",
        (-0.01, 0.0, 0.02): "not told apart",
        (-0.02, -0.03): "does not hold",
        (1.0,): "not told apart",
    }.items():
        assert Gain(values).verdict == verdict


def test_another_study_setting_is_not_mixed_with_what_was_trained(tiny: Study, data: Path, tmp_path: Path) -> None:
    engine.reproduce("tiny", data, tmp_path / "out", SilentProgress(), seeds=1)
    with pytest.raises(ValueError, match=r"the settings differ from the run's: length.steps: 4 → 5"):
        engine.reproduce("tiny", data, tmp_path / "out", SilentProgress(), seeds=1, steps=5)


def test_a_rehearsal_says_so_in_place_of_a_conclusion(tiny: Study, data: Path, tmp_path: Path) -> None:
    told = Recorder()
    engine.reproduce("tiny", data, tmp_path / "out", told, seeds=1, steps=3)
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert table["says"] == [
        "A rehearsal of 3 steps per training: its numbers are no evidence for or against the claim."
    ]
    assert table["rows"][0]["std"] is None
    assert [n for n in told.notes if "seed 0" in n] == [
        "1 of 2: Tiny · I-JEPA · 4 steps, seed 0",
        "2 of 2: Tiny · I-JEPA · 6 steps, seed 0",
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"seeds": 0}, "seeds is 0"), ({"data": Path("nowhere")}, "which is not in nowhere; give --data")],
)
def test_what_is_missing_is_said_before_the_first_step(
    tiny: Study, data: Path, tmp_path: Path, change: dict, sentence: str
) -> None:
    given = {"seeds": 1, "data": data} | change
    with pytest.raises(ValueError, match=sentence):
        engine.reproduce("tiny", given["data"], tmp_path / "out", SilentProgress(), seeds=given["seeds"])
    assert not (tmp_path / "out").exists()


def test_a_gain_is_taken_seed_by_seed_and_compared_with_their_scatter() -> None:
    assert str(Gain((0.01, 0.02, 0.03))) == "+2.0 ± 1.0 points over 3 seeds"
    assert Gain((0.01, 0.02, 0.03)).beyond_spread is True
    assert Gain((-0.02, 0.0, 0.03)).beyond_spread is False
    assert Gain((0.5,)).beyond_spread is None


def test_a_score_that_is_not_finite_is_no_row() -> None:
    with pytest.raises(ValueError, match="not finite"):
        table_row("a", "knn accuracy", None, [0.5, float("nan")])


def test_two_trainings_of_one_name_would_share_a_folder_and_are_refused(tmp_path: Path) -> None:
    first = study(tmp_path).arms[0]
    with pytest.raises(ValueError, match="two trainings of a study are called 'Tiny · I-JEPA · 4 steps'"):
        Study("t", "s", "c", (first, first))


def counting(version: int, key: str, asked: list[list[int]]) -> Own:
    """Numbers of its own that a study finds under `key`, with a note of the seeds it was asked for."""

    def measure(seeds, steps, data):
        asked.append(list(seeds))
        yield from ({key: seed + version / 10} for seed in seeds)

    return Own(measure, lambda seeds: {("a", key): [one[key] for one in seeds]}, lambda seeds: (), version=version)


def test_numbers_of_another_version_of_a_study_are_taken_again_and_those_of_its_own_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def reproduced(version: int, key: str, seeds: int) -> tuple[float, ...]:
        found = Study("t", "s", "c", (), own=counting(version, key, asked))
        monkeypatch.setattr(engine, "load", lambda name: found)
        ((_, _, _, _, _, _, values),), _ = engine.reproduce(
            "t", tmp_path, tmp_path / "out", SilentProgress(), seeds=seeds
        )
        return values

    assert reproduced(1, "first", 2) == (0.1, 1.1)
    assert reproduced(1, "first", 3) == (0.1, 1.1, 2.1)
    assert reproduced(2, "second", 2) == (0.2, 1.2)
    (tmp_path / "out" / "taken" / "seed-1.json").write_text('{"first": 5}')  # of before there were versions
    assert reproduced(2, "second", 2) == (0.2, 1.2)
    assert asked == [[0, 1], [2], [0, 1], [1]]


def test_a_study_keeps_the_processor_time_of_its_own_numbers_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count(step=10)
    monkeypatch.setattr(engine, "process_time", lambda: float(next(ticks)))
    found = Study("t", "s", "c", (), own=counting(1, "n", []))
    monkeypatch.setattr(engine, "load", lambda name: found)
    for seeds, seconds in ((1, 10.0), (3, 30.0), (3, 30.0)):
        engine.reproduce("t", tmp_path, tmp_path / "out", SilentProgress(), seeds=seeds)
        assert json.loads((tmp_path / "out" / "table.json").read_text())["processor_seconds"] == seconds


def paced(tmp_path: Path) -> Study:
    """A training of 4 steps, and one in its time."""
    plain = study(tmp_path)
    first = plain.arms[0]
    other = replace(first, setting="equal seconds", pace=first.label)
    return replace(plain, arms=(first, other), options={"knn.k": 3, "linear.l2": (0.5,)})


@pytest.fixture
def equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    found = paced(tmp_path)
    monkeypatch.setattr(engine, "load", lambda name: found)
    return found


def test_a_training_at_equal_seconds_keeps_the_steps_that_were_measured_first(
    equal: Study, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "ROUNDS", 1)
    monkeypatch.setattr(pace, "STEPS", 1)
    out = tmp_path / "out"
    measured = engine.plan_paces(equal, data, out, SilentProgress())
    assert [measured[arm.label].steps for arm in equal.arms] == [4, 4]  # of one pace, so the time holds as many
    stored = json.loads((out / "paces.json").read_text())
    stored[equal.arms[1].label] |= {"steps": 7, "memory_bytes": 3 * 2**20}
    (out / "paces.json").write_text(json.dumps(stored))
    rows, _ = engine.reproduce("equal", data, out, SilentProgress(), seeds=1)
    steps = [json.loads((out / "runs" / f"tiny-i-jepa-{name}-seed-0" / "summary.json").read_text())["steps"]
             for name in ("4-steps", "equal-seconds")]  # fmt: skip
    assert steps == [4, 7]
    memory = {r.name: (r.mean, r.std, r.seeds) for r in rows if r.metric == MEMORY_METRIC}
    assert memory[equal.arms[1].label] == (3.0, None, 1)
    assert json.loads((out / "paces.json").read_text()) == stored


def test_a_rehearsal_measures_no_pace_and_probes_have_the_settings_of_the_study(
    equal: Study, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = out / "runs" / "tiny-i-jepa-equal-seconds-seed-0" / "evals"
    for _ in range(2):  # the second time kNN alone is missing
        rows, _ = engine.reproduce("equal", data, out, SilentProgress(), seeds=1, steps=2)
        chosen = {kind: json.loads((found / f"{kind}.json").read_text()) for kind in equal.kinds}
        assert (chosen["knn"]["settings"]["k"], chosen["linear"]["settings"]["l2"]) == (3, [0.5])
        assert [result["step"] for result in chosen.values()] == [2, 2]
        (found / "knn.json").unlink()
    assert not (out / "paces.json").exists()
    assert MEMORY_METRIC not in {r.metric for r in rows}


@pytest.mark.parametrize("label", ["nobody", "Tiny · I-JEPA · equal seconds"])
def test_time_is_taken_from_a_training_that_has_a_length_of_its_own(tmp_path: Path, label: str) -> None:
    *others, last = paced(tmp_path).arms
    with pytest.raises(ValueError, match=f"takes the time of '{label}', which is not a training of the study"):
        Study("t", "s", "c", (*others, replace(last, pace=label)))


def test_a_figure_of_any_metric_is_one_file_beside_the_others() -> None:
    metrics = ("images/s", "lowshot accuracy with 1 % of the labels", "memory of a step (MiB)")
    rows = [{"name": "Tiny · A", "metric": metric, "values": [0.1, 0.2]} for metric in metrics]
    assert [name for name, _ in score_figures(rows, {"Tiny · A": "Tiny"})] == [
        "tiny-images-s",
        "tiny-lowshot-accuracy-with-1-of-the-labels",
        "tiny-memory-of-a-step-mib",
    ]


def test_the_table_has_a_line_per_training_and_the_papers_figures_in_a_column_beside_ours() -> None:
    rows = [
        table_row("A · one", "knn accuracy", None, [0.5, 0.6])._asdict(),
        table_row("A · one", "linear accuracy", 0.637, [0.25])._asdict(),
        table_row("B · one", "knn accuracy", None, [0.125])._asdict(),
    ]
    html = score_table(rows, {"A · one": "A", "B · one": "B"}).replace("\N{NO-BREAK SPACE}", " ")
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in re.findall(r"<tr>(.*?)</tr>", html)]
    assert cells == [
        ["Training", "knn accuracy", "linear accuracy", "linear accuracy, paper", "Seeds"],
        ["A"],
        ["one", "55.0 ± 7.1 %", "25.0 %", "63.7 %", "2"],
        ["B"],
        ["one", "12.5 %", "–", "–", "1"],
    ]


def test_columns_stand_as_the_rows_and_numbers_in_a_metrics_name_count_as_numbers(
    tiny: Study, data: Path, tmp_path: Path
) -> None:
    probes = {"error after 10": 1.0, "error after 2": 1.0, "error after 1": 1.0}
    study = replace(tiny, kinds=(), baselines=False, run_metrics=lambda run: probes)
    values = engine.collect_scores(study, data, tmp_path, SilentProgress(), range(1), 2, {})
    metrics = list(dict.fromkeys(metric for _, metric in values))
    assert metrics == ["error after 1", "error after 2", "error after 10", "seconds"]
    html = score_table([table_row("one", metric, None, [1.0])._asdict() for metric in metrics], {})
    heads = re.findall(r'<th scope="col">(.*?)</th>', html.replace("\N{NO-BREAK SPACE}", " "))
    assert heads == ["Training", *metrics, "Seeds"]


@pytest.mark.parametrize("name", studies.STUDIES.names())
def test_every_study_says_something_of_any_scores(name: str) -> None:
    found, k = studies.load(name), count()
    values: dict = defaultdict(lambda: [0.5 + 0.01 * next(k), 0.5, 0.51])
    assert found.sentences(Scores(values, found.arms))


def test_every_family_has_the_same_encoder_pictures_and_length_and_the_views_it_needs() -> None:
    for data in families.RECIPES:
        steps, seconds = (
            [a for a in families.STUDY.arms if (a.data, a.setting) == (data, b)] for b in families.BUDGETS
        )
        assert [arm.name for arm in steps] == ["I-JEPA", "C-JEPA", "LeJEPA", "VICReg", "SimCLR", "MAE"]
        assert [(arm.name, arm.run, arm.pace) for arm in seconds] == [
            (arm.name, arm.run, steps[0].label) for arm in steps[1:]
        ]
        for arm in steps:
            plain = replace(arm.run.data, augment=steps[0].run.data.augment)
            assert plain == steps[0].run.data
            assert replace(arm.run, method=steps[0].run.method, data=plain) == steps[0].run
            assert arm.run.method.encoder == steps[0].run.method.encoder
            groups = arm.run.data.augment.views
            channels = 3 if data == "CIFAR-10" else 1
            arm.run.data.augment.check(channels)
            signal = Signal(channels, arm.run.data.size, views=sum(group.count for group in groups))
            method = methods.build(arm.run.method, signal)
            method.check(arm.run.length.batch)
            assert bool(groups) == ("views" in method.requires(arm.run.method)) != method.reads_x


FAMILIES = {"I-JEPA": 0.50, "C-JEPA": 0.49, "LeJEPA": 0.40, "VICReg": 0.43, "SimCLR": 0.60, "MAE": 0.20}


def family_sentences(few: dict[str, float], seeds: int = 3) -> list[str]:
    """What the study says of FAMILIES at equal steps on CIFAR-10; 2 points of scatter, shared by all but I-JEPA."""
    values: dict = {}
    for arm in families.STUDY.arms:
        common = [0.02, 0.0, -0.02]
        scatter = [0.0, 0.0, 0.0] if arm.name == "I-JEPA" else common
        for metric, means in (("knn accuracy", FAMILIES), ("linear accuracy", FAMILIES), (families.FEW_LABELS, few)):
            values[arm.label, metric] = [means[arm.name] + s for s in scatter][:seeds]
        speed = 100.0 * len(arm.name)
        values |= {(arm.label, m): [speed] for m in ("seconds", "images/s", MEMORY_METRIC)}
    return families.STUDY.sentences(Scores(values, families.STUDY.arms))


def test_families_are_ranked_with_what_is_beyond_the_scatter_and_what_is_within() -> None:
    said = family_sentences({**FAMILIES, "MAE": 0.45, "SimCLR": 0.1})
    ranks = (
        "SimCLR 60.0 ± 2.0 % > I-JEPA 50.0 ± 0.0 % ≈ C-JEPA 49.0 ± 2.0 % > VICReg 43.0 ± 2.0 % > LeJEPA 40.0 ± 2.0 % > "
        "MAE 20.0 ± 2.0 %"
    )
    assert f"CIFAR-10 · equal steps, knn accuracy, highest first: {ranks}." in said
    (few,) = [line for line in said if line.startswith(f"CIFAR-10 · equal steps, {families.FEW_LABELS}")]
    assert few.endswith("level with the first: C-JEPA.")
    (turned,) = [line for line in said if line.startswith("CIFAR-10, equal steps, against all labels")]
    assert "MAE before LeJEPA (+5.0 points) and VICReg (+2.0 points) and SimCLR (+35.0 points)" in turned
    assert "I-JEPA before SimCLR (+40.0 points)" in turned
    assert "orders no pair differently" in " ".join(family_sentences(FAMILIES))


def test_of_one_seed_no_difference_is_called_more_than_chance() -> None:
    said = family_sentences({**FAMILIES, "MAE": 0.45, "SimCLR": 0.1}, seeds=1)
    assert all(line.endswith("one seed has no scatter to judge by.") for line in said if "highest first" in line)
    assert not re.search(r">|≈|level with|: holds|against all", " ".join(said))


@pytest.mark.slow
def test_a_family_of_either_kind_goes_through_on_both_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    for part, name in (("train", "train"), ("test", "t10k")):
        y = np.arange(100, dtype=np.uint8) % 10
        x = rng.integers(0, 255, (100, 32, 32, 3), dtype=np.uint8)
        write_parquet(folder / "cifar10" / f"{part}.parquet", x, y)
        for array, file in ((x[:, :28, :28, 0], f"{name}-images-idx3"), (y, f"{name}-labels-idx1")):
            write_idx(folder / "fashion_mnist" / f"{file}-ubyte.gz", array)
    kinds = {("I-JEPA", "equal steps"), ("VICReg", "equal seconds")}
    arms = tuple(arm for arm in families.STUDY.arms if (arm.name, arm.setting) in kinds)
    monkeypatch.setattr(engine, "load", lambda name: replace(families.STUDY, arms=arms))
    rows, page = engine.reproduce("families", folder, tmp_path / "out", SilentProgress(), seeds=1, steps=2)
    metrics = {"knn accuracy", "linear accuracy", families.FEW_LABELS, "seconds", "images/s", "steps"}
    beside = {f"{arm.data} · {name}" for arm in arms for name in engine.BASELINE_NAMES.values()}
    assert {(r.name, r.metric) for r in rows} == {(arm.label, m) for arm in arms for m in metrics} | {
        (name, m) for name in beside for m in metrics if "accuracy" in m
    }
    assert {r.mean for r in rows if r.metric == "steps"} == {2.0}
    assert page.exists()


def write_parquet(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """Encoded pictures with labels, as CIFAR-10 lies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = []
    for picture in x:
        Image.fromarray(picture).save(buffer := io.BytesIO(), "PNG")
        encoded.append({"bytes": buffer.getvalue()})
    pq.write_table(pa.table({"image": encoded, "label": y.astype(int).tolist()}), path)


def write_idx(path: Path, x: np.ndarray) -> None:
    """An array as the MNIST files have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, x.ndim]) + np.array(x.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(head + x.tobytes()))
