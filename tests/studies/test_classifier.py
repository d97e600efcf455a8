"""The independent classifier that judges completed pictures."""

import numpy as np
import torch

from jepakit.studies.bijepa import classifier
from jepakit.types import Rng


def test_the_judge_tells_what_it_was_shown_and_draws_from_its_rng_alone() -> None:
    draw = np.random.default_rng(0)
    y = torch.arange(160) % 2
    x = torch.from_numpy(draw.uniform(0, 0.4, (160, 1, 12, 8))).float()
    x[y == 1, :, :6] += 0.6
    before = torch.get_rng_state()
    judge = classifier.train_classifier(x[:120], y[:120], Rng(0), epochs=6.0, batch=24)
    assert torch.equal(torch.get_rng_state(), before)
    assert float((judge(x[120:]) == y[120:]).float().mean()) > 0.95
    again = classifier.train_classifier(x[:120], y[:120], Rng(0), epochs=6.0, batch=24)
    noise = torch.from_numpy(draw.uniform(0, 1, (64, 1, 12, 8))).float()
    assert torch.equal(judge(noise), again(noise))


def test_every_picture_is_drawn_once_in_an_epoch() -> None:
    rows = list(classifier.batch_rows(10, 5, 4, Rng(0)))
    assert sorted(torch.cat(rows[:2]).tolist()) == sorted(torch.cat(rows[2:]).tolist()) == list(range(10))
    assert not torch.equal(rows[0], rows[2])
