"""`jepa complete` on clips, which scanpaths are: the arrays and the grid that it writes, and its mistakes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import jepakit as jk
from jepakit import testing
from jepakit.cli import __main__ as cli
from jepakit.data.images.arrays import Arrays
from jepakit.data.scanpaths import settings
from jepakit.evals.metrics.generation import tally_completions
from jepakit.inference import complete_images
from jepakit.inference.complete_folder import Chunk
from jepakit.run import checkpoint
from jepakit.types import Signal

SETTINGS = {
    "data.name": "scanpaths",
    "data.synthetic": "raster",
    "data.count": 4,
    "data.size": "[8, 8]",
    "method.encoder": {"name": "mlp", "patch": [2, 8, 8], "width": 16, "hidden": 16},
    "method.predictor": {"name": "mlp", "hidden": 16},
    "method.masks": "[{name: halves, axis: 0}]",
    "length.batch": 8,
    "loop.workers": 0,
    "loop.device": "cpu",
    "evals.kinds": "[]",
    "evals.report": False,
}
HIDDEN = (torch.arange(4) >= 2)[:, None, None].expand(4, 8, 8)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures, coloured ones, a run on four places of each grey one, and its completions."""
    root = tmp_path_factory.mktemp("clips")
    for name, channels in (("grey.npy", 1), ("coloured.npy", 3)):
        waves = testing.example(Signal(channels, (24, 20)), 10).x
        np.save(root / name, (255 * waves).round().to(torch.uint8).numpy())
    jk.train(root / "grey.npy", root / "run", recipe="bijepa", steps=2, settings=SETTINGS)
    jk.complete(root / "run", root / "grey.npy", root / "first", hide="future", steps=3)
    return root


def truth(desk: Path) -> Tensor:
    dataset = settings.Config(str(desk / "grey.npy"), synthetic="raster", count=4, size=(8, 8)).open()
    return torch.stack([dataset.raw(i) for i in range(10)])


def written(folder: Path) -> np.ndarray:
    return np.stack([np.load(folder / f"grey.npy[{i}]@0.npy") for i in range(10)])


class Alike(Arrays):
    """Items that share a name."""

    def name(self, i: int) -> str:
        return "walk/clip.avi"


NONE = np.empty(0, dtype=np.int64)
ALIKE = Alike(np.empty((0, 1, 4, 4)), NONE, NONE, (), (), "")


