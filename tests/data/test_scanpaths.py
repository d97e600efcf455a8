"""Scanpaths: crops where a gaze went, saccades as actions; read from files or made up, and trained on."""

import csv
import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import logged_losses, write_pictures

import jepakit as jk
from jepakit import data, methods
from jepakit.core.padding import equal_length_groups
from jepakit.data import loader
from jepakit.data.check import check_path
from jepakit.data.scanpaths.augment import GazeAugment
from jepakit.data.scanpaths.pictures import Pictures, View
from jepakit.data.scanpaths.record import ColumnRequest, read_fixations
from jepakit.data.scanpaths.settings import Config
from jepakit.evals.sources import resample_time
from jepakit.nn.transformer import ViT
from jepakit.reporting.scanpaths import draw_scanpath
from jepakit.run import parse
from jepakit.training.monitor import samples
from jepakit.types import Batch, Rng, Signal

SIDE = 40
ROWS = [
    ("a.png", "0", 20.0, 20.0, 100.0),
    ("a.png", "0", 30.0, 10.0, 200.0),
    ("a.png", "0", 0.0, 40.0, 300.0),
    ("a.png", "1", 10.0, 10.0, 150.0),
    ("a.png", "1", 22.0, 10.0, 50.0),
    ("b.png", "0", 5.0, 5.0, 70.0),
    ("b.png", "1", 9.0, 5.0, 90.0),
    ("b.png", "1", 9.0, 35.0, 90.0),
]


def pictures(folder: Path, count: int = 2, classes: int = 0) -> Path:
    """Noise of side 40, a.png, b.png …, in folders c0, c1 … where there are classes."""
    names = [f"{f'c{i % classes}/' if classes else ''}{chr(97 + i)}.png" for i in range(count)]
    return write_pictures(folder, names, SIDE)


def table(path: Path, rows=ROWS, header=("image", "subject", "x", "y", "duration")) -> str:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def as_json(path: Path, rows=ROWS) -> str:
    entries = []
    for name in dict.fromkeys(row[0] for row in rows):
        tracks = []
        for who in dict.fromkeys(row[1] for row in rows if row[0] == name):
            own = [row for row in rows if row[:2] == (name, who)]
            x, y, t = ([row[k] for row in own] for k in (2, 3, 4))
            tracks.append({"subject": who, "x": x, "y": y, "duration": t})
        entries.append({"image": name, "scanpaths": tracks})
    with gzip.open(path, "wt") as file:
        json.dump([*entries, {"image": "gone.png", "has_image": False, "scanpaths": []}], file)
    return str(path)


@pytest.fixture
def small(tmp_path) -> Config:
    """Five scanpaths on two pictures of 40 px, one of them of one fixation; a crop is 8 px, seen as it is."""
    folder = pictures(tmp_path / "photos")
    return Config(str(folder), table(tmp_path / "f.csv"), size=(8, 8), crop=8 / SIDE)


@pytest.fixture(scope="module")
def osie(shared_data):
    """The settings for the OSIE set, and what they open."""
    folder = shared_data / "gaze_osie"
    cfg = Config(str(folder / "images.tar"), str(folder / "fixations.json.gz"), timing="duration")
    return cfg, cfg.open()


def batch(dataset, cfg, k=0, count=4, workers=0, seed=0) -> Batch:
    signal = dataset.signal()
    return next(loader.batches(dataset, signal, seed=seed, batch=count, start=k, stop=k + 1, workers=workers))


# --- what is read


