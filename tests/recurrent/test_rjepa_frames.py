"""R-JEPA above the encoder of another run: `--init` brings its weights, its statistics and the size of its pictures."""

from pathlib import Path

import numpy as np
import pytest
import support
import torch
from torch.testing import assert_close

from jepakit import api, methods
from jepakit.methods import rjepa
from jepakit.nn import ResNet, vit
from jepakit.nn.frames import Frames
from jepakit.recurrent.circuit import Circuit
from jepakit.run.checkpoint import load_run
from jepakit.types import Signal

QUIET = {"evals.kinds": "[]", "evals.report": False, "loop.workers": 0, "loop.device": "cpu", "loop.amp": False}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    path = tmp_path / "pictures.npz"
    np.savez(path, x=support.noise_pictures(24))
    return path


@pytest.fixture
def below(pictures: Path, tmp_path: Path) -> Path:
    narrow = {"method.encoder.width": 16, "method.encoder.depth": 1, "method.encoder.heads": 2, "length.batch": 8}
    small = {"method.predictor.width": 8, "method.predictor.depth": 1, "method.predictor.heads": 2}
    api.train(pictures, tmp_path / "below", recipe="ijepa", steps=2, settings=QUIET | narrow | small)
    return tmp_path / "below"


def above(pictures: Path, out: Path, **options: object) -> Path:
    settings = QUIET | {"data.count": 4, "data.steps": 4, "length.batch": 8, "method.circuit.width": 8}
    api.train(pictures, out, recipe="gaze-rjepa", steps=2, settings=settings, **options)  # type: ignore[arg-type]
    return out


def test_a_run_lends_its_encoder_its_statistics_and_its_size(pictures: Path, below: Path, tmp_path: Path) -> None:
    run = load_run(above(pictures, tmp_path / "above", init=below)).method
    lender = load_run(below).method
    assert isinstance(run, rjepa.RJEPA)
    assert run.signal.size == (4, 32, 32)
    x = torch.rand(2, 3, 4, 32, 32)
    tokens = run.encoder(run.normalize(x))
    for t in range(4):
        assert_close(tokens[:, t], lender.encode(x[:, :, t]).mean(1))
    assert not any(p.requires_grad for p in run.encoder.parameters()) or run.below == "frozen"
    # What is standardised are the features of that encoder.
    assert not torch.equal(run.circuits.std, torch.ones_like(run.circuits.std))


def test_a_run_of_its_own_method_lends_everything(pictures: Path, below: Path, tmp_path: Path) -> None:
    first = above(pictures, tmp_path / "first", init=below)
    assert load_run(first).run.method.encoder.encoder.width == 16  # type: ignore[attr-defined]
    api.train(out=tmp_path / "again", recipe=str(first / "config.yaml"), steps=1, init=first)
    again = load_run(tmp_path / "again").method
    assert_close(again.circuits.mean, load_run(first).method.circuits.mean)  # type: ignore[union-attr]


def test_a_size_that_the_encoder_does_not_take_is_named(pictures: Path, below: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"do not fit|not divide|patch"):
        api.train(
            pictures,
            tmp_path / "no",
            recipe="gaze-rjepa",
            steps=2,
            init=below,
            settings=QUIET | {"data.size": [30, 30], "data.count": 4, "length.batch": 8},
        )
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("pool", [True, False])
def test_frames_are_seen_one_by_one(pool: bool) -> None:
    signal = Signal(3, (4, 16, 16))
    cfg = rjepa.Config(Frames(ResNet(width=4, blocks=(1, 1)), pool), Circuit(width=6), below="frozen")
    method = methods.build(cfg, signal).eval()
    x = torch.rand(2, 3, 4, 16, 16)
    tokens = method.encoder(x).reshape(2, 4, -1, 8)  # type: ignore[operator]
    alone = method.encoder.inner(x[:, :, 2])  # type: ignore[union-attr, operator]
    assert_close(tokens[:, 2], alone.mean(1, keepdim=True) if pool else alone)
    assert method.encode(x).shape == (2, 4 if pool else 4 * 64, 6)


def test_pictures_have_no_frames() -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="only videos and scanpaths have frames"):
        Frames(replace(vit("tiny"), patch=(8, 8))).build(Signal(3, (16, 16)))
