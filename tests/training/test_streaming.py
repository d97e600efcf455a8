"""Learning from a stream: what is read and in which order, what is left out, and a run that stops and goes on."""

import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import Recorder
from torch.testing import assert_close

import jepakit as jk
from jepakit import api, methods
from jepakit.core.progress import Interrupted
from jepakit.data import stream
from jepakit.data.stream import folder, pipe
from jepakit.methods import rjepa
from jepakit.nn import CNN, Pixels
from jepakit.recipes.rjepa import rjepa_online
from jepakit.recurrent.circuit import Circuit
from jepakit.run import parse
from jepakit.training.loop import is_early_check
from jepakit.training.session import SourceState
from jepakit.training.stream.follow import follow_frames, initial_stream
from jepakit.training.stream.windows import StreamPosition, frame_windows
from jepakit.types import Batch, Rng, Signal

QUICK = {
    "method.circuit.width": 8,
    "method.encoder.channels": [4],
    "method.encoder.width": 6,
    "data.warm": 12,
    "data.window": 4,
    "data.settle": 0.0,
    "evals.report": False,
}


def waves(count: int, width: int = 5) -> np.ndarray:
    t = np.arange(count)[:, None] / 4
    return np.sin(t * np.linspace(0.3, 1.3, width) + np.arange(width)).astype(np.float32)


def pictures(count: int, side: int = 8) -> np.ndarray:
    t = np.arange(count)[:, None, None, None]
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    return (127 * (1 + np.sin(t / 3 + x + 2 * y))).astype(np.uint8)


def learn(data: Path | str, out: Path, *, progress: Recorder | None = None, **settings: Any) -> dict[str, Any]:
    named = {key: settings.pop(key) for key in ("resume", "overwrite", "steps") if key in settings}
    changes = {**QUICK, **settings}
    return api.train(data, out, recipe="rjepa-online", settings=changes, progress=progress, **named)


def read(path: Path | str, **settings: Any) -> list[stream.Frame]:
    return list(stream.Config(str(path), settle=0.0, **settings).source())


def saved(run: Path) -> dict[str, torch.Tensor]:
    names = ("model", "optim", "stream")
    parts = [(name, load_file(run / "checkpoints" / "last" / f"{name}.safetensors")) for name in names]
    return {f"{name}/{key}": value for name, part in parts for key, value in part.items()}


# What is read.


def test_every_kind_of_file_is_read_frame_by_frame_in_the_order_of_the_names(tmp_path: Path) -> None:
    x = waves(7)
    np.save(tmp_path / "b.npy", x[1:3])
    np.save(tmp_path / "a.npy", x[0])
    np.savez(tmp_path / "c.npz", two=x[4], one=x[3:4])
    (tmp_path / "d.csv").write_text("one,two,three,four,five\n" + ",".join(map(str, x[5])) + "\n\n")
    (tmp_path / "e.txt").write_text(" ".join(map(str, x[6])))
    frames = read(tmp_path)
    assert_close(torch.stack([frame.x for frame in frames]), torch.from_numpy(x))
    assert [frame.place.file for frame in frames] == [
        f"{n}" for n in ("a.npy", *["b.npy"] * 2, *["c.npz"] * 2, "d.csv", "e.txt")
    ]
    assert [frame.place.done for frame in frames] == [1, 1, 2, 1, 2, 1, 1]


def test_pictures_and_arrays_of_pictures_give_the_same_frames(tmp_path: Path) -> None:
    x = pictures(3)
    np.save(tmp_path / "0.npy", x)
    for i in range(3):
        Image.fromarray(x[i, 0]).save(tmp_path / f"1{i}.png")
    frames = torch.stack([frame.x for frame in read(tmp_path)])
    assert frames.shape == (6, 1, 8, 8)
    assert torch.equal(frames[:3], frames[3:])
    assert_close(frames[:3], torch.from_numpy(x) / 255)


