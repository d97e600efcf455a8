"""The study `bijepa-mnist`: what is trained is the paper's, and what is measured of it is what its names say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support import write_idx
from torch import nn

from jepakit import api, methods
from jepakit.studies import load
from jepakit.studies.bijepa import bijepa_mnist as study
from jepakit.studies.study import Scores
from jepakit.types import Signal


@pytest.fixture(scope="module")
def strokes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files named like MNIST's: 300 and 60 pictures of a bar, whose height is the label."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for name, count in (("train", 300), ("t10k", 60)):
        label = np.arange(count) % 10
        x = draw.integers(0, 40, (count, 28, 28))
        for i, height in enumerate(label):
            x[i, 2 * height + 3 : 2 * height + 8, 4:24] = 220
        write_idx(folder / "mnist" / f"{name}-images-idx3-ubyte.gz", x.astype(np.uint8))
        write_idx(folder / "mnist" / f"{name}-labels-idx1-ubyte.gz", label.astype(np.uint8))
    return folder


def test_the_trainings_are_the_papers_and_its_controls() -> None:
    arms = {" ".join((arm.name, arm.setting)).strip(): arm.run for arm in study.arms()}
    assert list(arms) == [
        *("classic", "bijepa", "sphere", "unconstrained"),
        *("classic twice the steps", "classic swapped pairs", "classic our settings", "bijepa our settings"),
    ]
    assert {run.seed for run in arms.values()} == {10}
    assert load("bijepa-mnist").seeds == 5
    assert arms["classic twice the steps"].length.steps == 2 * arms["bijepa"].length.steps == 4680
    method = methods.build(arms["bijepa"].method, Signal(1, (28, 28)))
    sizes = [tuple(m.weight.shape) for m in method.encoder.modules() if isinstance(m, nn.Linear | nn.Conv2d)]  # type: ignore[union-attr]
    assert sizes == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 1792), (64, 128)]
    bare = methods.build(arms["unconstrained"].method, Signal(1, (28, 28)))
    assert not [m for m in bare.modules() if "Norm" in type(m).__name__]
    assert arms["unconstrained"].optim.weight_decay == 0


@pytest.mark.slow
def test_a_rehearsal_measures_every_training_and_draws_its_completions(strokes: Path, tmp_path: Path) -> None:
    rows, page = api.reproduce("bijepa-mnist", strokes, tmp_path / "study", seeds=1, steps=2)
    names = {row["metric"] for row in rows}
    assert names == {
        *("linear_accuracy", "decoder_mse", "completion_accuracy"),
        *("accuracy on true digits", "accuracy with a mean half"),
        *("mse", "ssim", "sharpness", "seconds"),
        *study.OF_DIGIT,
    }
    assert len({row["name"] for row in rows}) == 8
    by = {(row["name"], row["metric"]): row for row in rows}
    assert by["MNIST · bijepa", "linear_accuracy"]["paper"] == 0.9188
    assert "Completed digits" in page.read_text()
    kept = next((tmp_path / "study" / "runs").glob("*-bijepa-seed-0")) / "heads" / "measured.json"
    found = json.loads(kept.read_text())
    assert found["decoder_mse"] == by["MNIST · bijepa", "decoder_mse"]["mean"]
    # As many pictures of each digit.
    assert np.mean([found[name] for name in study.OF_DIGIT]) == pytest.approx(found["completion_accuracy"])
    older = {name: value for name, value in found.items() if name not in study.OF_DIGIT}
    kept.write_text(json.dumps({**older, "decoder_mse": -1.0}))
    assert study.measure_run(kept.parent.parent) == found


def test_a_judge_of_true_digits_tells_them(strokes: Path) -> None:
    x, y = study.read_digits(str(strokes / study.TRAIN))
    assert x.shape == (300, 1, 28, 28)
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    assert study.judged_accuracy(lambda pictures: y[: len(pictures)], x, y) == 1.0
    assert study.judged_accuracy(lambda pictures: (y[: len(pictures)] + 1) % 10, x, y) == 0.0


def test_accuracy_by_digit_is_that_of_its_own_pictures() -> None:
    label = torch.arange(20) % 10
    taken = torch.where(torch.arange(20) == 13, 0, torch.where(label == 7, 1, label))
    found = study.accuracy_by_digit(lambda pictures: taken, torch.zeros(20, 1, 28, 28), label)
    assert list(found.values()) == [1, 1, 1, 0.5, 1, 1, 1, 0, 1, 1]
    assert list(found)[3] == "completion_accuracy of 3"


def test_the_bar_is_the_left_half_beside_the_mean_of_right_halves(strokes: Path) -> None:
    x, _ = study.read_digits(str(strokes / study.TEST))
    train, _ = study.read_digits(str(strokes / study.TRAIN))
    found = study.with_mean_half(x, str(strokes / study.TRAIN))
    assert torch.equal(found[..., :14], x[..., :14])
    assert torch.equal(found[0, 0, :, 14:], train.mean((0, 1))[:, 14:])
    assert found.shape == x.shape


def test_the_left_half_is_what_the_linear_classifier_sees() -> None:
    masks = study.left_half()
    assert masks.context.tolist() == [[0]]
    assert masks.targets.tolist() == [[[1]]]


def test_the_sentences_set_bijepa_beside_every_other_training() -> None:
    arms = study.arms()
    bars = ("accuracy on true digits", "accuracy with a mean half")
    metrics = ("linear_accuracy", "completion_accuracy", "decoder_mse", *bars)
    values = {(arm.label, m): [0.5 + 0.1 * k, 0.52 + 0.1 * k] for k, arm in enumerate(arms) for m in metrics}
    values |= {("MNIST · bijepa", name): [0.9 - 0.01 * digit] * 2 for digit, name in enumerate(study.OF_DIGIT)}
    said = study.STUDY.sentences(Scores(values, arms))
    assert len(said) == 3 * (len(arms) - 1 + 3) + 2
    assert "0 90.0 ± 0.0 % > 1 89.0 ± 0.0 %" in said[-2]
    assert said[0] == (
        "MNIST: bijepa has a higher linear_accuracy than classic: holds, 61.0 ± 1.4 % against 51.0 ± 1.4 %, "
        "+10.0 ± 0.0 points over 2 seeds (paper: bijepa 91.9 %, classic 89.1 %)."
    )
    assert said[2].startswith("MNIST: bijepa has a lower decoder_mse than classic: does not hold, ")
    assert said[-5].startswith("MNIST · our settings: bijepa has a higher linear_accuracy than classic: holds")


def test_a_completion_keeps_the_left_half_of_every_digit(strokes: Path) -> None:
    from jepakit.methods import decoder

    signal = Signal(1, (28, 28))
    parent = methods.build(study.arms()[1].run.method, signal)
    made = methods.build(decoder.Config(hidden=(8,)), signal, parents=[parent]).eval()
    x = study.read_digits(str(strokes / study.TEST))[0]
    assert torch.equal(study.complete_digits(made, x)[..., :14], x[..., :14])  # type: ignore[arg-type]
