"""Batches of series: a function of (seed, k), views drawn per sample, padding marked and never a value."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from support import resolve_data, two_kinds, write_table

from jepakit.data import loader
from jepakit.data.series.augment import SeriesAugment, SeriesViews
from jepakit.data.series.settings import Config
from jepakit.methods import cjepa, ijepa, load
from jepakit.run.settings import Length, Run
from jepakit.training.monitor import samples
from jepakit.training.resolve import resolve_run
from jepakit.types import Signal

ALL = SeriesAugment(crop=(0.5, 0.9), scale=0.2, jitter=0.1, drop=0.3, views=(SeriesViews(2, (12,)), SeriesViews(3)))


@pytest.fixture
def csv(tmp_path):
    write_table(tmp_path / "a.csv", 200, columns=3)
    return str(tmp_path / "a.csv")


@pytest.fixture
def unequal(tmp_path):
    """Series of 5, 8, 12 and 9 steps."""
    x = np.full((4, 2, 12), np.nan)
    for i, n in enumerate((5, 8, 12, 9)):
        x[i, :, :n] = np.random.default_rng(i).normal(size=(2, n))
    np.save(tmp_path / "a.npy", x)
    return str(tmp_path / "a.npy")


def batches(cfg, stop=6, **options):
    series = cfg.open()
    options = {"seed": 3, "batch": 8, "start": 0, "stop": stop} | options
    return list(loader.batches(series, series.signal(), **options))


def test_a_batch_depends_on_seed_and_number_alone(csv):
    cfg = Config(csv, window=20, stride=4, augment=ALL)
    first, again = batches(cfg), batches(cfg, workers=1, start=0)
    late = batches(cfg, start=4)
    other = batches(cfg, seed=4)
    for a, b in zip([*first, *first[4:]], [*again, *late], strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.id, b.id)
        assert all(torch.equal(v, w) for v, w in zip(a.views, b.views, strict=True))
    assert not torch.equal(first[0].id, other[0].id)


def test_two_ranks_see_what_one_sees(csv):
    cfg = Config(csv, window=20, stride=4, augment=ALL)
    whole = batches(cfg)
    parts = [batches(cfg, batch=4, offset=offset, total=8) for offset in (0, 4)]
    for one, *two in zip(whole, *parts, strict=True):
        assert torch.equal(one.x, torch.cat([part.x for part in two]))
        assert torch.equal(one.views[1], torch.cat([part.views[1] for part in two]))


@pytest.mark.parametrize(
    "augment",
    [
        SeriesAugment(crop=(0.5, 0.9), views=(SeriesViews(2, (12,)), SeriesViews(3))),
        SeriesAugment(jitter=0.1, views=(SeriesViews(2, crop=(1.0, 1.0)), SeriesViews(3, crop=(1.0, 1.0)))),
    ],
    ids=["crop", "jitter"],
)
def test_the_same_sample_is_changed_otherwise_in_every_epoch_and_view(csv, augment):
    cfg = Config(csv, window=20, stride=20, augment=augment)
    seen = {}
    for batch in batches(cfg, stop=2, batch=10):
        for i, x, views in zip(batch.id.tolist(), batch.x, batch.views[1], strict=True):
            seen.setdefault(i, []).extend([x, *views])
    assert all(len(versions) == 8 for versions in seen.values())
    same = [torch.equal(a, b) for versions in seen.values() for k, a in enumerate(versions) for b in versions[:k]]
    # Two of the few places that a crop of 20 steps can have are the same now and then.
    assert sum(same) < 0.1 * len(same)


def test_views_have_the_sizes_asked_for_and_keep_the_ends_of_their_part(csv):
    cfg = Config(csv, window=20, stride=4, augment=SeriesAugment(views=(SeriesViews(2, (12,)), SeriesViews(1))))
    batch = batches(cfg)[0]
    assert [tuple(v.shape) for v in batch.views] == [(8, 2, 3, 12), (8, 1, 3, 20)]
    series = cfg.open()
    for i, view in zip(batch.id.tolist(), batch.views[0][:, 0], strict=True):
        values = series.raw(i)[0]
        assert view[0, 0] in values
        assert view[0, -1] in values
        assert view.abs().max() <= 1  # linear between values of sines
    whole = series.with_config(replace(cfg, augment=SeriesAugment(views=(SeriesViews(crop=(1.0, 1.0)),))))
    full = whole.versions(batch.id.numpy(), 2, series.signal())
    assert torch.equal(full[:, 0], torch.stack([series.raw(i) for i in batch.id.tolist()]))


def test_every_change_does_what_it_says(csv):
    def views(**changes):
        cfg = Config(
            csv, window=40, stride=1, augment=SeriesAugment(views=(SeriesViews(1, crop=(1.0, 1.0)),), **changes)
        )
        series = cfg.open()
        signal = series.signal()
        (batch,) = batches(cfg, stop=1, batch=128)
        plain = torch.stack([series.raw(i) for i in batch.id.tolist()])
        return batch.views[0][:, 0], plain, torch.tensor(signal.mean)[:, None], torch.tensor(signal.std)[:, None]

    x, plain, mean, _ = views(scale=0.2)
    factor = ((x - mean) / (plain - mean)).median(2).values
    assert 0.8 <= factor.min() < 0.82
    assert 1.18 < factor.max() <= 1.2
    x, plain, mean, std = views(jitter=0.1)
    noise = (x - plain) / std
    assert noise.std().item() == pytest.approx(0.1, rel=0.03)
    assert abs(noise.mean().item()) < 0.003
    x, plain, mean, _ = views(drop=0.5)
    dropped = (x == mean).all(2)
    torch.testing.assert_close(x[~dropped], plain[~dropped])
    assert dropped.sum(1).max() < 3  # one channel always stays
    assert dropped.float().mean().item() == pytest.approx(0.5 * 2 / 3, abs=0.07)


def test_padding_is_marked_by_length_and_changes_no_sample(unequal):
    cfg = Config(unequal)
    series = cfg.open()
    (batch,) = loader.read_stream(series, series.signal(), batch=4)
    assert batch.length.tolist() == [5, 8, 12, 9]
    for i, n in enumerate(batch.length.tolist()):
        assert torch.equal(batch.x[i, :, :n], series.raw(i))
        assert not batch.x[i, :, n:].any()
    noisy = batches(replace(cfg, augment=SeriesAugment(jitter=0.1)), stop=1, batch=4)[0]
    for x, n in zip(noisy.x, noisy.length.tolist(), strict=True):
        assert not x[:, n:].any()


def test_views_of_padded_series_hold_no_padding(unequal):
    cfg = Config(unequal, augment=SeriesAugment(views=(SeriesViews(2),)))
    (batch,) = batches(cfg, stop=1, batch=4)
    assert (batch.views[0] != 0).all()


@pytest.mark.parametrize(("how", "length"), [("stretch", 12), ("cut", 5)])
def test_unequal_series_come_to_one_length(unequal, how, length):
    cfg = Config(unequal, unequal=how)
    series = cfg.open()
    (batch,) = loader.read_stream(series, series.signal(), batch=4)
    assert (series.has_padding, batch.length, batch.x.shape) == (False, None, (4, 2, length))
    assert torch.equal(batch.x[2, :, :5] if how == "cut" else batch.x[2], series.raw(2)[:, :length])
    assert torch.equal(batch.x[1, :, 0], series.raw(1)[:, 0])
    if how == "stretch":
        assert torch.equal(batch.x[1, :, -1], series.raw(1)[:, -1])


def test_series_of_another_length_than_the_models_are_refused_or_stretched(tmp_path):
    x, _ = two_kinds(6, length=30)
    np.save(tmp_path / "a.npy", x)
    signal = Signal(channels=1, size=(24,))
    with pytest.raises(ValueError, match=r"a\.npy\[0\] has 30 steps but the model takes 24; set data\.unequal=stretch"):
        next(loader.read_stream(Config(str(tmp_path / "a.npy")).open(), signal, batch=4))
    stretched = Config(str(tmp_path / "a.npy"), unequal="stretch").open()
    assert next(loader.read_stream(stretched, signal, batch=4)).x.shape == (4, 1, 24)


def test_a_run_on_series_keeps_what_was_chosen_from_its_data(csv):
    run = Run(ijepa.Config(), Config(csv), length=Length(batch=8))
    run, series, _, notes = resolve_run(run, run.data.open())
    assert (run.data.window, run.data.stride, run.data.columns) == (series.window, series.stride, ("c0", "c1", "c2"))
    assert prod(run.method.encoder.patch) * 7 <= series.window
    assert any(note.startswith("method.masks = ") for note in notes)


def test_masks_that_were_chosen_stay(csv):
    signal = Signal(channels=3, size=(96,))
    own = cjepa.Config.tiny(signal)
    assert cjepa.CJEPA.fit_config(own, signal) == (own, [])
    assert ijepa.IJEPA.fit_config(ijepa.Config(), Signal(3, (32, 32)))[0].masks == ijepa.Config().masks


@pytest.mark.parametrize("name", ["vicreg", "lejepa", "simclr"])
def test_methods_that_compare_views_get_views_of_series(csv, name):
    run, _, notes = resolve_data(Run(load(name).Config(), Config(csv)), Config(csv).open())
    assert run.data.augment == SeriesAugment().strong(3).augment
    assert [note.key for note in notes] == ["data.augment.views", "data.augment"]
    own = SeriesAugment(jitter=0.5)
    run, _, _ = resolve_data(Run(load(name).Config(), Config(csv, augment=own)), Config(csv).open())
    assert run.data.augment == replace(own, views=(SeriesViews(),))


def test_the_panel_sees_versions_of_a_series_that_differ(csv):
    cfg = Config(csv, window=20, stride=4, augment=SeriesAugment().strong(3).augment)
    series = cfg.open()
    signal = series.signal()
    assert cfg.augment.changes
    assert not SeriesAugment().changes
    views = samples.view_samples(series, signal, 6, 4)
    assert views.shape == (6, 4, 3, 20)
    assert not torch.equal(views[:, 0], views[:, 1])
    assert torch.equal(views, samples.view_samples(series, signal, 6, 4))


def test_some_samples_of_series_are_series_with_labels_of_their_own(csv):
    series = Config(csv, window=20, stride=4).open()
    some = series.subset(np.array([7, 2]), np.array([1, 0]))
    assert torch.equal(some.raw(0), series.raw(7))
    assert [some.label(0), some.label(1), some.name(1)] == [1, 0, series.name(2)]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"scale": 2.0}, "scale is 2"),
        ({"drop": 1.0}, "drop 1"),
        ({"jitter": -1.0}, "jitter is -1"),
        ({"crop": (0.0, 1.0)}, "crop is"),
    ],
)
def test_changes_that_make_no_sense_are_refused(bad, said):
    with pytest.raises(ValueError, match=said):
        SeriesAugment(**bad)
