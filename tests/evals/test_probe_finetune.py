"""Fine-tuning: the encoder learns, at the rates asked for, and the run is left as it was."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch

from jepakit import methods
from jepakit.core.progress import SilentProgress
from jepakit.data.images import arrays, files, synthetic
from jepakit.evals.features import extract_features
from jepakit.evals.kinds import finetune, linear
from jepakit.evals.kinds.finetune import Config
from jepakit.evals.runs import open_sets, probe_run
from jepakit.evals.sources import Subject, live_parts
from jepakit.evals.split import labelled_part
from jepakit.evals.trainable import Live, raw_baseline
from jepakit.methods import ijepa
from jepakit.nn.resnet import ResNet
from jepakit.nn.resnet50 import ResNet50
from jepakit.run.checkpoint import load_run
from jepakit.types import Batch, Signal

SIGNAL = Signal(3, (16, 16))
SHORT = {"finetune.epochs": 2, "finetune.min_steps": 0}
SHAPES = synthetic.Config("shapes", count=100, size=(16, 16))


def bars(path: Path) -> arrays.Config:
    """60 pictures with a bright bar, lying (0) or standing (1), anywhere: the mean colour says nothing."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 60, (60, 16, 16, 3), dtype=np.uint8), np.arange(60) % 2
    for picture, lying, at in zip(x, y == 0, rng.integers(0, 14, 60), strict=True):
        (picture if lying else picture.transpose(1, 0, 2))[at : at + 2] += 190
    np.savez(path, x=x, y=y)
    return arrays.Config(str(path))


def parts(folder: Path, weights: str = "target", data: object = SHAPES) -> dict[str, Live]:
    loaded = load_run(support.untrained_run(folder / "run", data, SIGNAL))
    subject = Subject(loaded, open_sets(loaded, None, None), "cpu", weights)  # type: ignore[arg-type]
    return live_parts(subject, subject.sets.train)


def test_the_raw_baseline_is_the_input_as_the_encoder_sees_it() -> None:
    signal = Signal(3, (16, 16), (0.3, 0.4, 0.5), (0.2, 0.1, 0.2))
    x = torch.rand(2, 3, 16, 16)
    seen = (x - torch.tensor(signal.mean)[:, None, None]) / torch.tensor(signal.std)[:, None, None]
    raw = raw_baseline(methods.build(ijepa.Config.tiny(signal), signal), "cpu")
    torch.testing.assert_close(raw(Batch(x)), seen.flatten(1)[:, None])


def test_a_training_that_is_longer_than_its_epochs_says_so(tmp_path: Path) -> None:
    run, short = support.untrained_run(tmp_path / "run", SHAPES, SIGNAL), {"finetune.lr": [1e-3]}
    short |= {"finetune.layer_decay": [1.0], "finetune.epochs": 1, "finetune.batch": 40}
    for least, said in ((3, True), (0, False)):
        (path,) = probe_run(run, ["finetune"], settings=short | {"finetune.min_steps": least}, baselines=False)
        note = "each training takes 3 steps (finetune.min_steps), as 1 epoch of 81 samples would be 2;"
        assert support.read_json(path)["notes"].get("length", "").startswith(note) is said


def fitted(train: Live, cfg: Config, classes: int = 5) -> finetune.FineTuned:
    rates, start = finetune.Rates(cfg.lr[0], cfg.layer_decay[0]), finetune.linear_probe(train, cfg, classes)
    steps = finetune.fine_tune(train, rates, cfg, start)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def zero_start(dim: int, classes: int = 5) -> linear.Linear:
    return linear.Linear(torch.zeros(dim), torch.ones(dim), torch.zeros(dim, classes), torch.zeros(classes))


def test_only_what_the_tokens_depend_on_is_trained_and_every_part_of_it_moves(tmp_path: Path) -> None:
    train = parts(tmp_path)["value"]
    trained = {name for name, p in train.build().named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith("method.target_encoder.") for name in trained)
    before = dict(train.build().named_parameters())
    after = dict(fitted(train, Config(epochs=3, batch=20, min_steps=0)).encoder.named_parameters())
    for name, p in after.items():
        assert torch.equal(p, before[name]) == (name not in trained), name