def test_of_osie_the_scanpaths_on_pictures_that_are_there_are_read_and_the_short_ones_counted(osie, shared_data):
    _, dataset = osie
    with gzip.open(shared_data / "gaze_osie" / "fixations.json.gz") as file:
        entries = json.load(file)
    assert (len(entries), sum(len(e["scanpaths"]) for e in entries)) == (700, 10_500)
    here = [track for e in entries if e["has_image"] for track in e["scanpaths"]]
    assert len(here) == 5250
    assert len(dataset) == 5250 - sum(len(track["x"]) < 2 for track in here) == 5248
    assert "2 scanpaths have fewer than 2 fixations and are left out (data.least)" in dataset.notes
    assert "350 entries of the fixation file have no image and are left out" in dataset.notes
    assert dataset.native == (16, 32, 32)
    assert any("the longest 22" in note for note in dataset.notes)
    path = dataset.scanpath_of(3)
    assert (path.image, path.subject) == ("images.tar/1001.jpg", "3")
    np.testing.assert_allclose(path.xy.T, [entries[0]["scanpaths"][3][k] for k in ("x", "y")])
    np.testing.assert_allclose(dataset.scanpath_of(3).duration, entries[0]["scanpaths"][3]["t"])


def test_csv_and_json_give_the_same(small, tmp_path):
    one, two = small.open(), replace(small, fixations=as_json(tmp_path / "f.json.gz")).open()
    assert len(one) == len(two) == 3
    for i in range(3):
        assert one.name(i) == two.name(i)
        assert torch.equal(one.raw(i), two.raw(i))
        np.testing.assert_array_equal(one.scanpath_of(i).duration, two.scanpath_of(i).duration)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_columns_may_be_separated_by_semicolons_or_tabs(small, tmp_path, mark):
    file = tmp_path / "other.csv"
    file.write_text(Path(small.fixations).read_text().replace(",", mark))
    one, two = small.open(), replace(small, fixations=str(file)).open()
    assert [two.name(i) for i in range(len(two))] == [one.name(i) for i in range(len(one))]
    np.testing.assert_array_equal(two.scanpath_of(1).xy, one.scanpath_of(1).xy)


def test_blanks_around_names_and_cells_are_no_part_of_them(small, tmp_path):
    file = tmp_path / "other.csv"
    file.write_text(Path(small.fixations).read_text().replace(",", " , "))
    one, two = small.open(), replace(small, fixations=str(file)).open()
    assert [two.name(i) for i in range(len(two))] == [one.name(i) for i in range(len(one))]
    np.testing.assert_array_equal(two.scanpath_of(1).xy, one.scanpath_of(1).xy)


def test_a_picture_may_be_called_0(tmp_path):
    entries = [{"image": name, "x": [1, 2], "y": [1, 2]} for name in (0, 1, "", None)]
    (tmp_path / "f.json").write_text(json.dumps(entries))
    found = read_fixations(str(tmp_path / "f.json"), ColumnRequest())
    assert [track.image for track in found.tracks] == ["0", "1"]
    assert found.without == 2


def test_a_json_file_alone_finds_its_pictures_beside_it(small, tmp_path):
    shutil.move(small.path, tmp_path / "images")
    file = as_json(tmp_path / "f.json.gz")
    assert data.guess_kind(file)[0] == "scanpaths"
    assert len(data.read_like(small, file).open()) == 3


def test_onsets_become_durations_and_the_last_is_unknown(small, tmp_path):
    rows = [(*row[:4], 1000 + 250 * k) for k, row in enumerate(ROWS)]
    file = table(tmp_path / "o.csv", rows, ("image", "subject", "x", "y", "t"))
    dataset = replace(small, fixations=file).open()
    np.testing.assert_array_equal(dataset.scanpath_of(0).duration, [250, 250, np.nan])
    assert "times: column 't' is the onset of each fixation (data.timing)" in dataset.notes


# --- crops and saccades


def test_a_crop_is_the_patch_cut_by_hand(osie):
    cfg, _dataset = osie
    plain = replace(cfg, crop=32 / 600, size=(32, 32), limit=20).open()
    for i in range(5):
        path = plain.scanpath_of(i)
        whole = plain.source.raw(int(plain.rows.image[i]))
        inside = [(t, x, y) for t, (x, y) in enumerate(path.xy) if 16 <= x < 784 and 16 <= y < 584]
        assert len(inside) > 1
        for t, x, y in inside:
            left, top = int(np.floor(x - 15.5)), int(np.floor(y - 15.5))
            assert torch.equal(plain.raw(i)[:, t], whole[:, top : top + 32, left : left + 32])


