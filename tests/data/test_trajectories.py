"""Trajectories: windows never cross two episodes, actions lead from frame to frame, whole episodes are held out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jepakit import data
from jepakit.data import loader
from jepakit.data.check import check_path
from jepakit.data.trajectories import Config, blocks
from jepakit.data.trajectories.keys import Request
from jepakit.data.trajectories.record import ActionFacts, Episode, Logs, array_column
from jepakit.data.trajectories.settings import build_trajectories
from jepakit.data.trajectories.store import build_store
from jepakit.testing import data_contract
from jepakit.types import Batch


def summed_episode(number: int, steps: int, hold: int = 1) -> dict[str, np.ndarray]:
    """An episode whose frame is (its number, the sum of the past actions), so that a sample shows where it is from."""
    draws = np.random.default_rng(number).integers(-8, 9, (-(-steps // hold), 2)).astype(np.float64) / 8
    actions = np.repeat(draws, hold, axis=0)[:steps]
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(actions, axis=0)])
    return {
        "observations": np.concatenate([np.full((steps + 1, 1), number), sums], axis=1),
        "actions": actions,
        "rewards": actions.sum(1),
        "terminations": np.arange(steps) == steps - 1,
        "factors.sum": sums,
    }


def write_episodes(folder: Path, lengths: list[int], hold: int = 1, **changes: np.ndarray) -> Path:
    """A folder of .npz files, an episode each."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, steps in enumerate(lengths):
        np.savez(folder / f"ep_{k}.npz", **(summed_episode(k, steps, hold) | changes))
    return folder


def summed_logs(lengths: list[int], hold: int = 1) -> Logs:
    """The same episodes in memory."""
    episodes = []
    for k, steps in enumerate(lengths):
        columns = {key: array_column(values) for key, values in summed_episode(k, steps, hold).items()}
        episodes.append(
            Episode(
                f"ep_{k}",
                {"observations": columns["observations"]},
                columns["actions"],
                columns["rewards"],
                columns["terminations"],
                {"sum": columns["factors.sum"]},
            )
        )
    return Logs(episodes, ActionFacts((-1.0,), (1.0,)))


def all_samples(cfg: Config, dataset: data.Dataset | None = None) -> Batch:
    """Every sample of the data, in order."""
    dataset = dataset or cfg.open()
    return dataset.read(np.arange(len(dataset)), dataset.native).batch()


# --- windows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    window=st.integers(2, 6),
    repeat=st.integers(1, 3),
    block=st.integers(1, 3),
    stack=st.integers(1, 3),
    stride=st.integers(1, 7),
)
def test_a_window_lies_in_one_episode_and_its_actions_lead_from_frame_to_frame(
    lengths, window, repeat, block, stack, stride
):
    cfg = Config("x", window, stride * repeat, repeat, block, stack)
    store = build_store(summed_logs(lengths, repeat), Request())
    need = (window + stack - 2) * repeat * block
    if max(lengths) < need:
        with pytest.raises(ValueError, match="too short for a window"):
            build_trajectories(store, cfg)
        return
    dataset = build_trajectories(store, cfg)
    batch = all_samples(cfg, dataset)
    assert batch.x.shape[1:] == (3 * stack, window)
    frames = batch.x.unflatten(1, (stack, 3)).double()
    # One episode number in all frames of a window.
    assert (frames[:, :, 0] == frames[:, :1, 0, :1]).all()
    # A later frame of a stack is the earlier frame of the next stack: the oldest come first.
    if stack > 1:
        torch.testing.assert_close(frames[:, 1:, :, :-1], frames[:, :-1, :, 1:])
    # The change from frame to frame is the sum of the joined actions, each held for `repeat` steps.
    change = frames[:, -1, 1:].diff(dim=-1).transpose(1, 2)
    joined = batch.action.double().unflatten(2, (block, 2)).sum(2) * repeat
    torch.testing.assert_close(change, joined)
    torch.testing.assert_close(batch.reward.double(), joined.sum(2))


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), window=st.integers(2, 5), stride=st.integers(1, 9))
def test_every_long_episode_has_a_window_that_ends_where_it_ends(lengths, window, stride):
    store = build_store(summed_logs(lengths), Request())
    if max(lengths) < window - 1:
        return
    dataset = build_trajectories(store, Config("x", window, stride))
    ends = {(int(k), dataset.step_span(i)[1]) for i, k in enumerate(dataset.cut.episode)}
    assert {(k, n + 1) for k, n in enumerate(lengths) if n >= window - 1} <= ends
    batch = all_samples(Config("x", window, stride), dataset)
    assert int(batch.done[:, -1].sum()) == sum(n >= window - 1 for n in lengths)
    assert not batch.done[:, :-1].any()