def test_the_weights_asked_for_are_the_ones_tuned(tmp_path: Path) -> None:
    module = parts(tmp_path, "context")["value"].build()
    assert all(name.startswith("method.encoder.") for name, p in module.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("encoder", "blocks"), [(ResNet(width=8, blocks=(1, 2, 1), stem=2), 4), (ResNet50(width=4, blocks=(1, 1, 2, 1)), 5)]
)
def test_the_stem_of_a_residual_network_learns_slowest(encoder: Any, blocks: int) -> None:
    signal = Signal(3, (64, 64))
    built = encoder.build(signal)
    built.register_forward_pre_hook(lambda module, args: (args[0].x,))
    model = finetune.FineTuned(built, zero_start(4), "mean")
    scale = {p: g["scale"] for g in finetune.layer_groups(model, 0.5, 0.05) for p in g["params"]}
    in_order = [scale[p] for p in model.encoder.parameters()]
    assert in_order == sorted(in_order)
    assert scale[model.encoder.stem.weight] == 0.5 ** (blocks + 1)
    assert set(in_order) == {0.5**k for k in range(1, blocks + 2)}
    assert scale[model.weight] == 1


def test_each_layer_learns_at_its_own_rate(tmp_path: Path) -> None:
    train = parts(tmp_path)["value"]
    model = finetune.FineTuned(train.build(), zero_start(32), "mean")
    scale = {p: g["scale"] for g in finetune.layer_groups(model, 0.5, 0.05) for p in g["params"]}
    encoder = model.encoder.method.target_encoder
    want = {encoder.patch_embed.proj.weight: 1 / 8, encoder.blocks[0].norm1.bias: 1 / 4, encoder.norm.weight: 1}
    want |= {encoder.blocks[1].mlp.fc1.weight: 1 / 2, model.weight: 1, model.bias: 1}
    assert all(scale[p] == value for p, value in want.items())
    assert len(scale) == sum(p.requires_grad for p in model.parameters())
    assert finetune.layer_depths(["one.weight", "two.bias"]) == [0, 0]
    decay = {p: g["weight_decay"] for g in finetune.layer_groups(model, 0.75, 0.05) for p in g["params"]}
    assert decay[encoder.norm.weight] == decay[model.bias] == 0 < decay[model.weight]


def test_training_learns_what_a_frozen_start_does_not_know(tmp_path: Path) -> None:
    train = labelled_part(parts(tmp_path, data=bars(tmp_path / "bars.npz"))["value"])
    model = fitted(train, Config(lr=(5e-3,), epochs=10, batch=20, min_steps=0, layer_decay=(1.0,)), classes=2)
    pred, y = finetune.predict_classes(model, train)
    assert (pred == y).mean() > 0.9
    np.testing.assert_array_equal(y, train.y)


