"""What share of training time do the collapse panel and its verdict take, at the intervals that a run chooses itself?

For each recipe, the session is built as for training, and the panel measures whenever it would in training, from step 0
to the last, with some training steps after every measurement, all on one thread. The share is the time of all
measurements, of the verdicts after them, and of the panel's part of every logged row, over the time of all training
steps. A step is forward, backward and update; the time to read data would make the share smaller.

    python benchmarks/panel.py [--data FOLDER] [--steps 2] [--recipes demo …]

Recipes whose data sets are not in the folder (default: JEPAKIT_DATA) are left out.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import save

from jepakit import recipes
from jepakit.core.distributed import Dist
from jepakit.run.settings import Run
from jepakit.training import loop as training
from jepakit.training import session
from jepakit.training.monitor import Monitor
from jepakit.training.source import BatchSource
from jepakit.types import Batch, Terms

DATA = {
    "demo": "",
    "cifar10-ijepa": "cifar10/train.parquet",
    "fashion-ijepa": "fashion_mnist/train-images-idx3-ubyte.gz",
}


class Seconds(NamedTuple):
    """CPU and wall time."""

    cpu: float
    wall: float


def timed(action: Callable[[], Any]) -> tuple[Any, Seconds]:
    wall, cpu = time.perf_counter(), time.process_time()
    value = action()
    return value, Seconds(time.process_time() - cpu, time.perf_counter() - wall)


def runs(names: list[str], data: str | None) -> Iterator[tuple[str, Run]]:
    """The recipes whose data are available, set to read in the main process."""
    for name in names:
        run = recipes.load_recipe(name)
        path = Path(data or "") / DATA[name]
        if DATA[name] and not (data and path.exists()):
            print(f"{name}: no {DATA[name]} in {data}, left out")
            continue
        source = replace(run.data, path=str(path)) if DATA[name] else run.data  # type: ignore[type-var]
        yield name, replace(run, data=source, loop=replace(run.loop, workers=0, device="cpu"))


def measure(run: Run, each: int) -> dict[str, Any]:
    """Time all of the panel's work in a run, with `each` training steps after every measurement."""
    found: dict[str, list[Seconds]] = {"step": [], "cheap": [], "dear": [], "row": []}
    with tempfile.TemporaryDirectory() as out:
        current = session.build_session(run, Path(out), Dist())
        monitor, every = Monitor(current), current.run.loop.panel_every or 1
        source = training.open_source(current)
        with closing(source.batches()) as batches:
            train(current, source, batches, None, found, 1)
            found["step"].clear()
            terms = None
            for at in (0, *range(every, current.steps, every), current.steps):
                current.step = at
                watch(monitor, terms, found, last=at == current.steps)
                terms = train(current, source, batches, monitor, found, each if at < current.steps else 0) or terms
    return told(current, found)


def watch(monitor: Monitor, terms: Terms | None, found: dict[str, list[Seconds]], last: bool) -> None:
    """Time one measurement, and the verdict as often as the loop asks for it."""
    _, spent = timed(lambda: (monitor.observe(terms, last), [monitor.verdict for _ in range(2)]))
    found["dear" if {"lidar", "energy_gap"} & monitor.last.keys() else "cheap"].append(spent)


def train(
    current: session.Session,
    source: BatchSource,
    batches: Iterator[Batch],
    monitor: Monitor | None,
    found: dict[str, list[Seconds]],
    count: int,
) -> Terms | None:
    """Time training steps, and after each the panel's part of a logged row; the terms of the last step."""
    terms: Terms | None = None
    for _ in range(count):
        batch = next(batches)
        (terms, _, _), spent = timed(partial(training.take_step, current, source, batch, current.run.optim))
        found["step"].append(spent)
        if monitor:
            found["row"].append(timed(partial(row, monitor, terms))[1])
    return terms


def row(monitor: Monitor, terms: Terms) -> None:
    """The panel's part of a logged row."""
    monitor.loss(terms)
    monitor.take()


def told(current: session.Session, found: dict[str, list[Seconds]]) -> dict[str, Any]:
    loop, steps = current.run.loop, current.steps
    shares = {}
    for k, clock in enumerate(Seconds._fields):
        row, step = (statistics.median(spent[k] for spent in found[name]) for name in ("row", "step"))
        watching = sum(spent[k] for name in ("cheap", "dear") for spent in found[name]) + row * (
            steps // loop.log_every
        )
        shares[clock] = round(100 * watching / (steps * step), 2)
    return {
        "steps": steps,
        "batch": current.run.length.batch,
        "bfloat16": loop.amp,
        "panel": {"size": loop.panel_size, "every": loop.panel_every, "views every": loop.views_every},
        "measurements": {name: len(found[name]) for name in ("cheap", "dear")},
        "CPU milliseconds": {
            name: round(1e3 * statistics.median(spent.cpu for spent in spents), 2) for name, spents in found.items()
        },
        "per cent of training": shares,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("JEPAKIT_DATA"))
    parser.add_argument("--steps", type=int, default=2, help="training steps after each measurement")
    parser.add_argument("--recipes", nargs="+", choices=list(DATA), default=list(DATA))
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, run in runs(args.recipes, args.data):
        found[name] = one = measure(run, args.steps)
        costs = ", ".join(f"{what} {ms:.1f}" for what, ms in one["CPU milliseconds"].items())
        share = one["per cent of training"]
        print(
            f"{name:16}{share['cpu']:6.2f} % of CPU time{share['wall']:6.2f} % of wall time   ms: {costs}", flush=True
        )
    save("panel", threads=1, seed=0, recipes=found)


if __name__ == "__main__":
    main()
