"""Is a written forecast as good as the last value and a linear model on later data, and do its intervals hold?

On the first 70 % of ETTh1, exchange rates and three series of NAB, `jepa train series-bijepa` runs for 200 steps of 32
windows, all other settings at their defaults, so the last tenth of that part is held out. `jepa forecast` then starts
from 200 moments, evenly spread over the last 30 %, on which nothing was fitted, chosen or calibrated; each knows the
1000 steps before it. Errors are mean squares over the horizon, in units of the variance of the first part. `written` is
the forecast of the reader that the command chose; the linear model is fitted on the same part as its readers. Coverage
is the share of values within the intervals; `drift` says whether the command reported that they may not hold.

    python benchmarks/forecast.py [--data FOLDER] [--sets ETTh1 …] [--seeds 3] [--horizons 24 96]

FOLDER (default: JEPAKIT_DATA) has timeseries/ETTh1.csv, exchange_rate.txt.gz and nab_real.tar.gz.
"""

import argparse
import csv
import gzip
import io
import os
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import save

import jepakit as jk
from jepakit.evals.metrics.readers import fit_linear_changes

NAB = ("nyc_taxi", "machine_temperature_system_failure", "ambient_temperature_system_failure")
SETS = ("ETTh1", "exchange rates", *NAB)
TRAINED, HELD_OUT, ORIGINS, KNOWN = 0.7, 0.1, 200, 1000
HALF = 48  # of a window: 96 steps, which the run chooses for all of these sets
SHARES = (80, 90, 95)
SETTINGS = {
    "data.split": "train",
    "length.batch": 32,
    "evals.kinds": "[]",
    "evals.report": "false",
    "loop.workers": 0,
    "loop.device": "cpu",
}
STEPS = 200
MARGIN, POINTS = 0.02, 4.0


def values_of(name: str, folder: Path) -> np.ndarray:
    """All steps of a data set, (T, C)."""
    if name == "ETTh1":
        with (folder / "ETTh1.csv").open() as file:
            return table(file)
    if name == "exchange rates":
        with gzip.open(folder / "exchange_rate.txt.gz", "rt") as file:
            return np.loadtxt(file, delimiter=",")
    with tarfile.open(folder / "nab_real.tar.gz") as archive:
        return table(io.TextIOWrapper(archive.extractfile(f"data/realKnownCause/{name}.csv")))  # type: ignore[arg-type]


def table(file: Any) -> np.ndarray:
    """The numbers of a table whose first column is the time."""
    return np.array([row[1:] for row in list(csv.reader(file))[1:]], dtype=float)


