"""What a user can get wrong about data ends in one sentence, and a missing label in no label."""

import dataclasses
import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from jepakit import data
from jepakit.data import loader
from jepakit.data.check import check_path
from jepakit.data.images import arrays, files, synthetic
from jepakit.data.images.augment import Augment, Views
from jepakit.data.rows import encode_labels
from jepakit.types import Signal


def write(path, value=0, shape=(12, 10, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", [data.load(name) for name in data.KINDS.names()])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": (0, 0)}, r"size is \(0, 0\); give"),
        ({"size": (32, -1)}, r"size is \(32, -1\); give"),
        ({"limit": -1}, "limit is -1; give how many"),
        ({"held_out": 0.0}, "held_out is 0.0; give the fraction"),
        ({"held_out": 1.5}, "held_out is 1.5; give the fraction"),
        ({"held_out": float("nan")}, "held_out is nan; give the fraction"),
    ],
)
def test_every_kind_of_data_refuses_settings_without_a_meaning(kind, wrong, said):
    if not set(wrong) <= {f.name for f in dataclasses.fields(kind)}:
        pytest.skip("a series has no height and width")
    with pytest.raises(ValueError, match=said):
        kind(**wrong)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: files.Config(channels=0), "channels is 0; give a number of at least 1"),
        (lambda: synthetic.Config(count=0), "count is 0; give at least one"),
        (lambda: synthetic.Config(size=(8, 32)), r"size is \(8, 32\); give at least 16 x 16"),
        (lambda: synthetic.Config(count=1, split="test").open(), "test part of 1 pictures is empty"),
        (lambda: Views(-1), "count -1; give at least one view"),
        (lambda: Views(size=(0, 8)), r"size is \(0, 8\)"),
        (lambda: Views(crop=(0.0, 1.0)), r"crop is \(0\.0, 1\.0\)"),
        (lambda: Augment(aspect=(1.0, float("inf"))), "aspect is"),
        (lambda: Augment(jitter=(-0.1, 0.0, 0.0, 0.0)), "jitter is .* none below 0"),
        (lambda: Augment(jitter=(0.0, 0.0, 0.0, 0.6)), "hue at most 0.5"),
    ],
)
def test_each_kind_refuses_what_only_it_can_get_wrong(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_no_value_an_empty_one_and_a_negative_one_are_no_label():
    labels, classes = encode_labels([3, None, "", -1, "-7", float("nan"), "0"])
    assert (labels.tolist(), classes) == ([3, -1, -1, -1, -1, -1, 0], ("0", "1", "2", "3"))
    labels, classes = encode_labels(["cat", None, "-1", " ", "ant"])
    assert (labels.tolist(), classes) == ([1, -1, -1, -1, 0], ("ant", "cat"))
    labels, classes = encode_labels([None, -1])
    assert (labels.tolist(), classes) == ([-1, -1], ())


@pytest.mark.parametrize("kind", ["csv", "paths", "bytes", "npz", "tar"])
def test_items_without_a_label_belong_to_no_class_whatever_holds_them(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cells = [write(tmp_path / "i" / f"{k}.png", k) for k in range(4)]
    paths, labels = [f"i/{k}.png" for k in range(4)], [1, None, -1, 0]
    out = tmp_path / f"d.{'parquet' if kind in ('paths', 'bytes') else kind}"
    if kind == "csv":
        out.write_text("path,label\ni/0.png,1\ni/1.png\ni/2.png,\ni/3.png,0\n")
    elif kind == "paths":
        pq.write_table(pa.table({"path": paths, "label": labels}), out)
    elif kind == "bytes":
        pq.write_table(pa.table({"image": cells, "label": labels}), out)
    elif kind == "npz":
        np.savez(out, x=np.zeros((4, 8, 8), np.uint8), y=np.array([1, -1, -1, 0]))
    else:
        import webdataset

        with webdataset.TarWriter(str(out)) as sink:
            for k, text in enumerate(("1", None, "", "0")):
                sink.write({"__key__": str(k), "png": cells[k]} | ({} if text is None else {"cls": text}))
    dataset = data.load(data.guess_kind(str(out))[0])(path=str(out)).open()
    assert [dataset.label(i) for i in range(4)] == [1, -1, -1, 0]
    assert dataset.classes == ("0", "1")


def test_one_sub_folder_that_holds_all_images_is_one_class(tmp_path):
    for k in range(3):
        write(tmp_path / "one" / "cat" / f"{k}.png", k)
        write(tmp_path / "packed" / "archive" / ("cat" if k else "dog") / f"{k}.png", k)
    dataset = files.Config(str(tmp_path / "one")).open()
    assert (dataset.classes, dataset.label(2)) == (("cat",), 0)
    assert files.Config(str(tmp_path / "packed")).open().classes == ()
    batch = next(loader.batches(dataset, dataset.signal(), seed=0, batch=2, start=0, stop=1))
    assert batch.label.tolist() == [0, 0]


def test_sub_folders_with_numbers_for_names_are_classes_by_name(tmp_path):
    for name in ("2019", "2020"):
        write(tmp_path / name / "a.png")
    assert files.Config(str(tmp_path)).open().classes == ("2019", "2020")


@pytest.mark.parametrize("batch", [0, -4])
def test_a_batch_without_samples_is_refused(batch):
    cfg = synthetic.Config("shapes", count=8)
    dataset = cfg.open()
    signal = dataset.signal()
    with pytest.raises(ValueError, match=f"batch is {batch}; give at least one sample"):
        loader.read_stream(dataset, signal, batch=batch)
    with pytest.raises(ValueError, match=f"batch is {batch}; give at least one sample"):
        loader.batches(dataset, signal, seed=0, batch=batch, start=0, stop=1)


def test_parquet_files_that_differ_or_break_are_named(tmp_path):
    cell = write(tmp_path / "a.png")
    for name, columns in (("a", {"image": [cell], "label": [0]}), ("b", {"image": [cell]}), ("c", {"label": [0]})):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    for pattern, name in (("[ab]", "b"), ("[ac]", "c")):
        with pytest.raises(
            ValueError, match=rf"{name}\.parquet' has columns .*, unlike 'a\.parquet' with image, label"
        ):
            files.Config(str(tmp_path / f"{pattern}.parquet")).open()
    (tmp_path / "z.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"cannot read '.*z\.parquet' as parquet"):
        files.Config(str(tmp_path / "[az].parquet")).open()
    broken = bytearray((tmp_path / "a.parquet").read_bytes())
    broken[4:40] = bytes(36)
    (tmp_path / "y.parquet").write_bytes(broken)
    with pytest.raises(ValueError, match=r"cannot read '.*y\.parquet' as parquet"):
        files.Config(str(tmp_path / "[ay].parquet")).open()


def test_a_parquet_file_without_rows_says_so(tmp_path):
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "e.parquet")
    with pytest.raises(ValueError, match=r"e\.parquet' has no rows"):
        files.Config(str(tmp_path / "e.parquet")).open()


def test_arrays_that_are_cut_short_are_named(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.random.default_rng(0).random((9, 8, 8)))
    whole = (tmp_path / "a.npz").read_bytes()
    garbled = bytearray(whole)
    garbled[200:260] = bytes(60)
    packed = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 9]) + bytes(range(9)))
    (tmp_path / "i.gz").write_bytes(packed[:12] + b"\xff" * 8 + packed[20:])
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "garbled.npz").write_bytes(garbled)
    for name in ("cut.npz", "garbled.npz", "i.gz"):
        with pytest.raises(ValueError, match=rf"cannot read arrays from '.*{name}'"):
            arrays.Config(str(tmp_path / name)).open()


