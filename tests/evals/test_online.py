"""kNN on a labelled slice while training: what it scores, what it keeps, and that training does not feel it."""

import json
from pathlib import Path

import numpy as np
import pytest
import support
import torch

from jepakit import api
from jepakit.evals.kinds import knn
from jepakit.methods.base import Method
from jepakit.run import checkpoint
from jepakit.training.monitor.online import Online
from jepakit.types import Batch, Signal


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 small pictures of two classes that differ a little in brightness."""
    rng = np.random.default_rng(0)
    y = np.arange(96) % 2
    x = rng.normal(100 + 25 * y[:, None, None, None], 60, (96, 16, 16, 1)).clip(0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("online") / "pictures.npz"
    np.savez(path, x=x, y=y)
    return path


def trained(folder: Path, array: Path, name: str, **sections: dict) -> Path:
    """A run of 12 steps with a checkpoint at every fourth, of which the newest alone is kept."""
    data = {"name": "arrays", "size": [16, 16]}
    file = support.write_settings(folder, array, data=data, **{"loop": {"keep": 1}, **sections})
    api.train(out=folder / name, recipe=str(file))
    return folder / name


def test_every_checkpoint_is_scored_and_the_best_one_survives(tmp_path: Path, array: Path) -> None:
    run = trained(tmp_path, array, "run", evals={"online": 64})
    scores = checkpoint.load_checkpoint(run).state["panel"]["knn"]
    assert list(map(int, scores)) == [0, 4, 8, 12]
    best = json.loads((run / "summary.json").read_text())["best"]
    assert best["knn"] == max(scores.values())
    assert scores[str(best["step"])] == best["knn"]
    assert checkpoint.saved_steps(run) == sorted({best["step"], 12})
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"]: row["metrics"]["knn"] for row in rows if row["step"] % 4 == 0} == {
        int(step): score for step, score in scores.items() if step != "0"
    }


def test_a_best_checkpoint_in_the_middle_is_kept(tmp_path: Path, array: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([0.1, 0.9, 0.2, 0.3])
    monkeypatch.setattr(Online, "judge", lambda self, method: next(told))
    run = trained(tmp_path, array, "run", evals={"online": 64})
    assert checkpoint.saved_steps(run) == [4, 12]
    assert json.loads((run / "summary.json").read_text())["best"] == {"step": 4, "knn": 0.9}


def test_training_does_not_feel_that_it_is_scored(tmp_path: Path, array: Path) -> None:
    scored, plain = (trained(tmp_path, array, f"run-{n}", evals={"online": n}) for n in (64, 0))
    assert support.logged_losses(scored) == support.logged_losses(plain)
    assert "best" not in json.loads((plain / "summary.json").read_text())


def test_the_score_is_the_share_of_scored_samples_whose_neighbours_have_their_label() -> None:
    class Same(Method):
        def encode(self, batch: Batch, weights: str = "target") -> torch.Tensor:
            return batch.x.flatten(2).transpose(1, 2)

    same = Same(None, Signal(2, (1, 1)))
    y = np.arange(40) % 2
    x = torch.zeros(40, 2, 1, 1)
    x[range(40), torch.from_numpy(y)] = 1.0
    scored = np.arange(40) < 10
    wrong = np.where(np.arange(40) == 3, 1 - y, y)
    assert knn.DEFAULT_K < 30
    assert Online(x, y, scored, "").judge(same) == 1.0
    assert Online(x, wrong, scored, "").judge(same) == pytest.approx(0.9)


def test_a_run_that_goes_on_knows_its_scores(tmp_path: Path, array: Path) -> None:
    file = support.write_settings(
        tmp_path, array, data={"name": "arrays", "size": [16, 16]}, evals={"online": 64}, length={"steps": 8}
    )
    api.train(out=tmp_path / "run", recipe=str(file))
    first = checkpoint.load_checkpoint(tmp_path / "run").state["panel"]["knn"]
    api.train(out=tmp_path / "run", recipe=str(file), steps=12, resume=True, allow_change=["length.steps"])
    assert first.items() <= checkpoint.load_checkpoint(tmp_path / "run").state["panel"]["knn"].items()


def test_the_best_checkpoint_stays_when_scoring_ends(
    tmp_path: Path, array: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = support.write_settings(
        tmp_path, array, data={"name": "arrays", "size": [16, 16]}, length={"steps": 8}, loop={"keep": 1}
    )
    told = iter([0.1, 0.9, 0.2])
    monkeypatch.setattr(Online, "judge", lambda self, method: next(told))
    api.train(out=tmp_path / "run", recipe=str(file), settings={"evals.online": 64})
    api.train(out=tmp_path / "run", recipe=str(file), steps=16, resume=True, allow_change=["length.steps"])
    best = json.loads((tmp_path / "run" / "summary.json").read_text())["best"]
    assert best["step"] == 4
    assert checkpoint.saved_steps(tmp_path / "run") == [4, 16]


def test_classes_of_one_sample_each_are_refused_as_none_can_be_scored(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((32, 16, 16), np.uint8), y=np.arange(32))
    file = support.write_settings(tmp_path, tmp_path / "x.npz", data={"name": "arrays", "size": [16, 16]})
    with pytest.raises(ValueError, match=r"no class has two of the 16 labelled samples; raise evals\.online"):
        api.train(out=tmp_path / "run", recipe=str(file), settings={"evals.online": 16})
    assert not (tmp_path / "run").exists()


def test_data_without_labels_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((32, 16, 16), np.uint8))
    file = support.write_settings(tmp_path, tmp_path / "x.npy", data={"name": "arrays", "size": [16, 16]})
    with pytest.raises(ValueError, match=r"evals\.online needs labels, but the data have none"):
        api.train(out=tmp_path / "run", recipe=str(file), settings={"evals.online": 16})
    assert not (tmp_path / "run").exists()