def write(path: Path, parts: Mapping[str, np.ndarray]) -> Path:
    """A table of several series (T, C) by name."""
    columns = next(iter(parts.values())).shape[1]
    lines = [",".join(["entity", *(f"c{k}" for k in range(columns))])]
    lines += [",".join([name, *map(repr, row)]) for name, rows in parts.items() for row in rows.tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def written(path: Path, n: int, horizon: int, columns: int) -> dict[str, np.ndarray]:
    """The forecast and the ends of its intervals by their suffix, each (N, H, C)."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    suffixes = ["", *(f"_{end}{share}" for share in SHARES for end in ("low", "high"))]
    return {
        s: np.array([[float(r[f"c{k}{s}"]) for k in range(columns)] for r in rows]).reshape(n, horizon, columns)
        for s in suffixes
    }


def measure(values: np.ndarray, seed: int, horizons: list[int], work: Path) -> dict[str, Any]:
    """Train once, and forecast over every horizon."""
    cut = round(TRAINED * len(values))
    trained = write(work / "trained.csv", {"s": values[:cut]})
    jk.train(trained, work / "run", recipe="series-bijepa", steps=STEPS, settings=SETTINGS | {"seed": seed})
    return {str(h): judge(values, cut, h, work) for h in horizons}


def judge(values: np.ndarray, cut: int, horizon: int, work: Path) -> dict[str, Any]:
    """Errors and coverage of forecasts from moments after step `cut`."""
    origins = np.unique(np.linspace(cut, len(values) - horizon, ORIGINS).astype(int))
    past = np.stack([values[o - KNOWN : o] for o in origins])
    later = write(work / "later.csv", {f"t{o}": rows for o, rows in zip(origins, past, strict=True)})
    truth = np.stack([values[o : o + horizon] for o in origins])
    std = values[:cut].std(0)
    done = jk.forecast(work / "run", later, horizon, out := work / "written.csv", overwrite=True)
    found = written(out, *truth.shape)
    linear = linear_forecast(values[: round((1 - HELD_OUT) * cut)] / std, past / std, horizon) * std
    forecasts = {"written": found[""], "last value": past[:, -1:], "linear": linear}
    errors = {name: float(np.square((values - truth) / std).mean()) for name, values in forecasts.items()}
    inside = {s: (found[f"_low{s}"] <= truth) & (truth <= found[f"_high{s}"]) for s in SHARES}
    covered = {str(s): round(100 * float(hits.mean()), 1) for s, hits in inside.items()}
    return {
        "reader": done.reader,
        "errors": {name: float(f"{error:.4g}") for name, error in errors.items()},
        "coverage": covered,
        "drift": any("drift" in note for note in done.notes),
        "no worse": errors["written"] <= (1 + MARGIN) * min(errors["last value"], errors["linear"]),
        "covers": all(abs(covered[str(s)] - s) <= POINTS for s in SHARES),
        "held-out errors": {name: float(f"{error:.4g}") for name, error in done.errors.items()},
    }


def linear_forecast(trained: np.ndarray, past: np.ndarray, horizon: int) -> np.ndarray:
    """A linear model of each channel's change since its last value, from half a window to the next, (N, H, C)."""
    windows = np.lib.stride_tricks.sliding_window_view(trained, 2 * HALF, axis=0)[::4]
    held = np.arange(len(windows)) >= 0.8 * len(windows)
    model = fit_linear_changes(windows[..., :HALF], windows[..., HALF:], held)
    path = past.transpose(0, 2, 1)
    while path.shape[2] < KNOWN + horizon:
        path = np.concatenate([path, model(path[..., -HALF:])], axis=2)
    return path[..., KNOWN : KNOWN + horizon].transpose(0, 2, 1)


def describe(name: str, horizon: str, one: Mapping[str, Any]) -> str:
    """A line of the table."""
    errors = "".join(f"{one['errors'][key]:>11.4f}" for key in one["errors"])
    covered = "".join(f"{one['coverage'][str(s)]:>7.1f}" for s in SHARES)
    marks = ["" if one["no worse"] else "worse", "" if one["covers"] else "off", "drift" if one["drift"] else ""]
    return f"{name[:20]:21}{horizon:>4}{errors}{covered}  {one['reader']} {' '.join(filter(None, marks))}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("JEPAKIT_DATA"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--horizons", nargs="+", type=int, default=[24, 96])
    args = parser.parse_args()
    if args.data is None:
        parser.error("give the folder of data sets as --data FOLDER or in JEPAKIT_DATA")
    torch.set_num_threads(1)
    print(f"{'':21}{'':>4}{'written':>11}{'last value':>11}{'linear':>11}{'80 %':>7}{'90 %':>7}{'95 %':>7}")
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(args.seeds):
        for name in args.sets:
            values = values_of(name, args.data / "timeseries")
            with tempfile.TemporaryDirectory() as work:
                found.setdefault(name, []).append(measure(values, seed, args.horizons, Path(work)))
            for horizon, one in found[name][-1].items():
                print(describe(name, horizon, one), flush=True)
        # After every seed, so that an interruption leaves the results of whole seeds.
        save("forecast", threads=1, steps=STEPS, origins=ORIGINS, seeds=seed + 1, counts=count(found), sets=found)
    print(count(found))


def count(found: Mapping[str, list[dict[str, Any]]]) -> dict[str, int]:
    """How many forecasts meet each target."""
    each = [one for runs in found.values() for run in runs for one in run.values()]
    return {
        "forecasts": len(each),
        "no worse than the last value and linear": sum(one["no worse"] for one in each),
        "intervals cover": sum(one["covers"] for one in each),
        "intervals cover, or drift is told": sum(one["covers"] or one["drift"] for one in each),
    }


if __name__ == "__main__":
    main()