def test_factors_are_the_true_quantities_at_the_frames_of_the_sample(tmp_path):
    dataset = Config(str(write_episodes(tmp_path, [30, 25])), window=4, action_block=3, stack=2).open()
    assert dataset.factor_names == ("sum 0", "sum 1")
    for i in (0, len(dataset) - 1):
        x = dataset.read(np.array([i]), dataset.native).x[0]
        np.testing.assert_allclose(dataset.factors(i), x[-2:].T)
        np.testing.assert_array_equal(dataset.subset(np.array([i])).factors(0), dataset.factors(i))


def test_whole_episodes_are_held_out(tmp_path):
    cfg = Config(str(write_episodes(tmp_path, [20 + k for k in range(12)])), held_out=0.25)
    parts = [replace(cfg, split=split).open() for split in ("train", "test", "all")]
    train, test, whole = ({int(k) for k in all_samples(cfg, part).x[:, 0, 0].tolist()} for part in parts)
    assert not train & test
    assert train | test == whole == set(range(12))
    # The form of an action is the same in both parts, though their ranges differ.
    assert parts[0].signal().action == parts[1].signal().action
    # The statistics are those of the training part alone.
    x = all_samples(cfg, parts[0]).x.double()
    torch.testing.assert_close(torch.tensor(parts[0].signal().mean, dtype=torch.float64), x.mean((0, 2)))


def test_a_repeated_action_that_is_not_held_is_refused(tmp_path):
    folder = write_episodes(tmp_path, [24], hold=3)
    assert len(Config(str(folder), window=3, action_repeat=3).open())
    with pytest.raises(ValueError, match=r"ep_0: the action changes within steps 2 … 3; set data.action_repeat"):
        Config(str(folder), window=3, action_repeat=2).open()
    with pytest.raises(ValueError, match="give a multiple of 3"):
        Config(str(folder), window=3, action_repeat=3, stride=2).open()


def test_an_episode_shorter_than_the_window_is_left_out_and_if_all_are_that_is_an_error(tmp_path):
    folder = str(write_episodes(tmp_path, [7, 30]))
    dataset = Config(folder).open()
    assert set(dataset.cut.episode) == {1}
    assert "1 of 2 episodes are shorter than a window and are left out" in dataset.notes
    with pytest.raises(
        ValueError, match=r"ep_1, the longest of 2 episodes, has 30 actions.*set data.window=31 or less"
    ):
        Config(folder, window=40).open()


# --- actions


def test_whole_numbers_become_one_hot_vectors(tmp_path):
    choices = np.array([0, 2, 1, 1, 2, 0, 2, 2, 1, 0])
    folder = write_episodes(tmp_path, [10, 10], actions=choices, rewards=np.zeros(10))
    batch = all_samples(Config(str(folder), window=11))
    torch.testing.assert_close(batch.action[0], torch.eye(3)[torch.from_numpy(choices)])
    spec = Config(str(folder)).open().action_spec()
    assert (spec.size, spec.discrete) == (3, True)
    with pytest.raises(ValueError, match="cannot be joined into blocks"):
        Config(str(folder), window=3, action_block=2).open()


def test_bounds_are_those_declared_or_the_range_of_all_actions(tmp_path):
    folder = write_episodes(tmp_path, [20, 20, 20])
    actions = np.concatenate([np.load(file)["actions"] for file in folder.iterdir()])
    spec = Config(str(folder)).open().action_spec()
    np.testing.assert_allclose([spec.low, spec.high], [actions.min(0), actions.max(0)])
    declared = write_episodes(tmp_path / "b", [20], action_low=np.array([-2.0, -1]), action_high=np.array([1.0, 2]))
    spec = Config(str(declared), action_block=2, window=3).open().action_spec()
    assert (spec.low, spec.high, spec.parts) == ((-2, -1) * 2, (1, 2) * 2, 2)


