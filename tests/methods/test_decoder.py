"""Heads over a frozen run, and the one that there is: the decoder."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import jepakit as jk
from jepakit import methods, testing
from jepakit.core.progress import SilentProgress
from jepakit.launch import train_settings
from jepakit.masks.halves import Halves, available_halves, named_halves
from jepakit.masks.random import Random
from jepakit.methods import bijepa, decoder, ijepa, lejepa, rjepa
from jepakit.methods.bidirectional import predictable_sides
from jepakit.methods.decoder import Decoder
from jepakit.methods.head import Head
from jepakit.nn import CNN, MLP, Perceptron, Predictor
from jepakit.nn.patch import join_patches, patches
from jepakit.nn.transformer import ViT
from jepakit.run import checkpoint, parse, write
from jepakit.testing import clauses
from jepakit.training.request import Request, settings
from jepakit.types import Batch, Rng, Signal

SINE = Signal(1, (20,), mean=(0.25,), std=(2.0,))
PICTURE = Signal(2, (12, 8), mean=(0.4, 0.5), std=(0.3, 0.2))
TWO = CNN((12, 4), 16, (8,), norm="none")
LEFT_RIGHT = bijepa.Config(TWO, Perceptron(16))
PATCHED = ViT(patch=(4, 4), width=32, depth=1, heads=2, init="xavier")
SMALL = Predictor(16, depth=1, heads=2)


def over(parent: Any, signal: Signal = PICTURE, seed: int = 0, **changes: Any) -> Decoder:
    below = methods.build(parent, signal, seed)
    built = methods.build(dataclasses.replace(decoder.Config(hidden=(32,)), **changes), signal, parents=[below])
    assert isinstance(built, Decoder)
    return built.eval()


def samples(signal: Signal = PICTURE, count: int = 5) -> Tensor:
    return testing.example(signal, count).x


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_each_side_hides_what_its_name_says(axes: int) -> None:
    grid = (4, 6, 2)[:axes]
    names = {1: "past future", 2: "top bottom left right", 3: "past future top bottom left right"}[axes].split()
    assert list(named_halves(axes)) == names
    cells = torch.arange(int(np.prod(grid))).reshape(grid)
    for k, (name, half) in enumerate(named_halves(axes).items()):
        hidden = half(grid, 1, Rng(0)).targets.flatten()
        first, last = cells.chunk(2, k // 2)
        assert torch.equal(hidden, (first if name in ("past", "top", "left") else last).flatten())


def test_an_axis_of_one_cell_has_no_sides() -> None:
    assert list(available_halves((1, 2))) == ["left", "right"]


@pytest.mark.parametrize(
    ("cfg", "known"),
    [
        (LEFT_RIGHT, {"left": True, "right": False}),
        (bijepa.Config(TWO, Perceptron(16), alpha=1.0), {"right": False}),
        (bijepa.Config(TWO, Perceptron(16), (Halves(1, "last"),), alpha=1.0), {"left": False}),
        (bijepa.Config(TWO, Perceptron(16), (Halves(1, "either"),)), {"left": False, "right": False}),
        (bijepa.Config(PATCHED, SMALL, (Halves(0),)), {"top": True, "bottom": False}),
        (bijepa.Config(PATCHED, SMALL, (Random(),)), dict.fromkeys(("top", "bottom", "left", "right"), False)),
        (ijepa.Config(PATCHED, SMALL, (Random(),)), dict.fromkeys(("top", "bottom", "left", "right"), False)),
        (ijepa.Config(PATCHED, SMALL, (Halves(-1),)), {"right": False}),
    ],
)
def test_the_sides_that_are_known_are_those_that_were_predicted_in_training(cfg: Any, known: dict[str, bool]) -> None:
    method: Any = methods.build(cfg, PICTURE)
    assert predictable_sides(method, method.encoder.grid) == known


def test_what_compares_views_knows_no_side() -> None:
    method: Any = methods.build(lejepa.Config(PATCHED), dataclasses.replace(PICTURE, views=2))
    assert predictable_sides(method, method.encoder.grid) == {}


def test_what_predicts_the_next_step_alone_knows_no_side() -> None:
    method: Any = methods.build(rjepa.Config.tiny(SINE), SINE)
    assert predictable_sides(method, method.encoder.grid) == {}


def test_patches_joined_are_the_signal_again() -> None:
    for size, patch in (((20,), (5,)), ((12, 8), (4, 2)), ((4, 6, 8), (2, 3, 4))):
        x = torch.randn(3, 2, *size, generator=Rng(0).generator())
        grid = tuple(s // p for s, p in zip(size, patch, strict=True))
        assert torch.equal(join_patches(patches(x, patch).flatten(2), grid, patch), x)


def by_hand(method: Decoder, tokens: Tensor, side: str, x: Tensor) -> Tensor:
    """One hidden token of two decoded: the sample with its values in raw units."""
    where = available_halves(method.grid)[side](method.grid, len(x), Rng(0)).targets[:, 0]
    values = method.layers(torch.cat([tokens, method.position[where]], -1)).reshape(len(x), 2, 12, 4)
    raw = values * torch.tensor([0.3, 0.2])[:, None, None] + torch.tensor([0.4, 0.5])[:, None, None]
    return torch.cat([raw, x[..., 4:]] if side == "left" else [x[..., :4], raw], -1)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_completion_is_the_decoded_prediction_beside_what_was_seen(side: str) -> None:
    method, x = over(LEFT_RIGHT), samples()
    parent: Any = method.parent
    token = parent.predict(x, back=side == "left")[:, 0]
    found = method.complete(x, side)
    assert_close(found, by_hand(method, token, side, x), rtol=1e-5, atol=1e-6)
    seen = (slice(4, 8) if side == "left" else slice(0, 4),)
    assert torch.equal(found[..., seen[0]], x[..., seen[0]])


def test_what_the_paper_decodes_is_the_half_that_is_seen() -> None:
    method, x = over(LEFT_RIGHT, reads="context"), samples()
    parent: Any = method.parent
    token = parent.context(x, available_halves(method.grid)["right"](method.grid, len(x), Rng(0)))
    assert_close(method.complete(x, "right"), by_hand(method, token, "right", x), rtol=1e-5, atol=1e-6)


def test_a_decoder_of_targets_is_trained_on_them_and_completes_predictions() -> None:
    read, imagined = over(LEFT_RIGHT, reads="target"), over(LEFT_RIGHT)
    parent: Any = read.parent
    masks = Halves(1)(read.grid, 5, Rng(0))
    assert_close(read.read(samples(), masks, Halves(1)), parent.expected(samples(), masks))
    read.load_state_dict(imagined.state_dict())
    assert_close(read.complete(samples(), "right"), imagined.complete(samples(), "right"))


@pytest.mark.parametrize("cfg", [LEFT_RIGHT, ijepa.Config(PATCHED, SMALL, (Random(),))])
def test_what_is_hidden_may_be_anything(cfg: Any) -> None:
    method, x = over(cfg), samples()
    holes = x.clone()
    holes[..., 4:] = torch.nan
    assert torch.equal(method.complete(x, "right"), method.complete(holes, "right"))


def test_a_decoder_learns_the_values_of_hidden_halves_of_series_and_clips() -> None:
    clips = Signal(1, (4, 4, 4))
    for signal, encoder in ((SINE, MLP((10,), 16, 32, norm="layer")), (clips, MLP((2, 4, 4), 16, 32))):
        method = over(bijepa.Config(encoder, Perceptron(16), (Halves(0),)), signal, norm="layer").train()
        batch = Batch(samples(signal, 16))
        optimizer = torch.optim.AdamW(method.parameters(), 3e-3)
        first = method.loss(batch, Rng(0)).total.item()
        for step in range(60):
            optimizer.zero_grad()
            method.loss(batch, Rng(0, step)).total.backward()
            optimizer.step()
        assert method.loss(batch, Rng(0)).total.item() < 0.5 * first
        assert method.complete(batch.x, "future").shape == batch.x.shape


def test_a_side_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"^the run cannot predict the top of its samples; it can predict left and"):
        over(LEFT_RIGHT).complete(samples(), "top")
    one_way = dataclasses.replace(LEFT_RIGHT, alpha=1.0)
    with pytest.raises(ValueError, match=r"cannot predict the left of its samples; it can predict right$"):
        over(one_way).complete(samples(), "left")


def test_a_method_that_predicts_nothing_has_no_decoder_of_predictions() -> None:
    signal = dataclasses.replace(PICTURE, views=2)
    with pytest.raises(ValueError, match="predicts no half of its samples"):
        over(lejepa.Config(PATCHED), signal)
    assert over(lejepa.Config(PATCHED), signal, reads="target").masks == tuple(named_halves(2).values())


def test_one_sample_at_a_time_is_too_few_for_batchnorm() -> None:
    over(LEFT_RIGHT, norm="layer").check(1)
    with pytest.raises(ValueError, match=r"BatchNorm needs 2 samples .* set method\.norm layer"):
        over(LEFT_RIGHT).check(1)


# --- any head


def test_a_head_wants_a_parent_of_its_kind_that_takes_the_same_samples() -> None:
    with pytest.raises(
        ValueError, match=r"^decoder is trained on top of a finished run, but none is given; name one with --init RUN"
    ):
        methods.build(decoder.Config(), PICTURE)
    with pytest.raises(ValueError, match="the parent run predicts no half of its samples"):
        methods.build(decoder.Config(), PICTURE, parents=[over(LEFT_RIGHT)])
    with pytest.raises(ValueError, match="a decoder reads one run, but 2 are given; give one"):
        methods.build(decoder.Config(), PICTURE, parents=[methods.build(LEFT_RIGHT, PICTURE)] * 2)
    with pytest.raises(ValueError, match=r"the samples have 1 channels and size \(20,\), but those .* \(12, 8\)"):
        methods.build(decoder.Config(), SINE, parents=[methods.build(LEFT_RIGHT, PICTURE)])


def test_a_head_sees_samples_with_its_parents_statistics() -> None:
    parent = methods.build(LEFT_RIGHT, PICTURE)
    head = methods.build(
        decoder.Config(), dataclasses.replace(PICTURE, mean=(0.0, 0.0), std=(1.0, 1.0)), parents=[parent]
    )
    assert torch.equal(head.mean, parent.mean)


class ChangesItsParent(Decoder):
    def after_step(self, progress: float) -> None:
        for p in self.parent.parameters():
            p.add_(1.0)


class SavesItsParent(Decoder):
    def __init__(self, cfg: Any, signal: Signal, parents: Any = ()) -> None:
        super().__init__(cfg, signal, parents)
        self.register_buffer("parent_mean", parents[0].mean)


class TrainsInItsParentsDropout(Decoder):
    def train(self, mode: bool = True) -> "TrainsInItsParentsDropout":
        self.parent.train(mode)
        return super().train(mode)


class LeavesItsParentBehind(Decoder):
    def _apply(self, fn: Any, recurse: bool = True) -> "LeavesItsParentBehind":
        return nn.Module._apply(self, fn, recurse)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (ChangesItsParent, "training a head changes .* of its parent"),
        (SavesItsParent, "a head saves its parent"),
        (TrainsInItsParentsDropout, "in training mode"),
        (LeavesItsParentBehind, "moved without its parent"),
    ],
)
def test_the_contract_tells_a_head_that_does_not_leave_its_parent_alone(broken: type[Head], sentence: str) -> None:
    broken.Config = decoder.Config
    signal = testing.SIGNALS[2]
    with pytest.raises(AssertionError, match=sentence):
        clauses.leaves_its_parents_alone(testing.Case(broken, signal, testing.example(signal)))


# --- runs


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run on 40 pictures of 12 x 8, in place of its settings a file."""
    folder = tmp_path_factory.mktemp("decoder")
    x = (255 * testing.example(Signal(1, (12, 8)), 40).x).to(torch.uint8).numpy()
    np.save(folder / "pictures.npy", x[:, 0])
    return trained(folder / "pictures.npy", folder / "run")