def test_beyond_the_border_the_edge_goes_on(small):
    dataset = small.open()
    whole, crop = dataset.source.raw(0), dataset.raw(0)[:, 2]  # around (0, 40), the lower left corner
    assert torch.equal(crop[:, :4, 4:], whole[:, 36:, :4])
    assert torch.equal(crop[:, :4, :4], whole[:, 36:, :1].expand(-1, -1, 4))
    assert (crop[:, 4:, :4] == whole[:, 39:, :1]).all()


def test_saccades_are_in_sides_of_the_crop_whatever_the_resolution(small, tmp_path):
    signal = Signal(3, (4, 8, 8))
    found = next(loader.read_stream(small.open(), signal, batch=3))
    assert found.action.shape == (3, 3, 2)
    assert found.length.tolist() == [3, 2, 2]
    assert found.action[0].tolist() == [[1.25, -1.25], [-3.75, 3.75], [0, 0]]
    double = tmp_path / "double"
    double.mkdir()
    for file in Path(small.path).iterdir():
        Image.open(file).resize((80, 80)).save(double / file.name)
    rows = [(*row[:2], 2 * row[2], 2 * row[3], row[4]) for row in ROWS]
    large = replace(small, path=str(double), fixations=table(tmp_path / "g.csv", rows)).open()
    assert torch.equal(next(loader.read_stream(large, signal, batch=3)).action, found.action)


def test_a_fovea_sees_twice_as_much_at_each_level_in_further_channels(tmp_path):
    across = np.tile(np.arange(64, dtype=np.float32) / 64, (64, 1))
    np.save(tmp_path / "ramp.npy", np.stack([across, across.T]))
    cfg = Config(str(tmp_path / "ramp.npy"), size=(8, 8), crop=8 / 64, fovea=3, synthetic="raster", count=9)
    dataset = cfg.open()
    assert dataset.channels == 3
    x = dataset.raw(0)[:, 4]  # the middle of the picture
    assert torch.allclose(x[:, 0].diff(dim=1).mean(1), torch.tensor([1.0, 2.0, 4.0]) / 64, rtol=0.02)
    assert torch.allclose(x.mean((1, 2)), torch.full((3,), 31.5 / 64), atol=2e-2)


def test_fixations_and_crops_do_not_depend_on_what_is_remembered(small):
    dataset = small.open()
    forgetful = replace(dataset, pictures=Pictures(dataset.source, memory=0))
    for i in (0, 2, 0, 1):
        assert torch.equal(forgetful.raw(i), dataset.raw(i))
    assert len(forgetful.pictures.cache) == 1 < len(dataset.pictures.cache)


# --- parts, orders, places


@pytest.mark.parametrize("by", ["image", "subject"])
def test_no_picture_or_no_subject_is_on_both_sides(osie, by):
    cfg, whole = osie
    parts = [replace(cfg, split=split, split_by=by).open() for split in ("train", "test")]
    assert sum(map(len, parts)) == len(whole)
    keys = [set((p.rows.image if by == "image" else p.rows.subject).tolist()) for p in parts]
    assert not keys[0] & keys[1]
    assert 0.02 < len(parts[1]) / len(whole) < 0.2
    named = [{p.name(i) for i in range(len(p))} for p in parts]
    assert not named[0] & named[1]
    assert parts[0].classes == parts[1].classes


def test_the_orders_to_compare_with_do_what_they_say(osie):
    _, human = osie
    find = {order: replace(human, order=order) for order in ("shuffled", "repeated", "uniform", "raster")}
    moved = 0
    for i in range(0, 200, 10):
        own, shuffled = human.scanpath_of(i), find["shuffled"].scanpath_of(i)
        pairs = [sorted(zip(*p.xy.T, p.duration, strict=True)) for p in (own, shuffled)]
        assert pairs[0] == pairs[1]
        moved += not np.array_equal(own.xy, shuffled.xy)
        assert (find["repeated"].places(i) == own.xy[0]).all()
        for name in ("uniform", "raster"):
            xy = find[name].places(i)
            assert len(xy) == len(own.xy)
            assert (xy >= 0).all()
            assert (xy <= [800, 600]).all()
        rows = find["raster"].places(i)
        assert (np.lexsort((rows[:, 0], rows[:, 1])) == np.arange(len(rows))).all()
    assert moved > 15


