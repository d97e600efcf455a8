"""The pace of trainings: what is measured, once, and how many steps fit into the time of another."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import support

from jepakit.core.progress import SilentProgress
from jepakit.run import parse
from jepakit.run.settings import Length, Run
from jepakit.studies import pace
from jepakit.studies.pace import Pace, fit_steps, load_paces, measure_paces


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "ROUNDS", 2)
    monkeypatch.setattr(pace, "STEPS", 2)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A tiny training on 80 pictures, in batches of 8."""
    x = np.random.default_rng(0).integers(0, 255, (80, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "train.npz", x=x, y=np.arange(80) % 2)
    data = {"name": "arrays", "size": [16, 16]}
    return parse.from_yaml(support.write_settings(tmp_path, tmp_path / "train.npz", data=data))


def test_a_training_gets_the_steps_that_fit_into_the_time_of_another() -> None:
    found = {"a": Pace(100, 0.3, 1), "slow": Pace(100, 0.7, 2), "fast": Pace(100, 0.1, 3), "free": Pace(7, 0.5, 4)}
    fit = fit_steps(found, {"slow": "a", "fast": "a"})
    assert {label: p.steps for label, p in fit.items()} == {"a": 100, "slow": 43, "fast": 300, "free": 7}
    assert {label: p._replace(steps=0) for label, p in fit.items()} == {
        label: p._replace(steps=0) for label, p in found.items()
    }
    assert fit_steps({"a": Pace(1, 0.1, 1), "b": Pace(5, 9.0, 1)}, {"b": "a"})["b"].steps == 1


def test_a_larger_batch_costs_more_time_and_memory_and_length_costs_nothing(run: Run, tmp_path: Path) -> None:
    large = replace(run, length=Length(epochs=2.0, batch=80))
    found = measure_paces(
        {
            "short": run,
            "long": replace(run, length=Length(steps=500, batch=8)),
            "epochs": replace(run, length=Length(epochs=3.0, batch=8)),
            "large": large,
        },
        tmp_path / "out",
    )
    assert {label: p.steps for label, p in found.items()} == {"short": 12, "long": 500, "epochs": 30, "large": 2}
    assert found["short"][1:] == found["long"][1:] == found["epochs"][1:]
    assert found["large"].seconds_per_step > found["short"].seconds_per_step
    of_eight = (found["large"].memory_bytes - found["short"].memory_bytes) / 9
    assert 0 < of_eight < found["short"].memory_bytes  # weights, gradients and moments are there once
    assert not (tmp_path / "out").exists()


def test_a_pace_that_was_measured_is_never_measured_again(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "paces.json"
    trainings = {"a": run, "b": replace(run, length=Length(epochs=1.0, batch=16))}
    first = load_paces(trainings, {"b": "a"}, path, SilentProgress())
    assert first["b"].steps == max(1, round(12 * first["a"].seconds_per_step / first["b"].seconds_per_step))
    path.write_text(json.dumps({"a": Pace(12, 1.0, 5)._asdict(), "b": Pace(3, 4.0, 6)._asdict()}))
    assert load_paces(trainings, {"b": "a"}, path, SilentProgress()) == {"a": Pace(12, 1.0, 5), "b": Pace(3, 4.0, 6)}


def test_paces_of_another_study_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "paces.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has no pace of 'a': the study has changed; start again in another --out"):
        load_paces({"a": run}, {}, tmp_path / "paces.json", SilentProgress())
