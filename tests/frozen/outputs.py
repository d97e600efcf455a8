"""What the frozen runs compute, as texts: every entry of OUTPUTS runs in a copy of this folder and returns a text.

A line that begins with "digest" holds for one kind of processor; the numbers on the others are the same to rounding.
"""

import contextlib
import csv
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import jepakit as jk
from jepakit.inference.inputs import open_series, open_training_series
from jepakit.inference.score import Settings, StepScorer
from jepakit.inference.windows import whole_spans
from jepakit.run import checkpoint

HERE = Path(__file__).resolve().parent
TIMES = {"throughput", "eta", "time", "seconds", "elapsed"}  # keys that differ from run to run
LATER = {"seen", "warning", "linear_change"}  # keys that the earlier version did not write


@contextlib.contextmanager
def copied(folder: Path, parent: Path | None = None) -> Iterator[Path]:
    """A copy of the data and the runs in `folder`, which is the working directory inside the block."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        for part in ("data", "trained"):
            shutil.copytree(folder / part, Path(name, part))
        with contextlib.chdir(name):
            yield Path(name)


def digest(*arrays: Any) -> str:
    """One line that names the bytes, types and shapes of arrays and tensors."""
    found = blake2b(digest_size=8)
    for array in map(np.asarray, arrays):
        found.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return f"digest {found.hexdigest()}"


def lasting(value: Any) -> Any:
    """The content of a JSON file without what differs from run to run, or came later."""
    if isinstance(value, dict):
        return {key: lasting(inner) for key, inner in value.items() if key not in TIMES | LATER}
    return [lasting(inner) for inner in value] if isinstance(value, list) else value


def resume(name: str, **more: Any) -> str:
    """The rows of the steps after the stop, the size of all tensors at the end, and their digest."""
    run = Path("trained", name)
    begun = len((run / "metrics.jsonl").read_text().splitlines())
    jk.train(out=run, resume=True, **more)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[begun:]]
    assert rows, f"{name} trained no further step"
    tensors = {}
    for path in sorted(max((run / "checkpoints").glob("step-*")).glob("*.safetensors")):
        tensors |= {f"{path.stem}/{key}": value for key, value in sorted(load_file(path).items())}
    lines = [json.dumps(lasting(row)) for row in rows]
    lines += [f"{key} {tuple(value.shape)}" for key, value in tensors.items()]
    sizes = [float(value.double().abs().sum()) for key, value in tensors.items() if key.startswith("model/")]
    return "\n".join([*lines, f"model {sum(sizes):.8g}", digest(*tensors.values())]) + "\n"


def probe(name: str, kind: str, **more: Any) -> str:
    """The files of a probe."""
    jk.probe(Path("trained", name), kind, cache=False, **more)
    found = sorted(Path("trained", name, "evals").glob("*.json"))
    return "".join(f"{path.name}\n{json.dumps(lasting(json.loads(path.read_text())), indent=1)}\n" for path in found)


def embed(name: str, data: str, **more: Any) -> str:
    """The table of embeddings."""
    jk.embed(Path("trained", name), data, "out.csv", **more)
    rows = [line.split(",") for line in Path("out.csv").read_text().splitlines()]
    # The recorded files are from before embeddings had labels.
    labels = [k for k, column in enumerate(rows[0]) if column == "label"]
    kept = [",".join(cell for k, cell in enumerate(row) if k not in labels) for row in rows]
    return "\n".join(kept) + "\n"


def embed_tokens(name: str, data: str) -> str:
    """The sums and the digest of one vector per patch."""
    jk.embed(Path("trained", name), data, "out.npy", tokens=True)
    x = np.load("out.npy")
    sums = "\n".join(f"{v:.7g}" for v in np.abs(x.astype(np.float64)).sum(tuple(range(1, x.ndim))))
    return f"{x.shape}\n{sums}\n{digest(x)}\n"


def score(**more: Any) -> str:
    """The error of the prediction of every step, as a table that sets it against those of the training data.

    How `jepa score` ranks these errors is not frozen.
    """
    jk.score("trained/bijepa", "data/table.csv", "out.csv", **more)
    with Path("out.csv").open() as file:
        written = list(csv.DictReader(file))
    loaded = checkpoint.load_run(Path("trained/bijepa"))
    scorer = StepScorer.of_run(loaded, Settings(**more), open_training_series(loaded, "it tells how long windows are"))
    dataset = open_series(loaded, "data/table.csv")
    (errors,) = scorer.sliding.step_scores(dataset, whole_spans(dataset))
    known = errors[~np.isnan(errors)]
    median, high = np.median(known), np.quantile(known, 0.999)
    z = (errors - median) / (1.4826 * np.median(np.abs(known - median)))
    rows = ["entity,time,score,z,anomalous"]
    for row, error, distance in zip(written, errors.tolist(), z.tolist(), strict=True):
        cells = ",," if np.isnan(error) else f"{error:.9g},{distance:.9g},{int(error > high)}"
        rows.append(f"{row['entity']},{row['time']},{cells}")
    return "\n".join(rows) + "\n"


def forecast() -> str:
    """The table of a forecast over more than half a window, and the errors that are printed."""
    done = jk.forecast("trained/bijepa", "data/table.csv", 12, "out.csv")
    return f"{json.dumps(done.errors)}\n{Path('out.csv').read_text()}"


def complete(name: str, data: str, hide: str) -> str:
    """Texts as they are, and of pictures the sums and the digest."""
    jk.complete(Path("trained", name), data, "out", hide=hide, limit=8)
    parts = []
    for path in sorted(p for p in Path("out").rglob("*") if p.is_file()):
        parts.append(path.relative_to("out").as_posix())
        if path.suffix == ".png" and path.name != "figure.png":
            pixels = np.asarray(Image.open(path))
            parts += [f"{pixels.shape} mean {pixels.mean():.5g}", digest(pixels)]
        elif path.suffix == ".json":
            parts.append(json.dumps(lasting(json.loads(path.read_text())), indent=1))
        elif path.suffix == ".csv":
            parts.append(path.read_text().rstrip())
    return "\n".join(parts) + "\n"


def observe() -> str:
    """What the run on a stream knows after each of six frames, and expects."""
    model = jk.load("trained/online")
    frames = torch.from_numpy(np.load("data/frames/b.npy"))[:6, None, :, None]
    state = model.start(frames[0])
    lines = []
    for frame in frames[1:]:
        state = model.observe(state, frame)
        for tokens in (state.tokens, model.step(state).tokens):
            lines.append(" ".join(f"{v:.8g}" for v in tokens.flatten().tolist()))
    return "\n".join(lines) + "\n"


def check(path: str, **more: Any) -> str:
    """The rows of `jepa check-data`, without its speed, and the table of problems."""
    rows = [f"{what}: {value}" for what, value in jk.check_data(path, "problems.csv", **more)]
    kept = [row for row in rows if not re.search(r"\bper second\b|/s\b", row)]
    return "\n".join(kept) + "\n" + Path("problems.csv").read_text()


OUTPUTS: dict[str, Callable[[], str]] = {
    **{f"resume-{name}.txt": partial(resume, name) for name in ("ijepa", "bijepa", "rjepa", "simclr", "lejepa")},
    "resume-online.txt": partial(resume, "online"),
    "resume-decoder.txt": partial(resume, "bijepa/heads/decoder"),
    "resume-longer.txt": partial(resume, "ijepa", steps=10, allow_change=["length.steps"]),
    "resume-workers.txt": partial(resume, "simclr", settings={"loop.workers": 1}),
    **{f"probe-knn-{n}.txt": partial(probe, n, "knn") for n in ("ijepa", "bijepa", "rjepa", "simclr", "lejepa")},
    "probe-linear-ijepa.txt": partial(probe, "ijepa", "linear"),
    "probe-forecast-bijepa.txt": partial(
        probe, "bijepa", "forecast", settings={"forecast.adam": 5, "forecast.l2": [1.0]}
    ),
    **{f"embed-{name}.csv": partial(embed, name, "data/pictures") for name in ("ijepa", "simclr", "lejepa")},
    "embed-context-ijepa.csv": partial(embed, "ijepa", "data/mixed", weights="context"),
    "embed-rjepa.csv": partial(embed, "rjepa", "data/pictures"),
    "embed-bijepa.csv": partial(embed, "bijepa", "data/table.csv", settings={"data.stride": 4}),
    "embed-tokens-ijepa.txt": partial(embed_tokens, "ijepa", "data/pictures"),
    "embed-tokens-bijepa.txt": partial(embed_tokens, "bijepa", "data/table.csv"),
    "score.csv": score,
    "score-causal.csv": partial(score, causal=True, stride=1),
    "forecast.txt": forecast,
    "complete-ijepa.txt": partial(complete, "ijepa", "data/mixed", "right"),
    "complete-bijepa.txt": partial(complete, "bijepa", "data/table.csv", "future"),
    "observe.txt": observe,
    "check-pictures.txt": partial(check, "data/pictures"),
    "check-mixed.txt": partial(check, "data/mixed"),
    "check-table.txt": partial(check, "data/table.csv"),
    "check-gaze.txt": partial(check, "data/pictures", fixations="data/gaze.csv"),
}
