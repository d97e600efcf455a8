"""Digests of the batches of every kind of data: `python tests/frozen/batches.py` writes batches.json.

They were written by jepakit 0.1.0 (commit bb8f8dd), before its modules moved. Each entry describes one batch, or all
batches of an ordered reading: a digest of its whole numbers (ids, labels, lengths), one of all its tensors, and of each
tensor the sum and the sum of absolute values, which hold on every processor.
"""

import contextlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from jepakit.data import load, loader
from jepakit.run.parse import apply_changes
from jepakit.types import Batch

HERE = Path(__file__).resolve().parent
FILE = HERE / "batches.json"
SEEDS = (0, 1, 2)
SIZE = 4


def opened(kind: str, settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The data set, its settings and its signal: the adapter to how data are opened."""
    cfg = apply_changes(load(kind)(), settings)
    dataset = cfg.open()
    return dataset, cfg, dataset.signal()


def drawn(source: tuple[Any, Any, Any], seed: int, start: int, stop: int, **more: Any) -> list[Batch]:
    """Training batches `start` … `stop` - 1: the adapter to how they are drawn."""
    dataset, _, signal = source
    return list(loader.batches(dataset, signal, seed=seed, **{"batch": SIZE, "start": start, "stop": stop, **more}))


def views_alone(source: tuple[Any, Any, Any]) -> Batch:
    """The first batch, for a method that reads views only."""
    return drawn(source, 0, 0, 1, include_x=False)[0]


def read_in_order(source: tuple[Any, Any, Any], workers: int = 0) -> list[Batch]:
    """All samples in order, the third and all that follow it once more."""
    dataset, _, signal = source
    readings = (loader.read_stream(dataset, signal, batch=5, workers=workers, start=start) for start in (0, 2))
    return [batch for reading in readings for batch in reading]


# name → kind of data and settings; paths are relative to a folder that `sources` fills.
PICTURES = {"path": "data/pictures", "size": [12, 16]}
COLOURS = {"flip": 0.5, "jitter": [0.4, 0.4, 0.2, 0.1], "gray": 0.3, "blur": 0.5, "solarize": 0.3}
CROPS = {"count": 2, "crop": [0.3, 1.0]}
LOCAL = {"count": 2, "crop": [0.05, 0.3], "size": [8, 8]}
TABLE = {"path": "data/table.csv", "window": 16, "stride": 5}
UNEQUAL = {"path": "uneven.npz", "window": 0}
GAZE = {"path": "data/pictures", "fixations": "data/gaze.csv", "size": [8, 8], "crop": 0.4}
MADE_UP = {"path": "data/pictures", "size": [6, 8], "count": 5, "viewers": 2, "seed": 3}
CHANGES = {"scale": 0.2, "jitter": 0.1, "drop": 0.3, "crop": [0.5, 1.0]}
SYNTHETIC = {"count": 24, "size": [16, 20], "seed": 1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "images": ("images", PICTURES),
    "images, own size": ("images", {"path": "data/pictures"}),
    "images, centred": ("images", {**PICTURES, "augment": {"crop": [1, 1], "aspect": [1, 1]}}),
    "images, train part": ("images", {**PICTURES, "split": "train", "held_out": 0.3, "limit": 17, "contrast": 0.1}),
    "images, flip": ("images", {**PICTURES, "augment": {"flip": 0.5, "crop": [0.1, 0.5], "aspect": [1, 1]}}),
    "images, colours": ("images", {**PICTURES, "augment": COLOURS}),
    "images, views": ("images", {**PICTURES, "augment": {**COLOURS, "views": [CROPS, LOCAL]}}),
    "images, plain views": ("images", {**PICTURES, "augment": {"views": [CROPS]}}),
    "images, mixed sizes": ("images", {"path": "data/mixed", "size": [16, 16], "channels": 3}),
    "images, gray": ("images", {"path": "data/mixed", "size": [16, 16], "channels": 1}),
    "images, manifest": ("images", {"path": "manifest.csv", "size": [12, 12]}),
    "images, one broken": ("images", {"path": "broken", "size": [12, 12]}),
    "tar": ("images", {"path": "part-{0..1}.tar", "size": [12, 12]}),
    "tar, views": ("images", {"path": "part-*.tar", "size": [12, 12], "augment": {"views": [CROPS]}}),
    "parquet": ("images", {"path": "pictures.parquet", "size": [12, 12]}),
    "parquet, views": ("images", {"path": "pictures.parquet", "size": [12, 12], "augment": {"views": [CROPS]}}),
    "arrays": ("arrays", {"path": "pictures.npz"}),
    "arrays, resized": ("arrays", {"path": "pictures.npz", "size": [8, 10]}),
    "arrays, views": ("arrays", {"path": "pictures.npz", "augment": {**COLOURS, "views": [CROPS, LOCAL]}}),
    "arrays, floats": ("arrays", {"path": "floats.npy", "layout": "NCHW", "augment": {"flip": 0.5}}),
    "digits": ("synthetic", {"path": "digits", **SYNTHETIC}),
    "digits on photos": ("synthetic", {"path": "digits_on_photos", **SYNTHETIC}),
    "shapes": ("synthetic", {"path": "shapes", **SYNTHETIC}),
    "scenes": ("synthetic", {"path": "scenes", **SYNTHETIC, "size": [16, 16]}),
    "shapes, views": ("synthetic", {"path": "shapes", **SYNTHETIC, "augment": {**COLOURS, "views": [CROPS]}}),
    "table": ("series", TABLE),
    "table, changed": ("series", {**TABLE, "augment": CHANGES}),
    "table, views": ("series", {**TABLE, "augment": {**CHANGES, "views": [{"count": 2}, {"count": 1, "size": [8]}]}}),
    "table, plain views": ("series", {**TABLE, "augment": {"views": [{"count": 2}]}}),
    "table, train part": ("series", {**TABLE, "split": "train", "held_out": 0.3, "contrast": 0.1}),
    "table, test part": ("series", {**TABLE, "split": "test", "held_out": 0.3, "gap": 2}),
    "table, one column": ("series", {**TABLE, "columns": ["heat"], "label": "none"}),
    "labelled series": ("series", {"path": "labelled.npz", "window": 0}),
    "labelled series, by entity": ("series", {"path": "labelled.npz", "by": "entity", "split": "train"}),
    "unequal, padded": ("series", UNEQUAL),
    "unequal, padded, views": ("series", {**UNEQUAL, "augment": {**CHANGES, "views": [{"count": 2, "size": [8]}]}}),
    "unequal, cut": ("series", {**UNEQUAL, "unequal": "cut"}),
    "unequal, stretched": ("series", {**UNEQUAL, "unequal": "stretch"}),
    "unequal, windows": ("series", {**UNEQUAL, "window": 8, "stride": 3}),
    "sines": ("dynamics", {"path": "sines", "count": 16, "seed": 2}),
    "sines, views": ("dynamics", {"path": "sines", "count": 16, "augment": {**CHANGES, "views": [{"count": 2}]}}),
    "lorenz": ("dynamics", {"path": "lorenz", "count": 12}),
    "lorenz, rk45": ("dynamics", {"path": "lorenz", "count": 8, "integrator": "rk45", "noise": 0.1, "length": 24}),
    "scanpaths": ("scanpaths", GAZE),
    "scanpaths, fovea": ("scanpaths", {**GAZE, "fovea": 2, "steps": 4, "label": "subject"}),
    "scanpaths, shuffled": ("scanpaths", {**GAZE, "order": "shuffled", "label": "image", "seed": 1}),
    "scanpaths, repeated": ("scanpaths", {**GAZE, "order": "repeated"}),
    "scanpaths, train part": ("scanpaths", {**GAZE, "split": "train", "split_by": "subject", "held_out": 0.5}),
    "scanpaths, changed": ("scanpaths", {**GAZE, "augment": {**COLOURS, "scale": 0.2, "noise": 0.1, "drop": 0.3}}),
    "scanpaths, flip": ("scanpaths", {**GAZE, "augment": {"flip": 0.5}}),
    "scanpaths, views": (
        "scanpaths",
        {
            **GAZE,
            "augment": {"flip": 0.5, "drop": 0.3, "views": [{"count": 2}, {"count": 1, "steps": 3, "size": [4, 4]}]},
        },
    ),
    "made up, saliency": ("scanpaths", MADE_UP),
    "made up, uniform": ("scanpaths", {**MADE_UP, "synthetic": "uniform"}),
    "made up, raster": ("scanpaths", {**MADE_UP, "synthetic": "raster"}),
    "made up, views": ("scanpaths", {**MADE_UP, "augment": {**COLOURS, "views": [{"count": 2}]}}),
    "made up, arrays": ("scanpaths", {**MADE_UP, "path": "pictures.npz", "synthetic": "uniform"}),
    "made up, digits": ("scanpaths", {**MADE_UP, "path": "digits", "limit": 24}),
}
IN_WORKERS = ("images, views", "arrays, views", "table, views", "scanpaths, views", "unequal, padded")


def sources(folder: Path) -> None:
    """Fill a folder with the data of every case: those beside this file, and the same pictures in other forms."""
    shutil.copytree(HERE / "data", folder / "data")
    files = sorted((folder / "data" / "pictures").rglob("*.png"))
    classes = [path.parent.name for path in files]
    pixels = np.stack([np.asarray(Image.open(path)) for path in files])
    np.savez(folder / "pictures.npz", x=pixels, y=np.array(classes))
    np.save(folder / "floats.npy", pixels.transpose(0, 3, 1, 2)[..., ::2].astype(np.float32) / 50 - 1)
    rows = [f"{path.relative_to(folder)},{label}" for path, label in zip(files, classes, strict=True)]
    (folder / "manifest.csv").write_text("\n".join(["path,label", *rows[::-1]]) + "\n")
    (folder / "broken").mkdir()
    for i, path in enumerate(files[:12]):
        (folder / "broken" / path.name).write_bytes(path.read_bytes() if i != 4 else b"no picture")
    for shard in range(2):
        with tarfile.open(folder / f"part-{shard}.tar", "w") as tar:
            for path, label in list(zip(files, classes, strict=True))[shard::2]:
                add(tar, f"{path.stem}.png", path.read_bytes())
                add(tar, f"{path.stem}.cls", label.encode())
    write_parquet(folder / "pictures.parquet", files, classes)
    rng = np.random.default_rng(3)
    waves = np.sin(np.arange(24) * (0.3 + 0.5 * (np.arange(20) % 2))[:, None] + rng.uniform(0, 6, (20, 1)))
    both = np.stack([waves, waves**2 + 0.1 * rng.normal(size=waves.shape)], axis=1).astype(np.float32)
    np.savez(folder / "labelled.npz", x=both, y=np.arange(20) % 2)
    for i in range(20):
        both[i, :, 24 - i % 9 :] = np.nan
    np.savez(folder / "uneven.npz", x=both, y=np.arange(20) % 2)


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to a shard."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def write_parquet(path: Path, files: list[Path], classes: list[str]) -> None:
    """Write encoded pictures and their labels as a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    pq.write_table(pa.table({"image": images, "label": classes}), path, row_group_size=10)


@contextlib.contextmanager
def prepared(parent: Path | None = None) -> Iterator[None]:
    """A folder with the data of every case, which is the working directory inside the block."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        sources(Path(name))
        with contextlib.chdir(name):
            yield


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """Every tensor of a batch by name."""
    named = {"x": batch.x, **{f"view {k}": view for k, view in enumerate(batch.views)}}
    more = {name: getattr(batch, name) for name in ("action", "label", "length", "id")}
    return named | {name: value for name, value in more.items() if value is not None}


def hashed(entries: list[tuple[str, torch.Tensor]]) -> str:
    """A hash of names, types, shapes and bytes."""
    found = blake2b(digest_size=8)
    for name, value in entries:
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def described(*batches: Batch) -> list[Any]:
    """The digest of the whole numbers, that of everything, and per tensor the sum and the sum of absolute values."""
    entries = [(name, value) for batch in batches for name, value in tensors(batch).items()]
    whole = [(name, value) for name, value in entries if value.dtype == torch.int64]
    sums: dict[str, list[float]] = {}
    for name, value in entries:
        if value.dtype != torch.int64:
            both = sums.setdefault(name, [0.0, 0.0])
            both[0] += float(value.double().sum())
            both[1] += float(value.double().abs().sum())
    return [hashed(whole), hashed(entries), {name: [float(f"{v:.9g}") for v in both] for name, both in sums.items()}]


def epoch(source: tuple[Any, Any, Any], batch: int = SIZE) -> int:
    """How many batches an epoch has."""
    return len(source[0]) // batch


def recorded_parts(source: tuple[Any, Any, Any], seeds: tuple[int, ...]) -> dict[str, Callable[[], list[Any]]]:
    """What is recorded of one kind of data: name → how the entry is made."""
    after = epoch(source)
    parts: dict[str, Callable[[], list[Any]]] = {}
    for seed in seeds:
        for k in (0, 1, after):
            parts[f"seed {seed} batch {k}"] = lambda seed=seed, k=k: described(*drawn(source, seed, k, k + 1))
            for rank in (0, 1):
                share = {"batch": SIZE // 2, "offset": rank * SIZE // 2, "total": SIZE}
                parts[f"seed {seed} batch {k} rank {rank}"] = lambda seed=seed, k=k, share=share: described(
                    *drawn(source, seed, k, k + 1, **share)
                )
    parts["views alone"] = lambda: described(views_alone(source))
    parts["in order"] = lambda: described(*read_in_order(source))
    return parts


@cache
def source_of(name: str) -> tuple[Any, Any, Any]:
    """The opened data of a case; the working directory is that of `prepared`."""
    return opened(*CASES[name])


def computed(name: str, seeds: tuple[int, ...] = SEEDS) -> dict[str, list[Any]]:
    """All entries of one case for some seeds, and what its signal says."""
    source = source_of(name)
    signal = source[2]
    about = [signal.channels, list(signal.size), signal.views, signal.action_size, signal.classes, len(source[0])]
    statistics = [float(f"{v:.9g}") for v in (*signal.mean, *signal.std)]
    return {"signal": [about, statistics], **{part: make() for part, make in recorded_parts(source, seeds).items()}}


def check_workers(name: str, workers: int) -> None:
    """Workers draw and read the batches that the process itself does. Raises AssertionError where they do not."""
    source = source_of(name)
    stop = epoch(source) + 1
    for inside, outside in (
        (drawn(source, 1, 0, stop), drawn(source, 1, 0, stop, workers=workers)),
        (read_in_order(source), read_in_order(source, workers)),
    ):
        assert [described(batch) for batch in inside] == [described(batch) for batch in outside], name


def main() -> None:
    torch.set_num_threads(1)
    with prepared():
        found = {name: computed(name) for name in CASES}
        for name in IN_WORKERS:
            for workers in (1, 2):
                check_workers(name, workers)
    # One line per entry, so that the difference under version control shows what has moved.
    lines = [
        f" {json.dumps(name)}: {{\n"
        + ",\n".join(f"  {json.dumps(part)}: {json.dumps(entry)}" for part, entry in parts.items())
        + "\n }"
        for name, parts in found.items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