def trained(data: Path, out: Path, **changes: Any) -> Path:
    run = {"length.batch": 8, "loop.workers": 0, "loop.device": "cpu", "evals.kinds": "[]", "evals.report": False}
    cnn = {"name": "cnn", "patch": [12, 4], "width": 16, "channels": [8], "norm": "none"}
    own = {"method.encoder": cnn, "method.predictor": {"name": "mlp", "hidden": 16}, "data.augment.crop": "[1, 1]"}
    jk.train(data, out, recipe="bijepa", steps=3, settings=run | own | changes)
    return out


QUICK = {"loop.workers": 0, "loop.device": "cpu", "evals.report": False}


def test_a_head_is_trained_over_the_run_that_init_names(parent: Path, tmp_path: Path) -> None:
    before = checkpoint.module_hash(checkpoint.load_run(parent).method)
    jk.train(out=tmp_path / "head", recipe="decoder", init=parent, steps=3, settings=QUICK)
    loaded = checkpoint.load_run(tmp_path / "head")
    cfg: Any = loaded.run.method
    assert (cfg.parents, cfg.parent_hashes) == ((str(parent),), (before,))
    assert isinstance(loaded.method, Decoder)
    assert (
        before
        == checkpoint.module_hash(loaded.method.parent)
        == checkpoint.module_hash(checkpoint.load_run(parent).method)
    )
    saved = checkpoint.load_checkpoint(tmp_path / "head").model
    assert saved
    assert all(key.startswith(("layers.", "mean", "std")) for key in saved)


