"""The watch over a run: which samples it measures, what that costs, and that training never notices."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support
import torch
import yaml
from torch import nn

from jepakit import api, losses, methods
from jepakit.data.base import Split
from jepakit.data.images import arrays, synthetic
from jepakit.data.images.augment import Augment, Views
from jepakit.methods.base import Method
from jepakit.run import intervals
from jepakit.run.settings import Loop
from jepakit.training import estimate, monitor
from jepakit.training.monitor import Monitor, measure, samples
from jepakit.types import Batch, Signal, Terms

SIGNAL = Signal(3, (32, 32), (0.5,) * 3, (0.25,) * 3, views=2)


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pictures.npy"
    np.save(path, support.noise_pictures(48))
    return path


def build(name: str) -> methods.base.Method:
    entry = methods.load(name)
    return methods.build(entry.Config.tiny(SIGNAL), SIGNAL)


def test_the_samples_are_held_out_where_the_data_have_a_test_part_that_holds_enough() -> None:
    data = synthetic.Config(path="shapes", count=100, split="train")
    chosen = samples.choose_samples(data, data.open(), SIGNAL, 20)
    assert chosen.note == "panel: 20 samples of the test part, which training never sees"
    train = samples.fixed_sample(data.open(), SIGNAL, 80).x
    assert not [x for x in chosen.batch.x if (train == x).flatten(1).all(1).any()]
    again = samples.choose_samples(data, data.open(), SIGNAL, 20)
    assert torch.equal(chosen.batch.x, again.batch.x)


@pytest.mark.parametrize(
    ("split", "count", "why"),
    [
        ("all", 20, r"data.split=train would hold out a test part"),
        ("train", 30, "the test part holds 20 samples, but the panel needs 30"),
    ],
)
def test_else_they_are_trained_on_and_the_note_says_why(split: Split, count: int, why: str) -> None:
    data = synthetic.Config(path="shapes", count=100, split=split)
    chosen = samples.choose_samples(data, data.open(), SIGNAL, count)
    assert len(chosen.batch) == count
    assert chosen.note == f"panel: {count} samples from the training data, not augmented ({why})"


def test_a_test_part_that_cannot_be_read_is_no_reason_to_stop(array: Path) -> None:
    data = arrays.Config(path=str(array), split="train", held_out=1e-6)
    assert "training data" in samples.choose_samples(data, data.open(), SIGNAL, 8).note


def test_the_panel_says_that_the_weights_come_from_a_training_on_its_samples(array: Path, tmp_path: Path) -> None:
    recipe = str(support.write_settings(tmp_path, array, data={"name": "arrays"}, length={"steps": 1}))
    short = {"loop.panel_size": 4, "evals.report": False, "data.held_out": 0.3}
    for split, said in (("all", True), ("train", False)):
        first, seen = tmp_path / split, support.Recorder()
        api.train(out=first, recipe=recipe, settings={**short, "data.split": split}, quiet=True)
        second = {**short, "data.split": "train"}
        api.train(out=tmp_path / f"{split}-on", recipe=recipe, settings=second, init=first, progress=seen)
        assert sum(note.endswith("are left out for tests") for note in seen.notes) == 1
        (note,) = [note for note in seen.notes if note.startswith("panel: ")]
        assert note.endswith("training that the weights come from may have seen") is said
        assert note.endswith("which training never sees") is not said


@pytest.mark.parametrize(("name", "expected"), [("ijepa", 2), ("cjepa", 2), ("vicreg", 1), ("mae", 1)])
def test_a_method_with_one_encoder_is_seen_to_have_one(name: str, expected: int) -> None:
    method = build(name)
    with measure.evaluation_mode(method):
        assert len(measure.distinct_encoders(method, Batch(torch.rand(2, 3, 32, 32)))) == expected
    assert not [hook for module in method.modules() for hook in module._forward_pre_hooks]


def normalized_loss(method: Method, pred: torch.Tensor, target: torch.Tensor) -> float:
    session = SimpleNamespace(method=method)
    return Monitor.loss(SimpleNamespace(session=session), Terms({}, compared=(pred, target)))["normalized_loss"]  # type: ignore[arg-type]


def test_the_normalised_loss_is_that_of_every_place_of_a_block() -> None:
    target = torch.randn(256 * 4, 12, 8, generator=torch.Generator().manual_seed(0))
    pred = torch.zeros_like(target)
    pred[:, 0] = target[:, 0]
    found = normalized_loss(build("ijepa"), pred.flatten(0, 1), target.flatten(0, 1))
    assert found == pytest.approx(11 / 12, abs=0.03)


@pytest.mark.parametrize("name", ["vicreg", "simclr", "lejepa"])
@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.9])
def test_the_normalised_loss_of_views_is_one_less_their_correlation(name: str, correlation: float) -> None:
    method, generator = build(name), torch.Generator().manual_seed(0)
    mean, *noise = (torch.randn(1024, 64, generator=generator) for _ in range(3))
    z = [correlation**0.5 * mean + (1 - correlation) ** 0.5 * e for e in noise]
    z = [losses.on_sphere(side) for side in z] if name == "simclr" else z
    assert normalized_loss(method, z[0], z[1]) == pytest.approx(1 - correlation, abs=0.02)


def test_watching_leaves_every_module_in_its_mode_and_every_buffer_as_it_was() -> None:
    method = build("vicreg").train()
    next(m for m in method.modules() if isinstance(m, nn.Linear)).eval()
    modes = [m.training for m in method.modules()]
    before = {key: value.clone() for key, value in method.state_dict().items()}
    x = torch.rand(8, 3, 32, 32)
    with measure.evaluation_mode(method):
        measure.encode_tokens(method, Batch(x), "target")
        measure.energy_measures(method, Batch(x), Batch(x))
    assert [m.training for m in method.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


class Partners(Method):
    """Energies that are lowest where x and y are made of one picture; higher in later rows, as hard masks make them."""

    def energy(self, batch: Batch, other: Batch) -> torch.Tensor:
        difficulty = torch.arange(len(batch)) * 10.0
        return (batch.x - other.x).square().flatten(1).mean(1) + difficulty


def test_every_candidate_meets_a_query_under_the_same_mask() -> None:
    x = torch.rand(70, 3, 4, 4)
    found = measure.energy_measures(Partners(None, SIGNAL), Batch(x), Batch(x + 0.01))
    assert found["retrieval"] == 1.0
    assert found["energy_gap"] > 0


def test_views_of_a_masking_method_are_masks_and_those_of_the_same_sample_belong_together() -> None:
    method, x = build("ijepa"), synthetic.Config(path="shapes", count=40).open()
    pictures = samples.fixed_sample(x, SIGNAL, 40).x
    with measure.evaluation_mode(method):
        views = measure.masked_views(method, pictures)
        assert torch.equal(views, measure.masked_views(method, pictures))
    assert views.shape[:2] == (40, measure.NUM_VIEWS)
    assert views.std(1).mean() > 0
    assert measure.view_measures(views)["signal_share"] > 0.2


@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_views_of_other_methods_are_augmented_pictures_the_same_ones_every_time(jitter: float) -> None:
    augment = Augment(jitter=(jitter, jitter, 0.0, 0.0), views=(Views(count=2, size=(16, 16), crop=(0.2, 0.5)),))
    data = synthetic.Config(path="shapes", count=30, augment=augment).open()
    x = samples.view_samples(data, SIGNAL, 5, 3)
    assert x.shape == (5, 3, 3, 16, 16)
    assert x.dtype == torch.uint8
    assert torch.equal(x, samples.view_samples(data, SIGNAL, 5, 3))
    assert not torch.equal(x[:, 0], x[:, 1])
    assert augment.changes
    assert not Augment(crop=(1.0, 1.0), aspect=(1.0, 1.0)).changes


def train(folder: Path, array: Path, name: str, **loop: Any) -> tuple[list[Any], dict[str, Any]]:
    """Losses and gradient norms of a short run, and its summary."""
    folder.mkdir()
    views = {"augment": {"views": [{"count": 2}]}} if name == "vicreg" else {}
    sections = {"data": {"name": "arrays", **views}, "length": {"steps": 4}, "loop": {"save_every": 100, **loop}}
    file = support.write_settings(folder, array, **sections)
    if name == "vicreg":
        settings = yaml.safe_load(file.read_text())
        encoder = settings["method"]["encoder"]
        settings["method"] = {"name": name, "encoder": encoder, "projector": {"hidden": 16, "out": 8}}
        file.write_text(yaml.safe_dump(settings))
    summary = api.train(out=folder / "run", recipe=str(file))
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [(row["loss"], row["metrics"]["grad_norm"]) for row in rows], summary


@pytest.mark.parametrize("name", ["ijepa", "vicreg"])
def test_training_is_the_same_to_the_bit_however_often_it_is_measured(name: str, array: Path, tmp_path: Path) -> None:
    often, summary = train(tmp_path / "often", array, name, panel_every=1, views_every=1)
    seldom, _ = train(tmp_path / "seldom", array, name, panel_every=1000, views_every=1000, panel_size=8)
    assert often == seldom
    panel = summary["panel"]
    both = {"std_ratio_target", "rank_target", "lidar", "consistency", "energy_gap", "retrieval"}
    assert both <= panel.keys()
    assert ("std_ratio_context" in panel) == (name == "ijepa")


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("batch", [16, 64, 512])
@pytest.mark.parametrize("steps", [400, 1700, 23_400, 1_000_000])
def test_the_panel_takes_less_than_three_hundredths_of_a_run_and_looks_often(steps: int, batch: int, amp: bool) -> None:
    loop, _ = Loop(device="cpu", amp=amp).resolve(steps, batch)
    price = batch * intervals.encodings_per_sample("cpu", amp)
    size, every, dear = loop.panel_size, loop.panel_every, loop.views_every
    assert size
    assert every
    assert dear
    assert 32 <= size <= 512
    assert steps / 50 <= every
    if steps * price > 40_000:
        assert size >= 64
        assert 2 * size / price / every <= 0.02
    # The last row always has the numbers of views, whatever they cost.
    assert (steps // dear) * intervals.VIEWS_PRICE / price <= max(0.008 * steps, intervals.VIEWS_PRICE / price) * 1.01
    if steps * price > 100_000:
        assert every < steps / 20


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("batch", [32, 64, 256])
@pytest.mark.parametrize("steps", [100, 150, 300, 600])
def test_a_short_run_gets_the_rows_of_a_verdict_for_an_eighth_of_its_time_at_most(
    steps: int, batch: int, amp: bool
) -> None:
    loop, notes = Loop(device="cpu", amp=amp).resolve(steps, batch)
    assert loop.panel_size
    assert loop.panel_every
    rows, price = steps // loop.panel_every, batch * intervals.encodings_per_sample("cpu", amp)
    assert rows >= 6
    assert not intervals.is_too_short(steps, loop.panel_every)
    share = rows * 2 * loop.panel_size / (steps * price)
    assert share <= 0.125
    if rows == 6:
        assert f"{100 * share:.0f} % of this short run's time" in next(
            n.reason for n in notes if n.key == "loop.panel_every"
        )


@pytest.mark.parametrize(("steps", "panel", "views"), [(10, 2, 4), (11, 2, 4), (9, 4, 1), (4, 100, 100), (12, 3, 12)])
def test_a_dry_run_counts_the_rows_that_the_panel_has(steps: int, panel: int, views: int) -> None:
    loop = Loop(panel_every=panel, views_every=views)
    measured = [step for step in range(steps + 1) if step % panel == 0 or step == steps]
    costly = [step for step in measured if step == steps or (step and monitor.are_views_due(step, loop))]
    assert estimate.count_panel_rows(steps, loop) == (len(measured), len(costly))


def test_a_run_that_is_too_short_to_judge_says_so_before_and_after(array: Path, tmp_path: Path) -> None:
    _, notes = Loop(device="cpu", amp=False).resolve(5, 64)
    assert "too short a run for the 6 rows that a verdict needs" in [note.reason for note in notes]
    _, summary = train(tmp_path / "a", array, "ijepa", panel_every=4)
    assert summary["verdict"] == "unknown"
    assert summary["reason"].startswith("a run of 4 steps is too short to judge: the prediction loss is ")
    assert summary["advice"] == "give more --steps"


def test_what_the_user_sets_of_the_panel_stays() -> None:
    loop, notes = Loop(panel_size=33, panel_every=7, views_every=9).resolve(100, 8)
    assert (loop.panel_size, loop.panel_every, loop.views_every) == (33, 7, 9)
    assert not [note for note in notes if "panel" in note.key or "views" in note.key]


def test_a_resumed_run_keeps_the_size_that_its_panel_began_with(array: Path, tmp_path: Path) -> None:
    train(tmp_path / "a", array, "ijepa", panel_size=16, save_every=2)
    out = tmp_path / "a" / "run"
    changed = {"settings": {"loop.panel_size": 32}, "allow_change": ["length.steps"]}
    api.train(out=out, recipe=str(tmp_path / "a" / "settings.yaml"), steps=6, resume=True, **changed)
    state = json.loads((out / "checkpoints" / "last" / "state.json").read_text())
    assert state["panel"]["size"] == 16


RANK_LOOP: dict[str, Any] = {"log_every": 1, "panel_every": 2, "save_every": 100, "panel_size": 16, "workers": 0}


def train_colours(folder: Path) -> None:
    """A few steps on pictures whose colours change, in FOLDER/run."""
    augment = {"jitter": [0.4, 0.4, 0.2, 0.1], "gray": 0.2, "blur": 0.5, "crop": [0.2, 1.0], "flip": 0.5}
    data = {"name": "arrays", "size": [24, 24], "layout": "NHWC", "augment": augment}
    file = support.write_settings(folder, folder / "x.npy", data=data, length={"steps": 4}, loop=RANK_LOOP)
    api.train(out=folder / "run", recipe=str(file), settings={"loop.amp": False})


def train_on_rank(rank: int, port: int, folder: str) -> None:
    support.set_rank(rank, port)
    own = Path(folder) / ("run" if rank == 0 else "other")
    own.mkdir(exist_ok=True)
    np.save(own / "x.npy", support.noise_pictures(48))
    train_colours(own)
    torch.save({}, f"{folder}/{rank}.pt")


def test_the_panel_of_two_ranks_reads_what_one_process_reads(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    np.save(tmp_path / "alone" / "x.npy", support.noise_pictures(48))
    train_colours(tmp_path / "alone")
    support.run_ranks(train_on_rank, tmp_path)
    alone, both = (support.logged_rows(tmp_path / name / "run") for name in ("alone", "run"))
    assert len(alone) == len(both) == 4
    for one, two in zip(alone, both, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        for key in ("normalized_loss", *(k for k in one["metrics"] if k.startswith(("rank_", "std_ratio_")))):
            assert two["metrics"][key] == pytest.approx(one["metrics"][key], rel=1e-3), key
