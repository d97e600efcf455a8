"""Parts of series share no step, statistics see the training part alone, and padding reaches neither."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import two_kinds, write_table

from jepakit import data
from jepakit.data.series.settings import Config


def steps(series):
    """Which (series, step) the samples cover."""
    found = set()
    for i in range(len(series)):
        name, begin, end = series.span(i)
        found |= {(name, t) for t in range(begin, end)}
    return found


@pytest.mark.parametrize(("window", "stride", "gap"), [(10, 1, 0), (10, 3, 0), (10, 1, 7), (25, 5, 0)])
def test_no_step_is_in_both_parts_and_the_gap_in_neither(tmp_path, window, stride, gap):
    write_table(tmp_path / "a.csv", 200)
    both = Config(str(tmp_path / "a.csv"), window=window, stride=stride, held_out=0.25, gap=gap)
    train, test = (steps(replace(both, split=part).open()) for part in ("train", "test"))
    assert len(train) > 100
    assert len(test) > 20
    assert max(t for _, t in train) < 150
    assert min(t for _, t in test) == 150 + gap


def test_series_of_other_times_are_cut_at_one_moment(tmp_path):
    write_table(tmp_path / "a.csv", 100, start="2024-01-01T00:00")
    write_table(tmp_path / "b.csv", 100, start="2024-01-02T00:00")
    both = Config(str(tmp_path), window=5, stride=1, held_out=0.2)
    train, test = (replace(both, split=part).open() for part in ("train", "test"))
    last = max(train.times(i)[-1] for i in range(len(train)))
    assert last < min(test.times(i)[0] for i in range(len(test)))
    assert {name for name, _ in steps(train)} == {"a.csv", "b.csv"}


def test_by_entity_no_series_is_in_both_parts(tmp_path):
    x, y = two_kinds(40)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    both = Config(str(tmp_path / "a.npz"), held_out=0.25)
    train, test = (replace(both, split=part).open() for part in ("train", "test"))
    names = [{part.span(i)[0] for i in range(len(part))} for part in (train, test)]
    assert not names[0] & names[1]
    assert [len(part) for part in names] == [30, 10]
    windows = replace(both, window=6, stride=6, by="entity")
    train, test = (steps(replace(windows, split=part).open()) for part in ("train", "test"))
    assert not {name for name, _ in train} & {name for name, _ in test}


def test_what_is_held_out_changes_no_bit_of_the_training_part(tmp_path):
    values = write_table(tmp_path / "a.csv", 200)
    cfg = Config(str(tmp_path / "a.csv"), window=10, stride=5, split="train", held_out=0.25)
    before = cfg.open()
    lines = (tmp_path / "a.csv").read_text().splitlines()
    lines[151:] = [line.split(",")[0] + ",1e6,-1e6" for line in lines[151:]]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    after = cfg.open()
    assert before.signal() == after.signal()
    assert len(before) == len(after)
    assert all(torch.equal(before.raw(i), after.raw(i)) for i in range(len(before)))
    signal = after.signal()
    np.testing.assert_allclose(signal.mean, values[:, :150].mean(1), atol=1e-5)
    np.testing.assert_allclose(signal.std, values[:, :150].std(1), atol=1e-5)


def test_a_step_counts_once_however_many_windows_cover_it(tmp_path):
    write_table(tmp_path / "a.csv", 120)
    wide, tight = (Config(str(tmp_path / "a.csv"), window=20, stride=stride) for stride in (20, 1))
    assert wide.open().signal().mean == tight.open().signal().mean


def test_filled_values_and_padding_reach_no_statistic(tmp_path):
    x = np.array([[1.0, 3, np.nan, 5, np.nan, np.nan], [2.0, 2, 4, 4, 6, 6]])
    np.save(tmp_path / "a.npy", x)
    cfg = Config(str(tmp_path / "a.npy"), layout="NT")
    series = cfg.open()
    there = np.array([1, 3, 5, 2, 2, 4, 4, 6, 6])
    assert series.has_padding
    assert series.signal().mean == pytest.approx((there.mean(),))
    assert series.signal().std == pytest.approx((there.std(),))


def test_a_missing_value_takes_the_last_one_and_never_a_later_one(tmp_path):
    text = "time,v\n1,5\n2,\n3,7\n4,\n5,\n6,9\n"
    (tmp_path / "a.csv").write_text(text)
    assert Config(str(tmp_path / "a.csv"), window=6).open().raw(0).tolist() == [[5, 5, 7, 7, 7, 9]]
    (tmp_path / "a.csv").write_text(text.replace("6,9", "6,-9"))
    assert Config(str(tmp_path / "a.csv"), window=6).open().raw(0).tolist() == [[5, 5, 7, 7, 7, -9]]


def test_the_panel_is_of_the_test_part_and_probes_hold_windows_out_by_time(tmp_path):
    write_table(tmp_path / "a.csv", 200)
    cfg = Config(str(tmp_path / "a.csv"), window=10, stride=5)
    assert cfg.training_part().split == "train"
    assert replace(cfg, window=0).training_part().split == "all"
    assert data.load("images")().training_part().split == "all"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"window": 300},
            r"a\.csv has 200 steps, fewer than the window of 300; give longer .* data\.window=100 or less",
        ),
        (
            {"window": 60, "split": "test"},
            r"test part of a\.csv holds 20 steps.*no window of 60 fits; .* another data\.held_out",
        ),
        ({"window": 10, "by": "entity", "split": "test"}, r"only one series \(a\.csv\).*data\.by=time"),
        ({"window": 0, "by": "time", "split": "test"}, r"whole series cannot be divided in time"),
        ({"window": 1}, r"window is 1, a sample of a single step"),
        ({"stride": 0}, r"stride is 0; give a number of steps, 1 or more"),
    ],
)
def test_a_cut_that_leaves_nothing_says_what_to_do(tmp_path, settings, said):
    write_table(tmp_path / "a.csv", 200)
    with pytest.raises(ValueError, match=said):
        Config(str(tmp_path / "a.csv"), **settings).open()


def test_the_auto_window_fits_both_parts_and_makes_many_samples(tmp_path):
    for rows in (100, 400, 5000):
        write_table(tmp_path / "a.csv", rows)
        cfg = Config(str(tmp_path / "a.csv"))
        for part in ("train", "test"):
            assert len(replace(cfg, split=part).open())
        assert len(cfg.open()) >= min(rows - 16, 190)
