"""The measures of `rjepa-gaze`: on states whose answer is known, and on a real run from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jepakit import studies
from jepakit.core.progress import SilentProgress
from jepakit.studies import reproduce
from jepakit.studies.rjepa import rjepa_gaze, rjepa_probes
from jepakit.studies.rjepa.rjepa_probes import SequenceStates
from jepakit.studies.study import Scores

T, N = 5, 60


def known(noise: float = 0.0, seed: int = 0) -> SequenceStates:
    """States that hold the feature before and the next one, which the predictor is told, with noise."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(T + 1, N, 3))
    h = np.concatenate([y[:-1], y[1:]], 2)
    pred = h[1:] + noise * rng.normal(size=h[1:].shape)
    label = np.arange(N) % 20
    return SequenceStates(h, pred, y[:-1], np.linspace(0.1, 0.5, T), np.full(N, T), label, np.arange(N) // 20)


def test_errors_are_ratios_to_the_best_constant_and_to_persistence() -> None:
    found, k = known(noise=0.5), 2
    row = rjepa_probes.prediction_errors(found, k)
    target, before = found.h[k], found.h[k - 1]
    error = ((found.pred[k - 1] - target) ** 2).mean()
    assert row[f"error over constant, {k}"] == pytest.approx(error / ((target - target.mean(0)) ** 2).mean())
    assert row[f"error over persistence, {k}"] == pytest.approx(error / ((target - before) ** 2).mean())
    assert row[f"gate, {k}"] == pytest.approx(0.3)
    assert rjepa_probes.prediction_errors(known(), k)[f"error over constant, {k}"] == 0


def test_padding_has_no_part_in_an_error() -> None:
    found = known(noise=0.5)
    short = found._replace(length=np.where(np.arange(N) < 40, T, 2))
    h = found.h.copy()
    h[2:, 40:] = 1e6
    assert rjepa_probes.prediction_errors(short._replace(h=h), 2) == rjepa_probes.prediction_errors(short, 2)


def test_the_ridge_finds_a_next_feature_that_the_state_holds_and_the_present_does_not() -> None:
    row = rjepa_probes.next_feature(known(seed=1), known(seed=2), 2)
    assert row["next feature R² from the state, 2"] > 0.9
    assert row["next feature R² from the present, 2"] < 0.2


def test_a_picture_is_found_by_the_states_of_other_viewers() -> None:
    found = known()
    own = np.random.default_rng(3).normal(size=(20, 6))
    same = found._replace(h=np.broadcast_to(own[found.label], (T, N, 6)).copy())
    assert rjepa_gaze.picture_accuracy(same, 3) == 1
    assert rjepa_gaze.picture_accuracy(found, 3) < 0.4


def test_padding_has_no_part_in_the_mean_gate() -> None:
    gate, length = np.random.default_rng(0).uniform(size=(4, 3, 2)), np.array([4, 2, 3])
    found = rjepa_gaze.mean_gate(gate, length)
    assert found[2] == pytest.approx(gate[2, [0, 2]].mean())
    gate[2:, 1], gate[3, 2] = np.nan, 9.0
    assert rjepa_gaze.mean_gate(gate, length).tolist() == found.tolist()
    assert np.isnan(rjepa_gaze.mean_gate(gate, np.array([3, 2, 1]))[3])


def scores(constant: list[float], persistence: list[float], feature: list[float]) -> Scores:
    """What three seeds move by from FIRST to LAST fixations."""
    names = ("error over constant", "error over persistence", "next feature R² from the state")
    first = {("OSIE · human", f"{name}, {rjepa_gaze.FIRST}"): [0.5] * 3 for name in names}
    moved = zip(names, (constant, persistence, feature), strict=True)
    last = {("OSIE · human", f"{name}, {rjepa_gaze.LAST}"): [0.5 + by for by in each] for name, each in moved}
    return Scores({**first, **last}, ())


@pytest.mark.parametrize(
    ("feature", "verdict"),
    [
        ([0.1, 0.11, 0.12], "holds"),
        ([-0.1, -0.11, -0.12], "does not hold"),
        ([0.1, -0.08, 0.02], "not told apart"),
        ([-0.1, 0.08, -0.02], "not told apart"),
    ],
)
def test_the_strict_claim_holds_or_not_beyond_the_spread_of_the_seeds_alone(feature: list[float], verdict: str) -> None:
    falls = [-0.1, -0.11, -0.12]
    found = rjepa_gaze.strict_claim("OSIE · human").sentence(scores(falls, falls, feature))
    assert found.startswith(f"OSIE · human: the claim in its strict form: {verdict}, error over constant falls")


def test_a_collapse_at_any_time_is_told_with_the_least_spread(tmp_path: Path) -> None:
    rows = [
        {"metrics": {"verdict": verdict, **({} if ratio is None else {"std_ratio_target": ratio})}}
        for verdict, ratio in (("unknown", 1.1), ("full", 0.05), ("full", None), ("healthy", 0.6), ("healthy", 0.7))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = rjepa_gaze.panel_summary(tmp_path)
    assert found == {rjepa_gaze.LEAST_STD_RATIO: 0.05, rjepa_gaze.SOUND_ROWS: 0.75}
    rows = [arm.label for arm in rjepa_gaze.STUDY_ARMS]
    sound = {(row, rjepa_gaze.SOUND_ROWS): [1.0, 1.0] for row in rows}
    (claim,) = [c for c in rjepa_gaze.claims() if "No run collapses" in c.words]
    assert ": holds, " in claim.sentence(Scores(sound, ()))
    gone = {**sound, ("digits · gated", rjepa_gaze.SOUND_ROWS): [1.0, found[rjepa_gaze.SOUND_ROWS]]}
    assert "does not hold" in claim.sentence(Scores(gone, ()))
    assert "digits · gated: 0.875 ± 0.18 (below it in 1 of 2 seeds)" in claim.sentence(Scores(gone, ()))


@pytest.mark.slow
def test_the_study_goes_from_fixations_to_its_page(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = tuple(
        replace(arm, run=replace(arm.run, length=replace(arm.run.length, batch=16)))
        for arm in rjepa_gaze.STUDY.arms
        if arm.label in ("OSIE · human", "digits · gated")
    )
    for name in studies.STUDIES.names():  # others read these arms when they are imported
        studies.load(name)
    monkeypatch.setattr(rjepa_gaze, "MAX_SCANPATHS", 300)
    monkeypatch.setattr(rjepa_gaze, "STUDY", replace(rjepa_gaze.STUDY, arms=arms))
    rows, page = reproduce.reproduce("rjepa-gaze", shared_data, tmp_path, SilentProgress(), seeds=1, steps=3)
    names = {(row.name, row.metric) for row in rows}
    assert ("OSIE · human", "error over persistence, 7") in names
    assert ("digits · gated", "accuracy of the class, 10") in names
    assert ("OSIE · human", rjepa_gaze.LEAST_STD_RATIO) in names
    assert "Error over constant" in page.read_text()
