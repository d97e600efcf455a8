from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from jepakit.core.draws import uniform_draws
from jepakit.data import loader
from jepakit.data.images import arrays, synthetic
from jepakit.data.images import files as images
from jepakit.data.images.augment import Augment, Views
from jepakit.data.images.dataset import choose_size
from jepakit.types import Rng

PHOTO = Augment(
    flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), gray=0.3, blur=0.5, solarize=0.3, views=(Views(2), Views(1, (8, 8)))
)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    rng = np.random.default_rng(0)
    for k in range(11):
        coarse = Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8))
        coarse.resize((40, 32 + k)).save(root / f"{k:02d}.jpg")
    return root


def opened(cfg):
    dataset = cfg.open()
    return dataset, dataset.signal()


def same(a, b):
    first, second = ([t for t in (b.x, *b.views, b.id, b.label) if t is not None] for b in (a, b))
    return len(first) == len(second) and all(map(torch.equal, first, second))


def configs(folder):
    return [
        images.Config(str(folder), size=(16, 16)),
        images.Config(str(folder), size=(16, 16), augment=PHOTO),
        synthetic.Config("shapes", count=30, size=(16, 16), augment=PHOTO),
    ]


@pytest.mark.parametrize("which", range(3))
def test_batch_k_is_a_function_of_seed_and_k_alone(folder, which):
    source = opened(configs(folder)[which])
    options = {"seed": 3, "batch": 4}
    straight = list(loader.batches(*source, **options, start=0, stop=6))
    for workers in (0, 2):
        again = list(loader.batches(*source, **options, start=2, stop=6, workers=workers))
        assert len(again) == 4
        assert all(map(same, again, straight[2:]))
    other = next(loader.batches(*source, seed=4, batch=4, start=0, stop=1))
    assert not torch.equal(other.x, straight[0].x)


@pytest.mark.parametrize("which", range(3))
def test_two_halves_of_a_global_batch_are_the_whole(folder, which):
    source = opened(configs(folder)[which])
    whole = next(loader.batches(*source, seed=0, batch=6, start=1, stop=2))
    halves = [
        next(loader.batches(*source, seed=0, batch=3, start=1, stop=2, offset=offset, total=6)) for offset in (0, 3)
    ]
    assert torch.equal(torch.cat([half.id for half in halves]), whole.id)
    assert torch.equal(torch.cat([half.x for half in halves]), whole.x)
    for k, view in enumerate(whole.views):
        assert torch.equal(torch.cat([half.views[k] for half in halves]), view)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("parts", [2, 12])
def test_pictures_of_an_array_do_not_depend_on_their_company(tmp_path, kind, parts):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels if kind == np.uint8 else (pixels / 255).astype(kind))
    # Boxes larger and smaller than the 24 pixels of the output, and whole pictures among the views.
    views = (Views(2), Views(1, (16, 16)), Views(2, (32, 32), (1.0, 1.0)))
    augment = replace(PHOTO, crop=(0.2, 1.0), views=views)
    dataset, signal = opened(arrays.Config(str(tmp_path / "x.npy"), size=(24, 24), layout="NCHW", augment=augment))
    ids, rng = np.arange(12, dtype=np.int64), Rng(0).fork("data")
    whole = dataset.draw(ids, rng, signal)
    split = [dataset.draw(some, rng, signal) for some in np.split(ids, parts)]
    assert torch.equal(torch.cat([part.x for part in split]), whole.x)
    for k, view in enumerate(whole.views):
        assert torch.equal(torch.cat([part.views[k] for part in split]), view)


@pytest.mark.parametrize("which", range(3))
def test_who_reads_views_only_gets_the_same_ones_and_the_first_stands_for_the_sample(folder, which):
    source = opened(configs(folder)[which])
    options = {"seed": 0, "batch": 4, "start": 0, "stop": 1}
    whole, views = (next(loader.batches(*source, **options, include_x=given)) for given in (True, False))
    assert len(whole.views) == len(views.views)
    assert all(map(torch.equal, whole.views, views.views))
    assert torch.equal(views.x, views.views[0][:, 0] if views.views else whole.x)