def test_pictures_are_brought_to_one_size_where_that_is_asked_for_or_they_are_large(tmp_path: Path) -> None:
    for i, side in enumerate((8, 12, 10)):
        Image.fromarray(pictures(1, side)[0, 0]).save(tmp_path / f"{i}.png")
    assert {frame.x.shape for frame in read(tmp_path, size=(6, 4))} == {(1, 6, 4)}
    assert len(read(tmp_path)) == 1
    Image.fromarray(np.zeros((120, 100, 3), np.uint8)).save(tmp_path / "0.png")
    assert read(tmp_path)[0].x.shape == (3, 96, 96)


def test_a_stream_goes_on_in_the_middle_of_a_file(tmp_path: Path) -> None:
    x = waves(6)
    np.save(tmp_path / "a.npy", x[:3])
    (tmp_path / "b.csv").write_text("\n".join(",".join(map(str, row)) for row in x[3:]))
    whole = read(tmp_path)
    for k, frame in enumerate(whole):
        cfg = stream.Config(str(tmp_path), settle=0.0)
        rest = list(cfg.source(tuple(frame.x.shape), frame.place))
        assert [f.name for f in rest] == [f.name for f in whole[k + 1 :]]


def test_a_file_that_is_being_written_is_waited_for_and_an_unfinished_name_is_passed_over(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves(2))
    (tmp_path / "b.part").write_bytes(b"half")
    (tmp_path / ".c.npy").write_bytes(b"half")
    np.save(whole := io.BytesIO(), waves(40))
    rest = [whole.getvalue()[at : at + 200] for at in range(0, len(whole.getvalue()), 200)]

    def write() -> bool:
        # Asked while the stream waits: a further part is written each time.
        if rest:
            with (tmp_path / "d.npy").open("ab") as file:
                file.write(rest.pop(0))
        return False

    write()
    source = stream.Config(str(tmp_path), settle=0.3, wait=0.3).source(stop=write)
    assert len(list(source)) == 42
    assert (rest, source.lost) == ([], 0)


def test_a_run_waits_for_further_files_as_long_as_it_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves(2))
    asked = []

    def later() -> bool:
        asked.append(time.monotonic())
        if len(asked) == 3:
            np.save(tmp_path / "b.npy", waves(3))
        return False

    source = stream.Config(str(tmp_path), settle=0.0, wait=0.5).source(stop=later)
    assert len(list(source)) == 5
    assert asked[-1] - asked[2] > 0.3
    (note,) = source.notes
    assert "waiting for files" in note