def frames(sheet: Path, high: int, columns: int) -> np.ndarray:
    """The tiles (rows, columns, height, width, 3) of a grid of clips whose frames are `high` pixels high and wide."""
    with Image.open(sheet) as image:
        found = np.asarray(image)
    side = complete_images.CLIP_TILE // high * high
    margin, top = (
        complete_images.TILE_GAP + 8 * len("completion"),
        complete_images.HEADER_HEIGHT + complete_images.TILE_GAP,
    )
    wide = (found.shape[1] - margin) // columns
    rows = 3 * round((found.shape[0] - top) / (3 * (side + complete_images.TILE_GAP) + complete_images.GROUP_GAP))
    tops = [top + i * (side + complete_images.TILE_GAP) + i // 3 * complete_images.GROUP_GAP for i in range(rows)]
    lefts = [margin + k * wide + (wide - complete_images.TILE_GAP - side) // 2 for k in range(columns)]
    step = side // high
    return np.array([[found[y : y + side : step, x : x + side : step] for x in lefts] for y in tops])


@pytest.mark.parametrize("side", ["future", "past"])
def test_a_clip_keeps_its_visible_half_and_has_the_decoded_one_beside_it(side: str, desk: Path, tmp_path: Path) -> None:
    out = desk / "first" if side == "future" else tmp_path / "out"
    if side == "past":
        words = ("complete", desk / "run", "--data", desk / "grey.npy", "--hide", side, "--out", out)
        assert cli.main([str(word) for word in words]) == 0
    decoder: Any = checkpoint.load_run(desk / "run" / "heads" / "decoder").method
    made, found, x = decoder.complete(truth(desk), side).clamp(0, 1), written(out), truth(desk)
    seen = slice(None, 2) if side == "future" else slice(2, None)
    assert (found.shape, found.dtype) == ((10, 1, 4, 8, 8), np.float32)
    assert np.array_equal(found[:, :, seen], x[:, :, seen].numpy())
    assert np.abs(found - made.numpy()).max() < 1e-5
    assert not np.allclose(found, x.numpy(), atol=1e-3)
    names = {path.name for path in out.iterdir()}
    assert names == {*(f"grey.npy[{i}]@0.npy" for i in range(10)), "grid.png", "completions.json"}


def test_the_numbers_are_those_of_what_was_written(desk: Path) -> None:
    said = json.loads((desk / "first" / "completions.json").read_text())
    expected = tally_completions(torch.from_numpy(written(desk / "first")), truth(desk), HIDDEN)
    assert (said["items"], said["size"], said["hide"]) == (10, [4, 8, 8], "future")
    for name in ("mse", "ssim", "sharpness"):
        assert said[name] == pytest.approx(getattr(expected, name), rel=1e-4)


def test_the_grid_shows_input_completion_and_truth_of_the_first_four_over_time(desk: Path) -> None:
    found = frames(desk / "first" / "grid.png", 8, 4)[..., 0]
    assert len(found) == 12
    true = (255 * truth(desk)[:4, 0]).round().numpy()
    assert np.array_equal(found[0::3, :2], true[:, :2])
    assert (found[0::3, 2:] == 128).all()
    assert np.array_equal(found[1::3], (255 * written(desk / "first")[:4, 0]).round())
    assert np.array_equal(found[2::3], true)


def test_of_a_long_clip_frames_from_the_first_to_the_last_are_shown_and_no_array_replaces_another(
    tmp_path: Path,
) -> None:
    x = (torch.arange(40) / 40)[:, None, None].expand(6, 2, 40, 4, 4)
    parts = [Chunk([0, 1, 2], x[:3], x[:3]), Chunk([3, 4, 5], x[3:], x[3:])]
    hidden = torch.ones(40, 4, 4, dtype=torch.bool)
    total = complete_images.write_clips(iter(parts), tmp_path, ALIKE, hidden, torch.ones(2, 1, 1, 1), 6)
    assert sorted(path.name for path in (tmp_path / "walk").iterdir()) == [
        *(f"clip.avi-{k}.npy" for k in (2, 3, 4, 5, 6)),
        "clip.avi.npy",
    ]
    found = frames(tmp_path / "grid.png", 4, 16)[..., 0, 0, 0]
    assert found.shape == (12, 16)
    assert found[2].tolist() == sorted(set(found[2].tolist()))
    assert (found[2, 0], found[2, -1]) == (0, round(255 * 39 / 40))
    assert (total.items, total.mse) == (6, 0)


def test_clips_out_of_zero_to_one_are_not_cut_off(tmp_path: Path) -> None:
    true, made = torch.full((2, 1, 2, 4, 4), 40.0), torch.full((2, 1, 2, 4, 4), -3.0)
    true[:, :, :, 2:] = 50
    hidden = torch.ones(2, 4, 4, dtype=torch.bool)
    total = complete_images.write_clips(
        iter([Chunk([0, 1], made, true)]), tmp_path, ALIKE, hidden, torch.ones(1, 1, 1, 1), 2
    )
    assert (np.load(tmp_path / "walk" / "clip.avi.npy") == -3).all()
    assert total.mse == pytest.approx((43**2 + 53**2) / 2)
    assert "ssim" not in total.numbers()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("grey.npy --hide top", "cannot predict the top of its samples; it can predict past and future\n"),
        ("grey.npy --hide up", "no side 'up' of clips; give --hide past, future, top, bottom, left, right\n"),
        ("coloured.npy --hide past", "the data have 3 channels but the model takes 1; give data with 1\n"),
        ("short.json --hide past", "the scanpaths have 3 fixations each, but completing needs 4 without padding;"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_trained_or_written(
    words: str, sentence: str, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(desk / "run", tmp_path / "run", symlinks=True, ignore=shutil.ignore_patterns("heads"))
    (desk / "images").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((24, 20), np.uint8)).save(desk / "images" / "a.png")
    walk = [{"subject": "1", "x": [3, 4, 5], "y": [3, 4, 5]}]
    (desk / "short.json").write_text(json.dumps([{"image": "a.png", "scanpaths": walk}]))
    with pytest.raises(SystemExit) as stopped:
        cli.main(
            ["complete", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--data", *f"{desk}/{words}".split()]
        )
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert sentence in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not (tmp_path / "run" / "heads").exists()