def test_a_number_that_never_changes_still_has_bounds(tmp_path):
    actions = np.stack([np.linspace(-1, 1, 20), np.zeros(20)], 1)
    dataset = Config(str(write_episodes(tmp_path, [20], actions=actions))).open()
    assert dataset.action_spec().low[1] < 0 < dataset.action_spec().high[1]
    assert "the number 1 of the action never changes" in dataset.notes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"actions": np.full((20, 2), np.nan)}, r"ep_0: action 0 is \[nan, nan\], one of 20 not finite"),
        (
            {"action_low": -np.full(2, 0.1), "action_high": np.full(2, 0.1)},
            r"ep_0: action \d+ is .* out of the bounds -0.1 … 0.1; store actions as",
        ),
        ({"action_max_norm": np.array(0.2)}, r"ep_0: action \d+ is .* out of the bounds or longer than 0.2; store"),
        ({"actions": np.zeros((21, 2))}, r"ep_0: 21 observations for 21 actions, where 22 are needed; .* add the last"),
        ({"actions": np.zeros((15, 2))}, r"ep_0: 21 observations for 15 actions, where 16 are needed"),
        ({"rewards": np.zeros(19)}, r"ep_0: 19 rewards for 20 actions; give 20"),
        ({"observations": np.full((21, 3), np.inf)}, r"ep_0: the observation of step 0 is not finite"),
        ({"actions": np.full(20, -1)}, r"ep_0: action 0 is -1, one of 20 outside"),
        (
            {"action_low": np.zeros(3), "action_high": np.ones(3)},
            "declared bounds have 3 and 3 numbers for actions of 2",
        ),
        ({"episode_ends": np.array([5, 12])}, "episode_ends of ep_0.npz has 2 entries, up to 12, for 20 actions"),
        ({"episode_ends": np.array([5, 12, 20])}, "has 21 observations for 20 actions in 3 episodes; give 23"),
        ({"actions": np.array([{}] * 20, dtype=object)}, "holds Python objects, which are never unpickled"),
    ],
)
def test_wrong_values_are_refused_with_the_episode_and_the_remedy(tmp_path, changes, sentence):
    folder = write_episodes(tmp_path, [20], **changes)
    with pytest.raises(ValueError, match=sentence) as error:
        Config(str(folder)).open()
    assert "\n" not in str(error.value)


def test_a_missing_array_is_named_with_the_nearest_one(tmp_path):
    np.savez(tmp_path / "a.npz", observations=np.zeros((5, 2)), action=np.zeros((4, 1)))
    with pytest.raises(ValueError, match=r"has no 'actions', it holds observations, action.*Did you mean action"):
        Config(str(tmp_path / "a.npz")).open()


# --- .npz files


def test_flat_arrays_are_divided_at_their_ends(tmp_path):
    lengths = [12, 9, 15]
    parts = [summed_episode(k, n) for k, n in enumerate(lengths)]
    flat = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    np.savez(tmp_path / "ends.npz", episode_ends=np.cumsum(lengths), **flat)
    # The end of the arrays is the end of the last episode, marked or not.
    np.savez(tmp_path / "marks.npz", **flat)
    np.savez(tmp_path / "cut.npz", **(flat | {"terminations": flat["terminations"] & (np.arange(36) < 35)}))
    single = all_samples(Config(str(write_episodes(tmp_path / "single", lengths)), window=5, stride=2))
    for name in ("ends", "marks"):
        batch = all_samples(Config(str(tmp_path / f"{name}.npz"), window=5, stride=2))
        for key in ("x", "action", "reward", "done"):
            torch.testing.assert_close(getattr(batch, key), getattr(single, key))
    assert Config(str(tmp_path / "cut.npz"), window=5).open().source.steps.tolist() == lengths


def test_flat_arrays_with_an_observation_per_action_lose_the_last_action_unless_the_next_is_there(tmp_path):
    lengths = [12, 9]
    parts = [summed_episode(k, n) for k, n in enumerate(lengths)]
    flat = {key: np.concatenate([part[key] for part in parts]) for key in ("actions", "rewards", "terminations")}
    now = np.concatenate([part["observations"][:-1] for part in parts])
    following = np.concatenate([part["observations"][1:] for part in parts])
    np.savez(tmp_path / "a.npz", observations=now, **flat)
    np.savez(tmp_path / "b.npz", observations=now, next_observations=following, **flat)
    lost = Config(str(tmp_path / "a.npz"), window=3).open()
    kept = Config(str(tmp_path / "b.npz"), window=3).open()
    assert lost.source.steps.tolist() == [11, 8]
    assert any("each episode loses its last action" in note for note in lost.notes)
    single = all_samples(Config(str(write_episodes(tmp_path / "single", lengths)), window=3))
    for key in ("x", "action", "reward", "done"):
        torch.testing.assert_close(getattr(all_samples(Config("x"), kept), key), getattr(single, key))


