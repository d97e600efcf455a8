import numpy as np
import pytest
from PIL import Image

from jepakit.data.check import check


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_with_every_flaw_is_reported_item_by_item(tmp_path, workers):
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
    report = check(str(tmp_path), workers=workers, progress=lambda done, n: seen.append((done, n)))
    assert (report.items, report.readable, report.unreadable, report.duplicates, report.tiny) == (11, 10, 1, 1, 1)
    assert report.height == (12, 50, 90)
    assert report.width == (50, 50, 90)
    assert report.channels == {1: 1, 3: 9}
    assert report.classes == {"cat": 8, "dog": 3}
    assert report.skew == pytest.approx(8 / 3)
    found = {(p.problem, p.name.replace("\\", "/")) for p in report.problems}
    assert found == {("unreadable", "cat/broken.png"), ("duplicate", "cat/9.png"), ("tiny", "dog/grey.png")}
    assert "cat/0.png" in next(p.detail for p in report.problems if p.problem == "duplicate")
    assert report.speed > 0
    assert seen[-1] == (11, 11)
    assert dict(report.rows())["unreadable"] == "1"
    assert report.dict()["height"] == (12, 50, 90)


def test_arrays_are_checked_too(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (6, 40, 40), dtype=np.uint8)
    x[5] = x[2]
    np.save(tmp_path / "x.npy", x)
    report = check(str(tmp_path / "x.npy"))
    assert (report.items, report.duplicates, report.height) == (6, 1, (40, 40, 40))
    assert report.problems[0].name == "x.npy[5]"
    assert report.classes == {}


def test_real_shards_hold_no_broken_image(shared_data):
    report = check(str(shared_data / "grocery" / "test-001.tar"))
    assert report.unreadable == report.duplicates == 0
    assert report.height.low == 348
    assert report.channels == {3: report.items}