def test_an_order_depends_on_seed_and_scanpath_alone(osie):
    cfg, human = osie
    whole = replace(human, order="uniform")
    part = replace(cfg, order="uniform", split="test", limit=50).open()
    where = {whole.name(i): i for i in range(len(whole))}
    for i in range(50):
        np.testing.assert_array_equal(part.places(i), whole.places(where[part.name(i)]))
    assert not np.array_equal(replace(whole, seed=1).places(0), whole.places(0))


@pytest.mark.parametrize("kind", ["saliency", "uniform", "raster"])
def test_places_are_made_up_for_any_pictures(tmp_path, kind):
    cfg = Config(str(pictures(tmp_path / "p", 4, 2)), synthetic=kind, count=6, viewers=3)
    dataset = cfg.open()
    assert len(dataset) == 12
    assert dataset.classes == ("c0", "c1")
    assert dataset.native[0] == 6
    assert [dataset.label(i) for i in range(12)] == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert all(dataset.places(i).shape == (6, 2) and (dataset.places(i) <= SIDE).all() for i in range(12))
    assert np.array_equal(dataset.places(0), dataset.places(1)) == (kind == "raster")
    found = batch(dataset, cfg)
    assert found.length is None
    assert found.action.shape == (4, 5, 2)
    seen = replace(cfg, label="image").open()
    assert [seen.classes[seen.label(i)] for i in (0, 2, 3, 11)] == ["c0/a.png", "c0/a.png", "c0/c.png", "c1/d.png"]


def test_salient_places_lie_where_there_is_contrast_and_seldom_twice(tmp_path):
    x = np.zeros((30, 48, 48), dtype=np.uint8)
    x[:, 24:, 24:] = np.random.default_rng(0).integers(0, 256, (30, 24, 24))
    np.save(tmp_path / "corner.npy", x)
    cfg = Config(str(tmp_path / "corner.npy"), count=6, size=(8, 8), crop=1 / 6)
    xy = np.stack([cfg.open().places(i) for i in range(30)])
    assert (xy >= 22).all(2).mean() > 0.8
    far = np.linalg.norm(np.diff(xy[:, :3], axis=1), axis=2)
    free = np.linalg.norm(np.diff(24 + 24 * np.random.default_rng(1).random((2000, 2, 2)), axis=1), axis=2)
    assert (far < 4).mean() < 0.5 * (free < 4).mean()


def test_digits_in_idx_files_are_looked_at_too(shared_data):
    cfg = Config(str(shared_data / "mnist" / "t10k-images-idx3-ubyte.gz"), crop=0.4, size=(8, 8), count=5, limit=64)
    dataset = cfg.open()
    assert len(dataset) == 64
    assert len(dataset.classes) == 10
    assert dataset.native == (5, 8, 8)
    ink = torch.stack([dataset.raw(i) for i in range(64)]).mean()
    whole = torch.stack([dataset.source.raw(int(k)) for k in dataset.rows.image]).mean()
    assert ink > 1.2 * whole


# --- batches


def test_a_batch_is_the_same_whatever_the_workers(small):
    cfg = replace(small, augment=GazeAugment(flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), gray=0.2))
    signal = cfg.open().signal()
    found = {}
    for workers in (0, 2):
        options = {"seed": 3, "batch": 2, "start": 0, "stop": 4, "workers": workers}
        found[workers] = list(loader.batches(cfg.open(), signal, **options))
    for a, b in zip(*found.values(), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.action, b.action)
        assert torch.equal(a.length, b.length)
        assert torch.equal(a.id, b.id)


