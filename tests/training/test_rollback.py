"""What follows a collapse: a warning, the end, or a return to what was healthy, which a resumed run repeats exactly."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support
import yaml

from jepakit import api, collapse
from jepakit.cli import text
from jepakit.core.schedules import run_progress
from jepakit.reporting import SECTIONS, records
from jepakit.reporting.page import render_page
from jepakit.reporting.samples import Look
from jepakit.run import checkpoint
from jepakit.run.optim import Optim, learning_rate
from jepakit.run.settings import Loop
from jepakit.training import rollback
from jepakit.training.panel_memory import PanelMemory
from jepakit.training.session import Session

HERE = Path(__file__).parents[1]
STEPS = 24
KEPT: list[list[int]] = []  # the checkpoints that there were at every row of the run with rollbacks


@pytest.fixture(scope="module", autouse=True)
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path that makes tests/shrinking.py a method by its entry point."""
    root = tmp_path_factory.mktemp("site")
    info = root / "shrinking-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shrinking\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[jepakit.methods]\nshrinking = shrinking\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(HERE)]))
        yield root


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Settings of a run that collapses within 24 steps, and does not with a quarter of its learning rate."""
    folder = tmp_path_factory.mktemp("settings")
    np.save(folder / "noise.npy", np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8))
    return write(folder, lr=0.4)


def write(folder: Path, lr: float, pictures: str = "noise.npy", **method: Any) -> str:
    flat = {"lr": lr, "start_lr": lr, "final_lr": 0.0, "warmup": 0.0, "weight_decay": 0.0, "final_weight_decay": 0.0}
    settings = {
        "method": {"name": "shrinking", **method},
        "data": {
            "name": "arrays",
            "path": str(folder / pictures),
            "augment": {"crop": [1.0, 1.0], "aspect": [1.0, 1.0]},
        },
        "optim": flat,
        "length": {"steps": STEPS, "batch": 8},
        "loop": {**support.SETTINGS["loop"], "amp": False, "save_every": 4, "panel_every": 2, "keep": 1},
        "evals": support.SETTINGS["evals"],
    }
    path = folder / f"settings-{lr}-{len(method)}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def train(file: str, out: Path, action: str, progress: support.Recorder | None = None, **more: Any) -> dict[str, Any]:
    return api.train(
        out=out, recipe=file, settings={"loop.on_collapse": action}, progress=progress or support.Recorder(), **more
    )


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def told(out: Path) -> list[tuple[Any, ...]]:
    """What a run did: step, loss, learning rate and verdict of every row."""
    return [(r["step"], r["loss"], r["lr"], r["metrics"]["verdict"]) for r in rows(out)]


@pytest.fixture(scope="module")
def rolled(file: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with rollbacks."""
    out = tmp_path_factory.mktemp("rolled") / "run"

    class Watch(support.Recorder):
        def row(self, row: dict[str, Any], steps: int) -> None:
            KEPT.append(checkpoint.saved_steps(out))

    train(file, out, "rollback", Watch())
    return out


def test_a_warning_says_it_once_and_trains_to_the_end(file: str, tmp_path: Path) -> None:
    progress = support.Recorder()
    done = train(file, tmp_path / "run", "warn", progress)
    assert (done["verdict"], done["steps"], done["stopped"], done["rollbacks"]) == ("full", STEPS, False, [])
    said = [note for note in progress.notes if "full" in note]
    assert len(said) == 1
    assert "lower --optim.lr" in said[0]
    assert "--method.ema" not in said[0], "the method has no such setting"


