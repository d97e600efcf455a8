"""Every method trains from `jepa train METHOD --data FILE` on, with what it needs chosen for it."""

import json
from pathlib import Path

import numpy as np
import pytest
import support
import yaml

from jepakit import api

SMALL = {
    "method.encoder.width": 32,
    "method.encoder.depth": 1,
    "method.encoder.heads": 2,
    "length.batch": 8,
    "loop.workers": 0,
    "loop.device": "cpu",
    "loop.log_every": 1,
    "loop.panel_size": 16,
}
QUIET = {"evals.kinds": "[]", "evals.report": False}
HEAD = {"method.projector.hidden": 32}
PREDICTOR = {f"method.predictor.{k}": v for k, v in (("width", 16), ("depth", 1), ("heads", 2))}
DECODER = {f"method.decoder.{k}": v for k, v in (("width", 16), ("depth", 1), ("heads", 2))}
TERMS = {
    "cjepa": (HEAD | PREDICTOR, {"prediction", "invariance", "variance", "covariance"}),
    "vicreg": (HEAD, {"invariance", "variance", "covariance"}),
    "lejepa": (HEAD, {"invariance", "sigreg"}),
    "simclr": (HEAD, {"contrast"}),
    "mae": (DECODER, {"prediction"}),
    "bijepa": (PREDICTOR, {"forward", "backward"}),
}


@pytest.fixture
def array(tmp_path: Path) -> Path:
    path = tmp_path / "pictures.npz"
    np.savez(path, x=support.noise_pictures(24), y=np.arange(24) % 2)
    return path


@pytest.mark.parametrize("name", TERMS)
def test_a_method_trains_by_its_name_and_logs_its_terms(name: str, array: Path, tmp_path: Path) -> None:
    flags, terms = TERMS[name]
    api.train(array, tmp_path / "run", recipe=name, steps=3, settings=SMALL | QUIET | flags)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert set(rows[-1]["terms"]) == terms
    assert sum(rows[-1]["terms"].values()) == pytest.approx(rows[-1]["loss"], rel=1e-5)
    assert bool(rows[-1]["watched"]) == (name == "bijepa")
    views = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["augment"]["views"]
    assert len(views) == (name not in ("bijepa", "cjepa", "mae"))


def test_a_run_of_views_is_repeated_from_its_own_settings_file(array: Path, tmp_path: Path) -> None:
    api.train(array, tmp_path / "one", recipe="vicreg", steps=2, settings=SMALL | QUIET | HEAD)
    api.train(out=tmp_path / "two", recipe=str(tmp_path / "one" / "config.yaml"))
    assert support.logged_losses(tmp_path / "one") == support.logged_losses(tmp_path / "two")


def test_a_batch_too_small_is_refused_before_the_run_folder_exists(array: Path, tmp_path: Path) -> None:
    flags = SMALL | QUIET | HEAD | {"length.batch": 8, "length.accumulate": 8}
    with pytest.raises(ValueError, match=r"need 2 samples at a time .* not 1; raise length\.batch"):
        api.train(array, tmp_path / "run", recipe="cjepa", steps=3, settings=flags | PREDICTOR)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vicreg", "mae"])
def test_the_command_line_trains_probes_and_reports_it(name: str, array: Path, tmp_path: Path) -> None:
    flags = [word for key, value in (SMALL | TERMS[name][0]).items() for word in (f"--{key}", value)]
    done = support.jepa("train", name, "--data", array, "--out", tmp_path / "run", "--steps", 3, *flags)
    assert done.returncode == 0, done.stderr
    assert ("data.augment.views = [{count: 2}]" in done.stdout + done.stderr) == (name == "vicreg")
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "evals" / "knn.json").is_file()


def test_a_world_model_trains_on_an_environment_and_its_heads_on_the_run(tmp_path: Path) -> None:
    small = {"data.count": 12, "data.steps": 20, "method.reward": 1.0, "length.batch": 8, "length.steps": 4}
    loop = {"loop.workers": 0, "loop.device": "cpu", "loop.panel_every": 2, "loop.panel_size": 8, "loop.log_every": 1}
    run = tmp_path / "world"
    api.train("pendulum", run, recipe="world-model", settings=small | loop | QUIET)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert set(rows[-1]["terms"]) == {"prediction", "std", "cov", "temporal", "inverse", "reward"}
    judged = {"actions/energy_ratio", "spread/within"}
    assert judged < set(rows[-1]["metrics"]), "a verdict reads the rows of the panel"
    assert yaml.safe_load((run / "config.yaml").read_text())["method"]["encoder"]["name"] == "mlp"
    for name, terms in (("metric", {"push", "constraint"}), ("value", {"value"})):
        out = tmp_path / name
        api.train(out=out, recipe=name, init=run, steps=2, settings=QUIET | {"loop.workers": 0, "loop.device": "cpu"})
        summary = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
        assert set(summary["terms"]) == terms
