"""How close does the loader come to bare decoding, and how fast does a large folder start?

Bare decoding is Pillow alone in as many processes: read the file, open, reduce, cut the same random boxes and resize to
224 px, as an array; nothing is collected, batched or sent. Both run interleaved over the same JPEG files (500 x 375,
quality 90, cut from scikit-learn's photographs), 12 epochs at a time, so that starting processes costs as little as in
training; ratios are medians over rounds. Both yield uint8. Converting batches to floats on the CPU (`Batch.to`) is part
of the training step, so its time is reported separately. The large folder holds 100,000 small JPEG files (links to a
few); its start is open + fit + the first batch of 64.

    python benchmarks/loader.py
"""

import io
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import save
from sklearn.datasets import load_sample_images

from jepakit.core.draws import uniform_draws
from jepakit.data import loader
from jepakit.data.images import files
from jepakit.data.images.augment import BOX_DRAWS, place_box
from jepakit.types import Batch, Rng, Signal

FILES, BATCH, EPOCHS, ROUNDS, LARGE = 512, 64, 12, 5, 100_000
SIZE, CROP, ASPECT = (224, 224), (0.3, 1.0), (3 / 4, 4 / 3)


def write_photographs(root: Path) -> None:
    photos = load_sample_images().images
    rng = np.random.default_rng(0)
    for k in range(FILES):
        top, left = rng.integers(0, 427 - 375), rng.integers(0, 640 - 500)
        Image.fromarray(photos[k % 2][top : top + 375, left : left + 500]).save(root / f"{k:04d}.jpg", quality=90)


def bare(paths: list[Path], draws: list[list[float]]) -> None:
    """Decode, crop and resize each file, and nothing else."""
    for path, u in zip(paths, draws, strict=True):
        with open(path, "rb") as file, Image.open(io.BytesIO(file.read())) as image:
            width, height = image.size
            box = place_box(u, height, width, SIZE, CROP, ASPECT, 0.0)
            reduce = min(box.width, box.height) / SIZE[0]
            image.draft("RGB", (int(width / reduce), int(height / reduce)))
            fx, fy = image.width / width, image.height / height
            edges = (box.left * fx, box.top * fy, (box.left + box.width) * fx, (box.top + box.height) * fy)
            np.asarray(image.resize(SIZE, Image.Resampling.BILINEAR, box=edges))


def processor_seconds() -> float:
    """CPU time of this process and its ended children so far; unlike wall time, a busy machine hardly changes it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def time_bare(paths: list[Path], workers: int) -> tuple[float, float]:
    """Images per second with `workers` processes, and CPU milliseconds per image."""
    draws = uniform_draws(Rng(0), np.arange(len(paths), dtype=np.int64), BOX_DRAWS).tolist()
    context = multiprocessing.get_context("fork")
    begin, used = time.perf_counter(), processor_seconds()
    running = [context.Process(target=bare, args=(paths[k::workers], draws[k::workers])) for k in range(workers)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    seconds = time.perf_counter() - begin
    return len(paths) / seconds, (processor_seconds() - used) / len(paths) * 1e3


def time_loader(root: Path, signal: Signal, workers: int) -> tuple[float, float]:
    """Images per second from the call to the last batch, and CPU milliseconds per image."""
    cfg = files.Config(str(root), size=SIZE)
    dataset = cfg.open()
    stop = EPOCHS * FILES // BATCH
    begin, used = time.perf_counter(), processor_seconds()
    it = loader.batches(dataset, signal, seed=0, batch=BATCH, start=0, stop=stop, workers=workers)
    seen = sum(len(batch) for batch in it)
    seconds = time.perf_counter() - begin
    it.close()
    return seen / seconds, (processor_seconds() - used) / seen * 1e3


def throughput(root: Path) -> dict[str, dict[str, float]]:
    write_photographs(root)
    signal = Signal(3, SIZE)
    paths = sorted(root.iterdir()) * EPOCHS
    out = {}
    for workers in (1, 2):
        rounds = [(time_bare(paths, workers), time_loader(root, signal, workers)) for _ in range(ROUNDS)]
        out[f"{workers} workers"] = {
            "bare images/s": statistics.median(b[0] for b, _ in rounds),
            "loader images/s": statistics.median(ours[0] for _, ours in rounds),
            "ratio": statistics.median(ours[0] / b[0] for b, ours in rounds),
            "lowest ratio": min(ours[0] / b[0] for b, ours in rounds),
            "highest ratio": max(ours[0] / b[0] for b, ours in rounds),
            "bare processor ms": statistics.median(b[1] for b, _ in rounds),
            "loader processor ms": statistics.median(ours[1] for _, ours in rounds),
            "processor ratio": statistics.median(b[1] / ours[1] for b, ours in rounds),
        }
    return out


def to_floats(signal: Signal) -> float:
    """CPU milliseconds per image to convert a batch to floats."""
    batch = Batch(torch.zeros(BATCH, 3, *signal.size, dtype=torch.uint8))
    times = []
    for _ in range(20):
        used = time.process_time()
        batch.to("cpu")
        times.append((time.process_time() - used) / BATCH * 1e3)
    return statistics.median(times)


def large_folder(root: Path) -> dict[str, float]:
    """Seconds until each stage of the start, with warm file caches."""
    stems = []
    for k in range(4):
        stems.append(root / f"stem{k}.jpg")
        Image.fromarray(np.full((48, 64, 3), 60 * k, np.uint8)).save(stems[-1])
    for k in range(LARGE - 4):
        os.link(stems[k % 4], root / f"{k:06d}.jpg")
    begin = time.perf_counter()
    cfg = files.Config(str(root), size=SIZE)
    dataset = cfg.open()
    opened = time.perf_counter() - begin
    signal = dataset.signal()
    fitted = time.perf_counter() - begin
    next(loader.batches(dataset, signal, seed=0, batch=BATCH, start=0, stop=2, workers=2))
    return {"files": len(dataset), "open s": opened, "fit s": fitted, "first batch s": time.perf_counter() - begin}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        rows = throughput(Path(first))
        start = large_folder(Path(second))
    for name, row in rows.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in row.items()))
    print("large folder: " + ", ".join(f"{key} {value:.1f}" for key, value in start.items()))
    floats = to_floats(Signal(3, SIZE))
    print(f"to floats: {floats:.2f} ms per image")
    save("loader", seed=0, rounds=ROUNDS, throughput=rows, to_floats_ms=floats, large_folder=start)


if __name__ == "__main__":
    main()