def test_a_stop_ends_the_run_saved_with_its_own_summary_and_with_0(file: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = support.jepa_here("train", file, "--out", out, "--on-collapse", "stop")
    assert done.returncode == 0, done.stderr
    assert "and saved: the verdict is full, target std is" in done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stopped"]
    assert summary["steps"] == checkpoint.load_checkpoint(out).step == rows(out)[-1]["step"] < STEPS
    assert summary["panel"]["std_ratio_target"] < collapse.FULL_STD_RATIO
    assert len(checkpoint.saved_steps(out)) == 1, "keep is 1, and nothing will be rolled back"
    # Whoever wants to see more goes on.
    assert train(file, out, "warn", resume=True)["steps"] == STEPS
    assert [r["step"] for r in rows(out)] == [*range(1, STEPS + 1)]


def test_a_rollback_returns_to_the_last_healthy_checkpoint_with_half_the_learning_rate(rolled: Path) -> None:
    summary = json.loads((rolled / "summary.json").read_text())
    events = summary["rollbacks"]
    assert summary["steps"] == STEPS
    assert summary["verdict"] in ("healthy", "drifting")
    assert 1 <= len(events) <= rollback.MAX_ROLLBACKS
    assert [e["lr_factor"] for e in events] == [0.5 ** (k + 1) for k in range(len(events))]
    assert all(e["verdict"] == "full" and e["to"] < e["step"] and e["to"] % 4 == 0 for e in events)
    assert checkpoint.load_checkpoint(rolled).state["rollbacks"] == events
    assert [r["step"] for r in rows(rolled)] == [*range(1, STEPS + 1)]
    done = [r["metrics"].get("rollbacks", 0) for r in rows(rolled)]
    assert done == sorted(done)
    assert done[-1] == len(events)
    whole = Optim(lr=0.4, start_lr=0.4, final_lr=0.0, warmup=0.0)
    expected = [0.5**n * learning_rate(whole, run_progress(step, STEPS)) for step, n in enumerate(done)]
    assert [r["lr"] for r in rows(rolled)] == pytest.approx(expected)


def test_after_a_rollback_a_spread_just_above_the_threshold_is_not_called_healthy(rolled: Path) -> None:
    summary = json.loads((rolled / "summary.json").read_text())
    assert collapse.FULL_STD_RATIO < summary["panel"]["std_ratio_target"] < rollback.CLEAR_SPREAD
    assert summary["verdict"] == rows(rolled)[-1]["metrics"]["verdict"] == "drifting"
    assert summary["reason"].endswith("of its value at step 0; after a rollback, 20 % or more is healthy")
    assert summary["advice"] == "lower --optim.lr"


def test_a_head_which_has_no_spread_of_its_own_stays_healthy() -> None:
    panel = PanelMemory(rows=[{"normalized_loss": 0.5}])
    session = Session.__new__(Session)
    vars(session).update(panel=panel, rollbacks=[{}], run=SimpleNamespace(loop=Loop(save_every=4)), step=9)
    verdict = collapse.Verdict("healthy", "")
    assert rollback.confirm_after_rollback(session, verdict, {}) is verdict
    rollback.mark_healthy(session, verdict)
    assert session.healthy == 8


def test_the_closing_line_and_the_page_tell_the_rollbacks(rolled: Path) -> None:
    summary = json.loads((rolled / "summary.json").read_text())
    events = summary["rollbacks"]
    spent = f"after {len(events)} rollbacks, at {events[-1]['lr_factor']:g} of the learning rate"
    done = {"folder": rolled, "summary": summary, "probes": [], "page": None}
    assert f"), {spent}; lower --optim.lr" in text.describe_run(done)
    html = render_page([records.read_record(rolled)], [Look()], "1.2.3", {"rollbacks": SECTIONS.load("rollbacks")})
    assert f"{spent.capitalize()}." in html
    for event in events:
        told = (event["step"], event["to"], event["verdict"], event["reason"], f"{event['lr_factor']} of it")
        assert "".join(f"<td>{part}</td>" for part in told) in html


def test_a_run_without_a_rollback_says_nothing_of_any() -> None:
    assert rollback.rollback_summary([]) == ""
    assert rollback.rollback_summary([{"lr_factor": 0.5}]) == "after 1 rollback, at 0.5 of the learning rate"


@pytest.mark.parametrize("stage", ["before", "after", "long after"])
def test_a_run_killed_around_a_rollback_and_resumed_goes_through_the_same_losses(
    stage: str, file: str, rolled: Path, tmp_path: Path
) -> None:
    events = json.loads((rolled / "summary.json").read_text())["rollbacks"]
    # The n-th logged row; rows that a rollback undid count too.
    undone = sum(e["step"] - 1 - e["to"] for e in events)
    at = {"before": events[0]["step"] - 1, "after": events[0]["step"], "long after": STEPS - 1 + undone}[stage]
    out = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", KILLED, file, str(out), str(at)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    done = train(file, out, "rollback", resume=True)
    assert told(out) == told(rolled)
    assert done["rollbacks"] == events


KILLED = """
import os, signal, sys
from jepakit import api

class Kill:
    left = int(sys.argv[3])
    def note(self, text): pass
    def row(self, row, steps):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

api.train(out=sys.argv[2], recipe=sys.argv[1], settings={"loop.on_collapse": "rollback"}, progress=Kill())
"""


@pytest.mark.parametrize("whole", ["nothing", "state and one folder"])
def test_a_run_killed_in_the_midst_of_a_rollback_repeats_it(
    whole: str, file: str, rolled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(run: Path, step: int, changes: Any) -> None:
        if whole != "nothing":
            with monkeypatch.context() as patch:
                patch.setattr(shutil, "rmtree", remove_one)
                go_back(run, step, changes)
        raise KeyboardInterrupt

    def remove_one(path: Path) -> None:
        rmtree(path)
        raise KeyboardInterrupt

    go_back, rmtree, out = checkpoint.go_back, shutil.rmtree, tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "go_back", cut)
        with pytest.raises(KeyboardInterrupt):
            train(file, out, "rollback")
    train(file, out, "rollback", resume=True)
    assert told(out) == told(rolled)
    assert (out / "summary.json").exists()


def test_the_healthy_checkpoint_outlives_keep_where_a_rollback_may_need_it(rolled: Path) -> None:
    # The newest, the healthy one and the one that may become it.
    assert all(len(steps) <= 3 for steps in KEPT)
    assert any(len(steps) > 1 for steps in KEPT)
    assert checkpoint.saved_steps(rolled)[-1] == STEPS


def test_a_fourth_collapse_ends_the_run(tmp_path: Path, file: str) -> None:
    shutil.copy(Path(file).parent / "noise.npy", tmp_path)
    progress = support.Recorder()
    done = train(write(tmp_path, lr=20.0), tmp_path / "run", "rollback", progress)
    assert len(done["rollbacks"]) == rollback.MAX_ROLLBACKS
    assert done["stopped"]
    assert "after 3 rollbacks, at 0.125 of the learning rate, and saved" in progress.notes[-1]


def test_a_loss_that_is_not_finite_is_rolled_back_too(tmp_path: Path, file: str) -> None:
    shutil.copy(Path(file).parent / "noise.npy", tmp_path)
    walled = write(tmp_path, lr=0.4, wall=0.12)
    done = train(walled, tmp_path / "run", "rollback")
    assert done["steps"] == STEPS
    assert {e["verdict"] for e in done["rollbacks"]} == {"exploding"}
    assert "the loss is nan" in done["rollbacks"][0]["reason"]
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        train(walled, tmp_path / "stopped", "stop")


def test_samples_that_are_all_the_same_end_the_run_as_no_learning_rate_helps(tmp_path: Path) -> None:
    np.save(tmp_path / "same.npy", np.full((16, 32, 32, 3), 7, dtype=np.uint8))
    done = train(write(tmp_path, lr=0.1, pictures="same.npy"), tmp_path / "run", "rollback")
    assert (done["verdict"], done["rollbacks"], done["stopped"]) == ("full", [], True)
    assert "jepa check-data" in done["advice"]


def test_without_a_collapse_the_setting_changes_no_loss(file: str, tmp_path: Path) -> None:
    slow = {"optim.lr": 0.05}
    losses = []
    for action in ("warn", "rollback"):
        out = tmp_path / action
        done = api.train(out=out, recipe=file, settings={"loop.on_collapse": action, **slow})
        assert (done["verdict"], done["stopped"], done["rollbacks"]) == ("healthy", False, [])
        losses.append(told(out))
    assert losses[0] == losses[1]


def test_every_rate_of_the_schedule_is_halved_and_none_changed_without_a_rollback() -> None:
    optim = Optim(lr=0.3, start_lr=0.1, final_lr=1e-6)
    assert rollback.reduced_rates(optim, 0) == optim
    slowed = rollback.reduced_rates(optim, 2)
    assert (slowed.lr, slowed.start_lr, slowed.final_lr) == (0.3 / 4, 0.1 / 4, 1e-6 / 4)


@pytest.mark.slow
def test_two_processes_roll_back_together(file: str, rolled: Path, tmp_path: Path) -> None:
    words = [*("--nproc_per_node", "2", "-m", "jepakit.cli", "train", file), "--on-collapse", "rollback"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words, "--out", str(tmp_path / "run")]
    done = subprocess.run(launcher, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((out / "summary.json").read_text())["rollbacks"] for out in (rolled, tmp_path / "run"))
    assert [(e["step"], e["to"]) for e in two] == [(e["step"], e["to"]) for e in one]
    losses = support.logged_losses(tmp_path / "run")
    # ln of a mean over each rank's own samples: close to, not equal to, that over all of them.
    assert losses == pytest.approx(support.logged_losses(rolled), abs=0.2)
