"""The studies of world models: trainings are what they are called, and the numbers that predict success are found."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepakit import api, studies
from jepakit.core.progress import SilentProgress
from jepakit.recipes import load_recipe
from jepakit.run.settings import Length
from jepakit.studies import reproduce as engine
from jepakit.studies.study import Arm, Scores, Study
from jepakit.studies.worldmodel import (
    pendulum,
    plan_success,
    plans,
    two_rooms,
    two_rooms_ablation,
    two_rooms_data,
    two_rooms_planners,
)
from jepakit.studies.worldmodel.plan_success import NUMBERS
from jepakit.studies.worldmodel.plans import SUCCESS


def changes(arm: Arm, recipe: str) -> dict[str, Any]:
    """How the settings of a training differ from a recipe's, by dotted key; workers and probes affect no result."""
    base, found = load_recipe(recipe), dict[str, Any]()
    for section in ("method", "data", "optim", "length"):
        new, old = getattr(arm.run, section), getattr(base, section)
        keys = [f.name for f in dataclasses.fields(new)]
        found |= {f"{section}.{k}": getattr(new, k) for k in keys if getattr(new, k) != getattr(old, k)}
    return found


def test_a_training_leaves_out_the_term_or_the_trajectories_that_its_name_says() -> None:
    short = {"length.steps": two_rooms_ablation.STEPS}
    assert changes(two_rooms_ablation.WHOLE, "two-rooms-fixed") == short
    assert all(
        arm.run.heads == (two_rooms_ablation.METRIC,) for arm in (*two_rooms_ablation.STUDY.arms, *two_rooms_data.PARTS)
    )
    assert [arm.name for arm in two_rooms_ablation.WITHOUT] == [f"without {t}" for t in two_rooms_ablation.TERMS]
    for arm, term in zip(two_rooms_ablation.WITHOUT, two_rooms_ablation.TERMS, strict=True):
        assert changes(arm, "two-rooms-fixed") == {**short, f"method.{term}": 0.0}
    for arm, percent in zip(two_rooms_data.PARTS, two_rooms_data.SHARES, strict=True):
        assert changes(arm, "two-rooms-fixed") == {**short, "data.limit": 900 * percent}
    assert changes(two_rooms.RECIPE, "two-rooms-fixed") == changes(pendulum.RECIPE, "pendulum") == {}
    assert [changes(arm, "two-rooms-fixed")["length.steps"] for arm in plan_success.BRIEF] == [50, 100, 200, 400]
    assert [arm.run.seed for arm in plan_success.FULL] == [0, 1, 2]


def test_a_study_trains_the_heads_of_its_trainings_and_a_rehearsal_shortens_them() -> None:
    whole, rehearsed = (engine.localize_run(pendulum.RECIPE, Path(), 2, steps) for steps in (None, 7))
    assert [(head.name, head.length.steps) for head in whole.heads] == [("value", 1500)]
    assert [head.length.steps for head in rehearsed.heads] == [rehearsed.length.steps] == [7]
    assert (whole.seed, whole.evals.kinds) == (2, ())


def test_all_trainings_on_fewer_trajectories_are_scored_on_the_same_ones() -> None:
    parts = [arm.run.data.open() for arm in (two_rooms_data.PARTS[0], two_rooms_data.PARTS[1])]
    assert [len(part) for part in parts] == [900, 2700]
    tests = [arm.run.data.test_part() for arm in (*two_rooms_data.PARTS, two_rooms_ablation.WHOLE)]
    assert all(part == tests[-1] for part in tests)


def test_the_published_ablation_stands_beside_its_arms() -> None:
    paper = {arm.name: arm.paper[SUCCESS] for arm in two_rooms_ablation.STUDY.arms}
    assert paper == {
        "all terms": 0.98,
        "without std": 0.47,
        "without cov": 0.46,
        "without temporal": 0.61,
        "without inverse": 0.01,
    }


def test_at_least_twelve_trainings_tell_which_number_predicts_success() -> None:
    arms = plan_success.STUDY.arms
    assert len(arms) >= 12
    shared = {arm.label: arm for study in ("two-rooms-ablation", "two-rooms-data") for arm in studies.load(study).arms}
    assert all(arm == shared.get(arm.label, arm) for arm in arms)
    assert {arm.label for arm in arms} >= set(shared)


def scores_where(**values: Any) -> Scores:
    """Scores of all trainings of `plan-success`, with the success and the numbers of some NUMBERS, a list each."""
    arms = plan_success.STUDY.arms
    names = {"success": SUCCESS, **{name.replace(" ", "_").replace("-", "_"): n.metric for name, n in NUMBERS.items()}}
    found = {(arm.label, names[key]): [v[k]] for key, v in values.items() for k, arm in enumerate(arms)}
    return Scores(found, arms)


