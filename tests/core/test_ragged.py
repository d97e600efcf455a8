"""Samples of unequal lengths: padding reaches no loss, no gradient, no feature and no number of the panel."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support import logged_losses
from torch import Tensor

import jepakit as jk
from jepakit import methods
from jepakit.cli import __main__ as cli
from jepakit.core import padding
from jepakit.data.series.settings import Config as SeriesConfig
from jepakit.evals.runs import probe_run
from jepakit.masks.halves import Halves
from jepakit.masks.random import Random
from jepakit.methods import bijepa, ijepa, mae
from jepakit.methods.base import Method
from jepakit.nn import Predictor, ViT
from jepakit.run.settings import Length, Run
from jepakit.training import resolve
from jepakit.training.monitor import samples
from jepakit.types import Batch, Rng, Signal

SIGNAL = Signal(2, (24,), mean=(0.5, -1.0), std=(2.0, 1.0))
LENGTHS = torch.tensor([24, 15, 18, 12, 24, 17])
VIT = ViT(patch=(3,), width=16, depth=2, heads=2)
HEAD = Predictor(width=16, depth=1, heads=2)
METHODS = {
    "ijepa": ijepa.Config(VIT, HEAD, (Random(), Random(num_targets=2))),
    "bijepa": bijepa.Config(VIT, HEAD, (Halves(context="either"),), norm_weight=0.1, cycle_weight=0.1),
    "mae": mae.Config(VIT, HEAD, (Random(ratio=0.5),)),
}
SMALL = {
    "method.encoder.patch": "[3]",
    "method.encoder.width": 16,
    "method.encoder.depth": 1,
    "method.encoder.heads": 2,
    "method.predictor.depth": 1,
    "length.batch": 8,
    "loop.device": "cpu",
    "loop.workers": 0,
    "loop.log_every": 1,
    "loop.panel_size": 8,
    "evals.report": "false",
}

ONE = {"method.masks": "[{name: random, num_targets: 1}]"}


def padded(lengths: Tensor = LENGTHS, fill: float = 0.0) -> Batch:
    x = torch.randn(len(lengths), 2, 24, generator=torch.Generator().manual_seed(0))
    x[(torch.arange(24) >= lengths[:, None])[:, None].expand_as(x)] = fill
    return Batch(x, length=lengths, id=torch.arange(len(lengths)))


def build(name: str) -> Method:
    return methods.build(METHODS[name], SIGNAL).double()


def gradients(method: Method, batch: Batch, rng: Rng | None = None) -> tuple[Tensor, list[Tensor]]:
    method.zero_grad(set_to_none=True)
    total = method(replace(batch, x=batch.x.double()), rng or Rng(0)).total
    total.backward()
    return total.detach(), [p.grad.clone() for p in method.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", METHODS)
def test_padded_values_change_no_bit_of_the_loss_and_its_gradients(name: str) -> None:
    method = build(name)
    total, grads = gradients(method, padded())
    other, others = gradients(method, padded(fill=float("nan")))
    assert torch.equal(total, other)
    assert grads
    assert all(map(torch.equal, grads, others))


@pytest.mark.parametrize("name", METHODS)
def test_lengths_that_are_all_whole_leave_the_loss_as_it_is(name: str) -> None:
    method = build(name)
    batch = padded(torch.full((6,), 24))
    torch.testing.assert_close(gradients(method, batch), gradients(method, replace(batch, length=None)))


@pytest.mark.parametrize("name", METHODS)
def test_a_padded_batch_is_the_mean_of_its_parts_however_it_is_split(name: str) -> None:
    method, whole = build(name), padded()
    total, grads = gradients(method, whole)
    parts = [gradients(method, whole[k : k + 3], Rng(0, offset=k, total=6)) for k in (0, 3)]
    torch.testing.assert_close(total, sum(part for part, _ in parts) / 2)
    torch.testing.assert_close(grads, [(a + b) / 2 for a, b in zip(parts[0][1], parts[1][1], strict=True)])


def test_a_sample_counts_as_much_as_any_other_whatever_its_length() -> None:
    method, batch = build("mae"), padded()
    batch = replace(batch, x=batch.x.double())
    found = [
        (len(rows), method.loss(part, Rng(0).of(rows.tolist(), 6)).total)
        for rows, part in padding.equal_length_groups(batch, 3)
    ]
    assert [n for n, _ in found] == [1, 2, 1, 2]
    torch.testing.assert_close(method(batch, Rng(0)).total, sum(n * each for n, each in found) / 6)


@pytest.fixture
def unequal(tmp_path: Path) -> Path:
    """Forty series of two kinds and of 12 to 30 steps, as a .ts file."""
    draw = np.random.default_rng(0)
    lines = ["@univariate true", "@classLabel true a b", "@data"]
    for i in range(40):
        steps = np.arange(draw.integers(12, 31))
        x = np.sin(steps * (0.3 + 0.7 * (i % 2)) + draw.uniform(0, 6)) + 0.05 * draw.normal(size=len(steps))
        lines.append(",".join(f"{v:.4f}" for v in x) + ":" + "ab"[i % 2])
    (tmp_path / "waves.ts").write_text("\n".join(lines) + "\n")
    return tmp_path / "waves.ts"


def test_an_open_patch_suits_the_shortest_and_the_longest_is_padded_to_whole_ones(unequal: Path) -> None:
    series = SeriesConfig(str(unequal)).open()
    run = Run(ijepa.Config(ViT()), SeriesConfig(str(unequal)), length=Length(batch=8))
    run, _, signal, notes = resolve.resolve_run(run, series)
    assert run.method.encoder.patch == (3,)
    assert signal.size == (30,)
    assert [note for note in notes if note.startswith("method.encoder.patch = [3]")]


def test_unequal_series_are_trained_on_probed_and_embedded(unequal: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    summary = jk.train(unequal, run, settings=SMALL | {"evals.kinds": "[knn, linear]"}, steps=6)
    assert summary["steps"] == 6
    assert len({p.name for p in (run / "evals").iterdir()}) == 2
    jk.embed(run, unequal, tmp_path / "e.parquet", batch=7)
    rows = np.stack(pq.read_table(tmp_path / "e.parquet")["embedding"].to_numpy(zero_copy_only=False))
    series, model = SeriesConfig(str(unequal)).open(), jk.load(run)
    for i in (0, 3, 39):
        x = series.raw(i)[None]
        alone = model.encode(x[..., : x.shape[2] // 3 * 3]).mean(1)[0]
        np.testing.assert_allclose(rows[i], alone.numpy(), atol=1e-5)


@pytest.mark.slow
def test_a_run_on_unequal_series_goes_on_to_the_same_losses(unequal: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    jk.train(unequal, run, settings=SMALL | {"loop.save_every": 3, "evals.kinds": "[]"}, steps=6)
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    before = logged_losses(run)
    jk.train(out=run, resume=True)
    assert logged_losses(run) == before


def test_the_panel_measures_steps_that_all_its_samples_have(unequal: Path) -> None:
    cfg = SeriesConfig(str(unequal))
    series = cfg.open()
    signal = Signal(1, series.native)
    found = samples.choose_samples(cfg, series, signal, 8, patch=3)
    median = int(np.median(series.cut.length))
    assert found.batch.x.shape == (8, 1, median // 3 * 3)
    assert f"8 samples of {median // 3 * 3} steps" in found.note


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            {"method.encoder.patch": "[15]", **ONE},
            r"the shortest series has 1\d steps: that is less than the patch of 15.*unequal=stretch",
        ),
        ({"method.encoder.patch": "[10]", **ONE}, r"the shortest series has 1\d steps: .*unequal=stretch"),
        ({"evals.online": 20}, r"but evals\.online needs equal lengths"),
        ({"recipe": "cjepa"}, r"cjepa, which compares the samples of a batch with one another, needs equal lengths"),
    ],
)
def test_what_unequal_lengths_do_not_allow_is_said_before_step_1(
    unequal: Path, tmp_path: Path, flags: dict[str, object], sentence: str
) -> None:
    recipe = str(flags.pop("recipe", "ijepa"))
    with pytest.raises(ValueError, match=sentence):
        jk.train(unequal, tmp_path / "run", recipe=recipe, settings=SMALL | flags, steps=2)
    assert not (tmp_path / "run").exists()


def test_views_of_unequal_series_need_nothing_else(unequal: Path, tmp_path: Path) -> None:
    head = {"method.projector.layers": 1, "method.projector.out": 8}
    changes = {k: v for k, v in SMALL.items() if "predictor" not in k} | head | {"evals.kinds": "[]"}
    assert jk.train(unequal, tmp_path / "run", recipe="simclr", settings=changes, steps=2)["steps"] == 2


def test_kinds_that_read_tokens_refuse_unequal_lengths(
    unequal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    jk.train(unequal, run, settings=SMALL | {"evals.kinds": "[]"}, steps=2)
    for kind, settings in (("attentive", {}), ("knn", {"knn.pool": "flat"})):
        with pytest.raises(ValueError, match=rf"but the probe {kind} with these settings needs equal lengths"):
            probe_run(run, [kind], settings=settings)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["embed", str(run), "--data", str(unequal), "--out", str(tmp_path / "t.npy"), "--tokens"])
    assert "one vector per patch needs equal lengths" in capsys.readouterr().err


def test_a_perceptron_cannot_take_part_of_its_two_tokens(unequal: Path, tmp_path: Path) -> None:
    pair = {
        "method.encoder.name": "mlp",
        "method.encoder.patch": "[15]",
        "method.predictor.name": "mlp",
        "length.batch": 8,
        "loop.workers": 0,
    }
    with pytest.raises(ValueError, match=r"the shortest series has 1\d steps"):
        jk.train(unequal, tmp_path / "run", recipe="bijepa", settings=pair, steps=2)