def test_two_processes_share_one_batch(small):
    options = {"seed": 1, "start": 1, "stop": 2, "total": 3}
    signal = small.open().signal()
    cut = [(3, 0), (2, 0), (1, 2)]
    whole, *parts = (next(loader.batches(small.open(), signal, batch=n, offset=k, **options)) for n, k in cut)
    assert torch.equal(whole.x, torch.cat([part.x for part in parts]))
    assert torch.equal(whole.action, torch.cat([part.action for part in parts]))


def test_padding_is_zero_in_crops_and_saccades_also_where_colours_change(small):
    cfg = replace(
        small,
        augment=GazeAugment(flip=0.5, jitter=(0.9, 0.4, 0.3, 0.1), jitter_prob=1.0, gray=0.5, blur=0.5, solarize=0.5),
    )
    for k in range(4):
        found = batch(cfg.open(), cfg, k, 3)
        for i, length in enumerate(found.length.tolist()):
            assert not found.x[i, :, length:].any()
            assert not found.action[i, length - 1 :].any()
            assert found.x[i, :, :length].any()


def test_samples_of_one_length_have_a_saccade_less_than_fixations(small):
    found = batch(small.open(), small, count=3)
    for rows, part in equal_length_groups(found, 1):
        steps = int(found.length[rows[0]])
        assert part.action.shape == (len(rows), steps - 1, 2)
        assert part.x.shape[2] == steps
        assert torch.equal(part.action, found.action[rows, : steps - 1])


def test_the_panel_measures_no_padding_and_has_the_saccades(osie):
    _, dataset = osie
    found = samples.equal_length_samples(dataset, Signal(3, dataset.native), 16, 1)
    steps = int(np.median(dataset.lengths))
    assert found.x.shape == (16, 3, steps, 32, 32)
    assert found.x.flatten(3).any(3).any(1).all()
    assert found.action is not None
    assert found.action.shape == (16, steps - 1, 2)
    assert found.action.any(2).all()


def test_a_mirrored_scanpath_has_mirrored_crops_and_saccades(small):
    plain, cfg = batch(small.open(), small, count=3), replace(small, augment=GazeAugment(flip=1.0))
    mirrored = batch(cfg.open(), cfg, count=3)
    assert torch.equal(mirrored.x, plain.x.flip(-1))
    assert torch.equal(mirrored.action, plain.action * torch.tensor([-1.0, 1.0]))


def test_statistics_are_those_of_the_fixations_without_the_padding(small):
    dataset = small.open()
    values = torch.cat([dataset.raw(i).flatten(1) for i in range(3)], 1).double()
    signal = dataset.signal()
    assert torch.allclose(torch.tensor(signal.mean).double(), values.mean(1), atol=1e-6)
    assert torch.allclose(torch.tensor(signal.std).double(), values.std(1, correction=0), atol=1e-6)
    assert signal.action_size == 2
    assert signal.size == (3, 8, 8)


@pytest.mark.parametrize("name", ["ijepa", "rjepa"])
def test_what_padding_holds_changes_no_bit_of_the_loss(small, name):
    found = batch(small.open(), small, count=3).to("cpu")
    signal = small.open().signal()
    tiny = methods.load(name).Config.tiny(signal)
    own = {"encoder": ViT(patch=(1, 4, 4), width=16, depth=1, heads=2)} if name == "ijepa" else {"saccade": True}
    method = methods.build(replace(tiny, **own), signal)
    x, action = found.x.clone(), found.action.clone()
    for i, length in enumerate(found.length.tolist()):
        x[i, :, length:], action[i, length - 1 :] = 0.7, 5.0
    changed = replace(found, x=x, action=action)
    assert not torch.equal(changed.x, found.x)
    assert torch.equal(method(found, Rng(0)).total, method(changed, Rng(0)).total)


