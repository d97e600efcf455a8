"""Views of scanpaths: consecutive fixations at one length, changed per sample, for every method that compares them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import resolve_data
from test_scanpaths import pictures, table, walk

import jepakit as jk
from jepakit.data import loader
from jepakit.data.scanpaths.augment import GazeAugment, GazeViews
from jepakit.data.scanpaths.settings import Config
from jepakit.methods import load
from jepakit.nn.transformer import ViT
from jepakit.run import parse
from jepakit.run.settings import Run
from jepakit.training.monitor import samples
from jepakit.training.resolve import check_views
from jepakit.types import Batch, Signal

ALL = GazeAugment(
    flip=0.5,
    jitter=(0.4, 0.4, 0.2, 0.1),
    gray=0.2,
    scale=0.2,
    noise=0.1,
    drop=0.3,
    views=(GazeViews(2), GazeViews(1, (4, 4), (0.3, 0.6), 3)),
)
WHOLE = (GazeViews(1, crop=(1.0, 1.0)),)


@pytest.fixture
def walks(tmp_path) -> Config:
    """Scanpaths of 3 to 7 fixations by two viewers of each of eight pictures; a crop is 8 px, seen as it is."""
    return Config(str(pictures(tmp_path / "p", 8)), walk(tmp_path / "f.csv", 8), size=(8, 8), crop=8 / 40)


def batches(cfg: Config, stop: int = 2, **options: Any) -> list[Batch]:
    dataset = cfg.open()
    options = {"seed": 3, "batch": 8, "start": 0, "stop": stop} | options
    return list(loader.batches(dataset, dataset.signal(), **options))


def tensors(batch: Batch) -> list[torch.Tensor]:
    return [batch.x, *batch.views, batch.id] + [t for t in (batch.action, batch.length) if t is not None]


# --- which fixations


@pytest.mark.parametrize("steps", [None, 4, 12])
def test_a_view_shows_consecutive_fixations_in_order_as_many_as_its_share_and_no_padding(walks, steps):
    low, high = 0.4, 0.8
    cfg = replace(walks, augment=GazeAugment(views=(GazeViews(2, crop=(low, high), steps=steps),)))
    dataset, counts = cfg.open(), set()
    for batch in batches(cfg):
        assert batch.views[0].shape == (8, 2, 3, steps or dataset.steps, 8, 8)
        for i, n, views in zip(batch.id.tolist(), batch.length.tolist(), batch.views[0], strict=True):
            own = dataset.clip(i, dataset.native).x
            for view in views:
                where = [[t for t in range(n) if torch.equal(own[:, t], x)] for x in view.unbind(1)]
                assert all(len(w) == 1 for w in where)
                at = np.array([w[0] for w in where])
                count = at[-1] - at[0] + 1
                assert (np.diff(at) >= 0).all()
                assert count <= max(2, round(high * n))
                if len(at) >= count:  # enough steps for all: none is passed over
                    assert sorted(set(at.tolist())) == list(range(at[0], at[-1] + 1))
                    assert count >= max(2, round(low * n))
                counts.add(int(count))
    assert len(counts) > 2


def test_a_view_of_all_fixations_and_no_change_is_the_sample(walks):
    equal = replace(walks, fixations="", count=6)
    (batch,) = batches(replace(equal, augment=GazeAugment(views=WHOLE)), 1)
    assert torch.equal(batch.views[0][:, 0], batch.x)


def test_a_view_of_its_own_size_is_the_same_crop_in_other_pixels(walks):
    cfg = replace(walks, augment=GazeAugment(views=(GazeViews(1, (4, 4), (1.0, 1.0), 3),)))
    (batch,), dataset = batches(cfg, 1), cfg.open()
    assert batch.views[0].shape == (8, 1, 3, 3, 4, 4)
    for i, n, view in zip(batch.id.tolist(), batch.length.tolist(), batch.views[0][:, 0], strict=True):
        middle = n // 2
        assert torch.equal(view[:, 1], dataset.clip(i, (n, 4, 4)).x[:, middle])


def test_a_view_is_mirrored_by_a_draw_of_its_own_and_the_sample_keeps_its_saccades(walks):
    views = (GazeViews(3),)
    plain, still, turned = (
        batches(replace(walks, augment=augment))
        for augment in (GazeAugment(flip=0.5), GazeAugment(views=views), GazeAugment(flip=0.5, views=views))
    )
    mirrored = []
    for one, two, batch in zip(plain, still, turned, strict=True):
        for a, b in zip(tensors(one), tensors(replace(batch, views=())), strict=True):
            assert torch.equal(a, b)
        for a, b in zip(two.views[0].flatten(0, 1), batch.views[0].flatten(0, 1), strict=True):
            mirrored.append(torch.equal(b, a.flip(-1)))
            assert mirrored[-1] or torch.equal(a, b)
        assert torch.equal((one.action[:, 0, 0] == -two.action[:, 0, 0]), (one.x != two.x).flatten(1).any(1))
    by_sample = np.array(mirrored).reshape(-1, 3).sum(1)
    assert {1, 2} <= set(by_sample.tolist())  # not all views of a sample alike


# --- draws


@pytest.mark.parametrize("whole", [True, False])
def test_a_batch_of_views_is_the_same_whatever_the_workers_and_however_it_is_split(walks, whole):
    cfg = replace(walks, augment=ALL)
    first, again = batches(cfg, include_x=whole), batches(cfg, include_x=whole, workers=1)
    halves = [batches(cfg, include_x=whole, batch=4, offset=k, total=8) for k in (0, 4)]
    for one, two, *parts in zip(first, again, *halves, strict=True):
        for a, b, c, d in zip(tensors(one), tensors(two), *map(tensors, parts), strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, torch.cat([c, d]))
        assert (one.action is not None) == whole
        assert whole or torch.equal(one.x, one.views[0][:, 0])


def test_the_global_state_of_randomness_stays_where_it_is(walks):
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    batches(replace(walks, augment=ALL), 1)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


@pytest.mark.parametrize(
    "augment",
    [
        GazeAugment(views=(GazeViews(2, crop=(0.2, 1.0)),)),
        GazeAugment(jitter=(0.4, 0.4, 0.2, 0.1), jitter_prob=1.0, views=(GazeViews(2, crop=(1.0, 1.0)),)),
        GazeAugment(scale=0.3, views=(GazeViews(2, crop=(1.0, 1.0)),)),
        GazeAugment(noise=0.1, views=(GazeViews(2, crop=(1.0, 1.0)),)),
    ],
    ids=["crop", "jitter", "scale", "noise"],
)
def test_every_view_and_every_epoch_draws_anew(walks, augment):
    cfg, seen = replace(walks, augment=augment), {}
    for batch in batches(cfg, 2, batch=16):  # an epoch each
        for i, views in zip(batch.id.tolist(), batch.views[0], strict=True):
            seen.setdefault(i, []).extend(views)
    assert {len(versions) for versions in seen.values()} == {4}
    same = [torch.equal(a, b) for versions in seen.values() for k, a in enumerate(versions) for b in versions[:k]]
    # A scanpath of three fixations has few parts, which come again.
    assert sum(same) < (0.3 if augment.views[0].crop[0] < 1 else 0.01) * len(same)


def test_views_of_a_picture_that_cannot_be_read_are_those_of_the_next(walks, tmp_path):
    rows = [(f"{c}.png", "0", 4.0 * k, 15.0, 1) for c in "abc" for k in range(1, 10)]
    cfg = replace(walks, fixations=table(tmp_path / "g.csv", rows), augment=ALL)
    whole = {i: v for b in batches(cfg, 1, batch=3) for i, v in zip(b.id.tolist(), b.views[0], strict=True)}
    signal = cfg.open().signal()
    file = Path(walks.path) / "a.png"
    file.write_bytes(file.read_bytes()[:400])
    (batch,) = loader.batches(cfg.open(), signal, seed=3, batch=3, start=0, stop=1)
    assert sorted(batch.id.tolist()) == [1, 1, 2]
    for i, views in zip(batch.id.tolist(), batch.views[0], strict=True):
        assert torch.equal(views, whole[i])


# --- changes


def test_channels_are_dropped_whole_and_one_always_stays(walks):
    cfg = replace(walks, augment=GazeAugment(drop=0.5, views=WHOLE), fixations="", count=6, viewers=8)
    mean = torch.tensor(cfg.open().signal().mean)[:, None, None, None]
    (batch,) = batches(cfg, 1, batch=64)
    plain = batches(replace(cfg, augment=GazeAugment()), 1, batch=64)[0].x
    views = batch.views[0][:, 0]
    dropped = (views.float() / 255 - mean).abs().flatten(2).amax(2) <= 1 / 255
    assert dropped.sum(1).max() < 3
    assert dropped.float().mean().item() == pytest.approx(0.5 * 2 / 3, abs=0.1)
    assert torch.equal(views[~dropped], plain[~dropped])


def test_scale_and_noise_do_what_they_say(tmp_path):
    x = 5 * np.random.default_rng(0).normal(size=(32, 24, 24)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)

    def views(**changes):
        cfg = Config(
            str(tmp_path / "x.npy"), size=(8, 8), crop=1 / 3, count=4, augment=GazeAugment(views=WHOLE, **changes)
        )
        signal, (batch,) = cfg.open().signal(), batches(cfg, 1, batch=32)
        (plain,) = batches(replace(cfg, augment=GazeAugment()), 1, batch=32)
        return batch.views[0][:, 0], plain.x, signal.mean[0], signal.std[0]

    found, plain, mean, _ = views(scale=0.2)
    factor = ((found - mean) / (plain - mean)).flatten(1)
    assert 0.8 <= factor.median(1).values.min() < 0.84
    assert 1.16 < factor.median(1).values.max() <= 1.2
    found, plain, mean, std = views(noise=0.1)
    noise = (found - plain) / std
    assert noise.std().item() == pytest.approx(0.1, rel=0.03)
    assert abs(noise.mean().item()) < 0.003


def test_padding_of_the_sample_stays_zero_whatever_changes(walks):
    for batch in batches(replace(walks, augment=replace(ALL, views=()))):
        for x, n in zip(batch.x, batch.length.tolist(), strict=True):
            assert x[:, :n].any()
            assert not x[:, n:].any()


def test_colours_change_at_every_level_of_a_fovea(walks):
    cfg = replace(walks, fovea=2, augment=GazeAugment(gray=1.0, views=WHOLE))
    (batch,) = batches(cfg, 1)
    for level in batch.views[0][:, 0].split(3, 1):
        assert torch.equal(level[:, 0], level[:, 1])
        assert torch.equal(level[:, 0], level[:, 2])


# --- chosen, watched, trained


@pytest.mark.parametrize("name", ["vicreg", "lejepa", "simclr"])
def test_methods_that_compare_views_get_two_of_scanpaths_with_the_reason(walks, name):
    walks = replace(walks, fovea=2)
    run, dataset, notes = resolve_data(Run(load(name).Config(), walks), walks.open())
    augment = run.data.augment
    assert augment == GazeAugment(flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), gray=0.2, views=(GazeViews(2),))
    assert [note.key for note in notes] == ["data.augment.views", "data.augment"]
    assert str(notes[1]).startswith("data.augment = flip 0.5, jitter [0.4, 0.4, 0.2, 0.1], gray 0.2 (")
    again, _, none = resolve_data(run, dataset)
    assert (again, none) == (run, [])
    own = GazeAugment(drop=0.5)
    run, _, _ = resolve_data(Run(load(name).Config(), replace(walks, augment=own)), dataset)
    assert run.data.augment == replace(own, views=(GazeViews(),))


def test_the_panel_sees_views_of_scanpaths_that_differ_where_a_run_has_views(walks):
    assert not GazeAugment(flip=0.5).changes
    assert not GazeAugment(views=WHOLE).changes
    assert ALL.changes
    dataset, signal = replace(walks, augment=ALL).open(), Signal(3, (8, 8, 8), (0.5,) * 3, (0.3,) * 3)
    views = samples.view_samples(dataset, signal, 6, 4)
    assert views.shape == (6, 4, 3, 8, 8, 8)
    assert not torch.equal(views[:, 0], views[:, 1])
    assert torch.equal(views, samples.view_samples(dataset, signal, 6, 4))


ENCODER = {"width": 16, "depth": 1, "heads": 2}
PREDICTOR = {"method.predictor": ENCODER}
METHODS = {
    "ijepa": PREDICTOR,
    "cjepa": PREDICTOR | {"method.projector": {"hidden": 16, "out": 4}},
    "bijepa": PREDICTOR | {"method.masks": [{"name": "halves", "axis": 0}]},
    "mae": {"method.decoder": ENCODER},
    "vicreg": {"method.projector": {"hidden": 16, "out": 4}},
    "simclr": {"method.projector": {"hidden": 16, "out": 4}},
    "lejepa": {"method.projector": {"hidden": 16, "out": 4}},
    "rjepa": {"method.encoder": {"patch": [1, 8, 8], "width": 8}, "method.saccade": True},
}
LOOP = {"device": "cpu", "workers": 0, "amp": False, "log_every": 1, "panel_every": 2, "panel_size": 8}


def train(name: str, cfg: Config, out: Path, **data: Any) -> Run:
    """Two steps of a small run; its settings, every auto resolved."""
    own = {"method.encoder": ENCODER} | METHODS[name]
    rest = {"data.name": "scanpaths", "data.size": [8, 8], "data.crop": 0.2, "loop": LOOP, "length.batch": 8}
    settings = rest | {f"data.{key}": value for key, value in data.items()} | own
    done = jk.train(cfg.path, out, recipe=name, settings=settings | {"evals": {"kinds": [], "report": False}}, steps=2)
    assert (done["steps"], np.isfinite(done["loss"])) == (2, True)
    run: Run = parse.from_yaml(out / "config.yaml")
    return run


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_on_scanpaths(walks, tmp_path, name):
    run = train(name, walks, tmp_path / "run", count=6, viewers=2)
    assert run.data.steps == 6
    assert run.data.augment.views == ((GazeViews(2),) if name in ("vicreg", "simclr", "lejepa") else ())


def test_views_are_compared_of_scanpaths_of_unequal_lengths(walks, tmp_path):
    views = [{"count": 2}, {"count": 1, "steps": 3, "size": [4, 4], "crop": [0.3, 0.6]}]
    run = train("lejepa", walks, tmp_path / "run", fixations=walks.fixations, augment={"views": views, "drop": 0.3})
    assert run.data.augment.views[1] == GazeViews(1, (4, 4), (0.3, 0.6), 3)


# --- mistakes


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"views": [{"count": 0}]}, r"data\.augment\.views\.0: a group of views has count 0; give at least one"),
        ({"views": [{"steps": 0}]}, r"steps is 0; give at least 1 fixation"),
        (
            {"views": [{"crop": [0.8, 0.5]}]},
            r"crop is \(0\.8, 0\.5\); give a rising range of the share of the fixations",
        ),
        ({"noise": -1}, r"noise -1 and drop 0; give a scale in \[0, 1\]"),
        ({"drop": 1}, r"drop 1; give"),
        ({"crop": [0.5, 1.0]}, r"a fixation is already a crop"),
    ],
    ids=["count", "steps", "crop", "noise", "drop", "crop of a crop"],
)
def test_changes_that_make_no_sense_are_one_sentence(walks, bad, said):
    with pytest.raises(ValueError, match=said) as error:
        parse.apply_changes(Run(load("vicreg").Config(), walks), {"data": {"augment": bad}})
    assert "\n" not in str(error.value)


def test_views_that_the_patch_does_not_divide_are_refused(walks):
    def asked(**group: Any) -> Run:
        method = load("vicreg").Config(encoder=ViT(patch=(2, 4, 4)))
        return Run(method, replace(walks, augment=GazeAugment(views=(GazeViews(**group),))))

    def check(run: Run) -> None:
        check_views(run.data, run.method, (6, 8, 8))

    with pytest.raises(
        ValueError, match=r"^data\.augment\.views\.0\.steps: patch \(2, 4, 4\) does not divide size \(3,"
    ):
        check(asked(steps=3))
    with pytest.raises(
        ValueError, match=r"^data\.augment\.views\.0\.size: patch \(2, 4, 4\) does not divide .* 6, 6\)"
    ):
        check(asked(size=(6, 6)))


def test_what_reads_samples_and_views_needs_scanpaths_of_one_length(walks, tmp_path):
    settings = {"data.name": "scanpaths", "data.fixations": walks.fixations, "data.crop": 0.2, "length.batch": 8}
    with pytest.raises(
        ValueError, match=r"scanpaths have 3 to 7 fixations, but cjepa.* needs equal lengths; give data"
    ):
        jk.train(walks.path, tmp_path / "run", recipe="cjepa", settings=settings | {"method.pairs": "views"}, steps=2)