def test_each_epoch_shows_every_sample_at_most_once_in_another_order(folder):
    source = opened(images.Config(str(folder), size=(16, 16)))
    seen = [batch.id.tolist() for batch in loader.batches(*source, seed=0, batch=5, start=0, stop=4)]
    first, second = seen[0] + seen[1], seen[2] + seen[3]
    assert len(set(first)) == len(set(second)) == 10
    assert first != second


def test_a_sample_is_cut_differently_in_another_epoch(folder):
    cfg = images.Config(str(folder), size=(16, 16))
    source = opened(cfg)
    both = list(loader.batches(*source, seed=0, batch=11, start=0, stop=2))
    pictures = [batch.x[batch.id.argsort()] for batch in both]
    assert all(not torch.equal(a, b) for a, b in zip(*pictures, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_state_is_left_alone(folder, workers):
    source = opened(images.Config(str(folder), size=(16, 16), augment=PHOTO))
    torch.manual_seed(5), np.random.seed(5)
    list(loader.batches(*source, seed=0, batch=4, start=0, stop=3, workers=workers))
    list(loader.read_stream(source[0], source[1], batch=4, workers=workers))
    after = torch.rand(1), np.random.rand()
    torch.manual_seed(5), np.random.seed(5)
    assert after == (torch.rand(1), np.random.rand())


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_give_way_to_the_next_readable_one_and_are_named(folder, workers):
    (folder / "03.jpg").write_bytes((folder / "03.jpg").read_bytes()[:400])
    (folder / "04.jpg").write_bytes(b"")
    source = opened(images.Config(str(folder), size=(16, 16)))
    it = loader.batches(*source, seed=0, batch=11, start=0, stop=1, workers=workers)
    batch = next(it)
    assert set(it.skipped) == {"03.jpg", "04.jpg"}
    want = loader.epoch_order(11, 0, 0)
    assert batch.id.tolist() == [5 if i in (3, 4) else i for i in want.tolist()]
    where = batch.id.eq(5).nonzero().flatten()
    assert len(where) == 3
    assert torch.equal(batch.x[where[0]], batch.x[where[1]])


def test_fail_stops_at_the_first_broken_image_and_names_it(folder):
    source = opened(images.Config(str(folder), size=(16, 16)))
    (folder / "07.jpg").write_bytes(b"broken")
    strict = source[0].with_config(images.Config(str(folder), size=(16, 16), corrupt="fail"))
    for workers in (0, 2):
        with pytest.raises(ValueError, match=r"^cannot read 07\.jpg.*data\.corrupt=skip$"):
            list(loader.batches(strict, source[1], seed=0, batch=11, start=0, stop=1, workers=workers))
    with pytest.raises(ValueError, match=r"07\.jpg"):
        list(loader.read_stream(source[0], source[1], batch=4, corrupt="fail"))
    with pytest.raises(ValueError, match=r"07\.jpg"):
        strict.signal()


def test_data_that_break_altogether_end_in_an_error(folder):
    source = opened(images.Config(str(folder), size=(16, 16)))
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="none of 11 images can be read"):
        list(loader.batches(*source, seed=0, batch=4, start=0, stop=1))
    with pytest.raises(ValueError, match="none of 11 images tried can be read"):
        source[0].signal()


def test_fewer_images_than_a_batch_are_an_error_before_the_first(folder):
    source = opened(images.Config(str(folder), size=(16, 16)))
    with pytest.raises(ValueError, match="hold 11 samples, fewer than one batch of 12; set a batch of at most 11"):
        loader.batches(*source, seed=0, batch=12, start=0, stop=1)


def test_the_stream_is_in_order_complete_and_without_augmentation(folder):
    source = opened(images.Config(str(folder), size=(16, 16), augment=PHOTO))
    once, again = (list(loader.read_stream(source[0], source[1], batch=4, workers=workers)) for workers in (0, 2))
    assert torch.cat([batch.id for batch in once]).tolist() == list(range(11))
    assert [len(batch) for batch in once] == [4, 4, 3]
    assert all(map(same, once, again))
    assert once[0].views == ()
    rest = list(loader.read_stream(source[0], source[1], batch=4, start=5))
    assert torch.cat([batch.id for batch in rest]).tolist() == list(range(5, 11))


def test_the_stream_leaves_broken_images_out(folder):
    source = opened(images.Config(str(folder), size=(16, 16)))
    for k in (1, 4, 5, 6, 7):
        (folder / f"{k:02d}.jpg").write_bytes(b"broken")
    it = loader.read_stream(source[0], source[1], batch=4)
    assert [batch.id.tolist() for batch in it] == [[0, 2, 3], [8, 9, 10]]
    assert len(it.skipped) == 5


def test_small_images_of_one_size_come_out_of_the_stream_untouched():
    dataset, signal = opened(synthetic.Config("digits", count=10, size=(20, 24)))
    batch = next(loader.read_stream(dataset, signal, batch=10)).to("cpu")
    assert torch.equal(batch.x, torch.stack([dataset.raw(i) for i in range(10)]))
    assert batch.x.min() >= 0
    assert batch.x.max() <= 1


def test_arrays_and_files_of_the_same_pictures_give_nearly_the_same_crops(tmp_path):
    dataset, signal = opened(synthetic.Config("shapes", count=12, size=(32, 32)))
    for i in range(12):
        Image.fromarray((dataset.raw(i) * 255).byte().permute(1, 2, 0).numpy()).save(tmp_path / f"{i:02d}.png")
    files = images.Config(str(tmp_path), size=(32, 32)).open()
    a, b = (loader.Draws(d, signal, 0, 12, 0, 12)[0].batch().to("cpu") for d in (dataset, files))
    assert torch.equal(a.id, b.id)
    # Pillow lets the pixels beside a box reach its outermost row.
    assert (a.x - b.x)[..., 3:-3, 3:-3].abs().max() <= 2.5 / 255


def test_small_images_of_one_size_are_held_as_they_are_and_one_broken_file_changes_that(tmp_path):
    dataset, signal = opened(synthetic.Config("shapes", count=12, size=(32, 32)))
    for i in range(12):
        Image.fromarray((dataset.raw(i) * 255).byte().permute(1, 2, 0).numpy()).save(tmp_path / f"{i:02d}.png")
    files = images.Config(str(tmp_path)).open()
    held = files.in_memory()
    assert isinstance(held, arrays.Arrays)
    assert all(torch.equal(held.raw(i), files.raw(i)) for i in range(12))
    (tmp_path / "03.png").write_bytes(b"broken")
    assert files.in_memory() is files
    it = loader.batches(files, signal, seed=0, batch=12, start=0, stop=1)
    assert 3 not in next(it).id
    assert list(it.skipped) == ["03.png"]


def test_8_and_16_bit_images_mix_in_one_batch(tmp_path):
    for k in range(4):
        array = np.full((16, 16), 100 if k % 2 else 100 * 257, np.uint8 if k % 2 else np.uint16)
        Image.fromarray(array).save(tmp_path / f"{k}.png")
    source = opened(images.Config(str(tmp_path), size=(16, 16)))
    batch = next(loader.batches(*source, seed=0, batch=4, start=0, stop=1))
    torch.testing.assert_close(batch.x, torch.full((4, 1, 16, 16), 100 / 255))


def test_statistics_are_those_of_the_data_and_a_constant_channel_is_left_alone(tmp_path):
    x = np.random.default_rng(0).normal([1.0, -3.0, 7.0], [2.0, 0.5, 0.0], (50, 20, 30, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    dataset, signal = opened(arrays.Config(str(tmp_path / "x.npy")))
    assert signal.size == (20, 30)
    np.testing.assert_allclose(signal.mean, x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(signal.std, [x[..., 0].std(), x[..., 1].std(), 1.0], rtol=1e-4)
    assert dataset.signal() == signal


def test_values_that_are_not_finite_are_refused(tmp_path):
    x = np.zeros((5, 8, 8), np.float32)
    x[3, 2, 2] = np.nan
    np.save(tmp_path / "x.npy", x)
    cfg = arrays.Config(str(tmp_path / "x.npy"))
    with pytest.raises(ValueError, match="not finite"):
        cfg.open().signal()


@pytest.mark.parametrize(("side", "size"), [(40, (40, 40)), (300, (224, 224)), (100, (96, 96)), (230, (224, 224))])
def test_small_images_keep_their_size_and_none_are_scaled_up(tmp_path, side, size):
    for k in range(2):
        Image.fromarray(np.full((side, side), 10 * k, np.uint8)).save(tmp_path / f"{k}.png")
    dataset = images.Config(str(tmp_path)).open()
    assert dataset.sample_size() == size
    assert dataset.with_config(images.Config(size=(64, 32))).sample_size() == (64, 32)


@pytest.mark.parametrize(
    ("side", "patch", "size"),
    [
        (100, None, (96, 96)),
        (100, (8, 8), (96, 96)),
        (100, (14, 14), (98, 98)),
        (100, (16, 16), (112, 112)),  # at least 7 patches
        (100, (4, 10), (100, 100)),
        (20, None, (32, 32)),
        (1000, (14, 14), (224, 224)),
        (1000, (15, 15), (210, 210)),
        (1000, (300, 300), (300, 300)),
    ],
)
def test_an_open_size_is_that_of_the_pictures_in_whole_patches_of_the_encoder(side, patch, size):
    assert choose_size(side, patch) == size


def test_an_open_size_is_chosen_from_the_median_picture_and_a_size_that_scales_up_is_said(tmp_path):
    for k, side in enumerate((60, 100, 108)):
        Image.fromarray(np.zeros((side, 150, 3), np.uint8)).save(tmp_path / f"{k}.png")
    cfg = images.Config(str(tmp_path))
    chosen, notes = cfg.resolve(cfg.open(), frozenset(), "ijepa")
    assert chosen.size == (96, 96)
    assert [str(note) for note in notes] == [
        "data.size = [96, 96] (the median shorter side is 100 px; a multiple of 16, at most 224)"
    ]
    fixed = replace(cfg, size=(224, 224))
    kept, notes = fixed.resolve(fixed.open(), frozenset(), "ijepa", (8, 8))
    assert kept == fixed
    assert str(notes[0]).startswith(
        "data.size = [224, 224] (pictures of 100 px are scaled up; --data.size '[96, 96]' has 5.4 times fewer patches"
    )
    assert not replace(cfg, size=(96, 96)).resolve(cfg.open(), frozenset(), "ijepa")[1]


def test_the_signal_counts_views_and_classes():
    _, signal = opened(synthetic.Config("shapes", count=20, augment=PHOTO))
    assert signal.views == 3
    assert signal.classes == 5


def test_uniform_numbers_are_uniform_and_independent_of_their_company():
    ids = np.arange(4000, dtype=np.int64)
    u = uniform_draws(Rng(0), ids, 5)
    assert np.array_equal(uniform_draws(Rng(0), ids[7:9], 5), u[7:9])
    assert abs(u.mean(0) - 0.5).max() < 0.02
    assert abs(u.std(0) - 12**-0.5).max() < 0.01
    assert abs(np.corrcoef(u.T) - np.eye(5)).max() < 0.06
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.06
    assert not np.allclose(uniform_draws(Rng(1), ids, 5), u)