def test_a_part_of_the_data_is_read_under_its_own_labels(tmp_path: Path) -> None:
    whole = parts(tmp_path)["value"]
    some = whole.where(whole.y == 3)
    ids = torch.cat([b.id for b in some.augmented_batches(4, 2 * (len(some) // 4), 0)])
    assert set(ids.tolist()) <= set(range(len(some)))
    assert all(b.label is not None and (b.label == 3).all() for b in some.augmented_batches(4, 3, 0))
    pixels = torch.cat([b.x for b in some.plain(7)])
    everything = torch.cat([b.x for b in whole.plain(64)])
    assert torch.equal(pixels, everything[torch.from_numpy(some.id)])


def digest(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_a_run_is_tuned_beside_both_baselines_and_left_as_it_was(tmp_path: Path) -> None:
    run = support.untrained_run(tmp_path / "run", SHAPES, SIGNAL)
    before, state = digest(run), torch.get_rng_state()
    (path,) = probe_run(run, ["finetune"], settings=SHORT)
    found = json.loads(path.read_text())
    assert path.name == "finetune.json"
    assert found["low"] <= found["value"] <= found["high"]
    # The run was never trained, so its encoder is the untrained one.
    assert found["value"] == found["random_init"]
    assert found["raw"] is not None
    assert found["n_train"] + found["n_test"] == 100
    assert found["notes"]["steps"] in (0, 2 * (found["n_train"] // 64))
    after = digest(run)
    assert after.pop("evals/finetune.json")
    assert after == before
    assert torch.equal(torch.get_rng_state(), state)
    assert json.loads(probe_run(run, ["finetune"], settings=SHORT)[0].read_text()) == found


@pytest.mark.slow
def test_the_rate_is_chosen_on_a_part_of_train_alone(tmp_path: Path) -> None:
    train = parts(tmp_path, data=bars(tmp_path / "bars.npz"))["value"]
    test = train.where(np.arange(60) % 5 == 0)
    foul = replace(test, y=1 - test.y)
    cfg = Config(lr=(1e-7, 5e-3), epochs=15, batch=12, min_steps=0, layer_decay=(1.0,))
    found = [dict(finetune.evaluate(train, part, cfg)) for part in (test, foul)]
    assert [one["lr"] for one in found] == [5e-3, 5e-3]
    assert found[0]["value"] == 1 - found[1]["value"] > 0.8


class Rows(SilentProgress):
    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []

    def row(self, row: dict, steps: int) -> None:
        self.rows.append((row["step"], row["metrics"]["doing"]))
        assert steps == 100
        assert row["metrics"]["eta"] >= 0


def test_the_training_is_shown_as_it_goes_through_all_three_encoders(tmp_path: Path) -> None:
    progress, run = Rows(), support.untrained_run(tmp_path / "run", SHAPES, SIGNAL)
    probe_run(run, ["finetune"], settings=SHORT | {"finetune.batch": 20}, progress=progress)
    done = [step for step, _ in progress.rows]
    assert done == sorted(done)
    assert done[-1] == 100
    names = [f"probing finetune: {encoder}" for encoder in ("trained encoder", "untrained encoder", "raw input")]
    assert list(dict.fromkeys(text for _, text in progress.rows)) == names


def test_pictures_in_files_of_several_sizes_are_tuned_on_too(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(20):
        (tmp_path / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16 + i, 20), (i * 10, 0, 0)).save(tmp_path / "data" / "ab"[i % 2] / f"{i}.png")
    run = support.untrained_run(tmp_path / "run", files.Config(str(tmp_path / "data"), size=(16, 16)), SIGNAL)
    (path,) = probe_run(run, ["finetune"], settings=SHORT)
    assert json.loads(path.read_text())["n_train"] == 16


@pytest.mark.parametrize("wrong", [{"lr": ()}, {"epochs": 0}, {"layer_decay": (0.0,)}, {"smoothing": 1.0}])
def test_settings_without_a_meaning_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"e\.g\.|usual"):
        Config(**wrong)  # type: ignore[arg-type]


def test_a_training_starts_where_the_linear_probe_of_the_frozen_encoder_ends(tmp_path: Path) -> None:
    train = labelled_part(parts(tmp_path, data=bars(tmp_path / "bars.npz"))["value"])
    model = fitted(train, Config(lr=(1e-9,), layer_decay=(1.0,), min_steps=1, epochs=1), classes=2)
    found = extract_features(train.build().eval(), train.plain(64))
    probe = finetune.linear_probe(train, Config(), 2)
    np.testing.assert_array_equal(finetune.predict_classes(model, train)[0], probe.predict(found.x))


def test_the_frozen_encoder_is_kept_where_no_training_does_better(tmp_path: Path) -> None:
    train = labelled_part(parts(tmp_path)["value"])
    no_change = Config(lr=(1e-12, 2e-12), layer_decay=(1.0,), min_steps=1, epochs=1)
    found = dict(finetune.evaluate(train, train, no_change))
    assert (found["lr"], found["steps"]) == (0.0, 0.0)
