import dataclasses

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from jepakit.data.images import synthetic
from jepakit.data.images.synthetic import Config, moving_digits


@pytest.mark.parametrize("task", synthetic.TASKS)
def test_a_task_is_the_same_from_the_same_seed_and_another_from_another(task):
    one, same, other = (Config(task, count=40, seed=seed).open() for seed in (0, 0, 1))
    assert one.fingerprint() == same.fingerprint()
    assert np.array_equal(one.data, same.data)
    assert not np.array_equal(one.data, other.data)
    assert {one.label(i) for i in range(40)} <= set(range(len(one.classes)))


@pytest.mark.parametrize("task", synthetic.TASKS)
def test_train_and_test_are_the_two_ends_of_all(task):
    everything, train, test = (Config(task, count=50, split=part).open() for part in ("all", "train", "test"))
    assert np.array_equal(np.concatenate([train.data, test.data]), everything.data)
    assert len(test) == 10


def test_train_and_test_never_share_a_scan():
    u = np.random.default_rng(0).random(3000)
    train, _ = synthetic._digit_scans(u, np.zeros(3000, dtype=bool))
    test, _ = synthetic._digit_scans(u, np.ones(3000, dtype=bool))
    assert not {t.numpy().tobytes() for t in train} & {t.numpy().tobytes() for t in test}


def test_raw_pixels_say_little_about_digits_on_photos_but_something():
    train, test = (Config(count=2500, split=part).open() for part in ("train", "test"))
    x, y = (np.stack([d.data[i].reshape(-1) for i in range(len(d))]) / 255 for d in (train, test))
    knn = KNeighborsClassifier(20, metric="cosine").fit(x, train.labels)
    assert 0.1 < knn.score(y, test.labels) < 0.5


def test_the_digit_stands_out_from_the_photograph():
    cfg = Config(count=200)
    plain = dataclasses.replace(cfg, path="digits").open()
    assert (plain.data.reshape(200, -1).max(1) > 200).all()
    assert plain.data.mean() < 60


def test_a_moving_digit_moves_and_stays_itself():
    clips, labels = moving_digits(20, frames=8, size=(32, 40))
    assert clips.shape == (20, 1, 8, 32, 40)
    assert labels.max() <= 9
    x = torch.from_numpy(clips[:, 0]).float()
    mass = x.sum((2, 3))
    assert (mass.std(1) / mass.mean(1)).max() < 0.05
    column = (x.sum(2) * torch.arange(40)).sum(2) / mass
    assert (column.max(1).values - column.min(1).values).median() > 2


def test_an_unknown_task_names_those_there_are():
    with pytest.raises(ValueError, match=r"set data\.path to one of digits_on_photos, digits, shapes"):
        Config("circles").open()
