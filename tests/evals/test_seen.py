"""What a probe scores was kept from the encoder, or the result says that it was seen in training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support

from jepakit.cli import text
from jepakit.data.images import arrays, synthetic
from jepakit.data.series import settings as series
from jepakit.data.trajectories import settings as trajectories
from jepakit.evals import load_kind
from jepakit.evals.base import KINDS
from jepakit.evals.runs import open_sets, probe_run
from jepakit.run.checkpoint import load_run
from jepakit.types import Signal

FAST: dict[str, dict[str, Any]] = {
    "attentive": {"attentive.epochs": 1, "attentive.lr": [1e-3], "attentive.seeds": [0]},
    "finetune": {"finetune.epochs": 1},
    "lowshot": {"lowshot.draws": 2},
}
SHAPES = synthetic.Config("shapes", count=60, size=(16, 16))
SCENES = synthetic.Config("scenes", count=80)


def run_of_kind(kind: str, folder: Path, split: Any) -> Path:
    """A run folder on data that this kind of probe can score."""
    if load_kind(kind).reads == "windows":
        support.write_table(folder / "a.csv", 600)
        cfg = series.Config(path=str(folder / "a.csv"), split=split, window=16, stride=4, held_out=0.3)
        return support.halves_run(folder / "run", cfg)
    if load_kind(kind).reads == "dynamics":
        source = support.write_rollouts(folder / "episodes")
        return support.world_run(folder / "run", trajectories.Config(str(source), split=split, window=5, held_out=0.3))
    if load_kind(kind).reads == "masks":
        return support.untrained_run(folder / "run", replace(SCENES, split=split), Signal(3, (32, 32)))
    return support.untrained_run(folder / "run", replace(SHAPES, split=split), Signal(3, (16, 16)))


@pytest.mark.parametrize("kind", [kind for kind in KINDS.names() if load_kind(kind).fits])
@pytest.mark.parametrize(("split", "seen"), [("train", False), ("all", True)])
def test_a_score_on_the_runs_own_data_says_whether_they_were_seen(
    tmp_path: Path, kind: str, split: str, seen: bool
) -> None:
    paths = probe_run(run_of_kind(kind, tmp_path, split), [kind], settings=FAST.get(kind), baselines=False)
    assert paths
    for path in paths:
        result = support.read_json(path)
        assert result["seen"] is seen
        assert ("seen in training" in result["notes"].get("warning", "")) is seen


def test_recordings_of_items_that_were_trained_on_say_so(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", np.random.default_rng(0).normal(size=(60, 5)))
    run = run_of_kind("rsa", tmp_path, "train")
    (path,) = probe_run(run, ["rsa"], settings={"rsa.responses": str(tmp_path / "r.npy")}, baselines=False)
    assert support.read_json(path)["seen"] is True


def test_the_part_that_training_left_out_is_scored_and_nothing_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=support.noise_pictures(60, 16), y=np.arange(60) % 2)
    cfg = arrays.Config(str(tmp_path / "a.npz"), split="train", held_out=0.3)
    sets = open_sets(load_run(support.untrained_run(tmp_path / "run", cfg, Signal(3, (16, 16)))), None, None)
    assert sets.test is not None
    fit, scored = ({part.name(i) for i in range(len(part))} for part in (sets.train, sets.test))
    assert fit == {part.name(i) for part in [cfg.open()] for i in range(len(part))}
    assert not fit & scored
    assert len(fit | scored) == 60


def test_naming_the_runs_own_data_changes_nothing(tmp_path: Path) -> None:
    support.write_table(tmp_path / "a.csv", 600)
    cfg = series.Config(path=str(tmp_path / "a.csv"), split="train", window=16, stride=4, held_out=0.3)
    loaded = load_run(support.halves_run(tmp_path / "run", cfg))
    given, own = (open_sets(loaded, path, None) for path in (str(tmp_path / "a.csv"), None))
    assert (given.seen, own.seen) == (False, False)
    assert given.test is not None
    assert own.test is not None
    assert given.test.fingerprint() == own.test.fingerprint()
    assert open_sets(loaded, None, str(tmp_path / "a.csv")).seen


def test_the_table_says_that_the_samples_were_seen(tmp_path: Path) -> None:
    paths = probe_run(run_of_kind("knn", tmp_path, "all"), ["knn"])
    assert "12 (seen in training)" in text.describe_probes(paths)


def test_too_little_data_to_hold_any_out_is_said_with_the_remedy(tmp_path: Path) -> None:
    support.write_table(tmp_path / "a.csv", 60)
    cfg = series.Config(path=str(tmp_path / "a.csv"), split="train", window=16, stride=4)
    with pytest.raises(ValueError, match=r"so no window of 16 fits.*or give data to score on as --test PATH"):
        open_sets(load_run(support.halves_run(tmp_path / "run", cfg)), None, None)
