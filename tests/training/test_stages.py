"""Heads in a run's settings: trained after it by the same command, resumed exactly, refused before step 1."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import support
import torch
import yaml

import jepakit as jk
from jepakit import api
from jepakit.core.progress import Interrupted, SilentProgress
from jepakit.methods import metric, vicreg
from jepakit.run import checkpoint, parse, write
from jepakit.run.settings import HeadStage, Length, Run
from jepakit.training import estimate, stages
from jepakit.training.request import Request, settings

HEAD: dict[str, Any] = {
    "heads.metric.length.steps": 4,
    "heads.metric.length.batch": 8,
    "heads.metric.data.window": 5,
    "heads.metric.method.far": 9,
}
SMALL: dict[str, Any] = {
    **HEAD,
    "heads.value": "none",
    "data.count": 12,
    "data.steps": 12,
    "data.window": 3,
    "method.reward": 0,
    "method.steps": 2,
    "length.batch": 8,
    "loop.workers": 0,
    "loop.log_every": 1,
    "loop.save_every": 50,
    "evals.kinds": [],
    "evals.report": False,
}
"""Two stages of a few steps each; the head sees windows of another length than the run below."""


def train(out: Path, own: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    changes = {**SMALL, **(own or {})}
    return jk.train(None, out, recipe="pendulum", settings=changes, quiet="progress" not in options, **options)


@pytest.fixture(scope="module")
def run_with_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world model of Pendulum with a metric, both after a few steps."""
    out = tmp_path_factory.mktemp("stages") / "run"
    train(out, steps=3)
    return out


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load_checkpoint(run).model


def assert_equal_weights(one: Path, other: Path) -> None:
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_head_of_the_settings_is_the_one_that_is_trained_by_hand(run_with_heads: Path, tmp_path: Path) -> None:
    own = {key.removeprefix("heads.metric."): value for key, value in HEAD.items()}
    shared = {"loop.amp": False, **{key: SMALL[key] for key in ("loop.workers", "loop.log_every", "evals.report")}}
    jk.train(None, tmp_path / "metric", recipe="metric", init=run_with_heads, settings={**own, **shared}, quiet=True)
    assert_equal_weights(run_with_heads / "heads" / "metric", tmp_path / "metric")


def test_the_run_folder_repeats_the_run_with_its_heads(run_with_heads: Path) -> None:
    run = parse.from_yaml(run_with_heads / "config.yaml")
    (head,) = run.heads
    assert (head.name, head.length.steps, head.data) == ("metric", 4, ("window=5",))
    assert parse.from_dict(yaml.safe_load(write.to_yaml(run)), "here") == run
    assert parse.from_yaml(run_with_heads / "heads" / "metric" / "config.yaml").data.window == 5


