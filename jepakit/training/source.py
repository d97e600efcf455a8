"""Provides the batches of a run, and computes the gradient of each.

The loop asks a source for batches, for the gradient of each, and for the loss terms to log. A source may wait for data,
choose data from the method's predictions, and use `feedback` on each step. `session.state` holds what it needs to
continue after a restart: tensors, and a position in JSON. `EpochSource` reads a data set in epochs;
`stream.source.StreamSource` reads frames as they arrive.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..core import distributed, files, schedules
from ..data import loader
from ..run import optim
from ..types import Batch, Rng, Terms, averaged
from .session import Session, SourceState

Idle = Callable[[], bool]
"""Called while a source waits for data; returns whether to stop waiting."""


def keep_waiting() -> bool:
    """The default `Idle`: always keep waiting."""
    return False


class BatchSource(ABC):
    """The batches of one training, starting at `session.step` and `session.state`.

    An `open_ended` source ends with its data, and the loop measures and saves early. `empty` is the error sentence if
    the source ends before the first batch. `messages` are sentences not yet shown to the user.
    """

    open_ended: ClassVar[bool] = False
    empty: ClassVar[str] = "the data hold no batch to learn from"

    def __init__(self, session: Session) -> None:
        self.session = session
        self.last: Terms | None = None

    @abstractmethod
    def batches(self, idle: Idle = keep_waiting) -> Generator[Batch]:
        """This rank's share of every batch, on its device, to the end of the run or of the data."""

    @abstractmethod
    def example_batch(self) -> Batch:
        """A small batch for estimating the cost of a step; does not advance `batches`."""

    def store_state(self) -> None:
        """Before a checkpoint: store in `session.state` what `batches` needs to continue from here."""
        self.session.state = SourceState()

    def feedback(self, terms: Terms) -> None:
        """After a step: receive its loss terms."""
        self.last = terms

    @property
    def progress(self) -> float:
        """The progress of the schedules, from 0 to 1."""
        return schedules.run_progress(self.session.step, self.session.steps)

    @property
    def where(self) -> str:
        """The text after "step 7" in a sentence, such as " of 300"."""
        return f" of {self.session.steps}"

    @property
    def has_pending_row(self) -> bool:
        """Whether some steps have not been reported in a row, for sources whose rows cover several steps."""
        return False

    def row_terms(self) -> Terms | None:
        """The loss terms for the next row: those of the last step; None before the first step."""
        return self.last

    def clear_terms(self) -> None:
        """After a row: reset the sums for the next row."""
        self.last = None

    def take_messages(self) -> list[str]:
        """The messages since the last call; clears them."""
        return []

    def gradients(self, batch: Batch) -> tuple[Terms, torch.Tensor]:
        """Set the gradients of one global step, and return its terms and the gradient's norm.

        By default, runs backward on this rank's share in micro-batches; the terms are those of the global batch. If
        they are not finite, saves the batch's ids and raises FloatingPointError.
        """
        session, parts = self.session, self.session.run.length.accumulate
        size = len(batch) // parts
        terms = []
        for i in range(parts):
            offset = session.dist.rank * len(batch) + i * size
            rng = Rng(session.run.seed, session.step, offset=offset, total=session.run.length.batch)
            with no_sync(session.model, last=i == parts - 1), autocast_context(session):
                part = session.model(batch[i * size : (i + 1) * size], rng)
            (part.total / parts).backward()
            terms.append(part)
        whole, norm = average_terms(terms), optim.clip_gradients(session.method.parameters(), session.run.optim.clip)
        if not torch.isfinite(whole.total + norm):
            refuse_batch(session, batch, whole, norm)
        return whole, norm


class EpochSource(BatchSource):
    """A data set in epochs, reshuffled each time. Batch k is a pure function of (seed, k), so no state is stored."""

    def batches(self, idle: Idle = keep_waiting) -> Generator[Batch]:
        """This rank's share of every global batch from `session.step` to the end; records skipped samples."""
        session = self.session
        run, dist = session.run, session.dist
        local = run.length.batch // dist.world
        loaded = loader.batches(
            session.dataset,
            session.method.signal,
            seed=run.seed,
            batch=local,
            start=session.step,
            stop=session.steps,
            workers=run.loop.workers or 0,
            offset=dist.rank * local,
            total=run.length.batch,
            include_x=session.method.reads_x,
        )
        with closing(loaded):
            for batch in loaded:
                session.skipped.update(loaded.skipped)
                yield batch.to(dist.device, getattr(torch, run.loop.dtype))

    def example_batch(self) -> Batch:
        """Up to four samples of the first batch."""
        with closing(self.batches()) as batches:
            return next(batches)[: min(4, self.session.run.length.batch)]


def average_terms(terms: list[Terms]) -> Terms:
    """The mean over equal micro-batches and all ranks; `compared` is this rank's."""
    world, own = distributed.world_size(), averaged(terms, [1 / len(terms)] * len(terms))

    def mean_over_ranks(entries: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {k: distributed.all_reduce_sum(v.detach()) / world for k, v in entries.items()}

    return replace(own, loss=mean_over_ranks(own.loss), log=mean_over_ranks(own.log))


def refuse_batch(session: Session, batch: Batch, terms: Terms, norm: torch.Tensor) -> None:
    """Save the ids of a global batch with a non-finite loss or gradient, and raise FloatingPointError."""
    names = distributed.merge_ranks({session.dataset.name(int(i)): "" for i in batch.id})
    path = session.out / f"not-finite-step-{session.step:08d}.json"
    values = {k: str(float(v)) for k, v in terms.loss.items()}
    if session.dist.main:
        content = {"step": session.step, "loss": values, "gradient_norm": str(float(norm)), "ids": [*names]}
        files.write_json(path, content)
    raise FloatingPointError(
        f"the loss is {float(terms.total)} and the gradient's norm {float(norm)} at step {session.step}; the batch's "
        f"ids are in {path}. Lower --optim.lr, set --optim.clip 1, or look at those samples"
    )


def autocast_context(session: Session) -> AbstractContextManager[Any]:
    """bfloat16 autocast if the run uses it."""
    if not session.run.loop.amp:
        return nullcontext()
    return torch.autocast(session.dist.device.type, torch.bfloat16)


def no_sync(model: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Synchronise gradients across ranks once per step, at the last micro-batch."""
    if last or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()
