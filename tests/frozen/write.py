"""The data, the runs and the outputs in this folder: `python tests/frozen/write.py` makes them anew.

They were written by jepakit 0.1.0 (commit bb8f8dd), before its modules moved, and a later version has to read them and
to compute what that one did. So write them again only where numbers are meant to move, and say why in the commit:
`expected/forecast.txt` is newer, since forecasts are chosen and judged by data that the encoder never saw, and since
intervals come from all parts of the data.
Everything is driven through the public API. `data/` holds pictures, a table, fixations and frames; `trained/` holds
run folders that stopped half way; `expected/` holds what outputs.py makes of them.
"""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from outputs import HERE, OUTPUTS, copied
from PIL import Image

import jepakit as jk

VIT = {"method.encoder.width": 16, "method.encoder.depth": 1, "method.encoder.heads": 2, "method.encoder.mlp_ratio": 2}
PREDICTOR = {"method.predictor.width": 16, "method.predictor.depth": 1, "method.predictor.heads": 2}
LOOP = {
    "length.batch": 8,
    "loop.log_every": 1,
    "loop.panel_every": 2,
    "loop.panel_size": 16,
    "loop.keep": 1,
    "loop.workers": 0,
    "loop.device": "cpu",
    "evals.kinds": [],
    "evals.report": False,
}
PICTURES = {"data.size": [16, 16], "method.encoder.patch": [4, 4]}
VIEWS = "[{count: 2}, {count: 2, size: [8, 8], crop: [0.1, 0.4]}]"
COLOURS = {"data.augment.flip": 0.5, "data.augment.jitter": [0.4, 0.4, 0.2, 0.1], "data.augment.gray": 0.2}
STEPS = 8
STOP = 4

RUNS: dict[str, dict[str, Any]] = {
    "ijepa": {
        "recipe": "ijepa",
        "data": "data/pictures",
        "settings": {**VIT, **PREDICTOR, **PICTURES, "method.masks": "[{name: random, num_targets: 2}]"},
    },
    "bijepa": {
        "recipe": "bijepa",
        "data": "data/table.csv",
        "settings": {
            **VIT,
            **PREDICTOR,
            "method.encoder.patch": [4],
            "data.window": 16,
            "data.stride": 1,
            "method.norm_weight": 0.01,
            "method.cycle_weight": 0.1,
        },
    },
    "rjepa": {
        "recipe": "rjepa",
        "data": "data/pictures",
        "settings": {
            "data.name": "scanpaths",
            "data.fixations": "data/gaze.csv",
            "data.size": [8, 8],
            "data.crop": 0.4,
            "method.encoder.width": 8,
            "method.encoder.channels": [4],
            "method.circuit.width": 8,
            "method.saccade": True,
        },
    },
    "simclr": {
        "recipe": "simclr",
        "data": "data/pictures",
        "settings": {
            **VIT,
            **PICTURES,
            **COLOURS,
            "data.augment.views": "[{count: 2}]",
            "method.projector.hidden": 16,
            "method.projector.out": 8,
        },
    },
    "lejepa": {
        "recipe": "lejepa",
        "data": "data/pictures",
        "settings": {
            **VIT,
            **PICTURES,
            "data.augment.views": VIEWS,
            "method.projector.hidden": 16,
            "method.projector.out": 8,
            "method.directions": 16,
        },
    },
    "online": {
        "recipe": "rjepa-online",
        "data": "data/frames",
        "settings": {
            "method.circuit.width": 8,
            "method.encoder.width": 6,
            "method.encoder.channels": [4],
            "data.warm": 12,
            "data.window": 4,
            "data.settle": 0.0,
            "length.steps": 4 * STEPS,
            "length.batch": 1,
        },
    },
}
HEADS: dict[str, dict[str, Any]] = {
    "ijepa": {"stop": None, "settings": {"method.hidden": [16]}},
    "bijepa": {"stop": STOP, "settings": {"method.hidden": [16], "method.reads": "target", "method.norm": "layer"}},
}


