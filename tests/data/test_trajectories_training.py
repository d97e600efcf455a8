"""Training on trajectories: generated ones without files, resuming to the bit, and methods that cannot use them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import logged_losses
from test_trajectories import all_samples, picture_episode, write_episodes

import jepakit as jk
from jepakit import data
from jepakit.data import loader
from jepakit.data.check import check_path
from jepakit.data.trajectories import Config, generated
from jepakit.run import own_data
from jepakit.testing import data_contract

ROOMS = Config("two-rooms-random", 5, count=40, action_repeat=2)


def test_an_environment_is_data_without_files():
    assert data.guess_kind("two-rooms-fixed") == ("trajectories", "'two-rooms-fixed' names an environment")
    batch = all_samples(ROOMS)
    assert batch.x.shape == (40, 2, 5, 33, 33)
    assert batch.action.shape == (40, 4, 2)
    assert ROOMS.open().action_spec().max_norm == 2.45


@pytest.mark.parametrize("kept", [0, 2**28])
def test_generated_trajectories_keep_the_data_contract(monkeypatch, kept):
    monkeypatch.setattr(generated, "MAX_KEPT_BYTES", kept)
    few = replace(ROOMS, count=20, size=(9, 9))
    data_contract(few)
    data_contract(replace(few, steps=24, action_block=2, action_repeat=1, stack=2, window=4))


def test_a_trajectory_is_the_same_kept_or_simulated_alone_or_among_a_million(monkeypatch):
    cfg = replace(ROOMS, steps=20, stride=4)
    kept = all_samples(cfg)
    monkeypatch.setattr(generated, "MAX_KEPT_BYTES", 0)
    dataset = cfg.open()
    assert isinstance(dataset.source, generated.SimulatedEpisodes)
    for key in ("x", "action", "reward", "done"):
        torch.testing.assert_close(getattr(all_samples(cfg, dataset), key), getattr(kept, key), rtol=0, atol=0)
    many = replace(cfg, count=1_000_000).open()
    per = len(dataset) // 40
    for k in (0, 39):
        one = many.read(np.array([k * per]), many.native)
        torch.testing.assert_close(one.x[0], kept.x[k * per], rtol=0, atol=0)
        np.testing.assert_array_equal(many.factors(k * per), cfg.open().factors(k * per))


@pytest.mark.parametrize("path", ["cartpole", "pendulum", "pendulum-pixels"])
def test_windows_of_simulated_episodes_are_those_of_kept_ones_up_to_their_ends(monkeypatch, path):
    cfg = Config(path, 4, count=12, action_block=1 + (path != "cartpole"), seed=3)
    kept = cfg.open()
    monkeypatch.setattr(generated, "MAX_KEPT_BYTES", 0)
    simulated = cfg.open()
    assert [simulated.name(i) for i in range(len(simulated))] == [kept.name(i) for i in range(len(kept))]
    one, other = all_samples(cfg, kept), all_samples(cfg, simulated)
    for key in ("x", "action", "reward", "done"):
        torch.testing.assert_close(getattr(one, key), getattr(other, key), rtol=0, atol=0)
    # A pole falls in every episode of random pushes, a pendulum never.
    assert int(one.done[:, -1].sum()) == (12 if path == "cartpole" else 0)
    assert not one.done[:, :-1].any()


def test_the_action_leads_from_the_true_position_to_the_next_where_nothing_is_in_the_way():
    dataset = replace(ROOMS, window=6).open()
    batch = all_samples(ROOMS, dataset)
    places = np.stack([dataset.factors(i)[:, :2] for i in range(len(dataset))])
    moved, wanted = np.diff(places, axis=1), 2 * batch.action.numpy()
    free = np.abs(moved - wanted).max(2) < 1e-4
    assert free.mean() > 0.6
    # Whoever is stopped moves less far, never further.
    assert (np.linalg.norm(moved, axis=2) <= np.linalg.norm(wanted, axis=2) + 1e-3).all()


def test_train_and_test_trajectories_are_different_ones():
    parts = [replace(ROOMS, split=split).open() for split in ("train", "test")]
    train, test = ({part.name(i) for i in range(len(part))} for part in parts)
    assert not train & test
    assert (len(train), len(test)) == (36, 4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policy": "clever"}, "has no policy 'clever'; set data.policy to one of random, uniform"),
        ({"steps": 4}, "data.steps is 4, but a window of 5 frames takes 8 steps"),
        ({"size": (20, 30)}, "environments draw squares"),
        ({"keys": ("pixels",)}, "has a single observation; leave data.keys"),
        ({"path": "two-room"}, "no file or folder 'two-room'"),
    ],
)
def test_settings_that_an_environment_cannot_have_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(ROOMS, **changes).open()


def test_workers_see_the_same_generated_batches(monkeypatch):
    monkeypatch.setattr(generated, "MAX_KEPT_BYTES", 0)
    dataset = ROOMS.open()
    options = {"seed": 1, "batch": 8, "start": 0, "stop": 6}
    alone = list(loader.batches(dataset, dataset.signal(), **options))
    for one, other in zip(alone, loader.batches(dataset, dataset.signal(), workers=2, **options), strict=True):
        torch.testing.assert_close(one.x, other.x, rtol=0, atol=0)


@pytest.fixture
def pictures(tmp_path) -> str:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(6):
        np.savez(folder / f"{k}.npz", **picture_episode(k, 20))
    return str(folder)


ENCODERS = {
    "ijepa": {"method.encoder.width": 16, "method.encoder.depth": 1, "method.encoder.heads": 2},
    "worldmodel": {"method.encoder.width": 16, "method.predictor.hidden": 32, "method.steps": 3},
}
SETTINGS = {
    "data.window": 4,
    "length.batch": 4,
    "loop.log_every": 1,
    "loop.save_every": 4,
    "loop.panel_every": 4,
    "loop.panel_size": 8,
    "loop.device": "cpu",
    "evals.kinds": [],
    "evals.report": False,
}


def train(out: Path, source: str, method: str, patch: list[int], workers: int = 0, **options: Any) -> dict[int, float]:
    """The losses of a training on trajectories."""
    settings = {**SETTINGS, **ENCODERS[method], "method.encoder.patch": patch, "loop.workers": workers}
    jk.train(source, out, recipe=method, settings=settings, quiet=True, **{"steps": 8, **options})
    return logged_losses(out)


@pytest.mark.parametrize("method", ["ijepa", "worldmodel"])
def test_a_training_on_trajectories_resumes_to_the_bit_with_any_number_of_workers(pictures, tmp_path, method):
    whole = train(tmp_path / "a", pictures, method, [1, 4, 3])
    assert len(whole) == 8
    assert train(tmp_path / "b", pictures, method, [1, 4, 3], workers=2) == whole
    # As if the run had been interrupted after step 4.
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "step-00000008")
    jk.train(out=tmp_path / "a", resume=True, quiet=True)
    assert logged_losses(tmp_path / "a") == whole


def test_a_world_model_trains_on_generated_trajectories(tmp_path, monkeypatch):
    monkeypatch.setattr(generated, "MAX_KEPT_BYTES", 0)
    for key, value in (("data.count", 30), ("data.size", [9, 9])):
        monkeypatch.setitem(SETTINGS, key, value)
    options = {"method": "worldmodel", "patch": [1, 9, 9], "steps": 4}
    losses = [train(tmp_path / str(k), "two-rooms-random", workers=k, **options) for k in (0, 2)]
    assert losses[0] == losses[1]


def test_what_a_method_cannot_do_with_trajectories_is_refused_before_step_1(pictures, tmp_path):
    with pytest.raises(ValueError, match="data of this kind are not augmented"):
        jk.train(pictures, tmp_path / "run", recipe="vicreg", steps=2, quiet=True)
    short = write_episodes(tmp_path / "short", [4, 5])
    with pytest.raises(ValueError, match="too short for a window of 9 frames"):
        jk.train(short, tmp_path / "run", steps=2, quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_on_vectors_probes_and_embeds_like_any_other(tmp_path):
    folder = write_episodes(tmp_path / "vectors", [30] * 6)
    jk.train(folder, tmp_path / "run", steps=4, settings={"length.batch": 4, "loop.device": "cpu"}, quiet=True)
    jk.embed(tmp_path / "run", folder, out=tmp_path / "e.npy")
    assert np.isfinite(np.load(tmp_path / "e.npy")).all()


def test_check_data_reports_an_environment():
    rows = dict(check_path("two-rooms-fixed").rows)
    assert rows["episodes"] == "200"
    assert rows["lag of effects"].startswith("0 steps")


@pytest.mark.parametrize("form", ["npz", "minari"])
def test_collected_episodes_are_those_that_the_environment_generates(tmp_path, form):
    jk.collect("two-rooms-random", tmp_path / form, 3, format=form, hold=2, steps=40)
    dataset = Config(str(tmp_path / form), 5, action_repeat=2).open()
    assert set(dataset.factor_names) == {"position 0", "position 1", "wall", "door"}
    spec = dataset.action_spec()
    np.testing.assert_allclose([spec.low, spec.high], [[-2.45] * 2, [2.45] * 2], rtol=1e-6)
    assert spec.max_norm == (pytest.approx(2.45) if form == "npz" else None)


def test_an_environment_is_no_folder_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pendulum").mkdir()
    (tmp_path / "pendulum" / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert own_data.absolute_path(Config(path="pendulum")) == "pendulum"
