"""Batches of a data set: batch k is a pure function of (seed, k) for any number of workers, ranks and restarts.

One item of the torch DataLoader is one whole batch, so workers need no order among themselves. 8-bit
pixels leave as uint8; `Batch.to` converts them to floats.
"""

import os
import signal as signals
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..types import Batch, Rng, Samples, Signal
from .base import Dataset
from .collation import Corrupt, refuse_unreadable, stack_samples

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Draws(TorchDataset[Samples]):
    """Item k is training batch k: `batch` samples from `offset` on, of a global batch of `total`."""

    dataset: Dataset
    signal: Signal
    seed: int
    batch: int
    offset: int
    total: int
    include_x: bool = True

    def __getitem__(self, k: int) -> Samples:
        ids, rng = batch_ids(k, len(self.dataset), self.seed, self.batch, self.offset, self.total, self.dataset.group)
        return self.dataset.draw(ids, rng, self.signal, self.include_x)


@dataclass(frozen=True, eq=False)
class Readings(TorchDataset[Samples]):
    """Item k is the k-th batch from sample `start` on, in order, not augmented."""

    dataset: Dataset
    signal: Signal
    batch: int
    start: int
    corrupt: Corrupt

    def __getitem__(self, k: int) -> Samples:
        first = self.start + k * self.batch
        ids = np.arange(first, min(first + self.batch, len(self.dataset)), dtype=np.int64)
        found = self.dataset.read(ids, self.signal.size)
        refuse_unreadable(found.skipped, self.corrupt)
        return found


class Batches(Iterator[Batch]):
    """An iterator of batches. `skipped` maps each unreadable item met so far to the reason."""

    def __init__(self, source: TorchDataset[Samples], start: int, stop: int, workers: int) -> None:
        self.skipped: dict[str, str] = {}
        self._samples: Iterator[Samples | str] | None = iter(
            make_dataloader(_CatchMistakes(source), start, stop, workers)
        )

    def __next__(self) -> Batch:
        while self._samples is not None:
            found = next(self._samples)
            if isinstance(found, str):
                raise ValueError(found)
            self.skipped.update(found.skipped)
            if len(found.id):
                return found.batch()
        raise StopIteration

    def close(self) -> None:
        """End the workers; the iterator is exhausted afterwards."""
        self._samples = None


@dataclass(frozen=True, eq=False)
class _CatchMistakes(TorchDataset[Samples | str]):
    """Returns a user's mistake as its sentence: an exception raised in a worker would arrive wrapped in a traceback."""

    source: TorchDataset[Samples]

    def __getitem__(self, k: int) -> Samples | str:
        try:
            return self.source[k]
        except ValueError as error:
            return str(error)


def batches(
    dataset: Dataset,
    signal: Signal,
    *,
    seed: int,
    batch: int,
    start: int,
    stop: int,
    workers: int = 0,
    offset: int = 0,
    total: int = 0,
    include_x: bool = True,
) -> Batches:
    """Training batches `start` … `stop` - 1 of `batch` samples, reshuffled each epoch; incomplete batches are dropped.

    Yields samples `offset` … of a global batch of `total` (0: `batch`), so ranks share one order. Samples that belong
    together (`Dataset.group`) follow one another, so batches of a multiple of these hold whole groups. The next
    readable item replaces an unreadable one, or ValueError is raised if the data's `corrupt` is "fail". Small images
    are decoded once, before the first batch. Without `include_x`, for methods that read only views, no further image
    is cropped: `Batch.x` is the first view. Raises ValueError if there are fewer items than one global batch holds.
    """
    _check_batch(batch)
    total = total or batch
    if (held := dataset.samples_per_epoch) < total:
        raise ValueError(
            f"the data hold {held} samples, fewer than one batch of {total}; set a batch of at most {held}"
        )
    if offset + batch > total:
        raise ValueError(
            f"samples {offset} … {offset + batch} do not lie in a global batch of {total}; give a part of it"
        )
    dataset.check_augment()
    include_x = include_x or not dataset.cfg.augment.views
    draws = Draws(dataset.in_memory(), signal, seed, batch, offset, total, include_x)
    return Batches(draws, start, stop, workers)


