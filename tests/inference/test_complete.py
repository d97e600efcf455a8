"""`jepa complete`: what it writes, what it measures, the decoder it keeps, and every mistake in one sentence."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from PIL import Image
from support import Recorder

import jepakit as jk
from jepakit import launch, testing
from jepakit.cli import __main__ as cli
from jepakit.core.progress import Interrupted
from jepakit.evals.metrics.generation import tally_completions
from jepakit.inference import complete_folder, complete_images, complete_series
from jepakit.inference import decoder as decoders
from jepakit.run import checkpoint
from jepakit.types import Signal

STILL = {"length.batch": 8, "loop.workers": 0, "loop.device": "cpu", "evals.kinds": "[]", "evals.report": False}
HALVES = {
    "method.encoder": {"name": "cnn", "patch": [12, 4], "width": 16, "channels": [8], "norm": "none"},
    "method.predictor": {"name": "mlp", "hidden": 16},
    "data.augment.crop": "[1, 1]",
}
WAVES = {
    "method.encoder": {"name": "mlp", "patch": [6], "width": 16, "hidden": 16},
    "method.predictor": {"name": "mlp", "hidden": 16},
}


def smooth(count: int = 20) -> np.ndarray:
    """Waves as grey pictures (N, 12, 8), 8-bit."""
    x = (255 * testing.example(Signal(1, (12, 8)), count).x).round()
    return np.asarray(x[:, 0].to(torch.uint8).numpy())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures as an array and as files in two folders, and a run on them whose decoder is trained."""
    root = tmp_path_factory.mktemp("complete")
    np.save(root / "pictures.npy", smooth())
    for i, pixels in enumerate(smooth()):
        path = root / "photos" / ("a" if i % 2 else "b") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    jk.train(root / "pictures.npy", root / "run", recipe="bijepa", steps=2, settings=STILL | HALVES)
    jk.complete(root / "run", root / "pictures.npy", root / "first", hide="right", steps=3)
    return root


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two channels by the hour, and a run on windows of 12 of its steps."""
    root = tmp_path_factory.mktemp("waves")
    support.write_table(root / "table.csv", 72)
    settings = STILL | WAVES | {"data.window": 12, "data.stride": 6}
    jk.train(root / "table.csv", root / "run", recipe="bijepa", steps=2, settings=settings)
    return root


def test_a_picture_keeps_its_visible_half_and_has_the_decoded_one_beside_it(folders: Path) -> None:
    decoder: Any = checkpoint.load_run(folders / "run" / "heads" / "decoder").method
    made = decoder.complete(torch.from_numpy(smooth())[:, None] / 255, "right").clamp(0, 1)
    for i, truth in enumerate(smooth()):
        found = read(folders / "first" / f"pictures.npy[{i}].png")
        assert found.shape == (12, 8)
        assert np.array_equal(found[:, :4], truth[:, :4])
        assert np.abs(found - 255 * made[i, 0].numpy()).max() <= 0.51


def test_the_numbers_are_those_of_what_was_written(folders: Path) -> None:
    said = json.loads((folders / "first" / "completions.json").read_text())
    written = np.stack([read(folders / "first" / f"pictures.npy[{i}].png") for i in range(20)])
    made, true = (torch.from_numpy(x)[:, None] / 255 for x in (written, smooth()))
    hidden = torch.arange(8).expand(12, 8) >= 4
    expected = tally_completions(made, true, hidden)
    assert said["items"] == 20
    for name in ("mse", "ssim", "sharpness"):
        assert said[name] == pytest.approx(getattr(expected, name), rel=0.02)
    assert (said["hide"], said["size"], said["run"]) == ("right", [12, 8], str(folders / "run"))
    assert said["decoder"]["steps"] == 3


def test_the_grid_shows_input_completion_and_truth_of_the_first_eight(folders: Path) -> None:
    sheet, scale = read(folders / "first" / "grid.png"), complete_images.PICTURE_TILE // 12
    wide = max(8 * scale, 70)
    assert sheet.shape[0] == complete_images.HEADER_HEIGHT + complete_images.TILE_GAP + 8 * (
        12 * scale + complete_images.TILE_GAP
    )
    top, truth = complete_images.HEADER_HEIGHT + complete_images.TILE_GAP, smooth()[0]
    left = [
        complete_images.TILE_GAP + k * (wide + complete_images.TILE_GAP) + (wide - 8 * scale) // 2 for k in range(3)
    ]
    tiles = [sheet[top : top + 12 * scale : scale, x : x + 8 * scale : scale, 0] for x in left]
    assert (tiles[0][:, 4:] == 128).all()
    assert np.array_equal(tiles[0][:, :4], truth[:, :4])
    assert np.array_equal(tiles[1], read(folders / "first" / "pictures.npy[0].png"))
    assert np.array_equal(tiles[2], truth)


def test_the_decoder_is_trained_once_and_again_when_the_weights_have_changed(folders: Path, tmp_path: Path) -> None:
    run, data, told = tmp_path / "run", folders / "pictures.npy", Recorder()
    shutil.copytree(folders / "run", run, symlinks=True)
    jk.complete(run, data, tmp_path / "left", hide="left", progress=told)
    assert not told.notes
    assert read(tmp_path / "left" / "pictures.npy[0].png").shape == (12, 8)
    old = checkpoint.load_checkpoint(run / "heads" / "decoder").state["step"]
    jk.train(out=run, resume=True, steps=3, allow_change=["length.steps"])
    jk.complete(run, data, tmp_path / "anew", hide="left", steps=2, progress=told)
    (note,) = [note for note in told.notes if "has no decoder for its weights yet" in note]
    assert "training one on the run's data for 2 steps (--steps)" in note
    assert f"The decoder is kept in {run / 'heads' / 'decoder'}" in note
    assert (old, checkpoint.load_checkpoint(run / "heads" / "decoder").state["step"]) == (3, 2)
    below: Any = checkpoint.settings_of(run / "heads" / "decoder").method
    assert below.parent_hashes[0] == checkpoint.module_hash(checkpoint.load_run(run).method)


def test_a_decoder_that_was_interrupted_goes_on(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, data = tmp_path / "run", folders / "pictures.npy"
    shutil.copytree(folders / "run", run, symlinks=True)
    step_2, last = (run / f"heads/decoder/checkpoints/step-0000000{k}" for k in (2, 3))
    shutil.rmtree(last)
    assert step_2.is_dir()
    carry_out = launch.train_settings

    def stopped(*arguments: Any) -> None:
        raise Interrupted("stopped at step 2 of 3 and saved; continue with --resume")

    monkeypatch.setattr(launch, "train_settings", stopped)
    with pytest.raises(Interrupted, match=r"^stopped at step 2 of 3 and saved; the same command goes on where it was$"):
        jk.complete(run, data, tmp_path / "out", hide="right")
    monkeypatch.setattr(launch, "train_settings", carry_out)
    jk.complete(run, data, tmp_path / "out", hide="right")
    whole, again = (checkpoint.load_checkpoint(r / "heads" / "decoder").model for r in (folders / "run", run))
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_the_first_items_are_completed_as_they_are_among_all(folders: Path, tmp_path: Path) -> None:
    told = Recorder()
    done = jk.complete(
        folders / "run", folders / "pictures.npy", tmp_path / "few", hide="right", limit=3, progress=told
    )
    assert [row["step"] for row, _ in told.rows] == [3], "nothing is read beyond the items that were asked for"
    names = {path.name for path in (tmp_path / "few").iterdir()}
    assert names == {*(f"pictures.npy[{i}].png" for i in range(3)), "grid.png", "completions.json"}
    assert done.items == 3
    for i in range(3):
        a, b = (
            read(complete_folder / f"pictures.npy[{i}].png")
            for complete_folder in (tmp_path / "few", folders / "first")
        )
        assert np.array_equal(a, b)


def test_files_keep_their_folders_and_unreadable_ones_are_told(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "a" / "broken.png").write_bytes(b"nothing")
    done = jk.complete(folders / "run", tmp_path / "photos", tmp_path / "out", hide="left")
    assert (done.items, len(done.skipped)) == (20, 1)
    assert len(list((tmp_path / "out" / "a").glob("*.png"))) == 10
    assert np.array_equal(read(tmp_path / "out" / "b" / "00.png")[:, 4:], smooth()[0][:, 4:])
    said = json.loads((tmp_path / "out" / "completions.json").read_text())
    assert list(said["skipped"]) == list(done.skipped)


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["a/1.jpg", "a/1.png"], ["a/1.png", "a/1.png.png"]),
        (["../../1.jpg", "/1.jpg"], ["1.png", "1.jpg.png"]),
        (["grid.jpg"], ["grid.jpg.png"]),
        (["x.npy[0]", "x.npy[1]"], ["x.npy[0].png", "x.npy[1].png"]),
        (["1", "1", "1"], ["1.png", "1-2.png", "1-3.png"]),
    ],
)
def test_no_item_overwrites_another_or_leaves_the_folder(names: list[str], files: list[str], tmp_path: Path) -> None:
    found = []
    for name in names:
        path = complete_folder.free_path(tmp_path, name, ".png")
        complete_images.save_png(np.zeros((2, 2, 3), np.uint8), path, grey=True)
        found.append(path.relative_to(tmp_path).as_posix())
    assert found == files


def test_series_are_a_table_that_keeps_the_past_and_says_what_is_imagined(waves: Path, tmp_path: Path) -> None:
    data, overlap = waves / "table.csv", {"data.stride": 6}
    done = jk.complete(waves / "run", data, tmp_path / "out", hide="future", steps=2, settings=overlap)
    with (tmp_path / "out" / "completions.csv").open() as file:
        rows = list(csv.DictReader(file))
    truth = np.round(support.sine_waves(72, 2), 6)
    assert done.items == 11
    assert len(rows) == 11 * 12
    assert [row["hidden"] for row in rows[:12]] == ["0"] * 6 + ["1"] * 6
    assert [int(row["step"]) for row in rows[12:15]] == [6, 7, 8]
    assert [row["item"] for row in rows[::12]] == [f"table.csv[{k}:{k + 12}]" for k in range(0, 61, 6)]
    assert rows[12]["time"] == "2024-01-01 06:00:00"
    for row in rows:
        same = abs(float(row["c1"]) - truth[1, int(row["step"])]) < 1e-5
        assert same or row["hidden"] == "1"
    assert not all(abs(float(row["c1"]) - truth[1, int(row["step"])]) < 1e-5 for row in rows)
    assert (tmp_path / "out" / "figure.png").is_file()
    said = json.loads((tmp_path / "out" / "completions.json").read_text())
    deviation: Any = checkpoint.load_run(waves / "run").method.std[:, 0]
    squared = [
        ((float(row[f"c{c}"]) - truth[c, int(row["step"])]) / float(deviation[c])) ** 2
        for row in rows
        if row["hidden"] == "1"
        for c in (0, 1)
    ]
    assert said["mse"] == pytest.approx(np.mean(squared), rel=1e-4)
    assert "ssim" not in said


def test_pictures_out_of_zero_to_one_are_not_cut_off(tmp_path: Path) -> None:
    np.save(tmp_path / "float.npy", 40 + smooth().astype(np.float32))
    floats = {"data.name": "arrays", "data.path": str(tmp_path / "float.npy")}
    jk.train(out=tmp_path / "run", recipe="bijepa", steps=2, settings=STILL | HALVES | floats)
    done = jk.complete(tmp_path / "run", tmp_path / "float.npy", tmp_path / "out", hide="right", steps=2)
    assert done.ssim is None
    assert done.mse < 20_000


def test_the_command_line_writes_the_same_as_python_and_says_it_in_a_line(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["complete", folders / "run", "--data", folders / "pictures.npy", "--hide", "right", "--out"]
    assert cli.main([*map(str, words), str(tmp_path / "out")]) == 0
    said = json.loads((tmp_path / "out" / "completions.json").read_text())
    printed = capsys.readouterr().out
    assert printed.startswith(
        f"{tmp_path / 'out'}: 20 items, MSE {said['mse']:.4g}, SSIM {said['ssim']:.3f}, sharpness"
    )
    assert said == json.loads((folders / "first" / "completions.json").read_text())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--hide top --out {new}", "cannot predict the top of its samples; it can predict left and right\n"),
        ("--hide past --out {new}", "no side 'past' of pictures; give --hide top, bottom, left, right\n"),
        ("--hide right --out {root}/first", "first is not empty; give another --out, or --overwrite to replace it\n"),
        ("--hide right --out {root}/photos --overwrite", "photos is not deleted, as it holds no completions"),
        ("--hide right --out {root}/pictures.npy", "pictures.npy is a file; give --out a folder\n"),
        ("--hide right --out {new} --limit 0", "limit is 0; give how many items to complete, 1 or more\n"),
        ("--hide right --out {new} --steps 9", "was trained for 3 steps, not 9; leave --steps out to use it"),
        ("--out {new}", "--hide is missing; give it, or see --help\n"),
        ("--hide right --out {new} --lr 3", "No option --lr for complete."),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    words: str, sentence: str, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ["complete", str(folders / "run"), "--data", str(folders / "pictures.npy")]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*first, *words.format(new=tmp_path / "new" / "out", root=folders).split()])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert sentence in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert (folders / "first" / "grid.png").is_file()


def test_a_head_or_another_thing_in_the_place_of_the_decoder_is_refused(folders: Path, tmp_path: Path) -> None:
    data = folders / "pictures.npy"
    with pytest.raises(ValueError, match=r"decoder is a head; give the run below it, .*run$"):
        jk.complete(folders / "run" / "heads" / "decoder", data, tmp_path / "out")
    shutil.copytree(folders / "run", tmp_path / "run", symlinks=True)
    shutil.rmtree(tmp_path / "run" / "heads" / "decoder")
    shutil.copytree(folders / "run", tmp_path / "run" / "heads" / "decoder", symlinks=True)
    with pytest.raises(ValueError, match="holds no decoder but a run of bijepa; move it away"):
        jk.complete(tmp_path / "run", data, tmp_path / "out")


def test_what_predicts_no_part_is_refused_before_a_decoder_is_trained(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((16, 32, 32), np.uint8) + np.arange(32, dtype=np.uint8))
    small = {f"method.encoder.{k}": v for k, v in (("width", 32), ("depth", 1), ("heads", 2), ("patch", [8, 8]))}
    jk.train(tmp_path / "a.npz", tmp_path / "run", recipe="lejepa", steps=1, settings=STILL | small)
    with pytest.raises(ValueError, match="cannot predict the right of its samples; its method"):
        jk.complete(tmp_path / "run", tmp_path / "a.npz", tmp_path / "out")
    assert not (tmp_path / "run" / "heads").exists()


def test_a_folder_of_completions_is_replaced_as_a_whole_and_only_where_all_went_well(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, arguments = tmp_path / "out", (folders / "run", folders / "pictures.npy", tmp_path / "out")
    jk.complete(*arguments, hide="right", limit=5)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fails(*arguments: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(complete_images, "picture_grid", fails)
    with pytest.raises(OSError, match="the disk is full"):
        jk.complete(*arguments, hide="left", limit=2, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    monkeypatch.undo()
    jk.complete(*arguments, hide="left", limit=2, overwrite=True)
    assert len(list(out.iterdir())) == 4


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with complete_folder.new_folder(tmp_path / "out") as part:
        (part / "file").write_text("here")
    assert (tmp_path / "out" / "file").read_text() == "here"


def test_a_run_that_was_moved_takes_its_decoder_along(folders: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(folders / "run", moved, symlinks=True)
    settings = (moved / "heads" / "decoder" / "config.yaml").read_text()
    (moved / "heads" / "decoder" / "config.yaml").write_text(settings.replace(str(folders / "run"), "gone/run"))
    told = Recorder()
    jk.complete(moved, folders / "pictures.npy", tmp_path / "out", hide="right", limit=2, progress=told)
    assert not told.notes


def test_a_decoder_can_be_trained_with_other_settings_and_is_then_used(folders: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folders / "run", run, symlinks=True, ignore=shutil.ignore_patterns("heads"))
    quick = {"loop.workers": 0, "loop.device": "cpu", "evals.report": False, "method.reads": "context"}
    jk.train(out=decoders.decoder_folder(run), recipe="decoder", init=run, steps=2, settings=quick)
    jk.complete(run, folders / "pictures.npy", tmp_path / "out", hide="left", limit=2)
    assert json.loads((tmp_path / "out" / "completions.json").read_text())["decoder"]["reads"] == "context"


@pytest.mark.slow
def test_completing_from_the_command_line_shows_progress_and_leaves_a_decoder(folders: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folders / "run", run, symlinks=True, ignore=shutil.ignore_patterns("heads"))
    words = ("complete", run, "--data", folders / "photos", "--hide", "right", "--out", tmp_path / "out", "--steps", 3)
    done = support.jepa(*words)
    assert done.returncode == 0, done.stderr
    assert "has no decoder for its weights yet" in done.stderr
    assert "step 3/3" in done.stderr
    assert "completing" in done.stderr
    assert (run / "heads" / "decoder" / "summary.json").is_file()


def test_windows_of_series_follow_one_another_and_those_drawn_are_spread_over_all(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, *lines = (waves / "table.csv").read_text().splitlines()
    later = [f"2024-02-0{1 + k // 24}T{k % 24:02d}:00:00+02:00,{line.split(',', 1)[1]}" for k, line in enumerate(lines)]
    (tmp_path / "b.csv").write_text("\n".join([head, *later, *(line.replace("-02-", "-03-") for line in later)]))
    drawn: list[Any] = []
    monkeypatch.setattr(complete_series, "draw_completions", lambda shown, *rest: drawn.extend(shown))
    jk.complete(waves / "run", tmp_path / "b.csv", tmp_path / "out", hide="future", steps=2)
    with (tmp_path / "out" / "completions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["item"] for row in rows[::12]] == [f"b.csv[{k}:{k + 12}]" for k in range(0, 144, 12)]
    assert [int(row["step"]) for row in rows] == list(range(144))
    assert (rows[0]["time"], rows[72]["time"]) == ("2024-02-01 00:00:00+02:00", "2024-03-01 00:00:00+02:00")
    assert [name for name, *_ in drawn] == [f"b.csv[{k}:{k + 12}]" for k in (0, 24, 48, 72, 96, 132)]
