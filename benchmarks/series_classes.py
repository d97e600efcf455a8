"""How many test series do the recipe `series-classes` and the usual baselines label correctly, set by set?

Seven sets of the UCR and UEA archives, as they are there: of odd and unequal lengths. The recipe trains on a training
part without its labels; a linear probe on either encoder, on the untrained one and on raw values has the settings of
the recipe, and so has the kNN on raw values (k = 1, Euclidean). Beside them stand the nearest training series by
Euclidean distance and by DTW (band 10 %), and MiniRocket by aeon, in an environment of its own (`minirocket.py`); these
three read series stretched to one length. Nothing is chosen on a test part. Seconds are processor time, of training and
of both probes; MiniRocket's are of fitting and predicting, compiled.

    python benchmarks/series_classes.py [--data DATA] [--seeds 3] [--sets GunPoint …] [--aeon aeon/bin/python]
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import HERE, save

import jepakit
from jepakit.core.progress import SilentProgress
from jepakit.studies.cjepa.cjepa_series import BAND, SERIES_LENGTHS, UCR_ARCHIVE, stretch_series
from jepakit.studies.cjepa.nearest import Distance, classify_nearest

RECIPE = "series-classes"
WEIGHTS = {"context": "linear, context encoder", "target": "linear, EMA encoder"}
UNTRAINED, RAW, RAW_KNN = "linear, untrained", "linear, raw values", "kNN, raw values"
NEAREST: dict[Distance, str] = {"euclidean": "1-NN Euclidean", "dtw": "1-NN DTW"}
MINIROCKET, SECONDS, MINIROCKET_SECONDS = "MiniRocket", "seconds of the recipe", "seconds of MiniRocket"
Found = dict[str, list[float]]


def write_sets(data: Path, folder: Path, names: list[str]) -> None:
    """Each part of each set as the archive has it, in folder, and stretched to one length, in folder/equal."""
    (folder / "equal").mkdir()
    with np.load(data / UCR_ARCHIVE) as archive:
        for name in names:
            classes = np.unique(archive[f"{name}_y_train"])
            for part in ("train", "test"):
                x = archive[f"{name}_X_{part}"]
                # Classes are numbered, because a label of -1 could also mean that there is none.
                y = np.searchsorted(classes, archive[f"{name}_y_{part}"])
                np.savez(folder / f"{name}_{part}.npz", x=x, y=y)
                np.savez(folder / "equal" / f"{name}_{part}.npz", x=stretch_series(x, SERIES_LENGTHS[name]), y=y)


def recipe_scores(folder: Path, name: str, seed: int) -> dict[str, float]:
    """The accuracies of the recipe, of its untrained encoder and of raw values, and the seconds of one thread."""
    run, test, begun = folder / f"run-{name}-{seed}", folder / f"{name}_test.npz", time.process_time()
    settings: dict[str, Any] = {"data.split": "all", "loop.workers": 0, "evals.kinds": [], "evals.report": False}
    data, silent = folder / f"{name}_train.npz", SilentProgress()
    jepakit.train(data, run, recipe=RECIPE, settings=settings, seed=seed, progress=silent)
    results = {
        metric: json.loads(jepakit.probe(run, "linear", test=test, weights=weights, name=weights).read_text())
        for weights, metric in WEIGHTS.items()
    }
    seconds, one = round(time.process_time() - begun, 1), next(iter(results.values()))
    return {
        **{metric: result["value"] for metric, result in results.items()},
        UNTRAINED: one["random_init"],
        RAW: one["raw"],
        RAW_KNN: json.loads(jepakit.probe(run, "knn", test=test).read_text())["raw"],
        SECONDS: seconds,
    }


def nearest_scores(folder: Path, name: str) -> dict[str, float]:
    """The accuracies of the nearest training series; channels are standardised by the training part."""
    (x, y), (held, labels) = (read(folder / "equal" / f"{name}_{part}.npz") for part in ("train", "test"))
    mean, std = x.mean((0, 2), keepdims=True), x.std((0, 2), keepdims=True)
    x, held = (x - mean) / std, (held - mean) / std
    return {
        metric: float((classify_nearest(x, y, held, distance, BAND) == labels).mean())
        for distance, metric in NEAREST.items()
    }


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as file:
        return file["x"].astype(np.float64), file["y"]


def minirocket_scores(python: str, folder: Path, seeds: int) -> dict[str, Found]:
    """What MiniRocket reaches on every set, seed by seed, in the environment of another Python."""
    command = [python, str(HERE / "minirocket.py"), str(folder / "equal"), str(seeds)]
    # One thread, as everything else here.
    one = {**os.environ, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=one)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["set"]: {MINIROCKET: row["accuracy"], MINIROCKET_SECONDS: row["seconds"]} for row in rows}


def spread(metric: str, values: list[float]) -> str:
    """The mean, in per cent if it is no time, and the standard deviation over seeds if they differ."""
    scale = 1 if metric in (SECONDS, MINIROCKET_SECONDS) else 100
    mean = f"{scale * statistics.fmean(values):.1f}"
    return f"{mean} ± {scale * statistics.stdev(values):.1f}" if len(set(values)) > 1 else mean


def mean_over_sets(found: dict[str, Found]) -> Found:
    """For every metric, the mean over the sets, seed by seed."""
    columns = {
        metric: zip(*(of[metric] for of in found.values()), strict=True) for metric in next(iter(found.values()))
    }
    return {metric: [round(statistics.fmean(one), 4) for one in column] for metric, column in columns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("JEPAKIT_DATA"), required="JEPAKIT_DATA" not in os.environ)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=list(SERIES_LENGTHS), default=list(SERIES_LENGTHS))
    parser.add_argument("--aeon", help="a Python that has aeon; without one, MiniRocket is left out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Found] = {name: {} for name in args.sets}
    with tempfile.TemporaryDirectory() as out:
        folder = Path(out)
        write_sets(Path(args.data), folder, args.sets)
        for name in args.sets:
            for seed in range(args.seeds):
                for metric, value in recipe_scores(folder, name, seed).items():
                    found[name].setdefault(metric, []).append(round(value, 4))
            found[name] |= {metric: [round(value, 4)] for metric, value in nearest_scores(folder, name).items()}
            print(name, *(f"{metric}: {spread(metric, values)}" for metric, values in found[name].items()), flush=True)
        for name, scores in (minirocket_scores(args.aeon, folder, args.seeds) if args.aeon else {}).items():
            found[name] |= scores
    means = mean_over_sets(found)
    for metric, values in means.items():
        print(f"{metric:28}", *(f"{spread(metric, of[metric]):>12}" for of in (*found.values(), {metric: values})))
    save("series-classes", threads=1, seeds=args.seeds, mean=means, sets=found)


if __name__ == "__main__":
    main()
