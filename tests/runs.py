"""Small runs for tests: settings that train in seconds, and `jepa` as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from jepakit import methods
from jepakit.core import files
from jepakit.masks.random import Random
from jepakit.methods import bijepa, ijepa
from jepakit.nn import MLP, Perceptron
from jepakit.nn.predictor import Predictor
from jepakit.nn.transformer import ViT
from jepakit.run import checkpoint, optim, write
from jepakit.run.settings import Loop, Run
from jepakit.types import Signal

SETTINGS = {
    "method": {
        "name": "ijepa",
        "encoder": {"name": "vit", "patch": [8, 8], "width": 32, "depth": 2, "heads": 2},
        "predictor": {"width": 16, "depth": 1, "heads": 2},
        "masks": [{"name": "random", "num_targets": 2}],
        "ema": [0.9, 1.0],
    },
    "data": {"name": "images", "path": ".", "size": [32, 32]},
    "length": {"steps": 12, "batch": 8},
    "loop": {"log_every": 1, "save_every": 4, "panel_every": 5, "panel_size": 16, "workers": 0, "device": "cpu"},
    "evals": {"kinds": [], "report": False},
}


def write_settings(folder: Path, source: Path | str, **sections: dict) -> Path:
    """A complete settings file for the data at `source`; `sections` replace keys of a section."""
    settings = {k: {**v, **sections.get(k, {})} for k, v in SETTINGS.items()}
    settings["data"]["path"] = str(source)
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def jepa(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `jepa WORDS` to its end."""
    return subprocess.run(command(*words), capture_output=True, text=True, env=os.environ | env, timeout=300)


def start(*words: object) -> subprocess.Popen[str]:
    """Start `jepa WORDS`, and go on."""
    return subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "jepakit.cli", *map(str, words)]


def losses(run: Path) -> dict[int, float]:
    """Step → loss, from metrics.jsonl."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows}


def untrained(out: Path, data: Any, signal: Signal, step: int = 0, seed: int = 0) -> Path:
    """A run folder at `step` whose encoder, of two blocks, was never trained: what a probe needs, in milliseconds."""
    settings = ijepa.Config(
        encoder=ViT(patch=(8, 8), width=32, depth=2, heads=2, init="xavier"),
        predictor=Predictor(width=16, depth=1, heads=2),
        masks=(Random(),),
    )
    method = methods.build(settings, signal, seed)
    run = Run(method=settings, data=data, loop=Loop(workers=0, device="cpu"))
    files.write_text(out / "config.yaml", write.to_yaml(run))
    checkpoint.save(out, step, method, optim.build(run.optim, method), {})
    return out


def halves_run(out: Path, data: Any, patch=8, channels=2, mean=(0.0, 0.0), std=(0.7, 0.7), method=None) -> Path:
    """A run folder of an untrained BiJEPA with two tokens a window."""
    settings = method or bijepa.Config(MLP((patch,), 24, 48, 1), Perceptron(48))
    signal = Signal(channels, (2 * patch,), mean, std)
    made = methods.build(settings, signal, 0)
    run = Run(method=settings, data=data, loop=Loop(workers=0, device="cpu"))
    files.write_text(out / "config.yaml", write.to_yaml(run))
    checkpoint.save(out, 0, made, optim.build(run.optim, made), {})
    return out
