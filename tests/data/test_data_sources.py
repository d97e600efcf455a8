import csv
import io
import json
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from jepakit import data
from jepakit.data.images import arrays, files, parquet, tar
from jepakit.data.rows import Names, encode_labels, select_part


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(k, size=(12, 10), form="PNG"):
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), k, np.uint8)).save(file, form)
    return file.getvalue()


def folder(root, names):
    for k, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(k))
    return str(root)


def value(dataset, i):
    return round(float(dataset.raw(i).mean()) * 255)


def test_a_folder_is_read_recursively_in_the_order_of_names(tmp_path):
    path = folder(tmp_path / "a", ["b.png", "a.PNG", "sub/deep/c.png", ".hidden/d.png", "._e.png"])
    (tmp_path / "a" / "notes.txt").write_text("no image")
    dataset = files.Config(path).open()
    assert [dataset.name(i) for i in range(len(dataset))] == ["a.PNG", "b.png", os.path.join("sub", "deep", "c.png")]
    assert [value(dataset, i) for i in range(3)] == [1, 0, 2]
    assert dataset.classes == ()
    assert dataset.label(0) == -1


def test_sub_folders_are_classes_when_every_image_lies_in_one(tmp_path):
    dataset = files.Config(folder(tmp_path / "a", ["cat/0.png", "cat/x/1.png", "dog/2.png"])).open()
    assert dataset.classes == ("cat", "dog")
    assert [dataset.label(i) for i in range(3)] == [0, 0, 1]


def test_folders_named_train_and_test_are_parts_and_not_classes(tmp_path):
    dataset = files.Config(folder(tmp_path / "a", ["train/cat/0.png", "train/dog/1.png", "test/cat/2.png"])).open()
    assert dataset.classes == ("cat", "dog")
    assert any("name one of them" in note for note in dataset.notes)


def test_a_linked_folder_that_contains_itself_ends(tmp_path):
    path = folder(tmp_path / "a", ["0.png", "s/1.png"])
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert len(files.Config(path).open()) == 2


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_manifest_lists_images_relative_to_itself(tmp_path, kind):
    folder(tmp_path, ["i/0.png", "i/1.png", "i/2.png"])
    rows = [{"path": f"i/{k}.png", "label": name} for k, name in ((2, "b"), (0, "a"))]
    path = tmp_path / f"list.{kind}"
    if kind == "csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["path", "label"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    dataset = files.Config(str(path)).open()
    assert [value(dataset, i) for i in range(2)] == [2, 0]
    assert dataset.classes == ("a", "b")
    assert [dataset.label(i) for i in range(2)] == [1, 0]


def test_a_wrong_column_is_an_error_that_names_the_columns(tmp_path):
    (tmp_path / "m.csv").write_text("path,kind\na.png,1\n")
    with pytest.raises(ValueError, match="no label column 'breed'; its columns are path, kind"):
        files.Config(str(tmp_path / "m.csv"), label="breed").open()


def shards(root, count=2, per=3):
    import webdataset

    root.mkdir(exist_ok=True)
    for s in range(count):
        with webdataset.TarWriter(str(root / f"s-{s:03d}.tar")) as sink:
            for k in range(s * per, (s + 1) * per):
                sink.write({"__key__": f"{k:05d}", "png": picture(k), "cls": k % 2, "json": {"fine": k}})
    return root


def test_shards_written_by_webdataset_are_read_in_order_with_their_labels(tmp_path):
    root = shards(tmp_path / "w")
    for pattern in ("s-*.tar", "s-{000..001}.tar", "s-00[01].tar"):
        dataset = files.Config(str(root / pattern)).open()
        assert [value(dataset, i) for i in range(len(dataset))] == list(range(6))
        assert [dataset.label(i) for i in range(6)] == [0, 1, 0, 1, 0, 1]
    fine = files.Config(str(root / "s-*.tar"), label="fine").open()
    assert [fine.label(i) for i in range(6)] == list(range(6))


def test_a_brace_pattern_with_a_shard_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"s-002\.tar.*not there"):
        files.Config(str(shards(tmp_path / "w") / "s-{000..002}.tar")).open()


