"""Batches: batch k is a pure function of (seed, k), whatever the number of workers, ranks and restarts.

One item of the torch DataLoader is one whole batch, so that workers need no order among themselves. 8-bit
pixels leave as uint8; `Batch.to` makes them floats, where they are needed.
"""

import os
import signal as signals
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..types import Batch, Signal
from .base import Corrupt, Dataset, Settings
from .batches import OrderedBatches, Packed, Source, TrainBatches
from .cache import hold
from .images.augment import Augment
from .scanpaths.augment import GazeAugment
from .scanpaths.batches import GazeBatches, OrderedGaze
from .scanpaths.dataset import Scanpaths
from .series.augment import SeriesAugment
from .series.batches import OrderedSeries, SeriesBatches
from .series.dataset import Series

Item = TypeVar("Item")


class Batches(Iterator[Batch]):
    """An iterator of batches. `skipped` names the items met so far that could not be read, each with the reason."""

    def __init__(self, source: Source, start: int, stop: int, workers: int) -> None:
        self.skipped: dict[str, str] = {}
        self._source = source
        self._packed: Iterator[Packed | str] | None = iter(dataloader(_Careful(source), start, stop, workers))

    def __next__(self) -> Batch:
        while self._packed is not None:
            packed = next(self._packed)
            if isinstance(packed, str):
                raise ValueError(packed)
            self.skipped.update(packed.skipped)
            if len(packed.id):
                return self._source.unpack(packed)
        raise StopIteration

    def close(self) -> None:
        """End the workers; the iterator is exhausted afterwards."""
        self._packed = None


@dataclass(frozen=True, eq=False)
class _Careful(TorchDataset[Packed | str]):
    """A user's mistake comes back as its sentence: raised in a worker, it would arrive wrapped in a traceback."""

    source: Source

    def __getitem__(self, k: int) -> Packed | str:
        try:
            return self.source[k]
        except ValueError as error:
            return str(error)


def batches(
    dataset: Dataset,
    cfg: Settings,
    signal: Signal,
    *,
    seed: int,
    batch: int,
    start: int,
    stop: int,
    workers: int = 0,
    offset: int = 0,
    total: int = 0,
    whole: bool = True,
) -> Batches:
    """Training batches `start` … `stop` - 1 of `batch` samples, shuffled anew each epoch, incomplete batches dropped.

    Samples `offset` … of a global batch of `total` (0: `batch`) are yielded, so ranks share one order. An unreadable
    item gives way to the next readable one, or raises ValueError where `cfg.corrupt` is "fail". Small images are
    decoded once, before the first batch (see `hold`). Without `whole`, for who reads views only, no further picture is
    cut: `Batch.x` is the first view. Raises ValueError where there are fewer items than one global batch holds.
    """
    _check_batch(batch)
    total = total or batch
    if len(dataset) < total:
        raise ValueError(
            f"the data hold {len(dataset)} samples, fewer than one batch of {total}; "
            f"set a batch of at most {len(dataset)}"
        )
    if offset + batch > total:
        raise ValueError(
            f"samples {offset} … {offset + batch} do not lie in a global batch of {total}; give a part of it"
        )
    cfg.augment.check(dataset.source.channels if isinstance(dataset, Scanpaths) else dataset.channels)
    whole = whole or not cfg.augment.views
    source: Source
    if isinstance(dataset, Series) and isinstance(cfg.augment, SeriesAugment):
        source = SeriesBatches(dataset, cfg.augment, signal, seed, batch, offset, total, whole)
    elif isinstance(dataset, Scanpaths):
        assert isinstance(cfg.augment, GazeAugment)
        source = GazeBatches(dataset, cfg.augment, cfg.corrupt, signal, seed, batch, offset, total, whole)
    else:
        assert isinstance(cfg.augment, Augment)
        source = TrainBatches(hold(dataset), cfg.augment, cfg.corrupt, signal, seed, batch, offset, total, whole)
    return Batches(source, start, stop, workers)


def stream(
    dataset: Dataset, signal: Signal, *, batch: int, workers: int = 0, start: int = 0, corrupt: Corrupt = "skip"
) -> Batches:
    """All samples in order, each resized and cut to its centre; the last batch may be smaller.

    `start` is the first sample. Unreadable items are left out (`id` says which are there) and listed in `skipped`, or
    raise ValueError where `corrupt` is "fail". Raises ValueError where the data have other channels than the signal.
    """
    _check_batch(batch)
    check_channels(dataset, signal)
    source: Source
    if isinstance(dataset, Series):
        source = OrderedSeries(dataset, signal, batch, start)
    elif isinstance(dataset, Scanpaths):
        source = OrderedGaze(dataset, corrupt, signal, batch, start)
    else:
        source = OrderedBatches(dataset, corrupt, signal, batch, start)
    return Batches(source, 0, -(-(len(dataset) - start) // batch), workers)


def check_channels(dataset: Dataset, signal: Signal) -> None:
    """Raises ValueError where the data have other channels than the signal."""
    if dataset.channels != signal.channels:
        raise ValueError(
            f"the data have {dataset.channels} channels but the model takes {signal.channels}; "
            f"give data with {signal.channels}"
        )


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise ValueError(f"batch is {batch}; give at least one sample per batch")


def dataloader(source: TorchDataset[Item], start: int, stop: int, workers: int) -> DataLoader[Item]:
    """Items `start` … `stop` - 1 of `source` in order, made by that many processes (0: this one) and not collated."""
    options: dict[str, Any] = {}
    if workers:
        options = {"worker_init_fn": _start_worker, "prefetch_factor": 2}
        # Forked workers share what is in memory; torch keeps to one thread in each.
        options["multiprocessing_context"] = "fork" if sys.platform == "linux" else None
    return DataLoader(
        source,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        collate_fn=_same,
        # Without a generator of its own the DataLoader draws from the global one.
        generator=torch.Generator(),
        **options,
    )


def _same(item: Any) -> Any:
    return item


def _start_worker(worker: int) -> None:
    # Ctrl-C and SIGTERM are the main process's to handle, also where they reach all of its processes, as those of a
    # batch system do: a worker ends when it is told to, or orphaned.
    signals.signal(signals.SIGINT, signals.SIG_IGN)
    if not hasattr(signals, "sigwaitinfo"):
        signals.signal(signals.SIGTERM, signals.SIG_DFL)
        return
    signals.pthread_sigmask(signals.SIG_BLOCK, {signals.SIGTERM})
    threading.Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    """End this process on a SIGTERM, but only one of its parent, who sends it to workers that would outlive it."""
    while signals.sigwaitinfo({signals.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)  # With another code PyTorch would report a failure in the parent.
