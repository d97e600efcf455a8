"""A study: its trainings for every seed, what is reused, the table, the page."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import runs

from jepakit import parse, studies
from jepakit.progress import Silent
from jepakit.studies import reproduce as engine
from jepakit.studies.study import Arm, Gain, Scores, Study, row


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of two labelled sets of small pictures, bright and dark."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in (("train", 64), ("test", 24)):
        y = np.arange(count) % 2
        x = (rng.normal(100 + 20 * y[:, None, None], 60, (count, 16, 16))).clip(0, 255).astype(np.uint8)
        np.savez(folder / f"{name}.npz", x=x, y=y)
    return folder


def study(tmp_path: Path) -> Study:
    """Two lengths of one tiny training."""
    file = runs.write_settings(tmp_path, "train.npz", data={"name": "arrays", "size": [16, 16]}, length={"steps": 4})
    run = parse.from_yaml(file)
    longer = replace(run, length=replace(run.length, steps=6))
    arms = (
        Arm("Tiny", "I-JEPA", run, "test.npz", "4 steps", {"linear accuracy": 0.637}),
        Arm("Tiny", "I-JEPA", longer, "test.npz", "6 steps"),
    )
    return Study("Lengths", "nobody, 2026", "Longer is <better>.", arms, _says)


def _says(scores: Scores) -> list[str]:
    return [f"longer: {scores.gain(*scores.arms, 'knn accuracy')}"]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    found = study(tmp_path)
    monkeypatch.setattr(engine, "load", lambda name: found)
    return found


class Told(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_study_leaves_a_table_figures_and_a_page_and_goes_on_where_it_was(
    tiny: Study, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rows, page = engine.reproduce("tiny", data, out, Silent(), seeds=2)
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
    assert "63.7 %" in html
    assert not re.search(r'(src|href)="(?!#|data:)', html)
    assert {p.name for p in (out / "figures").iterdir()} >= {"tiny-knn-accuracy.svg", "tiny-seconds.svg"}
    written = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    evals = {p: p.stat().st_mtime_ns for p in out.rglob("evals/*.json")}
    (last := out / "runs" / "tiny-i-jepa-6-steps-seed-1" / "evals" / "knn.json").unlink()
    again, _ = engine.reproduce("tiny", data, out, Silent(), seeds=2)
    assert again == rows
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors") if p in written} == written
    assert {p for p, t in evals.items() if p.stat().st_mtime_ns != t} == {last}


def test_another_study_setting_is_not_mixed_with_what_was_trained(tiny: Study, data: Path, tmp_path: Path) -> None:
    engine.reproduce("tiny", data, tmp_path / "out", Silent(), seeds=1)
    with pytest.raises(ValueError, match=r"the settings differ from the run's: length.steps: 4 → 5"):
        engine.reproduce("tiny", data, tmp_path / "out", Silent(), seeds=1, steps=5)


def test_a_rehearsal_says_so_in_place_of_a_conclusion(tiny: Study, data: Path, tmp_path: Path) -> None:
    told = Told()
    engine.reproduce("tiny", data, tmp_path / "out", told, seeds=1, steps=3)
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert table["says"] == ["A rehearsal of 3 steps per training: its numbers say nothing about the claim."]
    assert table["rows"][0]["std"] is None
    assert [n for n in told.notes if "seed 0" in n] == [
        "1 of 2: Tiny · I-JEPA · 4 steps, seed 0",
        "2 of 2: Tiny · I-JEPA · 6 steps, seed 0",
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"seeds": 0}, "seeds is 0"), ({"data": Path("nowhere")}, "which nowhere does not hold; give --data")],
)
def test_what_is_missing_is_said_before_the_first_step(
    tiny: Study, data: Path, tmp_path: Path, change: dict, sentence: str
) -> None:
    given = {"seeds": 1, "data": data} | change
    with pytest.raises(ValueError, match=sentence):
        engine.reproduce("tiny", given["data"], tmp_path / "out", Silent(), seeds=given["seeds"])
    assert not (tmp_path / "out").exists()


def test_a_gain_is_taken_seed_by_seed_and_compared_with_their_scatter() -> None:
    assert str(Gain((0.01, 0.02, 0.03))) == "+2.0 ± 1.0 points over 3 seeds"
    assert Gain((0.01, 0.02, 0.03)).beyond_spread is True
    assert Gain((-0.02, 0.0, 0.03)).beyond_spread is False
    assert Gain((0.5,)).beyond_spread is None


def test_a_score_that_is_not_finite_is_no_row() -> None:
    with pytest.raises(ValueError, match="not finite"):
        row("a", "knn accuracy", None, [0.5, float("nan")])


def test_two_trainings_of_one_name_would_share_a_folder_and_are_refused(tmp_path: Path) -> None:
    first = study(tmp_path).arms[0]
    with pytest.raises(ValueError, match="two trainings of a study are called 'Tiny · I-JEPA · 4 steps'"):
        Study("t", "s", "c", (first, first), _says)


@pytest.mark.parametrize("name", studies.table())
def test_every_study_says_something_of_any_scores(name: str) -> None:
    found = studies.load(name)
    values = {
        (arm.label, f"{kind} accuracy"): [0.5 + 0.01 * k, 0.5, 0.51]
        for k, arm in enumerate(found.arms)
        for kind in found.kinds
    }
    assert found.says(Scores(values, found.arms))