def test_a_file_that_comes_too_late_for_its_name_is_left_out_and_named(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", waves(2))
    source = stream.Config(str(tmp_path), settle=0.0, wait=0.3).source()
    frames = iter(source)
    next(frames)
    np.save(tmp_path / "a.npy", waves(3))
    assert len(list(frames)) == 1
    assert any("a.npy" in note and "sort before b.npy" in note for note in source.notes)


def test_a_large_folder_is_listed_a_part_at_a_time_and_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "MAX_NAMES", 3)
    for i in range(40):
        (tmp_path / f"{i:02d}.txt").write_text(f"{i} 0")
    assert len(folder.next_names(tmp_path, "").names) == 3
    assert [int(frame.x[0]) for frame in read(tmp_path)] == list(range(40))


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "another shape": (lambda p: np.save(p / "b.npy", waves(1, 4)), r"b.npy frame 0.*\(4,\).*\(5,\)"),
    "not finite": (lambda p: np.save(p / "b.npy", np.full((1, 5), np.nan, np.float32)), "b.npy frame 0.*not finite"),
    "cut short": (lambda p: (p / "b.npy").write_bytes((p / "a.npy").read_bytes()[:-8]) and None, "b.npy"),
    "empty": (lambda p: (p / "b.png").write_bytes(b"") and None, "b.png"),
    "words": (
        lambda p: (p / "b.csv").write_text("1,2,3,4,5\n1,2,x,4,5\n") and None,
        "b.csv line 2: 'x' is not a number",
    ),
    "objects": (lambda p: np.save(p / "b.npy", np.array([{}], object)), "b.npy"),
    "five axes": (lambda p: np.save(p / "b.npy", np.zeros((1, 1, 1, 1, 1))), "holds no frames"),
    "channels last": (lambda p: np.save(p / "b.npy", np.zeros((2, 8, 8, 3))), "channels last"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_frame_is_left_out_and_named_or_ends_the_run(tmp_path: Path, name: str) -> None:
    spoil, words = BAD[name]
    np.save(tmp_path / "a.npy", waves(3))
    np.save(tmp_path / "c.npy", waves(2))
    spoil(tmp_path)
    source = stream.Config(str(tmp_path), settle=0.0).source()
    good = [frame for frame in source if frame.place.file != "b.csv"]
    assert len(good) == 5
    assert source.lost == 1
    (note,) = source.notes
    assert re.search(words, note)
    with pytest.raises(ValueError, match=words):
        read(tmp_path, corrupt="fail")


def test_what_is_no_frame_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("hello")
    (tmp_path / "inner").mkdir()
    np.save(tmp_path / "a.npy", waves(2))
    source = stream.Config(str(tmp_path), settle=0.0).source()
    assert len(list(source)) == 2
    assert [("notes.md" in note, "inner" in note) for note in source.notes] == [(True, True)]


def test_of_many_bad_frames_the_first_are_named_and_all_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1 2\n" + "x 1\n" * 300)
    source = stream.Config(str(tmp_path), settle=0.0).source()
    assert len(list(source)) == 1
    assert source.lost == 300
    assert len(source.skipped) == len(source.notes) == 100
    assert "counted" in source.notes[-1]


# Standard input.


def piped(content: bytes, size: tuple[int, int] | None = None) -> list[tuple[str, Any]]:
    here, there = os.pipe()
    writer = threading.Thread(
        target=lambda: (os.write(there, content[:9]), time.sleep(0.05), os.write(there, content[9:]), os.close(there))
    )
    writer.start()
    found = list(pipe.pipe_frames(here, 0.0, lambda: False, size))
    writer.join()
    os.close(here)
    return found


def test_lines_of_numbers_on_standard_input_are_vectors() -> None:
    found = piped(b"a b\n1 2\n3;4\n\n5,6")
    assert [item[2].tolist() for _, item in found] == [[1, 2], [3, 4], [5, 6]]
    ((_, bad), (_, good)) = piped(b"1 two\n3 4\n")
    assert "line 1: 'two'" in str(bad)
    assert good[2].tolist() == [3, 4]


def test_arrays_on_standard_input_are_frames_one_after_the_other() -> None:
    content = io.BytesIO()
    for array in (pictures(2), pictures(1)[0], pictures(3)):
        np.save(content, array)
    found = piped(content.getvalue())
    assert [name for name, _ in found] == [f"standard input array {k}" for k in (0, 0, 1, 2, 2, 2)]
    assert torch.equal(found[5][1][2], torch.from_numpy(pictures(3))[2] / 255)
    *_, (_, bad) = piped(content.getvalue()[:-5])
    assert "cannot be separated" in str(bad)


def test_an_array_of_objects_on_standard_input_is_not_loaded() -> None:
    np.save(content := io.BytesIO(), np.array([{}], object))
    ((_, bad),) = piped(content.getvalue())
    assert "standard input array 0" in str(bad)


# What is learnt.


FOLLOWED: dict[str, dict[str, Any]] = {
    "pictures, encoder traced": {},
    "pictures, encoder frozen": {"below": "frozen"},
    "no encoder": {"encoder": Pixels()},
    "positions": {"encoder": CNN((1, 4, 4), width=6, channels=(4,)), "circuit": Circuit(width=7), "below": "frozen"},
    "reciprocal": {"below": "frozen", "circuit": Circuit("reciprocal", 7)},
    "blocks": {"below": "frozen", "circuit": Circuit(width=6, block=2)},
    "minimal": {"below": "frozen", "circuit": Circuit("mingru", 7), "predictor": "mlp", "hidden": 5},
    "no stop-gradient": {"below": "frozen", "stop_gradient": False},
}


@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_followed_frames_have_the_gradient_of_the_whole_sequence(name: str, size: int) -> None:
    base = {"encoder": CNN((1, 8, 8), width=6, channels=(4,)), "circuit": Circuit(width=7), "rule": "rfp"}
    side = 1 if name == "no encoder" else 8
    method = methods.build(rjepa.Config(**{**base, **FOLLOWED[name]}), Signal(2, (6, side, side))).double()
    x = torch.rand(1, 2, 6, side, side, dtype=torch.float64)
    total = method(Batch(x), Rng(0)).total
    total.backward()
    whole = {p: p.grad.clone() for p in method.parameters() if p.grad is not None}
    at, sums, loss = initial_stream(method), {p: torch.zeros_like(p) for p in whole}, torch.tensor(0.0)
    for first in range(0, 5, size):
        batch = Batch(x[:, :, first : min(first + size, 5) + 1])
        share = (batch.x.shape[2] - 1) / 5
        done = follow_frames(method, at, batch)
        at, loss = done.stream, loss + done.terms.loss["prediction"] * share
        for p, gradient in done.gradients:
            sums[p] += gradient * share
    assert at.step == 6
    assert_close(loss, total.detach(), check_dtype=False)
    for p, gradient in sums.items():
        assert_close(gradient, whole[p], rtol=1e-9, atol=1e-14)


def parted(frames: Any, **settings: Any) -> list[tuple[int, bool, str]]:
    cfg = stream.Config("x", **{k: v for k, v in settings.items() if k == "reset"})
    found = frame_windows(iter(frames), cfg.source(), settings.get("position", StreamPosition()), settings["size"])
    return [(window.x.shape[2], window.fresh, window.place.file) for window in found]


def numbered(files: str) -> list[stream.Frame]:
    return [stream.Frame(torch.full((2,), float(i)), f"{f}{i}", stream.Place(f, i)) for i, f in enumerate(files)]


def test_frames_are_taken_a_few_at_a_time_and_a_new_file_begins_anew_where_that_is_set() -> None:
    frames = numbered("aaaabbb")
    assert parted(frames, size=1) == [(2, i == 0, f) for i, f in enumerate("aaabbb")]
    assert parted(frames, size=2) == [(3, True, "a"), (3, False, "b"), (3, False, "b")]
    assert parted(frames, size=1, reset="file") == [
        (2, True, "a"),
        (2, False, "a"),
        (2, False, "a"),
        (2, True, "b"),
        (2, False, "b"),
    ]
    assert parted(frames, size=2, reset="file") == [(3, True, "a"), (2, False, "a"), (3, True, "b")]
    assert parted(numbered("ab"), size=1, reset="file") == []
    later = StreamPosition(None, torch.zeros(2), stream.Place("a", 3))
    assert parted(frames[3:], size=1, position=later) == [(2, False, f) for f in "abbb"]


@pytest.mark.parametrize("kind", ["vectors", "pictures"])
@pytest.mark.parametrize("cut", [{}, {"length.batch": 3}, {"data.reset": "file"}], ids=str)
def test_a_run_that_stops_and_goes_on_is_the_same_run_to_the_bit(
    tmp_path: Path, kind: str, cut: dict[str, Any]
) -> None:
    x = waves(60) if kind == "vectors" else pictures(60)
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "a.npy", x[:25])
    learn(tmp_path / "data", tmp_path / "parts", **cut)
    np.save(tmp_path / "data" / "b.npy", x[25:])
    # In the middle of a file, then to its end.
    done = learn(tmp_path / "data", tmp_path / "parts", resume=True, steps=30 // cut.get("length.batch", 1), **cut)
    assert done["steps"] == 30 // cut.get("length.batch", 1)
    done = learn(tmp_path / "data", tmp_path / "parts", resume=True, **cut)
    whole = learn(tmp_path / "data", tmp_path / "whole", **cut)
    assert done["steps"] == whole["steps"] == {1: 59, 3: 19}[cut.get("length.batch", 1)] - ("data.reset" in cut)
    one, other = saved(tmp_path / "parts"), saved(tmp_path / "whole")
    assert one.keys() == other.keys() >= {"stream/state.0", "stream/drive.0", "stream/last"}
    assert [key for key, value in one.items() if not torch.equal(value, other[key])] == []


def test_learning_changes_the_weights_and_lowers_the_error(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves(400))
    progress = Recorder()
    summary = learn(tmp_path / "a.npy", tmp_path / "run", progress=progress, **{"optim.lr": 3e-3, "loop.log_every": 50})
    assert progress.rows[-1][0]["loss"] < 0.5 * progress.rows[0][0]["loss"]
    assert progress.rows[0][1] == 0
    assert summary["steps"] == 399
    assert summary["verdict"] != "unknown"


def test_the_run_folder_is_an_ordinary_one(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves(220))
    progress = Recorder()
    learn(tmp_path / "a.npy", tmp_path / "run", progress=progress)
    run = parse.from_yaml(tmp_path / "run" / "config.yaml")
    assert (run.length.steps, run.length.batch, run.loop.workers) == (None, 1, 0)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [100, 200, 219]
    assert {"verdict", "throughput", "normalized_loss"} <= rows[-1]["metrics"].keys()
    assert {"change"} <= rows[-1]["watched"].keys()
    assert progress.said("mean and deviation come from the first 12 frames")
    assert progress.said("method.encoder = pixels")
    state = json.loads((tmp_path / "run" / "checkpoints" / "last" / "state.json").read_text())
    assert state["place"] == {"file": "a.npy", "done": 220, "passed": 0}


def test_rows_of_a_gradient_that_is_not_exact_say_how_near_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pictures(220))
    progress = Recorder()
    learn(
        tmp_path / "a.npy",
        tmp_path / "run",
        progress=progress,
        **{"method.below": "instant", "method.approximate": True},
    )
    assert all(0 < row["watched"]["rfp/cosine"] < 1 for row, _ in progress.rows)


