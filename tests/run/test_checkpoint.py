"""What a run folder holds is whole or not there, is read back to the bit, and nothing else is ever deleted."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from torch import nn

from jepakit import api
from jepakit.core import files
from jepakit.core.progress import Progress
from jepakit.data.images import arrays
from jepakit.reporting.samples import look_at_run
from jepakit.run import checkpoint, folder
from jepakit.types import ActionSpec, Signal


@pytest.fixture
def trained() -> tuple[nn.Linear, torch.optim.AdamW]:
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


@pytest.fixture
def saved(trained: tuple[nn.Linear, torch.optim.AdamW], tmp_path: Path) -> Path:
    """A folder with checkpoints of the steps 4 and 8."""
    for step in (4, 8):
        checkpoint.save_checkpoint(tmp_path / "run", step, *trained, {"seconds": 0.0})
    return tmp_path / "run"


@pytest.mark.parametrize(
    "content", [b"[]", b"7", b'"step"', b"\xff\xfe", b"{", b"", b"{}", b'{"schema": 1, "files": []}', b'{"schema": 1}']
)
def test_a_damaged_state_falls_back_to_the_checkpoint_before_and_says_so(saved: Path, content: bytes) -> None:
    (checkpoint.step_folder(saved, 8) / "state.json").write_bytes(content)
    found = checkpoint.load_checkpoint(saved)
    assert found.step == 4
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("checkpoint of step 8 is unusable (")


def test_a_format_that_is_newer_is_refused_and_nothing_older_is_used_in_its_place(saved: Path) -> None:
    path = checkpoint.step_folder(saved, 8) / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(ValueError, match="has format 99; this jepakit reads 1"):
        checkpoint.load_checkpoint(saved)


def test_the_optimiser_goes_on_as_it_was(trained: tuple[nn.Linear, torch.optim.AdamW]) -> None:
    module, optimizer = trained
    again = torch.optim.AdamW(module.parameters(), fused=True)
    checkpoint.load_optimizer(module, again, checkpoint.optimizer_tensors(module, optimizer))
    for p in module.parameters():
        assert {k: v.tolist() for k, v in again.state[p].items()} == {
            k: v.tolist() for k, v in optimizer.state[p].items()
        }
        assert float(again.state[p]["step"]) == 1


@pytest.mark.parametrize(("fused", "device"), [(True, "meta"), (False, "cpu")])
def test_the_step_counter_lies_where_a_fused_or_a_plain_optimiser_looks_for_it(fused: bool, device: str) -> None:
    # "meta" stands for any device that is not the CPU.
    module = nn.Linear(3, 2, device="meta")
    optimizer = torch.optim.AdamW(module.parameters())
    for group in optimizer.param_groups:
        group["fused"] = fused
    stored = {"weight/step": torch.tensor(5.0), "weight/exp_avg": torch.zeros(2, 3)}
    checkpoint.load_optimizer(module, optimizer, stored)
    state = optimizer.state[module.weight]
    assert (state["step"].device.type, state["exp_avg"].device.type) == (device, "meta")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "new \udc80")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_not_written_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match="runs is a folder; name a file to write"):
        files.write_text(tmp_path / "runs", "text")
    assert [p.name for p in tmp_path.rglob("*")] == ["runs"]


def test_a_run_whose_last_checkpoint_can_be_seen_has_its_summary(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8))
    file = support.write_settings(tmp_path, tmp_path / "data.npy", data={"name": "arrays"}, length={"steps": 2})
    done = api.train(out=tmp_path / "run", recipe=str(file))
    summary, last = tmp_path / "run" / "summary.json", checkpoint.step_folder(tmp_path / "run", 2)
    assert json.loads(summary.read_text()) == done
    assert done["steps"] == 2
    assert summary.stat().st_mtime_ns < last.stat().st_mtime_ns
    # Everything that a run writes is recognised as its own.
    folder.check_free(tmp_path / "run", replace=True)


def run_folder(at: Path, *more: str) -> Path:
    """A folder with everything that a run writes, what a crash may leave, and `more`."""
    names = ["config.yaml", "environment.json", "metrics.jsonl", "summary.json", "report.html", ".report.html.7.part"]
    names += ["not-finite-step-00000003.json", "events.out.tfevents.17.host.1.0", "evals/knn.json", "evals/.a.7.part"]
    names += [f"checkpoints/step-00000008/{name}" for name in ("model.safetensors", "optim.safetensors", "state.json")]
    names += ["checkpoints/.step-00000009.part/model.safetensors"]
    for name in (*names, *more):
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text("")
    (at / "checkpoints" / "last").symlink_to("step-00000008")
    return at


def test_a_run_is_replaced_only_when_that_is_asked_for(tmp_path: Path) -> None:
    out = run_folder(tmp_path / "run")
    with pytest.raises(ValueError, match="replace it with --overwrite"):
        folder.check_free(out, replace=False)
    folder.check_free(out, replace=True)
    folder.clear_folder(out)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    "foreign", ["thesis.tex", "evals/notes.md", "checkpoints/old/a.ckpt", "src/main.py", ".git/HEAD"]
)
def test_a_folder_with_anything_that_no_run_writes_is_not_deleted(tmp_path: Path, foreign: str) -> None:
    out = run_folder(tmp_path / "project", foreign)
    with pytest.raises(ValueError, match=f"not deleted, because {Path(foreign).parts[0]}.* is not part of a run"):
        folder.check_free(out, replace=True)


def test_a_folder_without_settings_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ValueError, match=r"it holds no run \(no config.yaml\)"):
        folder.check_free(tmp_path, replace=True)


def test_a_link_to_a_run_folder_stays_and_the_folder_is_emptied(tmp_path: Path) -> None:
    disk, out = run_folder(tmp_path / "disk"), tmp_path / "run"
    out.symlink_to(disk)
    folder.check_free(out, replace=True)
    folder.clear_folder(out)
    assert out.is_symlink()
    assert list(disk.iterdir()) == []


def test_a_link_inside_a_run_is_deleted_and_what_it_points_to_is_not(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "run", run_folder(tmp_path / "elsewhere")
    out.mkdir()
    (out / "config.yaml").write_text("")
    (out / "checkpoints").symlink_to(elsewhere / "checkpoints")
    folder.check_free(out, replace=True)
    folder.clear_folder(out)
    assert list(out.iterdir()) == []
    assert (elsewhere / "checkpoints" / "step-00000008" / "state.json").exists()


def test_an_out_that_cannot_be_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file; give --out a folder"):
        folder.check_free(tmp_path / "file", replace=True)
    with pytest.raises(ValueError, match=r"file/run cannot be written \(.+\); give --out a folder"):
        folder.clear_folder(tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "action", [None, ActionSpec(2, (-1.0, 0.0), (1.0, 2.0), names=("x", "y")), ActionSpec(3, discrete=True)]
)
def test_a_signal_is_read_back_from_json_as_it_was(action: ActionSpec | None) -> None:
    signal = Signal(1, (4, 8, 8), (0.5,), (0.25,), action=action)
    assert checkpoint.signal_from(json.loads(json.dumps(asdict(signal)))) == signal


@pytest.mark.parametrize(("number", "action"), [(0, None), (2, ActionSpec(2))])
def test_an_action_that_an_earlier_version_kept_as_a_number_is_read(number: int, action: ActionSpec | None) -> None:
    entries = {**asdict(Signal(1, (4, 8, 8))), "action": number}
    assert checkpoint.signal_from(json.loads(json.dumps(entries))).action == action


def test_a_command_on_a_run_of_an_earlier_version_notes_the_settings_that_were_renamed(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", support.noise_pictures(12, 16))
    run = support.untrained_run(tmp_path / "run", arrays.Config(str(tmp_path / "x.npy")), Signal(3, (16, 16)))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("views_every", "dear_every"))
    commands: dict[str, Callable[[Progress], object]] = {
        "embed": lambda seen: api.embed(run, tmp_path / "x.npy", tmp_path / "x.csv", progress=seen),
        "report": lambda seen: look_at_run(run, 2, note=seen.note),
        "probe": lambda seen: api.probe(run, progress=seen),
        "score": lambda seen: api.score(run, tmp_path / "x.npy", tmp_path / "s.csv", progress=seen),
        "forecast": lambda seen: api.forecast(run, tmp_path / "x.npy", 4, tmp_path / "f.csv", progress=seen),
        "complete": lambda seen: api.complete(run, tmp_path / "x.npy", tmp_path / "c", hide="past", progress=seen),
    }
    for name, command in commands.items():
        seen = support.Recorder()
        with suppress(ValueError):  # pictures without labels suit only some commands
            command(seen)
        assert seen.notes[:1] == [f"{config}: loop.dear_every is now called loop.views_every"], name