def test_the_number_that_orders_success_is_said_first_and_the_best_of_logs_next() -> None:
    success = np.linspace(0, 1, len(plan_success.STUDY.arms))
    noise = np.random.default_rng(0).normal(size=len(success))
    scores = scores_where(
        success=success, ghosting=1 - success, open_loop_error=-success + 0.2 * noise, action_recovery=noise
    )
    told = plan_success.conclusions(scores)
    assert told[0].startswith("Best of all, of the 3 numbers that all 16 runs have: ghosting -1.00 ")
    assert told[1].startswith("Best without a simulator, of the 2 numbers that all 16 runs have: open-loop error ")
    assert [name for name, number in NUMBERS.items() if not number.from_logs] == [*NUMBERS][-7:]


def test_a_number_that_only_tells_broken_trainings_is_told_from_one_that_tells_good_ones() -> None:
    success = np.array([0.0] * 8 + [0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.95, 1.0])
    scores = scores_where(success=success, ghosting=(success == 0).astype(float), greedy_on_the_model=success)
    whole, sound = plan_success.success_correlations(scores), plan_success.success_correlations(scores, 0.5)
    assert whole["ghosting"].value < -0.7
    assert sound["ghosting"].value == 0
    assert sound["greedy on the model"].value == pytest.approx(1)
    assert "8 of 16 trainings have a success of 50 % or more, from 70 to 100 %. " in plan_success.conclusions(scores)[1]


def test_trainings_that_all_arrive_or_have_no_number_say_nothing_of_what_predicts_success() -> None:
    success = np.array([0.2] * 4 + [1.0] * 12)
    ghosting = np.arange(16.0)
    ghosting[:2] = np.nan
    scores = scores_where(success=success, ghosting=ghosting)
    assert plan_success.success_correlations(scores)["ghosting"].n == 14
    assert plan_success.success_correlations(scores, 0.5) == {}


def tiny_arm() -> Arm:
    """The recipe of Two Rooms with 3 steps on few trajectories, and as many of its metric."""
    run: Any = load_recipe("two-rooms-fixed")
    few, length = replace(run.data, count=200), Length(steps=3, batch=16)
    heads = tuple(replace(head, length=length) for head in run.heads)
    return Arm("Tiny", "rooms", replace(run, data=few, length=length, heads=heads), "", "3 steps")


@pytest.mark.slow
def test_a_study_trains_plans_and_tabulates_without_a_folder_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "EPISODES", 2)
    monkeypatch.setattr(two_rooms_planners, "EPISODES", 2)
    monkeypatch.setattr("jepakit.inference.diagnosis.NUM_EPISODES", 64)
    searches = {
        "one sample": two_rooms_planners.Search("random", {"random.samples": 1}),
        "gradient": two_rooms_planners.Search("gradient", {"gradient.starts": 1, "gradient.iterations": 1}),
    }
    monkeypatch.setattr(two_rooms_planners, "SEARCHES", searches)
    monkeypatch.setattr(two_rooms_planners, "DRAWN_SEARCHES", [*searches])
    arm = tiny_arm()
    study = Study(
        "Tiny",
        "nobody, 2026",
        "None.",
        (arm,),
        kinds=("dynamics",),
        options={"dynamics.windows": 20, "dynamics.transitions": 5},
        run_metrics=plans.measure_rooms,
        parts={name: lambda run, s=s: two_rooms_planners.measure_search(run, s) for name, s in searches.items()},
        seeds=1,
    )
    monkeypatch.setattr(studies, "load", lambda name: study)
    monkeypatch.setattr(engine, "load", lambda name: study)
    monkeypatch.delenv("JEPAKIT_DATA", raising=False)
    rows, page = api.reproduce("tiny", out=tmp_path)
    found = {(row["name"], row["metric"]): row["mean"] for row in rows}
    assert found[arm.label, SUCCESS] <= found[arm.label, plans.SUCCESS_EVER]
    assert {NUMBERS[name].metric for name in NUMBERS} - {plans.GHOSTING} <= {metric for _, metric in found}
    for name in searches:
        assert 0 < found[f"{arm.label} · {name}", two_rooms_planners.ENERGY] <= 1 + 1e-5
    assert "one sample" in page.read_text()
    # Everything measured stays, and is not measured again.
    run = engine.run_folder(tmp_path, arm, 0)
    stored = {path: path.stat().st_mtime_ns for path in (*run.glob("evals/*"), *run.rglob("*.safetensors"))}
    assert len([path for path in stored if path.match("plan-*.json")]) == 3
    again, _ = engine.reproduce("tiny", Path(), tmp_path, SilentProgress(), seeds=1)
    assert [row._asdict() for row in again] == rows
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    # Another protocol is planned anew.
    step = json.loads((run / "summary.json").read_text())["steps"]
    assert step == 3
    assert plans.stored_plan(run, "cem", {"episodes": 2, "replan_every": 4}) is not None
    assert plans.stored_plan(run, "cem", {"episodes": 3, "replan_every": 4}) is None
    assert plans.stored_plan(run, "cem", {"episodes": 2, "replan_every": 4, "source": "latent"}) is None
    plans.load_or_plan(run, episodes=3, source="latent", diagnose=False)
    assert plans.stored_plan(run, "cem", {"episodes": 3, "diagnose": False}) is None
    ((name, figure),) = two_rooms_planners.draw_energies({arm.label: run})
    assert name == "energies"
    assert "<svg" in figure.body
