"""Runs beside one another: every number that some run has, and only like scores in one row."""

from pathlib import Path
from typing import Any

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
