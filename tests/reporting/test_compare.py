"""Runs beside one another: every number that some run has, and only like scores in one row."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from jepakit.cli import text
from jepakit.reporting.facts import compare_records
from jepakit.reporting.records import RunRecord


def record(*evals: dict[str, Any], **panel: float) -> RunRecord:
    return RunRecord(Path("run"), "run", "", {}, (), {"steps": 40, "panel": panel}, {}, evals)


def score(value: float, **more: Any) -> dict[str, Any]:
    facts = {"data": "photos", "weights": "target", "step": 40, "settings": {"k": 20, "pool": "mean"}}
    return {
        "kind": "knn",
        "metric": "accuracy",
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        **facts,
        **more,
    }


def rows(*records: RunRecord) -> dict[str, list[str]]:
    """What is in the table's rows of scores."""
    found = compare_records(records, [f"run {k}" for k in range(len(records))])["rows"]
    assert len(dict(found)) == len(found), "two rows have one name"
    return {label: values for label, values in found if label.startswith("knn")}


def test_like_scores_share_a_row_with_their_intervals_and_baselines() -> None:
    one, two = score(0.5, random_init=0.25, raw=0.75), score(0.6, step=80)
    assert rows(record(one), record(two)) == {
        "knn accuracy": ["50.0 % (40.0 % … 60.0 %)", "60.0 % (50.0 % … 70.0 %)"],
        "knn accuracy, untrained encoder": ["25.0 %", "–"],
        "knn accuracy, raw input": ["75.0 %", "–"],
    }


def test_scores_of_other_data_never_share_a_row() -> None:
    found = rows(record(score(0.5)), record(score(0.6, data="drawings")))
    assert {label: [v.partition(" (")[0] for v in values] for label, values in found.items()} == {
        "knn accuracy · drawings": ["–", "60.0 %"],
        "knn accuracy · photos": ["50.0 %", "–"],
    }


def test_no_score_of_a_run_is_dropped_and_a_row_is_named_by_what_differs_alone() -> None:
    others = [{"weights": "context"}, {"settings": {"k": 5, "pool": "mean"}}, {"name": "1pct"}, {"step": 20}]
    found = rows(record(score(0.5), *[score(0.1 * k, **other) for k, other in enumerate(others)]))
    assert {label: value.partition(" (")[0] for label, (value,) in found.items()} == {
        "knn accuracy · target · k=20": "50.0 %",
        "knn accuracy · context · k=20": "0.0 %",
        "knn accuracy · target · k=5": "10.0 %",
        "knn accuracy · 1pct · target · k=20": "20.0 %",
        "knn accuracy · target · k=20 · step 20": "30.0 %",
    }


def test_every_number_of_the_panel_that_some_run_has_is_a_row() -> None:
    found = dict(
        compare_records([record(stable_rank_target=3.25, agreement=0.5), record(retrieval=0.25)], ["a", "b"])["rows"]
    )
    assert found["Stable rank"] == ["3.25", "–"]
    assert found["Cosine of the two encoders"] == ["0.5", "–"]
    assert found["Retrieval"] == ["–", "0.25"]
    assert not {"LiDAR, corrected", "Energy gap"} & found.keys()


def test_data_of_one_name_in_two_folders_keep_their_paths() -> None:
    found = rows(*(record(score(0.5, data=path)) for path in ("/a/photos", "/b/photos", "/c/x")))
    assert list(found) == ["knn accuracy · /a/photos", "knn accuracy · /b/photos", "knn accuracy · x"]


def test_a_table_shows_the_names_of_data_and_keeps_their_paths() -> None:
    settings = [{"data": {"path": path}} for path in ("/a/photos", "/b/x.npz:y", "/c/train-*.tar")]
    records = [replace(record(), settings=own) for own in settings]
    found = compare_records(records, ["a", "b", "c"])
    assert dict(found["rows"])["Data"] == ["/a/photos", "/b/x.npz:y", "/c/train-*.tar"]
    assert dict(found["settings"])["data.path"] == ["/a/photos", "/b/x.npz:y", "/c/train-*.tar"]
    table = text.describe_comparison(found)
    assert "/a/" not in table
    lines = [line.split() for line in table.splitlines()]
    assert ["Data", "photos", "x.npz:y", "c/train-*.tar"] in lines
    assert ["data.path", "photos", "x.npz:y", "c/train-*.tar"] in lines


def test_a_probe_table_names_the_probe_and_below_it_the_file_of_a_later_result(tmp_path: Path) -> None:
    path = tmp_path / "knn-best-step-00000060-0a1b2c3d.json"
    path.write_text(json.dumps(score(0.5, random_init=0.1, raw=0.2, n_test=60, notes={})))
    _, line, written = text.describe_probes([path]).splitlines()
    assert line.split()[0] == "knn-best"
    assert written == f"written beside earlier results: {path}"