class StopAfter(SilentProgress):
    """Asks the process to stop once so many rows have been shown."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def row(self, row: dict[str, Any], steps: int) -> None:
        """Count the row."""
        self.rows -= 1
        if self.rows == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("rows", "said"),
    [pytest.param(1, "stopped at step 2", marks=pytest.mark.slow), (5, "metric stopped at step 3")],
)
def test_a_run_that_was_stopped_in_any_stage_goes_on_as_if_nothing_had_happened(
    rows: int, said: str, run_with_heads: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted, match=said):
        train(tmp_path / "run", steps=3, progress=StopAfter(rows))
    train(tmp_path / "run", steps=3, resume=True)
    assert_equal_weights(run_with_heads, tmp_path / "run")
    assert_equal_weights(run_with_heads / "heads" / "metric", tmp_path / "run" / "heads" / "metric")


def test_resuming_what_is_finished_writes_no_new_checkpoint_and_needs_no_recipe(run_with_heads: Path) -> None:
    files = [*run_with_heads.rglob("*.safetensors"), *run_with_heads.rglob("metrics.jsonl")]
    before = {path: path.stat().st_mtime_ns for path in files}
    shown = support.Recorder()
    jk.train(None, run_with_heads, resume=True, progress=shown)
    assert shown.said("run is at step 3 of 3")
    assert shown.said("metric is at step 4 of 4")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_for_a_head_that_has_begun_are_refused_before_anything_is_written(run_with_heads: Path) -> None:
    before = (run_with_heads / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=r"heads\.metric\.length\.steps: 4 → 5.*--allow-change heads\.metric\.length"):
        train(run_with_heads, steps=3, resume=True, own={"heads.metric.length.steps": 5})
    assert (run_with_heads / "config.yaml").read_bytes() == before


@pytest.mark.slow
def test_heads_are_trained_again_on_a_run_that_was_trained_further(run_with_heads: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, steps=2)
    old = tensors(run / "heads" / "metric")
    train(run, steps=3, resume=True, allow_change=("length.steps",))
    assert checkpoint.saved_steps(run / "heads" / "metric")[-1] == 4
    new = tensors(run / "heads" / "metric")
    assert any(not torch.equal(old[key], new[key]) for key in old)
    # Replacing the run, with what `jepa plan` wrote, takes its heads away.
    (run / "evals").mkdir()
    for ending in ("gif", "npz"):
        (run / "evals" / f"plan-cem.{ending}").touch()
    alone = {key: value for key, value in SMALL.items() if not key.startswith("heads.")}
    jk.train(None, run, recipe="pendulum", settings={**alone, "heads": "none"}, steps=1, overwrite=True, quiet=True)
    assert not (run / "heads").exists()


@pytest.mark.slow
def test_a_dry_run_prices_the_heads_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "MAX_TIMED", 2)
    flags = {**SMALL, "length.steps": 3}
    rows = dict(api.dry_run(Request("pendulum", out=tmp_path / "run", flags=flags)))
    assert {"parameters", "metric: parameters", "metric: time"} <= rows.keys()
    assert "for 4 steps" in rows["metric: time"]
    assert not (tmp_path / "run").exists()


# --- the settings


def requested_run(**flags: Any) -> Run:
    return settings(Request("two-rooms-fixed", flags={key.replace("__", "."): value for key, value in flags.items()}))


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ({}, ["metric"]),
        ({"heads": "none"}, []),
        ({"heads": []}, []),
        ({"heads__metric": "none"}, []),
        ({"heads": "value"}, ["value"]),
        ({"heads": "metric,value"}, ["metric", "value"]),
        ({"heads": "[metric, value]"}, ["metric", "value"]),
        ({"heads__value__method__gamma": "0.9"}, ["metric", "value"]),
    ],
)
def test_heads_are_named_added_and_left_out(flags: dict[str, Any], names: list[str]) -> None:
    assert [head.name for head in requested_run(**flags).heads] == names


def test_a_section_changes_a_head_and_its_data_add_up() -> None:
    (head,) = requested_run(heads__metric__data__window="33", heads__metric__length__steps="9").heads
    assert (head.data, head.length.steps, head.length.batch) == (("window=33",), 9, Length().batch)


def test_data_of_a_head_that_are_given_again_stay_as_they_are() -> None:
    for window, data in ((9, ("window=9",)), ("12", ("window=12",))):
        (head,) = settings(Request("lewm", flags={"heads.metric.data.window": window})).heads
        assert head.data == data


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"heads": "metrik"}, "heads.metrik: No method 'metrik'. Did you mean 'metric'"),
        ({"heads": "ijepa"}, "heads.ijepa: ijepa is no head"),
        ({"heads": "7"}, "heads.7: No method '7'"),
        ({"heads": "metric,metric"}, "give each once"),
        ({"heads__metric__length__step": "3"}, "No setting heads.metric.length.step. Did you mean"),
        ({"heads__metric__method__name": "value"}, "heads.metric.method.name is value; write heads.value"),
    ],
)
def test_a_mistake_in_heads_is_one_sentence(flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        requested_run(**flags)


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"heads.value.length.batch": 8}, "heads.value: the world model has no reward head"),
        ({"heads.metric.data.windo": 3}, "No setting heads.metric.data.windo"),
        ({"heads.metric.data.window": 99}, "heads.metric: "),
        ({"heads.metric.length.batch": 500}, "give --heads.metric.length.batch"),
        ({"heads.decoder.length.steps": 2}, "heads.decoder: "),
    ],
)
def test_a_head_that_does_not_fit_the_run_is_refused_before_step_1(
    own: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    changes = {**SMALL, **own}
    if "heads.value.length.batch" in own:
        del changes["heads.value"]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        jk.train(None, tmp_path / "run", recipe="pendulum", settings=changes, quiet=True)
    assert not (tmp_path / "run").exists()


def test_files_in_the_folder_of_a_head_that_are_no_run_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "heads" / "metric").mkdir(parents=True)
    (tmp_path / "heads" / "metric" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"metric was not deleted.*move it away, or give --heads\.metric none"):
        stages.check_folders(requested_run(), tmp_path, goes_on=False)
    stages.check_folders(requested_run(heads="none"), tmp_path, goes_on=False)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FloatingPointError("Lower --optim.lr, or look"), "heads.metric: Lower --heads.metric.optim.lr, or look"),
        (ValueError("or --allow-change length.steps"), "heads.metric: or --allow-change heads.metric.length.steps"),
        (ValueError("give --steps 4 or more"), "heads.metric: give --heads.metric.length.steps 4 or more"),
    ],
)
def test_an_error_while_a_head_is_trained_advises_settings_of_the_head(error: Any, sentence: str) -> None:
    found = stages.explain_flags(error, HeadStage(metric.Config()))
    assert (type(found), str(found)) == (type(error), sentence)


def test_a_method_that_is_no_head_is_refused_in_python_too() -> None:
    with pytest.raises(ValueError, match="vicreg is no head"):
        HeadStage(vicreg.Config())