def test_pictures_that_cannot_be_read_give_way_to_others_and_are_named(small, tmp_path):
    file = Path(small.path) / "a.png"
    file.write_bytes(file.read_bytes()[:400])
    cfg = replace(small, size=(8, 8))
    options = {"seed": 0, "batch": 3, "start": 0, "stop": 1}
    stream = loader.batches(cfg.open(), Signal(3, (3, 8, 8)), **options)
    assert next(stream).id.tolist() == [2, 2, 2]
    assert set(stream.skipped) == {"a.png@0", "a.png@1"}
    strict = replace(cfg, corrupt="fail")
    with pytest.raises(ValueError, match=r"cannot read a\.png"):
        next(loader.batches(strict.open(), Signal(3, (3, 8, 8)), **options))


# --- mistakes


def changed(index: int, **cells: object) -> list[tuple]:
    names = ("image", "subject", "x", "y", "duration")
    rows = [dict(zip(names, row, strict=True)) for row in ROWS]
    rows[index] |= cells
    return [tuple(row.values()) for row in rows]


MISTAKES = {
    "outside": (changed(1, x=41.0), {}, r"f\.csv, row 3: \(41, 10\) is outside a\.png, which has 40 x 40 px; remove"),
    "no number": (changed(3, y="n/a"), {}, r"f\.csv, row 5: y is 'n/a', not a number; write"),
    "unknown image": (changed(7, image="z.png"), {}, r"f\.csv, row 9: image 'z\.png' is not among .* add it there"),
    "onsets": (ROWS, {"timing": "onset"}, r"f\.csv, row 6: onset 50 does not follow 150; .* data\.timing=duration"),
    "negative": (changed(0, duration=-3), {}, r"f\.csv, row 2: duration -3 is below 0"),
    "empty": (ROWS[:1] + ROWS[5:6], {}, r"none of 2 scanpaths on 2 pictures has 2 fixations or more"),
    "no column": (ROWS, {"time": "when"}, r"no column 'when', only image, subject, x, y, duration; set data\.time"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_table_is_one_sentence_with_file_row_and_fix(small, tmp_path, name):
    rows, settings, sentence = MISTAKES[name]
    with pytest.raises(ValueError, match=sentence) as error:
        replace(small, fixations=table(tmp_path / "f.csv", rows), **settings).open()
    assert "\n" not in str(error.value)


def test_the_row_of_a_mistake_is_the_line_of_the_file_where_some_are_blank(small, tmp_path):
    lines = Path(table(tmp_path / "f.csv", changed(3, y="n/a"))).read_text().splitlines()
    (tmp_path / "f.csv").write_text("\n".join([*lines[:2], "", "", *lines[2:]]))
    with pytest.raises(ValueError, match=r"f\.csv, row 7: y is 'n/a'"):
        small.open()


def test_mistakes_in_json_name_entry_subject_and_fixation(small, tmp_path):
    path = tmp_path / "f.json"

    def told(entry: dict) -> str:
        path.write_text(json.dumps([entry]))
        with pytest.raises(ValueError, match=r"f\.json, entry 1") as error:
            replace(small, fixations=str(path)).open()
        return str(error.value)

    track = {"subject": 4, "x": [1, 2], "y": [1, 2], "t": [10, 5]}
    place = "f.json, entry 1 (a.png), subject 4"
    late = "give increasing onsets or, if column 't' holds durations, data.timing=duration"
    assert told({"image": "a.png", "scanpaths": [track]}) == f"{place}, fixation 2: onset 5 does not follow 10; {late}"
    track["t"] = [1, 2]
    wrong = told({"image": "a.png", "size": [80, 40], "scanpaths": [track]})
    assert wrong.startswith(f"{place}: the file says a.png has 80 x 40 px but it has 40 x 40; give")
    wrong = told({"image": "a.png", "size": ["a", 40], "scanpaths": [track]})
    assert (
        wrong == "f.json, entry 1 (a.png): size is ['a', 40], not a width and a height; write two numbers, or remove it"
    )
    assert told({"image": "a.png", "scanpaths": [{**track, "x": [1]}]}).startswith(f"{place}: x, y and times are not")
    assert "has no 'y', only subject, x" in told({"image": "a.png", "scanpaths": [{"subject": 4, "x": [1, 2]}]})


def test_two_pictures_of_one_name_are_not_guessed_between(small, tmp_path):
    for name in "pq":
        pictures(tmp_path / "both" / name)
    with pytest.raises(ValueError, match=r"f\.csv, row 2: several images .* are called 'a\.png'; write their folder"):
        replace(small, path=str(tmp_path / "both")).open()
    rows = [(f"p/{row[0]}", *row[1:]) for row in ROWS]
    assert len(replace(small, path=str(tmp_path / "both"), fixations=table(tmp_path / "g.csv", rows)).open()) == 3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"crop": 1.5}, "crop is 1.5"),
        ({"crop": 1e-4}, "does not enlarge"),
        ({"fovea": 9}, "fovea is 9"),
        ({"steps": 3, "least": 4}, "steps is 3 but scanpaths have at least 4 fixations"),
        ({"least": 1}, "least is 1; give 2 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused_when_they_are_made(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Config(**settings)


def test_as_many_places_are_made_up_as_samples_must_have(tmp_path):
    cfg = Config(str(pictures(tmp_path)), count=4, synthetic="raster")
    assert replace(cfg, steps=6).open().places(0).tolist() == cfg.open().places(0).tolist()
    with pytest.raises(ValueError, match="count is 4 generated fixations but least is 5; give count=5"):
        replace(cfg, least=5).open()


def test_crops_of_crops_are_refused():
    with pytest.raises(ValueError, match="a fixation is already a crop"):
        GazeAugment(crop=(0.3, 1.0))


# --- commands


def test_check_data_counts_and_lists_what_is_wrong(small, tmp_path):
    found = check_path(small.path, fixations=small.fixations)
    rows = dict(found.rows)
    assert (rows["scanpaths"], rows["pictures looked at"], rows["subjects"]) == ("4", "2", "2")
    assert rows["fixations min / median / max"] == "1 / 2 / 3"
    assert rows["median duration"] == "95"
    assert rows["training would read"] == "3 samples: up to 3 crops of 3 x 8 x 8"
    broken = check_path(small.path, fixations=table(tmp_path / "g.csv", changed(1, x=99.0)))
    assert [p.problem for p in broken.problems] == ["outside"]
    assert "nothing: g.csv, row 3" in dict(broken.rows).values().__str__()


def test_a_drawn_scanpath_has_dots_where_the_gaze_was_and_leaves_the_rest():
    picture = np.full((50, 100, 3), 200, dtype=np.uint8)
    image = draw_scanpath(picture, np.array([[10.0, 10.0], [90.0, 40.0]]), 400)
    assert image.shape == (200, 400, 3)
    assert tuple(image[40, 33]) == (255, 214, 64)
    assert tuple(image[160, 353]) == (214, 40, 90)
    assert (image[150:, :100] == 200).all()
    assert tuple(image[100, 200]) == (255, 255, 255)


SMALL = {
    "data.name": "scanpaths",
    "data.size": "[8, 8]",
    "method.encoder.width": 16,
    "method.encoder.depth": 1,
    "method.encoder.heads": 2,
    "method.predictor.width": 16,
    "method.predictor.depth": 1,
    "method.predictor.heads": 2,
    "length.batch": 4,
    "loop.device": "cpu",
    "loop.workers": 0,
    "loop.amp": "false",
    "loop.log_every": 1,
    "loop.save_every": 2,
    "loop.panel_every": 2,
    "loop.panel_size": 4,
    "evals.kinds": "[]",
    "evals.report": "false",
}


def walk(path: Path, count: int, most: int = 7) -> str:
    """Two viewers of each picture, with 3 to `most` fixations."""
    rng = np.random.default_rng(0)
    rows = [
        (f"{chr(97 + i)}.png", who, *np.round(rng.random(2) * SIDE, 1), 100)
        for i in range(count)
        for who in "01"
        for _ in range(rng.integers(3, most + 1))
    ]
    return table(path, rows)


def test_a_run_on_scanpaths_goes_on_to_the_same_losses_and_embeds_other_pictures(tmp_path):
    folder, run = pictures(tmp_path / "p", 8), tmp_path / "run"
    settings = SMALL | {"data.fixations": walk(tmp_path / "f.csv", 8)}
    jk.train(folder, run, settings=settings, steps=4)
    stored = parse.from_yaml(run / "config.yaml")
    assert stored.data.size == (8, 8)
    assert 3 < stored.data.steps <= 7
    assert stored.method.encoder.patch == (1, 2, 2)
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    before = logged_losses(run)
    jk.train(out=run, resume=True)
    assert logged_losses(run) == before
    assert len(before) == 4
    done = jk.embed(run, folder, tmp_path / "e.npy")
    assert done.shape == (16, 16)
    assert np.isfinite(np.load(tmp_path / "e.npy")).all()


@pytest.mark.parametrize("method", ["bijepa", "rjepa"])
def test_methods_that_read_time_train_on_made_up_scanpaths(tmp_path, method):
    folder = pictures(tmp_path / "p", 6, 2)
    own = {"method.masks": "[{name: halves, axis: 0}]"} if method == "bijepa" else {"method.saccade": "true"}
    keep = SMALL if method == "bijepa" else {k: v for k, v in SMALL.items() if not k.startswith("method")}
    more = {} if method == "bijepa" else {"method.encoder.patch": "[1, 8, 8]", "method.encoder.width": 8}
    done = jk.train(folder, tmp_path / "run", recipe=method, settings=keep | own | more | {"data.count": 5}, steps=3)
    assert done["steps"] == 3
    assert np.isfinite(done["loss"])


def test_a_probe_tells_pictures_by_viewers_that_training_never_saw(tmp_path):
    folder, run = pictures(tmp_path / "p", 4), tmp_path / "run"
    own = {"data.viewers": 6, "data.synthetic": "uniform", "data.count": 6, "data.label": "image"}
    split = {"data.split": "train", "data.split_by": "subject", "data.held_out": 0.3}
    jk.train(folder, run, settings=SMALL | own | split, steps=2)
    found = json.loads(jk.probe(run, "knn").read_text())
    assert (found["n_train"], found["n_test"]) == (16, 8)
    assert set(found["per_class"]) == {f"{c}.png" for c in "abcd"}


def test_the_raw_baseline_of_a_probe_has_as_many_values_of_every_scanpath(tmp_path):
    x = torch.arange(2 * 3 * 4 * 2 * 5.0).reshape(2, 3, 4, 2, 5)
    longer = resample_time(x, (7, 2, 5))
    assert longer.shape == (2, 3, 7, 2, 5)
    assert torch.allclose(longer[:, :, ::2], x)
    assert torch.allclose(longer[:, :, 1], (x[:, :, 0] + x[:, :, 1]) / 2)
    folder, run = pictures(tmp_path / "p", 8), tmp_path / "run"
    settings = {"data.fixations": walk(tmp_path / "f.csv", 8), "data.label": "subject"}
    jk.train(folder, run, settings=SMALL | settings, steps=2)
    found = json.loads(jk.probe(run, "knn", data=folder, test=folder).read_text())
    assert found["n_train"] == found["n_test"] == 16


def test_a_probe_without_a_test_part_never_has_a_picture_on_both_sides(tmp_path):
    cfg = Config(str(pictures(tmp_path / "p", 8, 2)), viewers=3, held_out=0.4)
    train = cfg.training_part()
    test = replace(train, split="test")
    assert train.split == "train"
    assert not set(train.open().rows.image.tolist()) & set(test.open().rows.image.tolist())


def test_the_view_says_how_large_a_crop_is():
    assert View((8, 8), 0.2, 1).crop_side(600, 800) == (120.0, 120.0)
    assert View((8, 16), 0.2, 1).crop_side(600, 800) == (120.0, 240.0)