def test_data_and_batch_of_a_head_are_its_parents_unless_others_are_given(parent: Path, tmp_path: Path) -> None:
    below = parse.from_yaml(parent / "config.yaml")
    wanted = settings(Request("decoder", init=parent))
    assert write.dump_settings(wanted.data) == write.dump_settings(below.data)
    assert wanted.length.batch == below.length.batch
    np.save(tmp_path / "more.npy", np.zeros((9, 12, 8), np.uint8))
    assert settings(Request("decoder", data=tmp_path / "more.npy", init=parent)).data.path == str(tmp_path / "more.npy")


def test_a_head_goes_on_after_an_interruption_as_if_there_had_been_none(parent: Path, tmp_path: Path) -> None:
    short = QUICK | {"length.steps": 4, "loop.save_every": 2, "loop.log_every": 1}
    for name in ("whole", "halted"):
        jk.train(out=tmp_path / name, recipe="decoder", init=parent, settings=short)
    last = tmp_path / "halted" / "checkpoints" / "step-00000004"
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    jk.train(out=tmp_path / "halted", resume=True)
    a, b = (checkpoint.load_checkpoint(tmp_path / name).model for name in ("whole", "halted"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_head_over_a_run_that_has_changed_is_neither_loaded_nor_gone_on_with(parent: Path, tmp_path: Path) -> None:
    data = parent.parent / "pictures.npy"
    other = trained(data, tmp_path / "run")
    jk.train(out=tmp_path / "head", recipe="decoder", init=other, steps=2, settings=QUICK)
    trained(data, tmp_path / "second", seed=1)
    last = next((other / "checkpoints").glob("step-00000003"))
    for name in ("model.safetensors",):
        (last / name).write_bytes((tmp_path / "second/checkpoints/last" / name).read_bytes())
    for act in (lambda: jk.load(tmp_path / "head"), lambda: jk.train(out=tmp_path / "head", resume=True)):
        with pytest.raises(ValueError, match=r"the weights of .* are not those that decoder was trained on"):
            act()


@pytest.mark.parametrize("named", [None, "nothing-here"])
def test_a_head_without_a_run_below_it_is_one_sentence(named: str | None, tmp_path: Path) -> None:
    match = "as in jepa train decoder --init RUN" if named is None else "nothing-here is not a run folder"
    with pytest.raises(ValueError, match=match):
        jk.train(out=tmp_path / "run", recipe="decoder", init=named)
    assert not (tmp_path / "run").exists()


def test_a_head_has_its_parents_representations_and_is_probed_there(parent: Path, tmp_path: Path) -> None:
    jk.train(out=tmp_path / "head", recipe="decoder", init=parent, steps=2, settings=QUICK)
    x = torch.rand(3, 1, 12, 8, generator=Rng(0).generator())
    assert torch.equal(jk.load(tmp_path / "head").encode(x), jk.load(parent).encode(x))
    with pytest.raises(ValueError, match=r"is a head over .*run and has the same representations; probe .*run"):
        jk.probe(tmp_path / "head")


def test_a_head_is_judged_by_its_loss_alone(parent: Path, tmp_path: Path) -> None:
    summary = jk.train(out=tmp_path / "head", recipe="decoder", init=parent, steps=30, settings=QUICK)
    assert summary["verdict"] == "healthy"
    assert set(summary["panel"]) == {"normalized_loss"}


def test_a_run_with_heads_below_it_can_be_replaced_and_one_with_something_else_cannot(
    parent: Path, tmp_path: Path
) -> None:
    data = parent.parent / "pictures.npy"
    run = trained(data, tmp_path / "run")
    jk.train(out=run / "heads" / "decoder", recipe="decoder", init=run, steps=2, settings=QUICK)
    (run / "heads" / "notes.txt").write_text("mine")
    (run / "heads" / "notes.txt").rename(run / "heads" / "decoder" / "notes.txt")
    wanted = dataclasses.replace(parse.from_yaml(run / "config.yaml"), seed=3)
    with pytest.raises(ValueError, match=r"heads/decoder/notes\.txt is not part of a run"):
        train_settings(wanted, Request(out=run, overwrite=True), SilentProgress())
    (run / "heads" / "decoder" / "notes.txt").unlink()
    train_settings(wanted, Request(out=run, overwrite=True), SilentProgress())
    assert not (run / "heads").exists()
