"""Collected episodes: complete files, the same however they are made, continued and never mixed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import untrained_run, world_run

import jepakit as jk
from jepakit.data import trajectories
from jepakit.inference import collect as collecting
from jepakit.types import Signal

QUICK: dict[str, Any] = {"cem.samples": 6, "cem.iterations": 2, "cem.elites": 2}
CHOICES: dict[str, Any] = {"planner": "discrete", "horizon": 2}


@pytest.fixture(scope="module")
def pole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of cart-pole that was not trained."""
    data = trajectories.Config("cartpole", count=20, window=3)
    return world_run(tmp_path_factory.mktemp("runs") / "pole", data)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of small Two Rooms, each action for two steps, that was not trained."""
    data = trajectories.Config("two-rooms-fixed", count=20, window=3, size=(9, 9), action_repeat=2)
    return world_run(tmp_path_factory.mktemp("runs") / "rooms", data)


def contents(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of every episode, by file."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            found[path.name] = {key: file[key] for key in file.files}
    return found


def same(a: dict[str, dict[str, np.ndarray]], b: dict[str, dict[str, np.ndarray]]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].keys() == b[name].keys() and all(np.array_equal(v, b[name][k]) for k, v in a[name].items())
        for name in a
    )


def test_an_episode_has_minaris_arrays_and_one_observation_more_than_actions(tmp_path: Path) -> None:
    folder = jk.collect("two-rooms-random", tmp_path / "a", 2, steps=6, settings={"env.size": 17})
    episode = contents(folder)["episode-000001.npz"]
    assert episode["observations"].shape == (7, 17, 17, 2)
    assert episode["observations"].dtype == np.uint8
    assert episode["actions"].shape == (6, 2)
    assert (np.linalg.norm(episode["actions"], axis=1) <= episode["action_max_norm"] + 1e-5).all()
    assert episode["truncations"].tolist() == [False] * 5 + [True]
    assert episode["factors.position"].shape == (7, 2)
    about = json.loads((folder / "collection.json").read_text())
    assert (about["policy"], about["seed"], about["settings"]) == ("random", 0, {"size": 17})


def test_an_interrupted_collection_continues_with_the_same_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(jk.collect("two-rooms-fixed", tmp_path / "whole", 7, steps=4))
    monkeypatch.setattr(collecting, "CHUNK", 2)
    jk.collect("two-rooms-fixed", tmp_path / "parts", 3, steps=4)
    (tmp_path / "parts" / "episode-000001.npz").unlink()
    assert same(contents(jk.collect("two-rooms-fixed", tmp_path / "parts", 7, steps=4)), whole)


@pytest.mark.slow
def test_two_processes_write_the_same_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "CHUNK", 2)
    one, two = (jk.collect("two-rooms-fixed", tmp_path / str(n), 4, steps=3, workers=n) for n in (1, 2))
    assert same(contents(one), contents(two))


def test_a_minari_file_has_the_same_values_and_says_what_actions_are(tmp_path: Path) -> None:
    import h5py

    npz = contents(jk.collect("two-rooms-fixed", tmp_path / "npz", 3, steps=4))
    folder = jk.collect("two-rooms-fixed", tmp_path / "minari", 2, steps=4, format="minari")
    jk.collect("two-rooms-fixed", tmp_path / "minari", 3, steps=4, format="minari")
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        assert sorted(file) == ["episode_0", "episode_1", "episode_2"]
        assert np.array_equal(file["episode_2/observations"], npz["episode-000002.npz"]["observations"])
        assert file.attrs["total_steps"] == 12
        assert json.loads(file.attrs["action_space"])["shape"] == [2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 1}, "holds episodes with seed 0, not 1"),
        ({"steps": 5}, "holds episodes with steps 4, not 5"),
        ({"settings": {"env.size": 17}}, "holds episodes with settings"),
    ],
)
def test_a_folder_of_other_episodes_is_never_mixed(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    jk.collect("two-rooms-fixed", tmp_path / "a", 1, steps=4)
    with pytest.raises(ValueError, match=sentence):
        jk.collect("two-rooms-fixed", tmp_path / "a", 2, **{"steps": 4, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (("two-roms", 1, {}), "two-rooms"),
        (("two-rooms-fixed", 0, {}), "episodes is 0 and workers 1; give 1 or more"),
        (("two-rooms-fixed", 1, {"policy": "expert"}), "has no policy 'expert'; choose one of: random"),
        (("two-rooms-fixed", 1, {"settings": {"data.size": 3}}), "write settings of two-rooms-fixed as --env.KEY"),
        (("two-rooms-fixed", 1, {"settings": {"env.sise": 3}}), "env.*sise"),
        (("two-rooms-fixed", 1, {"settings": {"env.size": "wide"}}), "env.size"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, call: tuple[str, int, dict[str, object]], sentence: str
) -> None:
    name, episodes, options = call
    with pytest.raises(ValueError, match=sentence):
        jk.collect(name, tmp_path / "a", episodes, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files and no collection"):
        jk.collect("two-rooms-fixed", tmp_path, 1, steps=4)


# --- a run as the policy


def test_a_run_collects_by_planning_and_its_weights_and_search_stand_inside(pole: Path, tmp_path: Path) -> None:
    folder = jk.collect(
        "cartpole", tmp_path / "a", 2, policy=pole, steps=40, planning={**CHOICES, "noise": 0.1}, seed=3
    )
    episodes = contents(folder)
    for episode in episodes.values():
        steps = len(episode["actions"])
        assert episode["observations"].shape == (steps + 1, 4)
        assert episode["terminations"].tolist() == [False] * (steps - 1) + [steps < 40]
        assert episode["truncations"][-1] == (steps == 40)
        assert episode["rewards"].tolist() == [1.0] * steps
    about = json.loads((folder / "collection.json").read_text())
    assert (about["policy"], about["seed"]) == ("pole", 3)
    planning = about["planning"]
    assert (planning["step"], planning["horizon"], planning["noise"]) == (0, 2, 0.1)
    assert planning["planner"].startswith("discrete (samples 64")
    assert len(planning["weights"]["world model"]) == 32
    starts = contents(jk.collect("cartpole", tmp_path / "b", 2, steps=1, seed=3))
    assert all(np.array_equal(episodes[k]["observations"][0], starts[k]["observations"][0]) for k in starts)


def test_planned_episodes_are_the_same_however_a_collection_is_interrupted(
    pole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PLANNED_CHUNK", 2)
    options: dict[str, Any] = {"policy": str(pole), "steps": 4, "planning": {**CHOICES, "noise": 0.5}}
    whole = contents(jk.collect("cartpole", tmp_path / "whole", 5, **options))
    jk.collect("cartpole", tmp_path / "parts", 3, **options)
    (tmp_path / "parts" / "episode-000001.npz").unlink()
    assert same(contents(jk.collect("cartpole", tmp_path / "parts", 5, **options)), whole)
    assert len({episode["actions"].tobytes() for episode in whole.values()}) > 1


@pytest.mark.slow
def test_two_processes_plan_the_same_episodes(pole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "PLANNED_CHUNK", 2)
    options: dict[str, Any] = {"policy": pole, "steps": 8, "planning": CHOICES}
    one, two = (jk.collect("cartpole", tmp_path / str(n), 4, workers=n, **options) for n in (1, 2))
    assert same(contents(one), contents(two))


def test_a_run_goes_to_goals_in_pictures_of_its_size_and_holds_its_actions(rooms: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"policy": rooms, "steps": 6, "settings": QUICK}
    found = {
        noise: contents(jk.collect("two-rooms-fixed", tmp_path / str(noise), 2, planning={"noise": noise}, **options))
        for noise in (0.0, 1.0)
    }
    assert json.loads((tmp_path / "0.0" / "collection.json").read_text())["settings"] == {"size": 9}
    for episode in (*found[0.0].values(), *found[1.0].values()):
        assert episode["observations"].shape == (7, 9, 9, 2)
        assert np.array_equal(episode["actions"][::2], episode["actions"][1::2])
        assert (np.linalg.norm(episode["actions"], axis=1) <= episode["action_max_norm"] * (1 + 1e-5)).all()
    one, other = (found[noise]["episode-000000.npz"] for noise in (0.0, 1.0))
    assert np.array_equal(one["observations"][0], other["observations"][0])
    assert not np.array_equal(one["actions"][0], other["actions"][0])


@pytest.mark.parametrize(
    ("environment", "options", "sentence"),
    [
        ("pendulum", {"planning": CHOICES}, "pendulum shows frames of 3 channels, but the model was trained on 4"),
        ("cartpole", {}, "the planner cem moves numbers, and an action here is one of 2 choices; use discrete or beam"),
        ("cartpole", {"planning": {**CHOICES, "replan_every": 3}}, "replan_every is 3 and the horizon 2"),
        ("cartpole", {"planning": {**CHOICES, "noise": 1.5}}, "the share of random actions is 1.5; give 0 to 1"),
        ("cartpole", {"planning": {"noises": 1}}, "noise"),
        ("cartpole", {"planning": CHOICES, "settings": {"cem.samples": 3}}, "cem is not the planner discrete"),
        ("cartpole", {"planning": {**CHOICES, "source": "metric"}}, "the energy metric needs a goal"),
        ("cartpole", {"planning": CHOICES, "hold": 2}, "a run holds its actions as in its data; leave it out"),
        ("cartpole", {"policy": "random", "planning": CHOICES}, "random does not plan; leave out planner, horizon, or"),
        ("cartpole", {"policy": "nowhere"}, "choose one of: random, scripted, or give the folder of a run"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_before_anything_is_written(
    pole: Path, tmp_path: Path, environment: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        jk.collect(environment, tmp_path / "a", 1, **{"policy": pole, "steps": 2, **options})
    assert not (tmp_path / "a").exists()


def test_a_run_without_actions_is_no_policy(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", jk.data.load("images")(), Signal(3, (16, 16)))
    with pytest.raises(ValueError, match="ijepa without actions, so it cannot plan"):
        jk.collect("cartpole", tmp_path / "a", 1, policy=run)
    assert not (tmp_path / "a").exists()