def test_a_shard_is_scanned_once_and_again_when_it_changes(tmp_path, cache, monkeypatch):
    root = shards(tmp_path / "w", count=1)
    scans = []
    scan = tar.scan_shard
    monkeypatch.setattr(tar, "scan_shard", lambda path: scans.append(path) or scan(path))
    for _ in range(2):
        assert len(files.Config(str(root / "s-000.tar")).open()) == 3
    assert len(scans) == 1
    shards(root, count=1, per=4)
    assert len(files.Config(str(root / "s-000.tar")).open()) == 4
    assert len(scans) == 2
    (cached,) = (cache / "jepakit" / "tar").iterdir()
    cached.write_bytes(cached.read_bytes()[:40])
    assert len(files.Config(str(root / "s-000.tar")).open()) == 4
    assert len(scans) == 3


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(files.Config(str(shards(tmp_path / "w", 1) / "s-000.tar")).open()) == 3


def test_keys_in_folders_long_names_and_dots_pair_with_their_labels(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as file:
        for k, key in enumerate(("x/1", "y/1", "z/" + "long" * 40, "v.2/1")):
            for name, content in ((f"{key}.img.png", picture(k)), (f"{key}.cls", f"class{k}".encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    dataset = files.Config(str(path)).open()
    assert [(value(dataset, i), dataset.classes[dataset.label(i)]) for i in range(4)] == [
        (k, f"class{k}") for k in range(4)
    ]


def test_a_truncated_shard_gives_its_whole_members_and_says_so(tmp_path):
    path = shards(tmp_path / "w", 1) / "s-000.tar"
    path.write_bytes(path.read_bytes()[:7000])
    dataset = files.Config(str(path)).open()
    assert 0 < len(dataset) < 3
    assert any("ends early" in note for note in dataset.notes)


def test_a_shard_that_is_cut_between_two_members_says_so_and_a_whole_one_does_not(tmp_path):
    path = shards(tmp_path / "w", 1) / "s-000.tar"
    assert not any("ends early" in note for note in files.Config(str(path)).open().notes)
    with tarfile.open(path) as whole:
        cut = whole.getmembers()[-1].offset
    path.write_bytes(path.read_bytes()[:cut])
    dataset = files.Config(str(path)).open()
    assert any("ends early (it has no end-of-archive block)" in note for note in dataset.notes)


@pytest.mark.parametrize("kind", ["bytes", "struct"])
def test_parquet_files_hold_images_as_bytes_or_as_hugging_face_writes_them(tmp_path, kind):
    for part in range(2):
        cells = [picture(3 * part + k) for k in range(3)]
        column = cells if kind == "bytes" else [{"bytes": cell, "path": "x.png"} for cell in cells]
        table = pa.table({"id": [1, 2, 3], "image": column, "label": [part, 7, None]})
        pq.write_table(table, tmp_path / f"p{part}.parquet", row_group_size=2)
    dataset = files.Config(str(tmp_path / "p*.parquet")).open()
    assert [value(dataset, i) for i in range(6)] == list(range(6))
    assert [dataset.label(i) for i in range(6)] == [0, 7, -1, 1, 7, -1]
    assert dataset.name(4) == "p1.parquet[1]"


def test_parquet_mapped_from_the_cache_reads_as_from_memory(tmp_path, monkeypatch, cache):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"image": [picture(k) for k in range(5)]}), path, row_group_size=2)
    held = files.Config(str(path)).open()
    monkeypatch.setattr(parquet, "MAX_BYTES_IN_MEMORY", 0)
    mapped = files.Config(str(path)).open()
    assert len(list((cache / "jepakit" / "parquet").iterdir())) == 1
    assert [value(mapped, i) for i in range(5)] == [value(held, i) for i in range(5)] == list(range(5))


@pytest.mark.parametrize("shape", [(9, 6, 8), (9, 6, 8, 1), (9, 6, 8, 4), (9, 13, 16, 20), (9, 16, 20, 13)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_of_any_layout_come_out_channels_first(tmp_path, shape, dtype):
    x = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(9) % 3)
    np.save(tmp_path / "x_all.npy", x)
    np.save(tmp_path / "y_all.npy", np.arange(9) % 3)
    for name in ("a.npz", "x_all.npy"):
        dataset = arrays.Config(str(tmp_path / name)).open()
        first = x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2) if shape[3] < shape[1] else x
        scale = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
        assert torch.equal(dataset.raw(4), torch.from_numpy(first[4].astype(np.float32) / np.float32(scale)))
        assert dataset.label(4) == 1
        assert dataset.classes == ("0", "1", "2")


def test_a_truncated_idx_file_is_refused(tmp_path):
    header = bytes([0, 0, 8, 3]) + np.array([2, 4, 4], ">u4").tobytes()
    (tmp_path / "a-idx3-ubyte").write_bytes(header + bytes(32))
    assert len(arrays.Config(str(tmp_path / "a-idx3-ubyte")).open()) == 2
    (tmp_path / "a-idx3-ubyte").write_bytes(header + bytes(31))
    with pytest.raises(ValueError, match="cut short"):
        arrays.Config(str(tmp_path / "a-idx3-ubyte")).open()


