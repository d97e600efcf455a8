"""Collected episodes: complete files, the same however they are made, continued and never mixed."""

import json
from pathlib import Path

import numpy as np
import pytest

import jepakit as jk
from jepakit.inference import collect as collecting


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
