"""A run that was stopped, killed or damaged goes on as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import support
from PIL import Image
from torch.utils.data import Dataset

from jepakit import api
from jepakit.data import loader
from jepakit.run import checkpoint

COUNT = 24


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path | str]:
    """The same pictures as a folder, as tar shards and as an array."""
    import webdataset

    root = tmp_path_factory.mktemp("sources")
    folder = root / "folder"
    folder.mkdir()
    for i, pixels in enumerate(support.noise_pictures(COUNT)):
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    for shard in range(2):
        with webdataset.TarWriter(str(root / f"part-{shard}.tar")) as tar:
            for i in range(shard, COUNT, 2):
                tar.write({"__key__": f"{i:03d}", "png": (folder / f"{i:03d}.png").read_bytes()})
    np.save(root / "all.npy", support.noise_pictures(COUNT))
    return {"folder": folder, "shards": str(root / "part-{0..1}.tar"), "arrays": root / "all.npy"}


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory) -> dict[str, dict[int, float]]:
    """The losses of each source's uninterrupted run."""
    out = {}
    for name, data in sources.items():
        folder = tmp_path_factory.mktemp(name)
        api.train(data, folder / "run", recipe=str(settings(folder, name, data)))
        out[name] = support.logged_losses(folder / "run")
    return out


def settings(folder: Path, name: str, source: Path | str, **sections: dict) -> Path:
    kind = {"data": {"name": "arrays" if name == "arrays" else "images"}}
    return support.write_settings(folder, source, **{**kind, **sections})


KILLED = """
import os, signal, sys
from jepakit import api

class Kill:
    def note(self, text): pass
    def row(self, row, steps):
        if row["step"] == 6:
            os.kill(os.getpid(), signal.SIGKILL)

api.train(out=sys.argv[2], recipe=sys.argv[1], progress=Kill())
"""