def test_nothing_new_changes_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves(40))
    first = learn(tmp_path, tmp_path / "run")
    before = saved(tmp_path / "run")
    progress = Recorder()
    assert learn(tmp_path, tmp_path / "run", resume=True, progress=progress) == first
    assert progress.said("nothing new after frame 40 of a.npy")
    assert all(torch.equal(value, before[key]) for key, value in saved(tmp_path / "run").items())


def test_a_run_that_waits_saves_when_it_is_told_to_stop(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves(40))

    class Stopping(Recorder):
        def note(self, text: str) -> None:
            if text.startswith("waiting for files"):
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"step 39 after frame 40 of a.npy and saved; go on with --resume"):
        learn(tmp_path, tmp_path / "run", progress=Stopping(), **{"data.wait": 60.0})
    np.save(tmp_path / "b.npy", waves(10))
    assert learn(tmp_path, tmp_path / "run", resume=True)["steps"] == 49


def test_a_bad_frame_that_ends_the_run_leaves_it_saved(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves(40))
    np.save(tmp_path / "b.npy", waves(3, 4))
    with pytest.raises(ValueError, match=r"b.npy frame 0: has the shape \(4,\).*Saved at step 39"):
        learn(tmp_path, tmp_path / "run", **{"data.corrupt": "fail"})
    os.remove(tmp_path / "b.npy")
    assert learn(tmp_path, tmp_path / "run", resume=True, **{"data.corrupt": "fail"})["steps"] == 39


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method.rule": "bptt", "method.below": "full"}, "rule rfp; use the recipe rjepa-online"),
        ({"loop.on_collapse": "rollback"}, "cannot be rewound"),
        ({"length.accumulate": 2}, "learnt frame by frame"),
        ({"data.warm": 41}, "ended after 40 frames, fewer than the 41"),
        ({"data.warm": 3}, "window is 4 and warm 3"),
        ({"data.wait": -1.0}, "wait is -1"),
        ({"method.encoder": {"name": "mlp", "patch": [2]}}, "spans 2"),
        ({"loop.amp": True}, "amp"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "a.npy", waves(40))
    base = {k: v for k, v in QUICK.items() if not (k.startswith("method.encoder") and "method.encoder" in settings)}
    with pytest.raises(ValueError, match=words):
        api.train(tmp_path / "data", tmp_path / "run", recipe="rjepa-online", settings={**base, **settings})
    assert not (tmp_path / "run").exists()