def test_a_table_in_another_encoding_is_named_with_what_to_do(tmp_path):
    (tmp_path / "m.csv").write_bytes("path,label\na.png,café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"m\.csv' as text.*save it as a CSV in UTF-8"):
        files.Config(str(tmp_path / "m.csv")).open()


def test_a_line_with_more_cells_than_the_header_still_names_the_columns(tmp_path):
    (tmp_path / "m.csv").write_text("picture,label\na.png,1,2\n")
    with pytest.raises(ValueError, match=r"has no image column 'image' or .* its columns are picture, label"):
        files.Config(str(tmp_path / "m.csv")).open()


def test_reasons_are_the_same_in_every_run(tmp_path):
    for k in range(3):
        write(tmp_path / f"{k}.png", k)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (problem,) = [p for p in check_path(str(tmp_path)).problems if p.problem == "unreadable"]
    assert problem.detail == "cannot identify image file"


def test_a_check_of_nothing_but_broken_images_does_not_advise_itself(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"none of 1 images tried can be read, e\.g\. broken\.jpg: cannot ident"
    ) as error:
        check_path(str(tmp_path))
    assert "check-data" not in str(error.value)


def test_a_check_lists_the_first_problems_and_how_to_see_the_others(tmp_path):
    for k in range(14):
        write(tmp_path / f"{k:02d}.png", 9)
    write(tmp_path / "zz.png", 1, (40, 40, 3))
    rows = check_path(str(tmp_path)).rows
    assert rows[-11] == ("01.png", "duplicate: same content as 00.png")
    assert rows[-1] == ("…", "and 17 more (--csv FILE lists up to 1,000 of a kind)")
    (tmp_path / "one").mkdir()
    write(tmp_path / "one" / "0.png")
    assert check_path(str(tmp_path / "one")).rows[-1] == ("0.png", "tiny: 10 x 12 px")


@pytest.mark.parametrize("deep", [False, True])
def test_a_sample_keeps_8_bits_and_is_what_the_stream_gives(tmp_path, deep):
    for k in range(6):
        write(tmp_path / f"{k}.png", 40 * k, (40, 30))
    (tmp_path / "3.png").write_bytes(b"broken")
    if deep:
        Image.fromarray(np.full((40, 30), 999, np.uint16)).save(tmp_path / "6.png")
    cfg = files.Config(str(tmp_path), size=(16, 16))
    dataset = cfg.open()
    signal = dataset.signal()
    found = data.fixed_sample(dataset, signal, 50).x
    assert found.dtype == (torch.float32 if deep else torch.uint8)
    (batch,) = loader.read_stream(dataset, signal, batch=50)
    pictures, streamed = ({x.numpy().tobytes() for x in part} for part in (found, batch.x))
    assert pictures == streamed
    assert len(found) == len(batch) == (6 if deep else 5)
    assert torch.equal(data.fixed_sample(dataset, signal, 3).x, found[:3])


def test_images_are_read_with_the_channels_a_model_was_trained_on(tmp_path):
    write(tmp_path / "grey" / "0.png", 7, (20, 20))
    own = files.Config(str(tmp_path), size=(16, 16))
    cfg = data.read_like(own, str(tmp_path / "grey"), channels=3)
    (batch,) = loader.read_stream(cfg.open(), Signal(3, (16, 16)), batch=4)
    assert batch.x.shape == (1, 3, 16, 16)
    assert data.read_like(own, str(tmp_path / "grey")).open().channels == 1
    np.save(tmp_path / "x.npy", np.zeros((4, 16, 16), np.uint8))
    other = data.read_like(own, str(tmp_path / "x.npy"), channels=3)
    with pytest.raises(ValueError, match="the data have 1 channels but the model takes 3; give data with 3"):
        loader.read_stream(other.open(), Signal(3, (16, 16)), batch=4)


def test_images_that_cannot_have_the_channels_asked_for_say_both_counts(tmp_path):
    write(tmp_path / "0.png")
    cfg = dataclasses.replace(files.Config(str(tmp_path)), channels=13)
    with pytest.raises(ValueError, match=r"e\.g\. 0\.png: has 3 channels where the data set has 13"):
        cfg.open()
