"""The demonstration keeps its promise: trained in full as a reader would, it beats what needs no training."""

import json
import subprocess
from pathlib import Path

import pytest
import support

DEMO = ("train", "demo")
LONGEST = 1800  # seconds; a few minutes where two cores are free


@pytest.mark.slow
def test_the_demo_ends_healthy_and_surely_above_the_untrained_encoder_and_the_pixels(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = subprocess.run(support.jepa_command(*DEMO, "--out", out), capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0, done.stderr
    scores = json.loads((out / "evals" / "linear.json").read_text())
    told = ", ".join(f"{key} {scores[key]:.3f}" for key in ("low", "value", "high", "random_init", "raw"))
    assert scores["low"] > scores["random_init"], told
    assert scores["low"] > scores["raw"], told
    summary = json.loads((out / "summary.json").read_text())
    assert summary["verdict"] == "healthy", summary