@pytest.mark.parametrize(("name", "before", "after"), [("folder", 0, 2), ("shards", 2, 0), ("arrays", 2, 2)])
def test_a_run_killed_and_resumed_has_the_losses_of_an_uninterrupted_one(name, before, after, sources, whole, tmp_path):
    # A checkpoint every 4 steps and a kill at step 6: two logged steps are lost, and computed again.
    out = tmp_path / "run"
    file = settings(tmp_path, name, sources[name], loop={"workers": before})
    killed = subprocess.run([sys.executable, "-c", KILLED, file, out], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert max(support.logged_losses(out)) == 6
    done = support.jepa("train", file, "--out", out, "--resume", "--loop.workers", after)
    assert done.returncode == 0, done.stderr
    assert "resumed from step 4 of 12" in done.stderr
    assert support.logged_losses(out) == whole[name]


def begun(file: Path, out: Path) -> subprocess.Popen[str]:
    """A training that leads a group of processes and has logged three rows."""
    pipe = subprocess.PIPE
    words = support.jepa_command("train", file, "--out", out)
    process = subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    while not (out / "metrics.jsonl").exists() or len((out / "metrics.jsonl").read_text().splitlines()) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def wait_until_gone(group: int) -> None:
    """Return when no process of the group is left; fail after 30 s."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("a process outlived the training")


# Long enough that a signal always comes before the end.
LONG = {"length": {"steps": 600}, "loop": {"save_every": 10_000, "panel_every": 10_000, "workers": 1}}


def test_a_stop_that_reaches_the_workers_too_saves_leaves_with_130_and_leaves_no_process(sources, tmp_path):
    out = tmp_path / "run"
    process = begun(settings(tmp_path, "folder", sources["folder"], **LONG), out)
    os.killpg(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "and saved; continue with --resume" in error
    assert max(support.logged_losses(out)) == checkpoint.load_checkpoint(out).step < 600
    wait_until_gone(process.pid)


def test_a_worker_ends_with_a_training_that_is_killed(sources, tmp_path):
    process = begun(settings(tmp_path, "folder", sources["folder"], **LONG), tmp_path / "run")
    process.kill()
    process.communicate(timeout=60)
    wait_until_gone(process.pid)


def test_a_worker_obeys_its_parent_alone() -> None:
    # What outlives its loader is sent SIGTERM as the parent ends, which then waits: for ever, if it were ignored.
    loading = iter(loader.make_dataloader(Numbers(), 0, 100, 1))
    next(loading)
    (worker,) = loading._workers
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    worker.join(timeout=1)
    assert worker.is_alive()
    worker.terminate()
    worker.join(timeout=30)
    assert not worker.is_alive()
    del loading


class Numbers(Dataset):
    def __getitem__(self, k: int) -> int:
        return k


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_asked_to_stop_saves_and_leaves_with_130(number, sources, tmp_path):
    out = tmp_path / "run"
    process = begun(settings(tmp_path, "folder", sources["folder"], **LONG), out)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "and saved; continue with --resume" in error
    saved = checkpoint.load_checkpoint(out).step
    assert 3 <= saved < 600
    assert max(support.logged_losses(out)) == saved


def test_a_truncated_last_checkpoint_falls_back_to_the_one_before_and_says_so(sources, whole, tmp_path):
    out = tmp_path / "run"
    file = settings(tmp_path, "folder", sources["folder"])
    api.train(out=out, recipe=str(file))
    last = out / "checkpoints" / "step-00000012" / "model.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    done = support.jepa("train", file, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert "checkpoint of step 12 is unusable (model.safetensors has" in done.stderr
    assert "resumed from step 8 of 12" in done.stderr
    assert support.logged_losses(out) == whole["folder"]


def test_a_changed_setting_is_refused_with_a_diff_unless_it_is_allowed(sources, tmp_path):
    out = tmp_path / "run"
    file = str(settings(tmp_path, "folder", sources["folder"]))
    api.train(out=out, recipe=file, steps=4)
    before = sorted(p.read_bytes() for p in out.rglob("*") if p.is_file())
    with pytest.raises(ValueError, match=r"optim\.lr: 0\.001 → 0\.5.*--allow-change optim\.lr"):
        api.train(out=out, recipe=file, steps=4, resume=True, settings={"optim.lr": 0.5})
    with pytest.raises(ValueError, match=r"length\.steps: 4 → 6; the schedules were computed for the old length"):
        api.train(out=out, recipe=file, steps=6, resume=True)
    assert sorted(p.read_bytes() for p in out.rglob("*") if p.is_file()) == before
    api.train(out=out, recipe=file, steps=6, resume=True, allow_change=["length.steps"])
    assert max(support.logged_losses(out)) == 6
    assert checkpoint.load_run(out).run.length.steps == 6
    with pytest.raises(ValueError, match="is already at step 6"):
        api.train(out=out, recipe=file, steps=5, resume=True, allow_change=["length.steps"])


def test_data_that_changed_since_are_refused(sources, tmp_path):
    out, photos = tmp_path / "run", tmp_path / "photos"
    shutil.copytree(sources["folder"], photos)
    file = str(settings(tmp_path, "folder", photos))
    api.train(out=out, recipe=file, steps=2)
    (photos / "000.png").unlink()
    with pytest.raises(ValueError, match=r"the data of .* have changed since it was saved.*--allow-change data"):
        api.train(out=out, recipe=file, steps=2, resume=True)


def test_resume_auto_starts_where_there_is_nothing_and_goes_on_where_there_is(sources, whole, tmp_path):
    out = tmp_path / "run"
    file = str(settings(tmp_path, "folder", sources["folder"]))
    api.train(out=out, recipe=file, resume="auto")
    shutil.rmtree(out / "checkpoints" / "step-00000012")
    api.train(out=out, recipe=file, resume="auto")
    assert support.logged_losses(out) == whole["folder"]


def test_a_run_is_resumed_from_its_folder_alone(sources, whole, tmp_path):
    out = tmp_path / "run"
    api.train(out=out, recipe=str(settings(tmp_path, "folder", sources["folder"])))
    shutil.rmtree(out / "checkpoints" / "step-00000012")
    api.train(out=out, resume=True)
    assert support.logged_losses(out) == whole["folder"]


def test_a_folder_that_is_not_empty_is_never_overwritten_silently(sources, tmp_path):
    out = tmp_path / "run"
    file = str(settings(tmp_path, "folder", sources["folder"]))
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty; continue it with --resume, replace it with --overwrite"):
        api.train(out=out, recipe=file)
    with pytest.raises(ValueError, match=r"thesis\.tex is no part of a run"):
        api.train(out=out, recipe=file, overwrite=True)
    assert (out / "thesis.tex").read_text() == "mine"


def test_the_verdict_and_the_step_0_values_survive_a_resume(sources, tmp_path):
    file = settings(tmp_path, "folder", sources["folder"])
    api.train(out=tmp_path / "a", recipe=str(file))
    api.train(out=tmp_path / "b", recipe=str(file))
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "step-00000012")
    api.train(out=tmp_path / "b", recipe=str(file), resume=True)

    def last(run: Path) -> dict:
        metrics = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]
        return {k: v for k, v in metrics.items() if k not in ("throughput", "eta")}

    assert last(tmp_path / "a") == last(tmp_path / "b")


def test_a_finished_run_that_is_resumed_trains_nothing_and_returns_its_summary(sources, tmp_path):
    out = tmp_path / "run"
    file = str(settings(tmp_path, "folder", sources["folder"]))
    done = api.train(out=out, recipe=file)
    rows = (out / "metrics.jsonl").read_text()
    assert api.train(out=out, recipe=file, resume=True) == done
    assert (out / "metrics.jsonl").read_text() == rows


def test_items_that_cannot_be_read_are_counted_and_listed_in_the_summary(sources, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(sources["folder"], photos)
    (photos / "003.png").write_bytes((photos / "003.png").read_bytes()[:60])
    done = api.train(out=tmp_path / "run", recipe=str(settings(tmp_path, "folder", photos)))
    assert list(done["skipped"]) == ["003.png"]
    file = str(settings(tmp_path, "folder", photos, data={"name": "images", "corrupt": "fail"}))
    with pytest.raises(ValueError, match=r"003\.png"):
        api.train(out=tmp_path / "strict", recipe=file)
