"""Checks of the installation and of the machine's speed at reading and computing, as rows for a bug report."""

import importlib.metadata
import math
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from . import data, methods
from .core import devices
from .core.version import VERSION
from .data import loader
from .types import Batch, Rng, Signal

Row = tuple[str, str]
BUSY_LOAD = 0.75  # processes per core above which a second thread mostly waits
PACKAGES = ("torch", "numpy", "pillow", "safetensors", "kornia", "pyarrow", "scikit-learn", "jsonargparse")


def diagnose(path: str | None = None) -> list[Row]:
    """(name, value) rows: versions, devices, threads, bfloat16, a small training step and free disk space.

    With `path`, also how fast its items are read, compared with an I-JEPA training step on them. Raises ValueError if
    the path cannot be opened.
    """
    rows = [*version_rows(), *machine_rows(), small_step()]
    return [*rows, *reading_rows(path)] if path else rows


def version_rows() -> Iterator[Row]:
    """Versions of Python, jepakit and the packages it relies on."""
    yield "python", f"{platform.python_version()} ({platform.platform()})"
    yield "jepakit", VERSION
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "missing: pip install jepakit again"


def machine_rows() -> Iterator[Row]:
    """Rows about the processor, the devices, bfloat16 and the free disk space."""
    yield (
        "processor",
        f"{_processor_name()}, {devices.available_cores()} cores, torch uses {torch.get_num_threads()} threads",
    )
    if hint := crowding_warning(torch.get_num_threads(), devices.available_cores(), load_per_core()):
        yield "threads", hint
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        yield f"cuda:{i}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    device, why = devices.best_device()
    yield "device", f"{device} ({why})"
    pays, why = devices.choose_amp(device, "float32")
    yield "bfloat16", f"{'on' if pays else 'off'} ({why})"
    yield "free disk", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB where you are"


def load_per_core() -> float:
    """The number of processes waiting to compute in the last minute, per core of the machine; 0 if unknown."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


def crowding_warning(threads: int, cores: int, load: float) -> str | None:
    """A warning if torch's threads have to wait for a core; `cores` are this process's, and `load` is per core.

    Threads wait for one another several times per operation, so a thread without a core delays all the others.
    """
    if threads > cores:
        why = f"torch uses {threads} threads, more than this process has cores ({cores})"
    elif threads > 1 and load >= BUSY_LOAD:
        why = f"{load:.1f} processes per core were busy in the last minute, and torch uses {threads} threads"
    else:
        return None
    best = 1 if load >= BUSY_LOAD else cores
    measured = "we measured 60 to 110 samples/s instead of 400"
    return f"{why}: a step can take several times as long ({measured}); set OMP_NUM_THREADS={best}"


def small_step() -> Row:
    """The time of a forward and backward pass of I-JEPA on random pictures, in both precisions."""
    signal = Signal(channels=3, size=(32, 32))
    model = methods.build(methods.load("ijepa").Config.tiny(signal), signal)
    batch = Batch(torch.rand(16, 3, 32, 32, generator=Rng(0).generator()))
    try:
        times = {name: step_seconds(model, batch, amp) for name, amp in (("float32", False), ("bfloat16", True))}
    except (RuntimeError, FloatingPointError) as error:
        return "small step", f"FAILED: {error}"
    return "small step", ", ".join(f"{1000 * seconds:.1f} ms in {name}" for name, seconds in times.items())


def reading_rows(path: str) -> Iterator[Row]:
    """Rows with the speed of reading the data, the speed of training on them, and which of the two is the limit."""
    kind, reason = data.guess_kind(path)
    dataset = data.load(kind)(path=path).open()
    yield "data", f"{len(dataset)} items, read as {kind} ({reason})"
    signal = dataset.signal()
    yield "signal", f"{signal.channels} channels, size {' × '.join(map(str, signal.size))}"
    batch, workers = min(16, len(dataset)), min(8, devices.available_cores())
    seconds, last = read_seconds(dataset, signal, batch, workers)
    yield "reading", f"{batch / seconds:.0f} items/s with {workers} workers"
    step = _training_step(signal, last)
    yield "computing", f"{batch / step:.0f} items/s (I-JEPA, vit_tiny, batch {batch}, at that size)"
    yield "limit", limit_sentence(seconds, step)


def limit_sentence(reading: float, computing: float) -> str:
    """A sentence on which of the two times, in seconds per batch, limits training, and what to do about it."""
    if reading < computing:
        return f"computing: reading is {computing / reading:.1f} × as fast"
    return f"reading: computing is {reading / computing:.1f} × as fast; use smaller files or more workers"


def read_seconds(dataset: data.Dataset, signal: Signal, batch: int, workers: int) -> tuple[float, Batch]:
    """The mean seconds per batch once the workers are warm, and the last batch."""
    warm, count = 2 + 2 * workers, 12
    # The stream is longer than what is read: workers with nothing left to do would make the last batches look free.
    stop = 2 * warm + count
    stream = loader.batches(dataset, signal, seed=0, batch=batch, start=0, stop=stop, workers=workers)
    marks = []
    for item in islice(stream, warm + count):
        last = item
        marks.append(time.perf_counter())
    stream.close()  # ends the workers
    return (marks[-1] - marks[warm - 1]) / count, last


def step_seconds(model: Any, batch: Batch, amp: bool, repeats: int = 3) -> float:
    """Median seconds of a forward and backward pass, after one to warm up. Raises FloatingPointError on a bad loss."""

    def step() -> None:
        model.zero_grad()
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=amp):
            loss = model(batch, Rng(0)).total
        loss.backward()
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is {loss.item()}")

    return statistics.median([_seconds_of(step) for _ in range(repeats + 1)][1:])


def _training_step(signal: Signal, batch: Batch) -> float:
    ijepa = methods.load("ijepa")
    cfg, _ = ijepa.Method.fit_config(ijepa.Config(), signal)
    device, _ = devices.best_device()
    pays, _ = devices.choose_amp(device, "float32")
    return step_seconds(methods.build(cfg, signal).to(device), batch.to(device), pays)


def _seconds_of(step: Callable[[], None]) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