def test_another_method_says_how_a_stream_is_learnt(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves(300))
    with pytest.raises(ValueError, match=r"ijepa as it is set cannot learn from a stream.*rjepa-online"):
        api.train(tmp_path, tmp_path / "run", recipe="ijepa", settings={"data.name": "stream"})


def test_a_loaded_run_encodes_and_goes_on_from_frame_to_frame(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pictures(40))
    learn(tmp_path / "a.npy", tmp_path / "run")
    model = jk.load(tmp_path / "run")
    x = torch.from_numpy(pictures(5)).float().div(255).transpose(0, 1)[None]
    states = model.encode(x)
    assert states.shape == (1, 5, 8)
    state = model.start(x[:, :, 0])
    for t in range(1, 5):
        state = model.observe(state, x[:, :, t])
    assert_close(state.tokens[:, 0], states[:, 4])
    imagined = model.step(state).tokens
    with torch.inference_mode():
        assert_close(imagined, model.method.predict(state.tokens[None])[0])
    assert not torch.allclose(imagined, state.tokens)


def test_a_frame_of_another_shape_is_one_sentence_with_what_the_model_takes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pictures(40))
    learn(tmp_path / "a.npy", tmp_path / "run")
    model = jk.load(tmp_path / "run")
    x = torch.from_numpy(pictures(2)).float().div(255)
    state = model.start(x)
    for frame, words in (
        (x[0], r"the frame is .*frame\[None\]"),
        (x.repeat(1, 2, 1, 1), "the model takes"),
        (torch.nn.functional.interpolate(x, scale_factor=2.0), "reads 1 step of"),
        ((x * 255).byte(), "uint8; give floats"),
    ):
        with pytest.raises(ValueError, match=words):
            model.start(frame)
        with pytest.raises(ValueError, match=words):
            model.observe(state, frame)
    with pytest.raises(ValueError, match="the frame holds 1 samples, but the state 2"):
        model.observe(state, x[:1])


