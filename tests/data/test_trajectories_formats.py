"""Trajectories in Minari's and D4RL's HDF5, in LeRobot v3 folders, and in folders of frames with a table of actions."""

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_trajectories import all_samples, picture_episode, summed_episode

from jepakit import data
from jepakit.data.trajectories import Config, blocks
from jepakit.testing import data_contract

LENGTHS = [14, 20, 17]


def write_minari(folder: Path, episodes: list[dict], space: dict | None = None, **options: object) -> Path:
    """A Minari data set: data/main_data.hdf5, with metadata beside it; `options` are those of h5py for arrays."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for k, episode in enumerate(episodes):
            group = file.create_group(f"episode_{k}")
            for key, values in episode.items():
                group.create_dataset(key.replace(".", "/"), data=values, **options)
    if space:
        about = {"data_format": "hdf5", "action_space": json.dumps(space)}
        (folder / "data" / "metadata.json").write_text(json.dumps(about))
    return folder


def minari_episode(number: int, steps: int) -> dict[str, np.ndarray]:
    found = summed_episode(number, steps)
    found["infos.sum"] = found.pop("factors.sum")
    # What has another number of rows is no quantity of the frames.
    return found | {"truncations": np.zeros(steps, dtype=bool), "infos.calls": np.arange(steps)}


def same_samples(one: Config, other: Config) -> None:
    a, b = all_samples(one), all_samples(other)
    for key in ("x", "action", "reward", "done"):
        torch.testing.assert_close(getattr(a, key), getattr(b, key))


def as_npz(folder: Path) -> Config:
    folder.mkdir()
    for k, steps in enumerate(LENGTHS):
        np.savez(folder / f"episode_{k}.npz", **summed_episode(k, steps))
    return Config(str(folder), window=5)


# --- HDF5


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"chunks": True}])
@pytest.mark.parametrize("mapped", [False, True])
def test_minari_data_give_the_same_samples_as_npz_episodes(tmp_path, monkeypatch, options, mapped):
    if mapped:
        monkeypatch.setattr(blocks, "MAX_READ_BYTES", 0)
    episodes = [minari_episode(k, steps) for k, steps in enumerate(LENGTHS)]
    folder = write_minari(tmp_path / "a", episodes, **options)
    assert data.guess_kind(str(folder)) == ("trajectories", "a Minari folder")
    for path in (folder, folder / "data" / "main_data.hdf5"):
        cfg = Config(str(path), window=5)
        same_samples(cfg, as_npz(tmp_path / f"npz {path.name}"))
        assert cfg.open().factor_names == ("sum 0", "sum 1")


def test_pictures_of_hdf5_are_mapped_where_they_lie_in_one_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "MAX_READ_BYTES", 0)
    episodes = [picture_episode(k, 12) for k in range(3)]
    plain = Config(str(write_minari(tmp_path / "a", episodes))).open()
    packed = Config(str(write_minari(tmp_path / "b", episodes, compression="gzip"))).open()
    assert plain.source.frames.whole is None
    assert packed.source.frames.whole is not None
    torch.testing.assert_close(all_samples(Config("x"), plain).x, all_samples(Config("x"), packed).x)
    data_contract(Config(str(tmp_path / "a")))


def test_declared_spaces_give_bounds_and_choices(tmp_path):
    box = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-2.0, -1.0], "high": [2.0, 1.0]}
    folder = write_minari(tmp_path / "a", [minari_episode(0, 20)], box)
    assert Config(str(folder)).open().action_spec().low == (-2, -1)
    choices = minari_episode(0, 20) | {"actions": np.arange(20) % 3 + 1}
    folder = write_minari(tmp_path / "b", [choices], {"type": "Discrete", "n": 4, "start": 1})
    spec, batch = Config(str(folder)).open().action_spec(), all_samples(Config(str(folder)))
    assert (spec.size, spec.discrete) == (4, True)
    assert batch.action[0, :4].argmax(1).tolist() == [0, 1, 2, 0]
    folder = write_minari(tmp_path / "c", [choices], {"type": "MultiDiscrete", "nvec": [2, 2]})
    with pytest.raises(ValueError, match="of the space MultiDiscrete; only Box"):
        Config(str(folder)).open()


def test_flat_arrays_of_d4rl_are_divided_at_their_terminals_and_timeouts(tmp_path):
    parts = [summed_episode(k, n) for k, n in enumerate(LENGTHS)]
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["observations"] = np.concatenate([part["observations"][:-1] for part in parts])
        file["next_observations"] = np.concatenate([part["observations"][1:] for part in parts])
        file["actions"] = np.concatenate([part["actions"] for part in parts])
        file["rewards"] = np.concatenate([part["rewards"] for part in parts])
        ends = np.concatenate([part["terminations"] for part in parts])
        # The second episode is cut by time.
        cut = np.arange(len(ends)) == LENGTHS[0] + LENGTHS[1] - 1
        file["terminals"], file["timeouts"] = ends & ~cut, cut
    dataset = Config(str(tmp_path / "a.hdf5"), window=5).open()
    assert dataset.source.steps.tolist() == LENGTHS
    batch, single = all_samples(Config("x"), dataset), all_samples(as_npz(tmp_path / "npz"))
    torch.testing.assert_close(batch.x, single.x)
    # An episode that is cut by time has not ended.
    assert int(single.done.sum()) == 3
    assert int(batch.done.sum()) == 2


def test_an_hdf5_cut_short_is_refused_in_one_sentence(tmp_path):
    folder = write_minari(tmp_path, [minari_episode(k, 40) for k in range(3)])
    file = folder / "data" / "main_data.hdf5"
    whole = file.read_bytes()
    for length in (100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="the file is cut short or no HDF5: copy it or write it again") as error:
            Config(str(folder)).open()
        assert "\n" not in str(error.value)


def test_an_hdf5_without_episodes_or_without_actions_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(ValueError, match="holds x but no episodes"):
        Config(str(tmp_path / "a.hdf5")).open()
    episode = minari_episode(0, 20)
    del episode["actions"]
    with pytest.raises(ValueError, match=r"episode_0 of main_data.hdf5 has no 'actions'"):
        Config(str(write_minari(tmp_path / "b", [episode]))).open()


def test_an_off_by_one_is_named_with_its_episode(tmp_path):
    episodes = [minari_episode(k, 20) for k in range(3)]
    episodes[1]["observations"] = episodes[1]["observations"][:-1]
    with pytest.raises(ValueError, match="episode_1: 20 observations for 20 actions, where 21 are needed"):
        Config(str(write_minari(tmp_path, episodes))).open()


def test_without_h5py_the_error_names_the_extra(tmp_path, monkeypatch):
    import sys

    folder = write_minari(tmp_path, [minari_episode(0, 20)])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"needs the package h5py; install it by pip install 'jepakit\[control\]'"):
        Config(str(folder)).open()


# --- LeRobot


def write_lerobot(folder: Path, version: str = "v3.0", video: bool = False, state: bool = True) -> Path:
    """A LeRobot folder: episodes 0 and 1 in one table, 2 in the next; a camera whose files are divided otherwise."""
    features = {
        "action": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "episode_index": {"dtype": "int64", "shape": [1]},
        "frame_index": {"dtype": "int64", "shape": [1]},
    }
    if state:
        features["observation.state"] = {"dtype": "float32", "shape": [3], "names": ["n", "x", "y"]}
    if video:
        features["observation.images.top"] = {"dtype": "video", "shape": [8, 8, 3]}
    (folder / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    (folder / "data" / "chunk-000").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps({"codebase_version": version, "features": features}))
    rows, about = {0: [], 1: []}, []
    for k, steps in enumerate(LENGTHS):
        whole = summed_episode(k, steps)
        # The last action leads to no frame.
        actions = np.concatenate([whole["actions"], whole["actions"][-1:]])
        file = k // 2
        for t in range(steps + 1):
            row = {"action": actions[t].tolist(), "episode_index": k, "frame_index": t, "timestamp": t / 10}
            row |= {"observation.state": whole["observations"][t].tolist()} if state else {}
            row |= {"next.reward": float(actions[t].sum()), "next.done": t >= steps - 1}
            rows[file].append(row)
        # The camera has files of its own: every episode another.
        about.append(
            {"episode_index": k, "length": steps + 1, "data/chunk_index": 0, "data/file_index": file}
            | {"videos/observation.images.top/chunk_index": 0, "videos/observation.images.top/file_index": k}
        )
    for file, found in rows.items():
        # Rows of a table may come in any order.
        pq.write_table(pa.Table.from_pylist(found[::-1]), folder / "data" / "chunk-000" / f"file-{file:03d}.parquet")
    pq.write_table(pa.Table.from_pylist(about), folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    return folder


@pytest.mark.parametrize("video", [False, True])
def test_lerobot_gives_the_states_and_actions_of_each_episode(tmp_path, video):
    folder = write_lerobot(tmp_path / "a", video=video)
    assert data.guess_kind(str(folder)) == ("trajectories", "a LeRobot folder")
    same_samples(Config(str(folder), window=5), as_npz(tmp_path / "npz"))
    dataset = Config(str(folder)).open()
    assert dataset.action_spec().names == ("x", "y")
    assert any("the last action of each episode" in note for note in dataset.notes)
    assert any("images.top are mp4" in note for note in dataset.notes) == video


def test_frames_in_mp4_are_refused_rather_than_read_by_the_numbers_of_the_data(tmp_path):
    both = write_lerobot(tmp_path / "a", video=True)
    with pytest.raises(ValueError, match=r"the camera 'images.top' of a is stored as mp4, which cannot be read yet"):
        Config(str(both), keys=("images.top",)).open()
    with pytest.raises(ValueError, match="stored as mp4"):
        Config(str(write_lerobot(tmp_path / "b", video=True, state=False))).open()


def test_another_version_and_a_missing_table_of_lerobot_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is a LeRobot folder of version v2.1, and only v3 can be read; convert it"):
        Config(str(write_lerobot(tmp_path / "a", "v2.1"))).open()
    folder = write_lerobot(tmp_path / "b")
    (folder / "data" / "chunk-000" / "file-001.parquet").unlink()
    with pytest.raises(ValueError, match="episode 2 of b has 0 frames in data/, but 18 in meta/episodes"):
        Config(str(folder)).open()
    (folder / "data" / "chunk-000" / "file-001.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ValueError, match=r"cannot read .*file-001.parquet.*download it again"):
        Config(str(folder)).open()


def test_pictures_inside_the_tables_of_lerobot_are_read(tmp_path):
    folder = write_lerobot(tmp_path / "a")
    info = json.loads((folder / "meta" / "info.json").read_text())
    info["features"]["observation.image"] = {"dtype": "image", "shape": [6, 8, 3]}
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    for file in (folder / "data" / "chunk-000").iterdir():
        table = pq.read_table(file)
        cells = []
        for k, t in zip(table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True):
            Image.fromarray(np.full((6, 8, 3), 10 * k + t, dtype=np.uint8)).save(tmp_path / "one.png")
            cells.append({"bytes": (tmp_path / "one.png").read_bytes(), "path": f"{k}-{t}.png"})
        pq.write_table(table.append_column("observation.image", pa.array(cells)), file)
    batch = all_samples(Config(str(folder), window=3))
    first = batch.x[:, 0, 0, 0, 0].tolist()
    assert batch.x.shape[1:] == (3, 3, 6, 8)
    assert batch.x[0, 0, :, 0, 0].tolist() == [0, 1, 2]
    assert max(first) == 10 * 2 + LENGTHS[2] - 2


# --- frames with a table of actions


def write_frames(folder: Path, ending: str = ".csv", surplus: bool = False, named: bool = False) -> Path:
    """Folders of frames whose grey level is 10 · episode + number, with tables of two numbers and a reward."""
    for k, steps in enumerate(LENGTHS):
        own = folder / f"run_{k}"
        own.mkdir(parents=True)
        for t in range(steps + 1):
            # Without zeros in front, so that 10 must not come before 2.
            Image.fromarray(np.full((6, 8), 10 * k + t, dtype=np.uint8)).save(own / f"frame_{t}.png")
        whole = summed_episode(k, steps)
        rows = []
        for t in range(steps + surplus):
            one = min(t, steps - 1)
            row = {"vx": whole["actions"][one, 0], "vy": whole["actions"][one, 1], "reward": whole["rewards"][one]}
            row |= {"timestamp": t / 10, "terminated": t == steps - 1} | ({"frame": f"frame_{t}.png"} if named else {})
            rows.append(row)
        if ending == ".csv":
            with open(own / "actions.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        else:
            pq.write_table(pa.Table.from_pylist(rows), own / "actions.parquet")
    return folder


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("surplus", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_folders_of_frames_are_read_with_their_tables(tmp_path, ending, surplus, named):
    folder = write_frames(tmp_path / "a", ending, surplus, named)
    assert data.guess_kind(str(folder)) == ("trajectories", "frames with a table of actions")
    dataset = Config(str(folder), window=5).open()
    batch, vectors = all_samples(Config("x"), dataset), all_samples(as_npz(tmp_path / "npz"))
    for key in ("action", "reward", "done"):
        torch.testing.assert_close(getattr(batch, key), getattr(vectors, key))
    begin = dataset.cut.begin + 10 * dataset.cut.episode
    np.testing.assert_array_equal(batch.x[:, 0, :, 0, 0].numpy(), begin[:, None] + np.arange(5))
    assert dataset.action_spec().names == ("vx", "vy")
    assert any("the last action, which leads to no frame" in note for note in dataset.notes) == surplus


def test_a_folder_of_frames_with_mistakes_is_refused_with_file_and_row(tmp_path):
    folder = write_frames(tmp_path / "a")
    (folder / "run_1" / "frame_20.png").unlink()
    (folder / "run_1" / "frame_19.png").unlink()
    with pytest.raises(ValueError, match="run_1: 19 observations 'pixels' for 20 actions, where 21 are needed"):
        Config(str(folder)).open()
    folder = write_frames(tmp_path / "b")
    lines = (folder / "run_0" / "actions.csv").read_text().splitlines()
    (folder / "run_0" / "actions.csv").write_text(
        "\n".join([*lines[:3], lines[3].replace("0.", "left", 1), *lines[4:]])
    )
    with pytest.raises(ValueError, match=r"column .* in row 3, not a number"):
        Config(str(folder)).open()
    folder = write_frames(tmp_path / "c")
    (folder / "run_2" / "frame_4.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read the frame .*frame_4.png"):
        Config(str(folder)).open()
    folder = write_frames(tmp_path / "d", named=True)
    (folder / "run_0" / "frame_3.png").unlink()
    with pytest.raises(ValueError, match=r"names the frame 'frame_3.png', which is not beside it"):
        Config(str(folder)).open()


def test_frames_keep_the_data_contract(tmp_path):
    data_contract(Config(str(write_frames(tmp_path / "a")), window=4))
    data_contract(Config(str(write_lerobot(tmp_path / "b")), window=4))


# --- folders of folders


def test_rounds_in_one_folder_are_read_together_and_the_first_keeps_what_it_holds_out(tmp_path):
    first, second = ([summed_episode(k, 12) for k in range(begin, begin + 20)] for begin in (0, 20))
    for name, episodes in (("round-1", first), ("round-10", second), ("round-2", second)):
        (tmp_path / "logs" / name).mkdir(parents=True)
        for k, episode in enumerate(episodes):
            np.savez(tmp_path / "logs" / name / f"episode-{k}.npz", **episode)
    (tmp_path / "logs" / "notes").mkdir()
    assert data.guess_kind(str(tmp_path / "logs")) == ("trajectories", "folders, each a folder of episodes in .npz")

    def held_out(path: Path) -> tuple[str, ...]:
        found = Config(str(path), window=5, split="test").open()
        return tuple(found.source.names[k] for k in np.unique(found.cut.episode))

    both = Config(str(tmp_path / "logs"), window=5).open()
    names = both.source.names
    assert (names[0], names[20], names[59]) == ("episode-0", "round-2/episode-0", "round-10/episode-19")
    assert any("notes: no episodes, left out" in note for note in both.notes)
    alone, together = (held_out(tmp_path / "logs" / name) for name in ("round-1", ""))
    assert alone == tuple(name for name in together if "/" not in name)


def test_a_pattern_reads_folders_in_its_order(tmp_path):
    for name in ("planned", "random"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "e.npz", **summed_episode(0, 12))
    found = Config(str(tmp_path / "{random,planned}"), window=5).open()
    assert found.source.names == ("e", "planned/e")
