"""Helpers that several tests share: runs that train in seconds, small data, `jepa` as a user starts it, two ranks."""

import contextlib
import gzip
import io
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.multiprocessing as mp
import yaml
from PIL import Image
from torch import Tensor

from jepakit import methods
from jepakit.core import distributed, files
from jepakit.core.notes import Note
from jepakit.core.progress import SilentProgress
from jepakit.data import Dataset
from jepakit.inference import score
from jepakit.inference.inputs import open_series, open_training_series
from jepakit.inference.windows import whole_spans
from jepakit.masks.random import Random
from jepakit.methods import bijepa, ijepa, worldmodel
from jepakit.nn import MLP, Perceptron
from jepakit.nn.predictor import Predictor
from jepakit.nn.transformer import ViT
from jepakit.run import checkpoint, optim, write
from jepakit.run.settings import Loop, Run
from jepakit.types import Signal

# Settings and run folders.

SETTINGS = {
    "method": {
        "name": "ijepa",
        "encoder": {"name": "vit", "patch": [8, 8], "width": 32, "depth": 2, "heads": 2},
        "predictor": {"width": 16, "depth": 1, "heads": 2},
        "masks": [{"name": "random", "num_targets": 2}],
        "ema": [0.9, 1.0],
    },
    "data": {"name": "images", "path": ".", "size": [32, 32], "split": "all"},
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


def resolve_data(run: Run, dataset: Dataset) -> tuple[Run, Dataset, list[Note]]:
    """A run and its open data with every setting of data chosen as before a training, and a note for each choice."""
    cfg, notes = run.data.resolve(
        dataset, methods.class_of(run.method).requires(run.method), methods.name_of(run.method)
    )
    return replace(run, data=cfg), dataset.with_config(cfg), notes


def save_untrained(out: Path, settings: Any, signal: Signal, data: Any, step: int = 0, seed: int = 0) -> Path:
    """A run folder at `step` whose method was never trained: what a probe needs, in milliseconds."""
    method = methods.build(settings, signal, seed)
    run = Run(method=settings, data=data, loop=Loop(workers=0, device="cpu"))
    files.write_text(out / "config.yaml", write.to_yaml(run))
    checkpoint.save_checkpoint(out, step, method, optim.build_optimizer(run.optim, method), {})
    return out


def untrained_run(out: Path, data: Any, signal: Signal, step: int = 0, seed: int = 0) -> Path:
    """A run folder of an untrained I-JEPA whose encoder has two blocks."""
    settings = ijepa.Config(
        encoder=ViT(patch=(8, 8), width=32, depth=2, heads=2, init="xavier"),
        predictor=Predictor(width=16, depth=1, heads=2),
        masks=(Random(),),
    )
    return save_untrained(out, settings, signal, data, step, seed)


def halves_run(out: Path, data: Any, patch=8, channels=2, mean=(0.0, 0.0), std=(0.7, 0.7), method=None) -> Path:
    """A run folder of an untrained BiJEPA with two tokens per window."""
    settings = method or bijepa.Config(MLP((patch,), 24, 48, 1), Perceptron(48))
    return save_untrained(out, settings, Signal(channels, (2 * patch,), mean, std), data)


def write_rollouts(folder: Path, episodes: int = 12, steps: int = 16, side: int = 0) -> Path:
    """Episodes of a dot that random actions push, an .npz file each: its places, or pictures of `side` px of them."""
    folder.mkdir(parents=True)
    for k in range(episodes):
        draw = np.random.default_rng(k)
        action = draw.uniform(-1, 1, (steps, 2)).astype(np.float32)
        place = np.clip(np.cumsum(np.concatenate([draw.normal(size=(1, 2)), 0.3 * action]), axis=0), -2, 2)
        x = place.astype(np.float32)
        if side:
            cells = np.linspace(-2.5, 2.5, side)
            near = np.exp(-2 * (cells - place[..., None]) ** 2)
            x = (255 * near[:, 1, :, None] * near[:, 0, None])[..., None].astype(np.uint8)
        np.savez(folder / f"e{k}.npz", observations=x, actions=action, **{"factors.place": place})
    return folder


def world_run(out: Path, data: Any) -> Path:
    """A run folder of an untrained world model on trajectories."""
    signal = data.open().signal()
    return save_untrained(out, worldmodel.Config.tiny(signal), signal, data)


def step_errors(run: Path, data: Path, **settings: Any) -> dict[str, np.ndarray]:
    """The errors of a run's prediction of every step of the series in `data`, by series, before they are ranked."""
    loaded = checkpoint.load_run(run)
    own = open_training_series(loaded, "they tell how long windows are")
    scorer = score.StepScorer.of_run(loaded, score.Settings(**settings), own).sliding
    dataset = open_series(loaded, str(data))
    spans = whole_spans(dataset)
    return dict(zip([span.name for span in spans], scorer.step_scores(dataset, spans), strict=True))


def logged_losses(run: Path) -> dict[int, float]:
    """Step → loss, from metrics.jsonl."""
    return {row["step"]: row["loss"] for row in logged_rows(run)}


def logged_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text())