def test_several_steps_are_no_frame_of_a_series(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves(40))
    settings = {k: v for k, v in QUICK.items() if not k.startswith("method.encoder")}
    api.train(tmp_path / "a.npy", tmp_path / "run", recipe="rjepa-online", settings=settings)
    model = jk.load(tmp_path / "run")
    channels = waves(1).shape[1]
    assert model.start(torch.zeros(2, channels, 1)).tokens.shape[:2] == (2, 1)
    with pytest.raises(ValueError, match="is 3 steps of"):
        model.start(torch.zeros(2, channels, 3))


def test_a_stream_too_short_for_any_window_is_not_told_to_read_less_first(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", waves(2))
    with pytest.raises(ValueError, match=r"ended after 2 frames, .*; give more$"):
        api.train(tmp_path / "one.npy", tmp_path / "run", recipe="rjepa-online", settings=QUICK)


def test_traces_and_states_survive_being_saved() -> None:
    cfg = rjepa.Config(CNN((1, 8, 8), width=4, channels=(3,)), Circuit("reciprocal", 5), rule="rfp")
    method = methods.build(cfg, Signal(1, (6, 8, 8)))
    done = follow_frames(method, initial_stream(method), Batch(torch.rand(1, 1, 3, 8, 8)))
    position = StreamPosition(done.stream, torch.rand(1, 8, 8), stream.Place("a", 3, 1))
    again = StreamPosition.from_state(SourceState(position.tensors(), position.place._asdict()), method.mean)
    assert again.place == position.place
    one, other = position.tensors(), again.tensors()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert StreamPosition().tensors() == {}


def test_measurements_are_frequent_at_first() -> None:
    assert [step for step in range(1, 20_001) if is_early_check(step, 5000)] == [
        100,
        200,
        400,
        800,
        1600,
        3200,
        5000,
        10000,
        15000,
        20000,
    ]
    assert [step for step in range(1, 200) if is_early_check(step, 50)] == [50, 100, 150]


@pytest.mark.slow
def test_nothing_grows_with_the_steps(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n".join(",".join(f"{v:.4f}" for v in row) for row in waves(530)))
    held: dict[int, tuple[int, int]] = {}

    class Measuring(Recorder):
        def row(self, row: dict[str, Any], steps: int) -> None:
            gc.collect()
            objects = gc.get_objects()
            held[row["step"]] = sum(issubclass(type(o), torch.Tensor) for o in objects), len(objects)

    learn(tmp_path / "a.csv", tmp_path / "run", progress=Measuring())
    (tensors, objects), (more_tensors, more_objects) = held[300], held[500]
    assert more_tensors == tensors
    assert more_objects - objects < 100


@pytest.mark.slow
def test_the_memory_is_flat_over_many_steps(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n".join(",".join(f"{v:.4f}" for v in row) for row in waves(20_002)))
    held: dict[int, int] = {}

    class Measuring(Recorder):
        def row(self, row: dict[str, Any], steps: int) -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            held[row["step"]] = pages * os.sysconf("SC_PAGE_SIZE")

    learn(tmp_path / "a.csv", tmp_path / "run", progress=Measuring())
    assert held[20_000] - held[1000] < 4 * 2**20


def test_standard_input_goes_on_with_further_frames(tmp_path: Path) -> None:
    def feed(part: np.ndarray, out: Path, **named: Any) -> dict[str, Any]:
        file = tmp_path / "lines"
        file.write_text("\n".join(" ".join(map(str, row)) for row in part))
        old, here = os.dup(0), os.open(file, os.O_RDONLY)
        os.dup2(here, 0)
        try:
            return learn("-", out, **named)
        finally:
            os.dup2(old, 0)
            os.close(here)
            os.close(old)

    x = waves(50)
    feed(x[:20], tmp_path / "parts")
    assert feed(x[20:], tmp_path / "parts", resume=True)["steps"] == feed(x, tmp_path / "whole")["steps"] == 49
    one, other = saved(tmp_path / "parts"), saved(tmp_path / "whole")
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_the_recipe_reads_standard_input_on_the_command_line(tmp_path: Path) -> None:
    lines = "\n".join(" ".join(map(str, row)) for row in waves(60))
    flags = [f"--{key}={value}" for key, value in QUICK.items() if not key.startswith("method.encoder")]
    command = [
        sys.executable,
        "-m",
        "jepakit.cli",
        "train",
        "rjepa-online",
        "--data",
        "-",
        "--out",
        str(tmp_path / "run"),
        *flags,
    ]
    done = subprocess.run(command, input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "59 steps" in done.stdout


def test_a_dry_run_tells_the_price_of_a_step(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves(40))
    rows = dict(api.dry_run(api.Request("rjepa-online", tmp_path / "a.npy", tmp_path / "run", flags=QUICK)))
    assert rows["time"].endswith("per step")
    assert not (tmp_path / "run").exists()


def test_vectors_of_the_recipe_reach_the_circuit_as_they_are() -> None:
    assert rjepa_online().method.below == "frozen"  # type: ignore[attr-defined]
    method = methods.build(rjepa.Config(Pixels(), Circuit(width=4), rule="rfp"), Signal(3, (4,)))
    assert method.below == "frozen"