def test_an_npz_without_the_usual_names_says_what_it_holds(tmp_path):
    np.savez(tmp_path / "a.npz", pixels=np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"it holds pixels: set --data\.image"):
        arrays.Config(str(tmp_path / "a.npz")).open()
    assert len(arrays.Config(str(tmp_path / "a.npz"), image="pixels").open()) == 4


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p / "nothing", "no file or folder"),
        (lambda p: p / "*.tar", "no file matches"),
        (lambda p: p, "no images in"),
    ],
)
def test_missing_and_empty_data_are_errors_that_say_what_to_do(tmp_path, make, said):
    with pytest.raises(ValueError, match=said):
        files.Config(str(make(tmp_path))).open()


def test_a_folder_of_shards_names_them_in_the_error(tmp_path):
    folder = shards(tmp_path / "w")
    (folder / "classes.csv").write_text("id,name\n")
    with pytest.raises(ValueError, match=r"name one of these files or a glob, e\.g\..*s-000\.tar"):
        files.Config(str(folder)).open()


def test_images_that_can_none_be_read_are_an_error_when_opened(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.jpg").write_bytes(b"broken")
    with pytest.raises(ValueError, match="none of 3 images tried can be read"):
        files.Config(str(tmp_path)).open()


def test_mixed_channels_become_the_commonest_and_it_is_said(tmp_path):
    folder(tmp_path, [f"{k}.png" for k in range(4)])
    Image.fromarray(np.full((12, 10), 9, np.uint8)).save(tmp_path / "grey.png")
    dataset = files.Config(str(tmp_path)).open()
    assert dataset.channels == 3
    assert dataset.raw(4).shape[0] == 3
    assert "1 of 5 with 1, 4 of 5 with 3" in dataset.notes[0]
    assert files.Config(str(tmp_path), channels=1).open().raw(0).shape[0] == 1


def test_train_and_test_parts_are_disjoint_complete_and_do_not_depend_on_order():
    names = [f"image{k}" for k in range(2000)]
    train, test = (select_part(names, part, 0.2, 0) for part in ("train", "test"))
    assert sorted([*train, *test]) == list(range(2000))
    assert len(test) == pytest.approx(400, abs=60)
    backwards = names[::-1]
    assert {backwards[i] for i in select_part(backwards, "test", 0.2, 0)} == {names[i] for i in test}


def test_a_limit_keeps_that_many_and_a_larger_limit_keeps_them_too():
    names = [f"image{k}" for k in range(500)]
    small, large = (set(select_part(names, "all", 0.1, n).tolist()) for n in (50, 100))
    assert len(small) == 50
    assert small < large


def test_the_fingerprint_changes_with_names_sizes_and_parts(tmp_path):
    path = folder(tmp_path / "a", ["0.png", "1.png", "2.png"])
    prints = [files.Config(path).open().fingerprint()]
    assert prints[0] == files.Config(path).open().fingerprint()
    prints.append(files.Config(path, limit=2).open().fingerprint())
    (tmp_path / "a" / "1.png").write_bytes(picture(1, (30, 30)))
    prints.append(files.Config(path).open().fingerprint())
    (tmp_path / "a" / "1.png").rename(tmp_path / "a" / "3.png")
    prints.append(files.Config(path).open().fingerprint())
    assert len(set(prints)) == 4


def test_names_keep_any_text_a_file_may_have():
    names = ["a", "", "ü/β.jpg", "bad\udcff.jpg"]
    assert list(Names(names)) == names


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.npz", "arrays"), ("train-images-idx3-ubyte.gz", "arrays"), ("a.tar", "images"), ("a.csv", "images")],
)
def test_the_kind_is_guessed_from_the_name(tmp_path, name, kind):
    (tmp_path / name).touch()
    assert data.guess_kind(str(tmp_path / name))[0] == kind
    assert data.guess_kind(str(tmp_path))[0] == "images"
    assert data.guess_kind("shapes")[0] == "synthetic"