def picture_episode(number: int, steps: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {
        "observations.pixels": rng.integers(0, 256, (steps + 1, 8, 6, 3), dtype=np.uint8),
        "observations.proprio": rng.normal(size=(steps + 1, 4)),
        "actions": rng.uniform(-1, 1, (steps, 2)),
    }


@pytest.fixture
def pictures(tmp_path) -> str:
    """Six episodes of pictures with proprioception."""
    for k in range(6):
        np.savez(tmp_path / f"{k}.npz", **picture_episode(k, 12 + k))
    return str(tmp_path)


def test_pictures_are_x_and_proprioception_stands_beside_them(pictures):
    dataset = Config(pictures, window=4, stack=2).open()
    last = len(dataset) - 1
    batch = dataset.read(np.array([last]), dataset.native).batch()
    begin, _ = dataset.step_span(last)
    whole = picture_episode(5, 17)
    frames = whole["observations.pixels"][begin : begin + 5].transpose(0, 3, 1, 2)
    stacked = np.concatenate([frames[:-1], frames[1:]], axis=1).transpose(1, 0, 2, 3)
    np.testing.assert_array_equal(batch.x[0], stacked)
    np.testing.assert_allclose(batch.proprio[0], whole["observations.proprio"][begin + 1 : begin + 5], rtol=1e-6)
    assert "data.keys = [pixels], data.proprio = proprio" in dataset.notes
    assert dataset.signal().proprio == dataset.subset(np.arange(3)).signal().proprio == 4


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (0, 1, 2, 3)])
def test_pictures_are_the_same_with_their_channels_first_or_last(tmp_path, order):
    whole = picture_episode(3, 20)
    np.savez(tmp_path / "a.npz", observations=whole["observations.pixels"].transpose(order), actions=whole["actions"])
    batch = all_samples(Config(str(tmp_path / "a.npz"), window=21))
    np.testing.assert_array_equal(batch.x[0], whole["observations.pixels"].transpose(3, 0, 1, 2))


def test_frames_in_their_files_give_the_same_samples_as_frames_in_memory(pictures, monkeypatch):
    read = all_samples(Config(pictures))
    monkeypatch.setattr(blocks, "MAX_READ_BYTES", 0)
    mapped = Config(pictures).open()
    assert mapped.source.frames.whole is None
    torch.testing.assert_close(all_samples(Config(pictures), mapped).x, read.x)
    monkeypatch.setattr(blocks, "MAX_MAPS", 0)
    monkeypatch.setattr(blocks, "MAX_MEMORY_BYTES", 0)
    copied = Config(pictures).open()
    assert isinstance(copied.source.frames.whole.base, np.memmap)
    torch.testing.assert_close(all_samples(Config(pictures), copied).x, read.x)


def test_pictures_are_resized_once_and_another_size_is_refused(pictures):
    dataset = Config(pictures, size=(4, 3)).open()
    assert dataset.native == (9, 4, 3)
    assert "pictures are resized from 8 x 6 to 4 x 3 px" in dataset.notes
    with pytest.raises(ValueError, match=r"take[s]? 5 frames of 8 x 6 px; set data.window=5 and data.size=\[8, 6\]"):
        dataset.read(np.array([0]), (5, 8, 6))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"keys": ("pixel",)}, "no observation 'pixel', only pixels, proprio"),
        ({"keys": ("pixels", "proprio")}, "mixes pictures"),
        ({"keys": ("proprio",), "size": (4, 4)}, "are vectors; leave data.size out"),
        ({"proprio": "pixels", "keys": ("proprio",)}, "mixes pictures"),
    ],
)
def test_keys_that_do_not_fit_are_refused(pictures, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Config(pictures, **changes).open()


# --- the kind among the kinds


def test_trajectories_are_recognised_and_arrays_of_pictures_are_not(tmp_path, pictures):
    assert data.guess_kind(pictures)[0] == "trajectories"
    assert data.guess_kind(str(Path(pictures) / "0.npz"))[0] == "trajectories"
    assert data.guess_kind(str(Path(pictures) / "*.npz"))[0] == "trajectories"
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 8, 8), dtype=np.uint8), y=np.arange(3))
    assert data.guess_kind(str(tmp_path / "x.npz"))[0] == "arrays"
    np.savez(tmp_path / "s.npz", x=np.zeros((3, 2, 8)))
    assert data.guess_kind(str(tmp_path / "s.npz"))[0] == "series"


