"""How fast are windows of trajectories read, beside reading each window through h5py?

The same HDF5 file in Minari's layout: 48 episodes of 200 steps, frames of 64 x 64 x 3 bytes, stored in one piece per
episode, in chunks, or compressed. All give batches of 64 windows of 9 frames with their 8 actions and rewards, at
random places. Through h5py, a window is three slices, found by path in an open file ("h5py") or taken from arrays
that all stay open ("open arrays"), and the slices are stacked. `Trajectories.read` takes them from arrays in memory, or
from the file mapped in place. Rounds are interleaved; times are medians over rounds. Opening is timed too, since that
is when arrays are read. The second part does the same for vectors of 17 numbers.

    python benchmarks/trajectories.py
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from record import save

from jepakit.data.trajectories import Config, Trajectories, blocks

EPISODES, STEPS, WINDOW, BATCH, ROUNDS, BATCHES = 48, 200, 9, 64, 7, 12
KEYS = ("observations", "actions", "rewards")
STORED: dict[str, dict[str, Any]] = {"one piece": {}, "chunks": {"chunks": True}, "gzip": {"compression": "gzip"}}


def write(path: Path, pictures: bool, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for k in range(EPISODES):
            group = file.create_group(f"episode_{k}")
            shape = (STEPS + 1, 64, 64, 3) if pictures else (STEPS + 1, 17)
            # Half of each picture is flat, so that compression has something to do.
            frames = rng.integers(0, 256, shape, dtype=np.uint8) if pictures else rng.normal(size=shape)
            if pictures:
                frames[:, 32:] = 0
            group.create_dataset("observations", data=frames, **options)
            group.create_dataset("actions", data=rng.uniform(-1, 1, (STEPS, 6)), **options)
            group.create_dataset("rewards", data=rng.normal(size=STEPS), **options)


Episode = Mapping[str, h5py.Dataset]


def read_each(episodes: Mapping[str, Episode], dataset: Trajectories, ids: np.ndarray) -> list[np.ndarray]:
    """A batch whose windows are read one by one."""
    rows = [
        (episodes[dataset.source.names[k]], begin)
        for k, begin in zip(dataset.cut.episode[ids].tolist(), dataset.cut.begin[ids].tolist(), strict=True)
    ]
    return [
        np.stack([episode["observations"][b : b + WINDOW] for episode, b in rows]),
        np.stack([episode["actions"][b : b + WINDOW - 1] for episode, b in rows]).astype(np.float32),
        np.stack([episode["rewards"][b : b + WINDOW - 1] for episode, b in rows]).astype(np.float32),
    ]


def seconds(work: Callable[[np.ndarray], object], draws: list[np.ndarray]) -> float:
    """Seconds a batch; no batch is kept, as in training."""
    begin = time.perf_counter()
    for ids in draws:
        work(ids)
    return (time.perf_counter() - begin) / len(draws)


def compare(path: Path, mapped: bool) -> dict[str, float | str]:
    blocks.MAX_READ_BYTES = 0 if mapped else 2**30
    begin = time.perf_counter()
    dataset = Config(str(path), WINDOW, 1).open()
    opening = time.perf_counter() - begin
    rng = np.random.default_rng(1)
    times: dict[str, list[float]] = {"ours": [], "h5py": [], "open arrays": []}
    with h5py.File(path, "r") as file:
        kept = {name: {key: group[key] for key in KEYS} for name, group in file.items()}
        first = dataset.read(np.arange(4), dataset.native)
        frames = read_each(file, dataset, np.arange(4))[0]
        assert first.x is not None
        same = frames.transpose(0, 4, 1, 2, 3) if frames.ndim == 5 else frames.transpose(0, 2, 1).astype(np.float32)
        assert np.array_equal(first.x.numpy(), same)
        for _ in range(ROUNDS):
            draws = [rng.integers(0, len(dataset), BATCH) for _ in range(BATCHES)]
            times["ours"].append(seconds(lambda ids: dataset.read(ids, dataset.native), draws))
            times["h5py"].append(seconds(lambda ids: read_each(file, dataset, ids), draws))
            times["open arrays"].append(seconds(lambda ids: read_each(kept, dataset, ids), draws))
    found: dict[str, float | str] = {
        "frames": "in the file" if dataset.source.frames.whole is None else "in memory",
        "open_s": round(opening, 2),
    }
    for name, each in times.items():
        found[f"{name} batch_ms"] = round(statistics.median(each) * 1e3, 2)
        if name != "ours":
            found[f"{name} ratio"] = round(
                statistics.median(b / a for a, b in zip(times["ours"], each, strict=True)), 1
            )
    return found


def main() -> None:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for what, pictures in (("pictures", True), ("vectors", False)):
            for stored, options in STORED.items():
                path = Path(folder) / f"{what}-{stored}.hdf5"
                write(path, pictures, options)
                places = [False, True] if pictures and not options else [False]
                for mapped in places:
                    key = f"{what}, {stored}{', mapped' if mapped else ''}"
                    found[key] = compare(path, mapped)
                    print(key, found[key], flush=True)
    print(save("trajectories", windows_per_batch=BATCH, frames_per_window=WINDOW, **found))


if __name__ == "__main__":
    main()