# The command line, and what a run shows.


def jepa(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `jepa WORDS` to its end."""
    return subprocess.run(jepa_command(*words), capture_output=True, text=True, env=os.environ | env, timeout=300)


class Done(NamedTuple):
    """The end of a command that ran in this process."""

    returncode: int
    stdout: str
    stderr: str


def jepa_here(*words: object) -> Done:
    """Run `jepa WORDS` in this process, which saves the seconds that another one takes to import torch."""
    from jepakit.cli import main

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def start_jepa(*words: object) -> subprocess.Popen[str]:
    """Start `jepa WORDS`, and go on."""
    return subprocess.Popen(jepa_command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def jepa_command(*words: object) -> list[str]:
    """`jepa WORDS` as a list for subprocess."""
    return [sys.executable, "-m", "jepakit.cli", *map(str, words)]


class Recorder(SilentProgress):
    """Keeps the notes and the (row, steps) pairs that a run shows."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.rows: list[tuple[dict[str, Any], int]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def row(self, row: dict[str, Any], steps: int) -> None:
        self.rows.append((row, steps))

    def said(self, words: str) -> bool:
        """Whether a note holds these words."""
        return any(words in note for note in self.notes)


# Several processes.


@contextlib.contextmanager
def joined_rank(rank: int, port: int, world: int = 2) -> Iterator[distributed.Dist]:
    """This process as number `rank` of `world` that meet at `port`, as torchrun would start it."""
    set_rank(rank, port, world)
    with distributed.process_group() as dist:
        yield dist


def set_rank(rank: int, port: int, world: int = 2) -> None:
    """The environment of number `rank` of `world` processes that meet at `port`, as torchrun would set it."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in place.items()}


def run_ranks(worker: Callable[[int, int, str], None], folder: Path, world: int = 2) -> list[dict[str, Any]]:
    """What `worker(rank, port, folder)` saved as FOLDER/RANK.pt in each of `world` processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, (port, str(folder)), nprocs=world)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


# Pictures.


def noise_pictures(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    """Pictures of noise (N, side, side, 3), uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def write_pictures(folder: Path, names: Sequence[str], side: int = 32, seed: int = 0) -> Path:
    """Pictures of noise, saved in `folder` under these names, which may have sub-folders."""
    for name, pixels in zip(names, noise_pictures(len(names), side, seed), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder


def write_idx(path: Path, values: np.ndarray) -> None:
    """An array of bytes in the format of the MNIST files."""
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))


# Features.


def gaussian_noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotated_noise(scales: Tensor, rows: int) -> Tensor:
    """Features (rows, D) whose covariance has the eigenvalues `scales`², in a random basis."""
    d = len(scales)
    return (gaussian_noise(rows, d) * scales) @ torch.linalg.qr(gaussian_noise(d, d, seed=1)).Q


# Series: a table as text, and arrays with a label that their shape tells.


def write_table(
    path: Path, rows: int, columns: int = 2, header: str = "", start: str = "2024-01-01T00:00", step: int = 60
) -> np.ndarray:
    """A CSV with a time column, one row per `step` minutes, and columns of waves; the values written (C, T)."""
    time = np.datetime64(start) + np.arange(rows) * np.timedelta64(step, "m")
    values = sine_waves(rows, columns)
    names = header or ",".join(["time", *(f"c{k}" for k in range(columns))])
    lines = [",".join([str(t), *(f"{v:.6f}" for v in row)]) for t, row in zip(time, values.T.tolist(), strict=True)]
    path.write_text("\n".join([names, *lines]) + "\n")
    return np.round(values, 6)


def sine_waves(rows: int, columns: int) -> np.ndarray:
    """Sines of several speeds (C, T)."""
    return np.sin(np.arange(rows)[None] * (0.1 + 0.07 * np.arange(columns)[:, None]))


def two_kinds(n: int, length: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy slow and fast waves (N, 1, T), and which they are."""
    draw = np.random.default_rng(seed)
    y = np.arange(n) % 2
    phase = draw.uniform(0, 6, (n, 1))
    x = np.sin(np.arange(length)[None] * (0.3 + 0.7 * y[:, None]) + phase) + 0.05 * draw.normal(size=(n, length))
    return x[:, None].astype(np.float32), y


def rewrite_line(path: Path, line: int, old: str, new: str) -> None:
    """Replace `old` by `new` on a line of a text, counted from 1."""
    lines = path.read_text().splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("\n".join(lines) + "\n")