@pytest.mark.parametrize(
    "changes", [{}, {"window": 4, "action_block": 2, "stack": 2}, {"window": 3, "size": (4, 4)}, {"keys": ("proprio",)}]
)
def test_pictures_and_vectors_keep_the_data_contract(pictures, changes):
    data_contract(Config(pictures, **changes))


def test_the_fingerprint_follows_a_pixel_an_action_and_the_form(pictures):
    first = Config(pictures).open().fingerprint()
    assert Config(pictures, window=4).open().fingerprint() != first
    assert Config(pictures, action_block=2, window=5).open().fingerprint() != first
    for key in ("observations.pixels", "actions"):
        changed = picture_episode(2, 14)
        changed[key][3] = changed[key][4]
        np.savez(Path(pictures) / "2.npz", **changed)
        assert Config(pictures).open().fingerprint() != first
        np.savez(Path(pictures) / "2.npz", **picture_episode(2, 14))
    assert Config(pictures).open().fingerprint() == first


def test_other_data_are_read_like_those_of_the_run(pictures, tmp_path):
    cfg = Config(pictures, window=5, size=(4, 4))
    resolved, _ = cfg.resolve(cfg.open(), frozenset(), "a method")
    other = data.read_like(resolved, str(write_episodes(tmp_path / "vectors", [20])))
    assert (other.window, other.keys, other.size) == (5, ("pixels",), (4, 4))
    with pytest.raises(ValueError, match="no observation 'pixels'"):
        other.open()


def test_workers_and_ranks_see_the_same_batches(pictures):
    dataset = Config(pictures).open()
    options = {"seed": 1, "batch": 4, "start": 0, "stop": 5}
    alone = list(loader.batches(dataset, dataset.signal(), **options))
    workers = list(loader.batches(dataset, dataset.signal(), workers=2, **options))
    for one, other in zip(alone, workers, strict=True):
        torch.testing.assert_close(one.x, other.x)
        torch.testing.assert_close(one.action, other.action)


# --- the report


def report_rows(path: Path | str) -> dict[str, str]:
    return dict(check_path(str(path)).rows)


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_check_data_measures_the_lag_between_an_action_and_its_effect(tmp_path, lag):
    for k in range(4):
        whole = summed_episode(k, 80)
        delayed = np.concatenate([np.zeros((lag, 2)), whole["actions"]])[:80]
        x = np.concatenate([np.zeros((1, 2)), np.cumsum(delayed, axis=0)])
        np.savez(tmp_path / f"{k}.npz", observations=x, actions=whole["actions"])
    report = check_path(str(tmp_path))
    assert dict(report.rows)["lag of effects"].startswith(f"{lag} steps")
    assert not report.problems


def test_check_data_measures_the_lag_in_pictures_of_something_that_moves(tmp_path):
    place = np.arange(16)
    for k in range(6):
        whole = summed_episode(k, 60)
        x, y = (7.5 + 1.5 * np.sin(whole["factors.sum"].T / 4))[:, :, None, None]
        near = np.exp(-((place - x) ** 2 + (place[:, None] - y) ** 2) / 4)
        np.savez(tmp_path / f"{k}.npz", observations=(255 * near).astype(np.uint8), actions=whole["actions"])
    assert report_rows(tmp_path)["lag of effects"].startswith("0 steps")


def test_check_data_names_actions_that_come_after_their_effect(tmp_path):
    for k in range(4):
        whole = summed_episode(k, 80)
        shifted = np.concatenate([whole["actions"][1:], whole["actions"][:1]])
        x = np.concatenate([np.zeros((1, 2)), np.cumsum(shifted, axis=0)])
        np.savez(tmp_path / f"{k}.npz", observations=x, actions=whole["actions"])
    report = check_path(str(tmp_path))
    assert [problem.problem for problem in report.problems] == ["alignment"]


