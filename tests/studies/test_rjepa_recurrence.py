"""The study `rjepa-recurrence`: what is compared is what its rows are called, and what is told is what was found."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jepakit import api, studies
from jepakit.core import schedules
from jepakit.data.images import synthetic
from jepakit.run import optim
from jepakit.studies.rjepa import recurrence_claims as told
from jepakit.studies.rjepa import rjepa_probes
from jepakit.studies.rjepa import rjepa_recurrence as study
from jepakit.studies.study import Scores
from jepakit.types import Batch, Rng

SMALL = {"TRAIN": 60, "HELD": 30, "BATCH": 4, "FRAMES": 4, "SIDE": 16, "WIDTH": 8, "LEVELS": (2, 4)}


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(study, name, value)
        patch.setattr(study, "GAZE_DATA", replace(study.GAZE_DATA, size=(8, 8), count=4))
        yield
    for source in study.DATA.values():
        source.cache_clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", list(study.DATA))
def test_no_scan_of_a_digit_is_both_trained_on_and_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scans: list[set[bytes]] = []
    original = synthetic._place_glyphs

    def noted(glyphs: torch.Tensor, u: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        scans.append({glyph.numpy().tobytes() for glyph in glyphs})
        return original(glyphs, u, size)

    monkeypatch.setattr(synthetic, "_place_glyphs", noted)
    study.moving_samples.cache_clear()
    source = study.DATA[name]()
    assert len(source.train.x) == len(source.train.label) == 60
    assert len(source.held.x) == len(source.held.label) == 30
    if name == "moving digits":
        frames = study.FRAMES
        assert len(scans) == 2 * frames
        assert not scans[0] & scans[-1]
    else:
        cut = synthetic.Config("digits").part()[1]
        train, held = (synthetic.Config("digits", split=split).open() for split in ("train", "test"))
        assert source.train.label.tolist() == train.labels[:60].tolist()
        assert source.held.label.tolist() == held.labels[:30].tolist()
        assert len(train) == cut


def test_test_clips_are_of_other_scans_with_the_same_ways() -> None:
    train, test = (synthetic.moving_digits(200, 2, (16, 16), 3, part)[1] for part in (False, True))
    assert (train != test).any()
    again = synthetic.moving_digits(200, 2, (16, 16), 3)[1]
    assert (train == again).all()


def test_motion_is_how_far_a_digit_has_gone() -> None:
    x = torch.zeros(1, 2, 6, 8, dtype=torch.uint8)
    x[0, 0, 1:3, 2:4] = 200
    x[0, 1, 2:4, 5:7] = 200
    first, second = study.mass_centres(x)[0]
    assert first.tolist() == [2.5, 1.5]
    assert (second - first).tolist() == [3.0, 1.0]
    source = study.moving_samples()
    assert source.train.motion is not None
    # 15 % of the free room at most, which is less than 0.55 of the side.
    assert 0 < np.abs(source.train.motion).max() < 0.15 * 0.55 * study.SIDE + 0.3


def reach(row: str) -> list[bool]:
    """Whether each level's last state tells two sequences apart that differ in all frames but the last."""
    method = study.build_row(row, study.moving_samples().signal, 0)
    x = torch.randn(2, 1, 4, 16, 16, generator=Rng(0).generator())
    x[1, :, 3] = x[0, :, 3]
    states = method.circuits.start(2)
    for rows in method.circuits.read(method.maps(x)).unbind():
        states, _ = method.circuits.step(states, rows)
    first, second = zip(*(state.chunk(2) for state in states), strict=True)
    return [not torch.allclose(a, b) for a, b in zip(first, second, strict=True)]


def test_each_row_remembers_at_the_levels_that_it_is_named_for() -> None:
    assert reach("none") == [False, False, False]
    assert reach("top") == [False, False, True]
    assert reach("all levels") == [True, True, True]
    assert reach("all with feedback") == [True, True, True]
    rows = {row: study.build_row(row, study.moving_samples().signal, 0) for row in study.ROWS}
    sizes = [[cell.width for cell in method.circuits.cells] for method in rows.values()]
    assert sizes == [[2, 4, 8]] * 4
    assert [m.circuits.feedback for m in rows.values()] == [False, False, False, True]
    assert {m.cfg.rule for m in rows.values()} == {"bptt"}


