"""What a run shows while it works: bars in a terminal, lines in a log."""

import io

import pytest
from rich import progress as bars
from rich.console import Console

from jepakit.core.progress import LineProgress, LiveProgress, progress_counter

ROW = {"step": 10, "loss": 0.5, "metrics": {"throughput": 7.0, "verdict": "healthy", "eta": 65.0}}


def test_work_after_the_training_gets_bars_of_its_own() -> None:
    with bars.Progress(console=Console(file=io.StringIO())) as shown:
        live = LiveProgress(shown)
        live.row(ROW, 10)
        encode = progress_counter(live, "probing: encoding", "images")
        for done in (20, 40):
            encode(done, 40)
        for done in (50, 100):
            live.row({"step": done, "metrics": {"doing": f"probing knn: encoder {done}", "eta": 1.0}}, 100)
        tasks = [(task.completed, task.total, task.description.partition("  ")[0]) for task in shown.tasks]
    assert tasks == [(10, 10, "loss 0.5000"), (40, 40, "probing: encoding"), (100, 100, "probing knn: encoder 100")]


def test_a_log_calls_steps_only_what_is_a_step_and_says_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LineProgress(every=0.0)
    lines.row(ROW, 100)
    lines.row({"step": 3, "metrics": {"doing": "probing knn: raw input", "eta": 5.0}}, 100)
    assert capsys.readouterr().err.splitlines() == [
        "step 10/100  loss 0.5000  7 samples/s  healthy  ETA 1:05",
        "3/100  probing knn: raw input  ETA 0:05",
    ]