def test_check_data_says_what_actions_and_frames_are_like(tmp_path):
    folder = write_episodes(tmp_path, [40, 40], hold=4)
    still = summed_episode(2, 40, 4) | {"observations": np.ones((41, 3))}
    np.savez(folder / "ep_2.npz", **still)
    np.savez(folder / "ep_3.npz", **summed_episode(1, 40, 4))
    report = check_path(str(folder))
    rows = dict(report.rows)
    assert rows["episodes"] == "4"
    assert rows["actions equal to the one before"].endswith("each is held for 4 steps (data.action_repeat)")
    assert rows["episodes that terminate"] == "4 of 4"
    assert {(problem.name, problem.problem) for problem in report.problems} >= {
        ("ep_2", "still"),
        ("ep_3", "duplicate"),
    }


def test_check_data_lists_the_problems_of_every_episode_and_says_that_training_would_read_nothing(tmp_path):
    folder = write_episodes(tmp_path, [20, 20, 20, 20])
    np.savez(folder / "ep_1.npz", **(summed_episode(1, 20) | {"actions": np.zeros((21, 2))}))
    np.savez(folder / "ep_2.npz", **(summed_episode(2, 20) | {"actions": np.full((20, 2), np.nan)}))
    report = check_path(str(folder))
    assert {problem.name for problem in report.problems} >= {"ep_1", "ep_2"}
    assert dict(report.rows)["training would read"].startswith("nothing: ep_1: 21 observations for 21 actions")


# --- trajectories that belong together


def group_config(count: int = 43, **changes: object) -> Config:
    return Config("two-rooms-random", window=3, size=(9, 9), count=count, group=4, **changes)  # type: ignore[arg-type]


def test_trajectories_of_a_group_share_their_walls_and_their_label():
    dataset = group_config(count=40).open()
    walls = np.stack([dataset.factors(i)[0, 2:] for i in range(40)]).reshape(10, 4, 2)
    assert (walls == walls[:, :1]).all()
    assert len(np.unique(walls[:, 0], axis=0)) == 10
    assert [dataset.label(i) for i in range(40)] == [i // 4 for i in range(40)]
    assert dataset.classes[9] == "group 9"


def test_batches_hold_whole_groups_and_every_group_once_an_epoch():
    dataset = group_config().open()
    signal = dataset.signal()
    found = list(loader.batches(dataset, signal, seed=0, batch=8, start=0, stop=5))
    ids = torch.stack([batch.id for batch in found]).reshape(10, 4)
    assert sorted(ids[:, 0].tolist()) == list(range(0, 40, 4)), "the incomplete group of the last three is left out"
    assert (ids == ids[:, :1] + torch.arange(4)).all()
    assert torch.equal(found[0].label, found[0].id // 4)
    halves = [
        list(loader.batches(dataset, signal, seed=0, batch=4, start=0, stop=5, offset=k, total=8)) for k in (0, 4)
    ]
    assert torch.equal(torch.cat([halves[0][2].id, halves[1][2].id]), found[2].id)


def test_no_part_of_the_data_cuts_a_group():
    train, test = (group_config(split=split, held_out=0.3).open() for split in ("train", "test"))
    assert len(train) == 28
    assert len(test) == 15
    assert not set(train.classes) & set(test.classes), "a wall of the test part is no wall of the training part"
    few = train.subset(np.array([0, 5, 6]))
    assert few.group == 1
    assert [few.label(i) for i in range(3)] == [0, 1, 1]


def test_a_limit_keeps_whole_groups():
    dataset = group_config(count=40, limit=19).open()
    assert [dataset.label(i) for i in range(len(dataset))] == [k for k in (0, 3, 6, 9) for _ in range(4)]
    assert dataset.group == 4
    assert len(group_config(limit=3).open()) == 3


def test_a_batch_larger_than_all_whole_groups_is_refused():
    dataset = group_config().open()
    assert dataset.samples_per_epoch == 40
    with pytest.raises(
        ValueError, match="the data hold 40 samples, fewer than one batch of 42; set a batch of at most"
    ):
        loader.batches(dataset, dataset.signal(), seed=0, batch=42, start=0, stop=1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"path": "pendulum", "size": None}, "episodes of pendulum share nothing; leave data.group out"),
        ({"group": 0}, "group is 0; give 1 or more"),
    ],
)
def test_groups_that_cannot_be_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(group_config(), **changes).open()


def test_files_are_not_grouped_by_a_setting(tmp_path):
    with pytest.raises(ValueError, match=r"data\.group is 4, which is for generated trajectories"):
        Config(str(write_episodes(tmp_path / "logs", [5, 6])), window=3, group=4).open()


def test_grouped_trajectories_keep_the_data_contract():
    data_contract(group_config(count=32))
