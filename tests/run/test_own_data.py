"""A run reads its own data again: from any folder, and only if they are still the same."""

from pathlib import Path

import numpy as np
import pytest
import support

import jepakit as jk
from jepakit.cli import __main__ as cli
from jepakit.data.images import files as images
from jepakit.data.series import generated
from jepakit.run import own_data
from jepakit.run.checkpoint import load_run
from jepakit.types import Signal

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


def test_a_run_is_resumed_on_its_own_data_from_another_folder(place: Path) -> None:
    before = load_run(place / "run")
    jk.train(out=place / "run", resume=True, steps=3, allow_change=["length.steps"], quiet=True)
    after = load_run(place / "run")
    assert (before.step, after.step) == (2, 3)
    assert after.run.data.path == after.state["source"] == f"{place}/a.npz"
    assert after.state["data"] == before.state["data"]


def test_a_run_that_is_resumed_in_its_own_folder_keeps_its_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    jk.train(out="run", resume=True, steps=3, allow_change=["length.steps"], quiet=True)
    assert load_run(Path("run")).run.data.path == "a.npz"


def test_a_change_of_the_part_that_training_left_out_is_noticed_where_it_is_judged_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{kind}/{k}.png" for k in range(16) for kind in ("a", "b")]
    folder = support.write_pictures(tmp_path / "photos", names)
    data = {"name": "images", "split": "train", "held_out": 0.3}
    file = support.write_settings(tmp_path, folder, data=data)
    jk.train(out=tmp_path / "run", recipe=str(file), settings=FAST, quiet=True)
    probe = ["probe", str(tmp_path / "run"), "--kind", "knn"]
    assert cli.main(probe) == 0
    held = load_run(tmp_path / "run").run.data.test_part().open()
    (folder / held.name(0)).unlink()
    assert cli.main([*probe, "--test", str(folder)]) == 0
    with pytest.raises(SystemExit, match="2"):
        cli.main(probe)
    assert "that training left out has changed since then" in capsys.readouterr().err


def test_few_items_of_which_none_was_left_out_once_are_still_the_runs_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=support.noise_pictures(8), y=np.arange(8) % 2)
    data = {"name": "arrays", "split": "all"}
    file = support.write_settings(tmp_path, tmp_path / "a.npz", data=data, length={"steps": 2, "batch": 4})
    jk.train(out=tmp_path / "run", recipe=str(file), settings=FAST, quiet=True)
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("split: all", "split: train"))
    loaded = load_run(tmp_path / "run")
    assert loaded.run.data.split == "train"
    found = own_data.own_data(loaded)
    assert (found.cfg.split, len(found.dataset)) == ("all", 8)
    assert own_data.unseen_part(loaded, found.cfg) is None
    jk.train(out=tmp_path / "run", resume=True, steps=3, allow_change=["length.steps"], quiet=True)
    assert load_run(tmp_path / "run").run.data.split == "all"


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
    with pytest.raises(ValueError, match=r"a\.npz.*The run was trained on it; put the data back, or give --data PATH"):
        own_data.own_data(load_run(place / "run"))


def test_a_run_from_the_weights_of_one_that_saw_everything_has_no_unseen_part(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=support.noise_pictures(32), y=np.arange(32) % 2)
    runs = {}
    for name, split, init in (("all", "all", None), ("part", "train", "all"), ("clean", "train", None)):
        data = {"name": "arrays", "split": split, "held_out": 0.3}
        file = support.write_settings(tmp_path, tmp_path / "a.npz", data=data)
        jk.train(out=tmp_path / name, recipe=str(file), settings=FAST, init=init and tmp_path / init, quiet=True)
        runs[name] = load_run(tmp_path / name)
    seen = {name: own_data.unseen_part(loaded, loaded.run.data) is None for name, loaded in runs.items()}
    assert seen == {"all": True, "part": True, "clean": False}


def test_files_of_the_own_folder_are_recognised_by_any_name(tmp_path: Path) -> None:
    folder = support.write_pictures(tmp_path / "pictures", [f"{k}.png" for k in range(4)])
    run = support.untrained_run(tmp_path / "run", images.Config(str(folder)), Signal(3, (32, 32)))
    loaded = load_run(run)
    (tmp_path / "link").symlink_to(folder)
    other = support.write_pictures(tmp_path / "other", ["a.png"])
    for path in (folder, tmp_path / "link", folder / "*.png", folder / "1.png", folder / "{1,2}.png"):
        assert own_data.overlaps_own(loaded, str(path))
    assert own_data.is_own(loaded, f"{tmp_path}/link/")
    assert not own_data.is_own(loaded, str(folder / "1.png"))
    assert not own_data.overlaps_own(loaded, str(other))


def test_a_folder_with_the_name_of_a_generated_set_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sines").mkdir()
    monkeypatch.chdir(tmp_path)
    assert own_data.absolute_path(generated.Config("sines")) == "sines"
