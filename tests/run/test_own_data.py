"""A run reads its own data again: from any folder, and only if they are still the same."""

from pathlib import Path

import numpy as np
import pytest
import support

import jepakit as jk
from jepakit.cli import __main__ as cli
from jepakit.run import own_data
from jepakit.run.checkpoint import load_run

FAST = {"length.steps": 2, "loop.save_every": 2, "loop.panel_every": 2}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures and a run that was trained on them by their relative path; another folder is entered."""
    for name, seed in (("here", 0), ("there", 1)):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "a.npz", x=support.noise_pictures(32, seed=seed), y=np.arange(32) % 2)
    monkeypatch.chdir(tmp_path / "here")
    file = support.write_settings(Path(), "a.npz", data={"name": "arrays", "split": "train", "held_out": 0.3})
    jk.train(out="run", recipe=str(file), settings=FAST)
    monkeypatch.chdir(tmp_path / "there")
    return tmp_path / "here"


def test_a_relative_path_means_the_folder_of_the_training(place: Path) -> None:
    loaded = load_run(place / "run")
    found = own_data.own_data(loaded)
    assert (found.cfg.path, loaded.run.data.path) == (f"{place}/a.npz", "a.npz")
    # Data of the same name lie in this folder, too.
    assert found.dataset.fingerprint() == loaded.state["data"]
    assert own_data.is_own(loaded, f"{place}/a.npz")
    assert not own_data.is_own(loaded, "a.npz")


def test_a_probe_finds_the_data_of_its_run_from_another_folder(place: Path) -> None:
    assert cli.main(["probe", str(place / "run"), "--kind", "knn"]) == 0
    result = support.read_json(place / "run/evals/knn.json")
    assert result["data"].startswith(f"{place}/a.npz")
    assert result["n_train"] + result["n_test"] == 32
    assert result["seen"] is False


@pytest.mark.parametrize("command", [["probe", "--kind", "knn"], ["probe", "--kind", "linear", "--data", "{path}"]])
def test_data_that_have_changed_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    np.savez(place / "a.npz", x=support.noise_pictures(32, seed=7), y=np.arange(32) % 2)
    name, *rest = (word.format(path=f"{place}/a.npz") for word in command)
    with pytest.raises(SystemExit, match="2"):
        cli.main([name, str(place / "run"), *rest])
    assert "a.npz' does not hold the data that the run was trained on" in capsys.readouterr().err
    assert not (place / "run" / "evals").exists()


def test_a_head_is_not_trained_on_other_data_than_its_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(place / "a.npz", x=support.noise_pictures(32, seed=7), y=np.arange(32) % 2)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", "decoder", "--init", str(place / "run"), "--out", str(place / "head")])
    assert "does not hold the data" in capsys.readouterr().err
    assert not (place / "head").exists()


def test_the_report_shows_no_pictures_of_other_data(place: Path) -> None:
    np.savez(place / "a.npz", x=support.noise_pictures(32, seed=7), y=np.arange(32) % 2)
    assert cli.main(["report", str(place / "run")]) == 0
    assert "does not hold the data that the run was trained on" in (place / "run" / "report.html").read_text()


def test_data_that_are_gone_are_named_with_the_remedy(place: Path) -> None:
    (place / "a.npz").unlink()
    Path("a.npz").unlink()
    with pytest.raises(ValueError, match=r"a\.npz.*The run was trained on it; put it back, or give --data PATH"):
        own_data.own_data(load_run(place / "run"))