@pytest.mark.parametrize(
    ("kind", "path", "count", "channels", "classes", "label"),
    [
        ("images", "grocery/train-*.tar", 972, 3, 81, 0),
        ("images", "cifar10/test.parquet", 10_000, 3, 10, None),
        ("arrays", "mnist/train-images-idx3-ubyte.gz", 60_000, 1, 10, 5),
    ],
)
def test_real_data_are_counted_and_labelled_as_documented(shared_data, kind, path, count, channels, classes, label):
    dataset = data.load(kind)(path=str(shared_data / path)).open()
    assert (len(dataset), dataset.channels, len(dataset.classes)) == (count, channels, classes)
    if path.startswith("grocery"):
        counts = np.bincount([dataset.label(i) for i in range(len(dataset))])
        assert (counts == 12).all()
        with tarfile.open(shared_data / "grocery/train-000.tar") as file:
            label = json.loads(file.extractfile("0000000.json").read())["fine"]
    if label is not None:
        assert dataset.label(0) == label
    assert dataset.raw(count - 1).max() <= 1


@pytest.mark.parametrize(
    ("values", "labels", "classes"),
    [
        ([-1, 0, 3, -1, 0], [-1, 0, 3, -1, 0], ("0", "1", "2", "3")),
        ([-1, 1, 1, -1], [0, 1, 1, 0], ("-1", "1")),
        ([-1, -1], [-1, -1], ()),
        (["-1", "", "1", None], [0, -1, 1, -1], ("-1", "1")),
    ],
)
def test_negative_integers_are_no_label_unless_they_leave_one_class(values, labels, classes):
    found, names = encode_labels(values)
    assert (found.tolist(), names) == (labels, classes)


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_a_few_items_have_a_test_part_and_a_training_part_too(count: int) -> None:
    for salt in range(20):
        names = [f"{salt} {i}" for i in range(count)]
        train, test = (set(select_part(names, part, 0.1, 0).tolist()) for part in ("train", "test"))
        assert len(train) > 0
        assert len(test) > 0
        assert not train & test
        assert train | test == set(range(count))


def test_a_stray_image_beside_the_class_folders_is_named(tmp_path):
    path = folder(tmp_path / "a", ["cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png", "preview.png"])
    dataset = files.Config(path).open()
    assert dataset.classes == ()
    assert any("1 of 5 images are in no class's folder, such as preview.png" in note for note in dataset.notes)


def test_a_label_belongs_to_the_image_of_its_name_even_if_the_name_has_dots(tmp_path):
    members = [("im.v1.0.png", picture(0)), ("im.v1.0.cls", b"0"), ("im.v1.1.png", picture(1)), ("im.v1.1.cls", b"1")]
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    dataset = files.Config(str(tmp_path / "a.tar")).open()
    assert [dataset.label(i) for i in range(2)] == [0, 1]


def test_a_column_of_several_labels_per_image_is_left_out_and_one_called_labels_is_read(tmp_path):
    cells = [picture(k) for k in range(4)]
    pq.write_table(pa.table({"image": cells, "labels": [0, 1, 0, 1]}), tmp_path / "one.parquet")
    assert files.Config(str(tmp_path / "one.parquet")).open().classes == ("0", "1")
    pq.write_table(pa.table({"image": cells, "label": [[0], [0, 1], [], [1]]}), tmp_path / "several.parquet")
    dataset = files.Config(str(tmp_path / "several.parquet")).open()
    assert dataset.classes == ()
    assert any("'label' holds several labels per image" in note for note in dataset.notes)
    with pytest.raises(ValueError, match="holds several labels per image; name a column of one label each"):
        files.Config(str(tmp_path / "several.parquet"), label="label").open()


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_images_of_files_with_equal_names_in_two_folders_have_names_of_their_own(tmp_path, kind):
    for part in ("a", "b"):
        if kind == "tar":
            shards(tmp_path / part, 1)
        else:
            (tmp_path / part).mkdir()
            pq.write_table(pa.table({"image": [picture(k) for k in range(3)]}), tmp_path / part / "s-000.parquet")
    dataset = files.Config(str(tmp_path / "*" / f"s-000.{kind}")).open()
    names = [dataset.name(i) for i in range(len(dataset))]
    assert len(set(names)) == len(names) == 6
    assert names[0].startswith(os.path.join("a", f"s-000.{kind}"))
    alone = files.Config(str(tmp_path / "a" / f"s-000.{kind}")).open()
    assert alone.name(0).startswith(f"s-000.{kind}")


def test_a_folder_entry_that_cannot_be_opened_is_named_and_the_rest_is_read(tmp_path):
    path = folder(tmp_path / "a", ["cat/0.png", "dog/1.png"])
    (tmp_path / "a" / "self").symlink_to("self")
    assert data.guess_kind(path)[0] == "images"
    dataset = files.Config(path).open()
    assert dataset.classes == ("cat", "dog")
    assert any("cannot be opened and are left out: self" in note for note in dataset.notes)