def read_stream(
    dataset: Dataset, signal: Signal, *, batch: int, workers: int = 0, start: int = 0, corrupt: Corrupt = "skip"
) -> Batches:
    """All samples in order, not augmented; the last batch may be smaller.

    `start` is the first sample. Unreadable items are left out (`id` lists the items present) and listed in `skipped`,
    or raise ValueError if `corrupt` is "fail". Raises ValueError if the data and the signal differ in channels.
    """
    _check_batch(batch)
    check_channels(dataset, signal)
    readings = Readings(dataset, signal, batch, start, corrupt)
    return Batches(readings, 0, -(-(len(dataset) - start) // batch), workers)


def fixed_sample(dataset: Dataset, signal: Signal, count: int) -> Batch:
    """Up to `count` readable items spread over the data, with all that belongs to steps; the same on every call.

    `unit` of their x equals that of `read_stream`. 8-bit items stay uint8, which takes a quarter of the memory.
    """
    found: list[Batch] = []
    order = spread_order(dataset)
    for i in range(len(order)):
        if len(found) == count:
            break
        one = dataset.read(order[i : i + 1], signal.size).batch()
        found += [one] * len(one)
    fields: dict[str, Any] = {}
    for name in ("action", "proprio", "reward", "done"):
        parts = [getattr(one, name) for one in found if getattr(one, name) is not None]
        fields |= {name: torch.cat(parts)} if parts else {}
    return Batch(stack_samples([one.x[0] for one in found]), **fields)


def spread_order(dataset: Dataset) -> Int64[np.ndarray, " n"]:
    """A fixed order of the samples, for selections that must be the same on every call."""
    return torch.randperm(len(dataset), generator=Rng(0).fork("data", "sample").generator()).numpy()


def check_channels(dataset: Dataset, signal: Signal) -> None:
    """Raises ValueError if the data and the signal differ in channels."""
    if dataset.channels != signal.channels:
        raise ValueError(
            f"the data have {dataset.channels} channels but the model takes {signal.channels}; "
            f"give data with {signal.channels}"
        )


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise ValueError(f"batch is {batch}; give at least one sample per batch")


def batch_ids(
    k: int, items: int, seed: int, batch: int, offset: int, total: int, group: int = 1
) -> tuple[Int64[np.ndarray, " b"], Rng]:
    """The ids of training batch k, and the random stream for its epoch's augmentation.

    A rank's `batch` samples start at `offset` in the `total` samples of the global batch. `group` samples in a row stay
    together.
    """
    epoch, j = divmod(k, items // group * group // total)
    first = j * total + offset
    return epoch_order(items, seed, epoch, group)[first : first + batch], Rng(seed, epoch).fork("data")


@lru_cache(maxsize=2)
def epoch_order(n: int, seed: int, epoch: int, group: int = 1) -> Int64[np.ndarray, " m"]:
    """The order of n samples in one epoch; whole groups are shuffled, and an incomplete one is left out."""
    order = torch.randperm(n // group, generator=Rng(seed, epoch).fork("data", "order").generator()).numpy()
    return order if group == 1 else (order[:, None] * group + np.arange(group)).reshape(-1)


def make_dataloader(source: TorchDataset[Item], start: int, stop: int, workers: int) -> DataLoader[Item]:
    """Items `start` … `stop` - 1 of `source` in order, not collated, made by `workers` processes (0: this one)."""
    options: dict[str, Any] = {}
    if workers:
        options = {"worker_init_fn": _start_worker, "prefetch_factor": 2}
        # Forked workers share memory with their parent; torch uses one thread in each.
        options["multiprocessing_context"] = "fork" if sys.platform == "linux" else None
    return DataLoader(
        source,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        collate_fn=_uncollated,
        # Without its own generator the DataLoader draws from the global one.
        generator=torch.Generator(),
        **options,
    )


def _uncollated(item: Any) -> Any:
    return item


def _start_worker(worker: int) -> None:
    # The main process handles Ctrl-C and SIGTERM, even if a batch system sends them to all processes: a worker ends
    # when it is told to, or when it is orphaned.
    signals.signal(signals.SIGINT, signals.SIG_IGN)
    if not hasattr(signals, "sigwaitinfo"):
        signals.signal(signals.SIGTERM, signals.SIG_DFL)
        return
    signals.pthread_sigmask(signals.SIG_BLOCK, {signals.SIGTERM})
    threading.Thread(target=_end_on_request, daemon=True).start()


def _end_on_request() -> None:
    """End this process on SIGTERM, but only from its parent, which sends it to workers that would outlive it."""
    while signals.sigwaitinfo({signals.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)  # With another code PyTorch would report a failure in the parent.
