import numpy as np
import torch
from PIL import Image

from jepakit import api
from jepakit.data.check import check_path
from jepakit.data.overlap import sample_hashes
from jepakit.types import Batch


def test_a_folder_with_every_flaw_is_reported_item_by_item(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("cat", 6), ("dog", 2)):
        (tmp_path / name).mkdir()
        for k in range(count):
            pixels = rng.integers(0, 255, (40 + 10 * k, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    (tmp_path / "cat" / "9.png").write_bytes((tmp_path / "cat" / "0.png").read_bytes())
    (tmp_path / "cat" / "broken.png").write_bytes((tmp_path / "cat" / "1.png").read_bytes()[:500])
    Image.fromarray(rng.integers(0, 255, (12, 90), dtype=np.uint8)).save(tmp_path / "dog" / "grey.png")
    seen = []
    report = check_path(str(tmp_path), progress=lambda done, n: seen.append((done, n)))
    rows = dict(report.rows)
    counts = ("items", "readable", "unreadable", "exact duplicates", "smaller than 16 px")
    assert [rows[what] for what in counts] == ["11", "10", "1", "1", "1"]
    assert rows["height min / median / max"] == "12 / 50 / 90"
    assert rows["width min / median / max"] == "50 / 50 / 90"
    assert rows["channels"] == "1 with 1, 9 with 3"
    assert rows["classes"] == "2"
    assert rows["items per class"] == "8 (cat) to 3 (dog), ratio 2.7"
    found = {(p.problem, p.name.replace("\\", "/")) for p in report.problems}
    assert found == {("unreadable", "cat/broken.png"), ("duplicate", "cat/9.png"), ("tiny", "dog/grey.png")}
    assert "cat/0.png" in next(p.detail for p in report.problems if p.problem == "duplicate")
    assert int(rows["decoding, images/s per process"]) > 0
    assert seen[-1] == (11, 11)


def test_arrays_are_checked_too(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (6, 40, 40), dtype=np.uint8)
    x[5] = x[2]
    np.save(tmp_path / "x.npy", x)
    report = check_path(str(tmp_path / "x.npy"))
    rows = dict(report.rows)
    assert (rows["items"], rows["exact duplicates"], rows["items per class"]) == ("6", "1", "no labels")
    assert rows["height min / median / max"] == "40 / 40 / 40"
    assert report.problems[0].name == "x.npy[5]"


def test_real_shards_hold_no_broken_image(shared_data):
    report = check_path(str(shared_data / "grocery" / "test-001.tar"))
    rows = dict(report.rows)
    assert rows["unreadable"] == rows["exact duplicates"] == "0"
    assert rows["height min / median / max"].startswith("348 /")
    assert rows["channels"] == f"{rows['items']} with 3"


def test_items_of_a_test_set_that_are_also_in_the_first_are_counted_whatever_holds_them(tmp_path):
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (30, 20, 20, 3), dtype=np.uint8)
    np.save(tmp_path / "test.npy", x[15:])
    (tmp_path / "photos").mkdir()
    for i in range(18):
        Image.fromarray(x[i]).save(tmp_path / "photos" / f"{i}.png")
    rows = dict(api.check_data(tmp_path / "photos", test=tmp_path / "test.npy", csv=tmp_path / "found.csv"))
    assert rows["overlap with --test"] == "3 of 15 test samples (20.0 %) are also training samples"
    assert (tmp_path / "found.csv").read_text().count("overlap,also in") == 3
    assert "overlap with --test" not in dict(api.check_data(tmp_path / "photos"))


def test_series_of_a_test_set_that_are_also_in_the_first_are_counted(tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 1, 20)).astype(np.float32)
    np.savez(tmp_path / "train.npz", x=x[:8], y=np.arange(8) % 2)
    np.savez(tmp_path / "test.npz", x=x[6:], y=np.arange(6) % 2)
    rows = dict(api.check_data(tmp_path / "train.npz", test=tmp_path / "test.npz"))
    assert rows["overlap with --test"] == "2 of 6 test samples (33.3 %) are also training samples"


def test_windows_of_a_later_table_that_begins_before_the_first_one_ends_are_counted(tmp_path):
    x = np.random.default_rng(0).normal(size=600)
    for name, rows in (("first", x[:400]), ("later", x[300:])):
        (tmp_path / f"{name}.csv").write_text("c0\n" + "\n".join(map(str, rows)))
    found = dict(api.check_data(tmp_path / "first.csv", test=tmp_path / "later.csv"))["overlap with --test"]
    shared, total = (int(word) for word in (found.split()[0], found.split()[2]))
    # Of windows of n steps, 101 - n lie in the 100 steps that both have, and 301 - n in the later table.
    assert total - shared == 200
    assert shared > 50


def test_flat_samples_are_not_counted_as_shared() -> None:
    x = torch.cat([torch.zeros(1, 2, 5), torch.tensor([[[1.0] * 5, [2.0] * 5]]), torch.randn(1, 2, 5)])
    assert list(sample_hashes(Batch(x, id=torch.arange(3)))) == [2]
