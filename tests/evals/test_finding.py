"""What probes find: one rule for the page, the command line, comparisons and the API."""

import json
from pathlib import Path
from typing import Any

import pytest

from jepakit.cli.text import describe_outcome, describe_probes
from jepakit.evals.finding import probe_finding, read_finding, run_finding
from jepakit.reporting.facts import compare_records
from jepakit.reporting.page import badge_tone
from jepakit.reporting.records import RunRecord

SUMMARY = {"verdict": "healthy", "reason": "rank holds", "advice": "", "rollbacks": []}


def result(value: float, fresh: float = 0.4, raw: float = 0.4, half: float = 0.05, **more: Any) -> dict[str, Any]:
    """A result whose score and baselines have intervals of ± `half`."""
    baselines = {
        key: {"value": v, "low": v - half, "high": v + half} for key, v in (("random_init", fresh), ("raw", raw))
    }
    own = {"kind": "linear", "value": value, "low": value - half, "high": value + half, "step": 300, "n_test": 140}
    return {**own, "random_init": fresh, "raw": raw, "baselines": baselines, "notes": {}, **more}


@pytest.mark.parametrize(
    ("value", "fresh", "raw", "outcome", "baselines"),
    [
        (0.33, 0.58, 0.74, "worse", ("untrained encoder", "raw input")),  # 700 photographs of hand signs, 300 steps
        (0.60, 0.40, 0.74, "worse", ("raw input",)),
        (0.60, 0.40, 0.55, "unclear", ("raw input",)),
        (0.60, 0.65, 0.55, "unclear", ("untrained encoder", "raw input")),
        (0.60, 0.40, 0.45, "better", ("untrained encoder", "raw input")),
    ],
)
def test_an_encoder_is_better_or_worse_only_where_the_intervals_are_apart(value, fresh, raw, outcome, baselines):
    found = probe_finding(result(value, fresh, raw))
    assert (found.outcome, found.baselines) == (outcome, baselines)


def test_an_error_is_better_where_it_is_lower():
    assert probe_finding(result(0.2, lower_is_better=True)).outcome == "better"
    assert probe_finding(result(0.7, lower_is_better=True)).outcome == "worse"


def test_a_baseline_without_an_interval_counts_as_a_point():
    bare = result(0.46, 0.40, 0.40) | {"baselines": {}}
    assert probe_finding(bare).outcome == "better"
    assert probe_finding(result(0.46, 0.40, 0.40)).outcome == "unclear"


def test_a_score_without_a_baseline_finds_nothing():
    assert probe_finding(result(0.5) | {"random_init": None, "raw": None}) is None
    assert run_finding([]) is None


def test_the_linear_probe_decides_for_a_run_and_worse_ones_are_named():
    found = run_finding([result(0.1, kind="knn"), result(0.8)])
    assert (found.kind, found.outcome, found.also_worse) == ("linear", "better", ("knn",))
    assert str(found) == "linear is clearly better than both baselines, and knn clearly worse than a baseline"
    assert badge_tone("healthy", found) == "warn"


def dynamics_results(door: float, **more: Any) -> list[dict[str, Any]]:
    """A small error, and the quantity that imagination knows least."""
    error = result(0.05, 1.5, 0.9, kind="dynamics", name="error", lower_is_better=True, leading=True)
    known = {"factor": "door", "least": 0.5}
    return [error, result(door, kind="dynamics", name="imagined", leading=False, notes=known, **more)]


def test_a_model_that_does_not_know_a_quantity_has_no_unqualified_finding():
    found = run_finding(dynamics_results(-0.05))
    assert (found.outcome, found.unknown) == ("better", "door")
    assert found.words == "clearly better, door unknown"
    assert str(found) == "dynamics is clearly better than both baselines, but door is unknown to it (R² -0.05)"
    assert "plans cannot reckon with what a model does not know" in describe_outcome(SUMMARY, found)
    assert badge_tone("healthy", found) == "warn"
    assert badge_tone("healthy", run_finding(dynamics_results(0.8))) == "good"
    # An older step says nothing of this one.
    assert run_finding(dynamics_results(-0.05, step=100)).unknown == ""


def test_the_newest_step_decides_and_a_score_on_the_training_data_does_not_count():
    seen = result(0.99, notes={"warning": "the test data are the training data"}, step=400)
    assert run_finding([result(0.9, step=100), result(0.1), seen]).outcome == "worse"


@pytest.mark.parametrize(
    ("verdict", "value", "tone"),
    [("healthy", 0.8, "good"), ("healthy", 0.42, "warn"), ("healthy", 0.1, "bad"), ("full", 0.8, "bad")],
)
def test_the_badge_has_the_graver_tone_of_verdict_and_probe(verdict, value, tone):
    assert badge_tone(verdict, run_finding([result(value)])) == tone


def test_a_healthy_training_with_a_worse_probe_is_told_so_everywhere(tmp_path: Path):
    path = tmp_path / "linear.json"
    path.write_text(json.dumps(result(0.33, 0.58, 0.74)))
    found, worse = read_finding([path]), "clearly worse than the untrained encoder and the raw input"
    assert f"but linear is {worse}; try another method" in describe_outcome(SUMMARY, found)
    assert f"linear: {worse}; try another method" in describe_probes([path])
    assert found.to_json()["outcome"] == "worse"
    run = RunRecord(Path("run"), "run", "", {}, (), SUMMARY, {}, (json.loads(path.read_text()),))
    assert dict(compare_records([run, run], ["a", "b"])["rows"])["Probes"] == [f"linear is {worse}"] * 2


def test_a_warning_does_not_silence_the_finding_and_what_was_seen_is_said() -> None:
    shared = result(0.1, notes={"warning": "1 of 10,000 test samples (0.0 %) are also training samples"})
    assert run_finding([shared]).outcome == "worse"
    seen = run_finding([{**result(0.1), "seen": True}])
    assert str(seen).endswith("on samples seen in training")


def test_a_score_that_is_no_number_is_no_finding() -> None:
    assert run_finding([result(float("nan"))]) is None