def test_rows_side_by_side_are_trained_as_each_alone_would_be() -> None:
    source = study.fixation_samples()
    made = {row: study.build_row(row, source.signal, 1) for row in study.ROWS}
    spent = study.train_turns(made, source.train, 1, 3)
    assert all(len(each) == 3 for each in spent.values())
    alone = study.build_row("top", source.signal, 1)
    optimizer = optim.build_optimizer(study.OPTIM, alone)
    for k in range(3):
        ids = torch.from_numpy(study.batch_ids(k, 60, 1, 4, 0, 4)[0])
        assert source.train.action is not None
        optim.set_schedule(optimizer, study.OPTIM, schedules.run_progress(k, 3))
        alone(Batch(source.train.x[ids].float() / 255, action=source.train.action[ids]), Rng(1, k)).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    for mine, other in zip(alone.parameters(), made["top"].parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_more_recurrence_takes_no_fewer_bytes_and_feedback_most() -> None:
    part = study.moving_samples().train
    taken = [study.step_bytes(study.build_row(row, study.moving_samples().signal, 0), part) for row in study.ROWS]
    assert taken == sorted(taken)
    assert taken[-1] > 2 * taken[0]


def test_a_ridge_and_a_classifier_find_what_states_hold_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    goal = rng.normal(size=(300, 2))
    past = np.concatenate([goal @ rng.normal(size=(2, 2)), rng.normal(size=(300, 3))], 1)
    assert rjepa_probes.ridge_score(past[:200], goal[:200], past[200:], goal[200:]) > 0.9
    assert abs(rjepa_probes.ridge_score(past[:200, 2:], goal[:200], past[200:, 2:], goal[200:])) < 0.1
    label = (goal[:, 0] > 0).astype(np.int64)
    none = np.zeros((1, 200, 2))
    parts = [
        rjepa_probes.SequenceStates(
            past[None, at], none, none, np.zeros(1), np.ones(len(label[at]), int), label[at], label[at]
        )
        for at in (slice(200), slice(200, 300))
    ]
    assert rjepa_probes.class_accuracy(parts[0], parts[1], 1) > 0.95


def numbers(**changed: float) -> dict[str, float]:
    """A row's numbers."""
    found = {told.CONSTANT: 0.5, told.PERSISTENCE: 0.9, told.NEXT: 0.2, told.DIGIT: 0.3, told.RATIO: 0.8}
    found |= {f"{name}{told.UNTRAINED}": 0.2 for name in (told.NEXT, told.DIGIT, told.MOTION)}
    found |= {told.MOTION: 0.1, "ms per step": 10.0, "MiB per step": 2.0, "parameters": 100.0}
    return {**found, **{name.replace("_", " "): value for name, value in changed.items()}}


def scores(seeds: int = 3, **rows: dict[str, float]) -> Scores:
    """Rows called by name, whose numbers differ a little from seed to seed."""
    wobble = [0.0, 0.01, -0.01]
    values = {
        (f"things · {name.replace('_', ' ')}", metric): [
            value + wobble[k] * (metric == told.DIGIT) for k in range(seeds)
        ]
        for name, found in rows.items()
        for metric, value in found.items()
    }
    return Scores(values, ())


def sentences(found: Scores) -> list[str]:
    """What the study says of such scores."""
    rows = [name.removeprefix("things · ") for name in dict.fromkeys(name for name, _ in found.values)]
    return [*(claim.sentence(found) for claim in told.claims(["things"], rows)), *told.conclusions(found)]


def one_sentence(says: list[str], start: str) -> str:
    (one,) = (s for s in says if s.startswith(start))
    return one


def test_the_best_row_is_told_with_those_it_does_not_beat_and_its_cost() -> None:
    dear = numbers(ms_per_step=30.0, MiB_per_step=8.0, parameters=250.0)
    best = {**dear, told.DIGIT: 0.5, told.MOTION: 0.6}
    says = sentences(scores(none=numbers(), top={**dear, told.DIGIT: 0.5}, all_levels=best))
    digit = one_sentence(says, f"things, {told.DIGIT}, highest")
    assert "top 50.0 ± 1.0 % ≈ all levels 50.0 ± 1.0 % > none 30.0 ± 1.0 %; level with the first: all levels" in digit
    assert digit.endswith("all levels is best: not told apart.")
    cost = one_sentence(says, "things, the best row, or the cheapest of those level with it")
    assert f"{told.DIGIT} top (3.0 times the seconds, 4.0 the bytes, 2.5 the parameters of none)" in cost
    assert f"{told.MOTION} all levels (3.0 times" in cost
    assert f"{told.CONSTANT} none (the cheapest of all)" in cost
    overall = one_sentence(says, "Best by the mean of the probes")
    assert overall.endswith(
        f"none in {told.NEXT} of things; top in {told.DIGIT} of things; all levels in {told.MOTION} of things."
    )
    added = one_sentence(sentences(scores(none=numbers(), top=dear)), f"things, {told.DIGIT}, what training adds")
    assert "(+10.0 ± 1.0 points)" in added


def test_lower_errors_are_better_and_those_of_collapsed_rows_are_not_compared() -> None:
    good, gone = {**numbers(), told.CONSTANT: 0.4}, {**numbers(), told.CONSTANT: 0.01, told.RATIO: 0.02}
    says = sentences(scores(none=numbers(), top=good, all_levels=gone))
    error = one_sentence(says, f"things, {told.CONSTANT}, lowest first")
    assert "top 0.4 < none 0.5" in error
    assert "all levels" not in error
    assert "all levels" in one_sentence(says, f"things, {told.DIGIT}, highest")
    collapsed = one_sentence(says, "No row collapses")
    assert "does not hold, none: 0.8, top: 0.8, all levels: 0.02 (below it)" in collapsed
    everything = sentences(scores(none=gone, top=gone))
    assert not [s for s in everything if s.startswith(f"things, {told.CONSTANT}")]
    assert ": holds, " in one_sentence(sentences(scores(none=numbers())), "No row collapses")
    drawn = dict(told.draw_figures(scores(none=numbers(), top=good, all_levels=gone).values))
    error, digit = (drawn[f"things-{name.replace(' ', '-')}"] for name in (told.CONSTANT, told.DIGIT))
    assert "all levels</text>" not in error.body
    assert error.caption.endswith("collapsed in at least one seed: all levels.")
    assert "all levels</text>" in digit.body
    assert f"things-{told.CONSTANT.replace(' ', '-')}" not in dict(told.draw_figures(scores(none=gone).values))


def test_one_seed_is_said_to_say_nothing_of_the_spread() -> None:
    says = sentences(scores(1, none=numbers(), top={**numbers(), told.DIGIT: 0.9}))
    assert one_sentence(says, f"things, {told.DIGIT}, highest").endswith("one seed has no scatter to judge by.")
    assert not [s for s in says if "cheapest" in s]


def test_the_study_leaves_table_figures_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JEPAKIT_DATA", raising=False)
    monkeypatch.setattr(study, "STEPS", 2)
    _, page = api.reproduce("rjepa-recurrence", out=tmp_path, seeds=2)
    table = json.loads((page.parent / "table.json").read_text())
    found = {(row["name"], row["metric"]) for row in table["rows"]}
    for data in study.DATA:
        for row in study.ROWS:
            for metric in (*told.LOWER_METRICS, told.NEXT, told.DIGIT, told.RATIO, told.RANK, *told.COST_METRICS):
                assert (f"{data} · {row}", metric) in found
    assert ("moving digits · none", told.MOTION) in found
    assert ("fixations · none", told.MOTION) not in found
    assert table["says"][1].startswith("fixations, next frame R², highest first: ")
    assert len({p.stem for p in (page.parent / "figures").iterdir()}) == 15
    assert not re.search(r'(src|href)="(?!#|data:)', page.read_text())


def test_the_study_is_found_by_name_and_takes_three_seeds() -> None:
    assert studies.load("rjepa-recurrence").seeds == 3