class Stop:
    """Asks the training to stop, as a person would with Ctrl-C, once it has logged a step."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def note(self, text: str) -> None:
        """Says nothing."""

    def row(self, row: dict[str, Any], steps: int) -> None:
        """Sends the signal."""
        if row.get("step") == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def train(out: Path, stop: int | None, **request: Any) -> None:
    """Train to the end, or to a stop a step after `stop`, and keep what a resume needs."""
    settings = {**LOOP, "length.steps": STEPS, **request.pop("settings")}
    try:
        jk.train(out=out, settings=settings, progress=Stop(stop), **request)
        assert stop is None, f"{out} was to stop at step {stop}"
    except RuntimeError as stopped:
        if "and saved" not in str(stopped):
            raise
        print(f"{out}: {stopped}")
    for path in [*out.glob("events.*"), out / "environment.json"]:
        path.unlink(missing_ok=True)
    (out / "checkpoints" / "last").unlink(missing_ok=True)


def write_runs(folder: Path) -> None:
    """Train every run, and a decoder over two of them, by the data in `folder`."""
    shutil.rmtree(folder / "trained", ignore_errors=True)
    os.chdir(folder)  # Settings hold the paths as they are given, and these have to be relative.
    for name, request in RUNS.items():
        train(Path("trained", name), 2 * STEPS if name == "online" else STOP, **request)
    for name, head in HEADS.items():
        run = Path("trained", name)
        train(run / "heads" / "decoder", head["stop"], recipe="decoder", init=run, settings=head["settings"])


def picture(rng: np.random.Generator, kind: int, height: int, width: int) -> Image.Image:
    """Stripes of two directions for two kinds, in 16 levels of two colours: a small file."""
    y, x = np.mgrid[:height, :width]
    along = x + 0.3 * y if kind else y - 0.2 * x
    wave = 0.5 + 0.5 * np.sin(along / rng.uniform(1.5, 3) + rng.uniform(0, 6))
    ground, ink = rng.integers(0, 256, (2, 3))
    pixels = ground + np.round(wave * 15)[..., None] / 15 * (ink - ground)
    return Image.fromarray(pixels.round().astype(np.uint8))


def write_pictures(folder: Path) -> None:
    """Thirty-two pictures of two classes, and eight of several sizes, formats and channel counts."""
    rng = np.random.default_rng(0)
    for i in range(32):
        path = folder / "pictures" / ("rows", "columns")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(rng, i % 2, 20, 20).save(path)
    (folder / "mixed").mkdir()
    for i, (height, width, mode, ending) in enumerate(
        [
            (24, 30, "RGB", "png"),
            (17, 40, "L", "png"),
            (80, 96, "RGB", "jpg"),
            (33, 21, "RGB", "png"),
            (64, 48, "L", "jpg"),
            (16, 16, "RGBA", "png"),
            (40, 40, "RGB", "jpg"),
            (28, 50, "RGB", "bmp"),
        ]
    ):
        picture(rng, i % 2, height, width).convert(mode).save(folder / "mixed" / f"{i}.{ending}")


def write_table(path: Path, rows: int) -> None:
    """A table with a time column, two channels, a gap of three cells and a label."""
    rng = np.random.default_rng(1)
    time = np.datetime64("2024-01-01T00:00") + np.arange(rows) * np.timedelta64(30, "m")
    fast = np.arange(rows) // 20 % 2
    a = np.sin(np.cumsum(0.25 + 0.5 * fast)) + 0.05 * rng.normal(size=rows)
    b = np.cos(np.arange(rows) * 0.17) * 3 + 10 + 0.1 * rng.normal(size=rows)
    lines = ["time,flow,heat,label"]
    for i in range(rows):
        heat = "" if 30 <= i < 33 else f"{b[i]:.4f}"
        lines.append(f"{time[i]},{a[i]:.4f},{heat},{('slow', 'fast')[fast[i]]}")
    path.write_text("\n".join(lines) + "\n")


def write_gaze(path: Path, pictures: int) -> None:
    """Scanpaths of two subjects with two to six fixations on each picture of 20 by 20 pixels."""
    rng = np.random.default_rng(2)
    lines = ["image,subject,x,y,duration"]
    for i in range(pictures):
        for subject in range(2):
            for x, y in rng.integers(0, 21, (rng.integers(2, 7), 2)):
                lines.append(f"{i:02d}.png,{subject},{x},{y},{rng.integers(80, 400)}")
    path.write_text("\n".join(lines) + "\n")


def write_frames(folder: Path) -> None:
    """Fifty-five frames of five numbers: a table of 20 rows, an array of 15, a table of 20."""
    folder.mkdir()
    t = np.arange(55)[:, None] / 4
    x = np.round(np.sin(t * np.linspace(0.3, 1.3, 5) + np.arange(5)), 4).astype(np.float32)
    for name, part in (("a.csv", x[:20]), ("c.csv", x[35:])):
        (folder / name).write_text("\n".join(",".join(f"{v:.4f}" for v in row) for row in part.tolist()) + "\n")
    np.save(folder / "b.npy", x[20:35])


def write_data(folder: Path) -> None:
    """All data of the runs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_pictures(folder)
    write_table(folder / "table.csv", 160)
    write_gaze(folder / "gaze.csv", 32)
    write_frames(folder / "frames")


def write_expected(folder: Path) -> None:
    """What every output of outputs.py is, each computed in a copy of its own."""
    shutil.rmtree(folder / "expected", ignore_errors=True)
    (folder / "expected").mkdir()
    for name, make in OUTPUTS.items():
        with copied(folder):
            text = make()
        (folder / "expected" / name).write_text(text)


def main() -> None:
    torch.set_num_threads(1)
    write_data(HERE / "data")
    write_runs(HERE)
    write_expected(HERE)


if __name__ == "__main__":
    main()
