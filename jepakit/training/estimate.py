"""Estimates the cost of a run: operations and memory from a few samples, time from real steps of its loop."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Final, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..core import distributed
from ..run import checkpoint, intervals
from ..run.settings import Loop
from ..types import Batch, Rng, Terms
from . import loop
from .monitor import Monitor, are_views_due, online
from .session import Session
from .source import autocast_context

ENDLESS: Final = 10**6  # steps, more than are timed
WARMUP_SECONDS: Final = 8.0  # without the batches that workers read ahead, if that takes less
TIMED_SECONDS: Final = 8.0
MIN_TIMED, MAX_TIMED = 2, 50  # steps
SLOW_STEP: Final = 2.0  # seconds, above which the panel is priced and not measured …
TOO_SLOW_STEP: Final = 60.0  # … and above which no whole step is timed
MAX_WRITTEN: Final = 2**30  # bytes of a checkpoint that is written to time it


class Cost(NamedTuple):
    """What a run would take; memory and time are extrapolated from two small batches. `time_run` tells more of time."""

    parameters: int
    trainable: int
    gigaflops_per_step: float
    memory_bytes: int
    seconds_per_step: float
    seconds: float


def estimate_cost(session: Session, batch: Batch) -> Cost:
    """Estimate the FLOPs, memory and time of a step from a forward and backward pass of a small batch."""
    run, method, size = session.run, session.method, len(batch)
    saved: dict[int, int] = {}

    def record_storage(t: torch.Tensor) -> torch.Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(record_storage, lambda t: t),
    ):
        forward_backward(session, batch, Rng(run.seed))
    begun = time.perf_counter()
    forward_backward(session, batch, Rng(run.seed, step=1))
    seconds = (time.perf_counter() - begun) * run.length.batch / size
    parameters = list(method.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    parameter_bytes = sum(p.numel() * p.element_size() for p in parameters)
    weights = {p.untyped_storage().data_ptr() for p in parameters}
    activations = (
        sum(n for at, n in saved.items() if at not in weights) * run.length.batch // (size * run.length.accumulate)
    )
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        trainable=trainable,
        gigaflops_per_step=counter.get_total_flops() * run.length.batch / size / 1e9,
        memory_bytes=parameter_bytes
        + 3 * trainable * parameters[0].element_size()
        + activations,  # gradients and two moments
        seconds_per_step=seconds,
        seconds=seconds * (run.length.steps or 1),
    )


def forward_backward(session: Session, batch: Batch, rng: Rng) -> None:
    """Run a training step without the update."""
    with autocast_context(session):
        total = session.method(batch, rng).total
    total.backward()


class Timing(NamedTuple):
    """The seconds of a whole training, by what they are spent on; `timed` is the number of steps that were timed.

    `start` is all before the steps, and what the first steps take longer than others; `records` are rows, scores by
    labels and checkpoints.
    """

    seconds_per_step: float
    steps: float
    panel: float
    records: float
    start: float
    timed: int

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.steps + self.panel + self.records + self.start


def time_run(session: Session, rough: float) -> Timing:
    """Time real steps of the run: its loop, its workers, whole batches, and the panel and rows between the steps.

    `rough` is a first guess of the seconds per step. Where a step takes very long it is all there is, and where it
    takes seconds the panel is priced in steps. The session is of no use afterwards. Writes one checkpoint into its
    folder, unless that is large.
    """
    run, steps = session.run, session.steps
    rough = mean_over_ranks(session, rough)
    rows, views = count_panel_rows(steps, run.loop)
    if rough > TOO_SLOW_STEP:
        panel, view = priced_panel(session, rough)
        return Timing(rough, rough * steps, rows * panel + views * view, 0.0, 0.0, 0)
    session.run = replace(run, length=replace(run.length, steps=ENDLESS))
    begun = read_clock(session.dist.device)
    session.dataset.fingerprint()
    monitor = Monitor(session)
    measures = rough <= SLOW_STEP
    if measures:
        monitor.observe()
    ready = read_clock(session.dist.device)
    row = seconds_of_panel(monitor, None) if measures else 0.0
    warmup, pace, timed, terms = time_steps(session)
    read = read_clock(session.dist.device)
    monitor.loss(terms)
    if session.dist.main:
        monitor.said()
    records = (read_clock(session.dist.device) - read) * (steps // run.loop.log_every)
    records += (1 + -(-steps // (run.loop.save_every or 1))) * (seconds_of_scores(session) + seconds_to_save(session))
    if measures:
        first = seconds_of_panel(monitor, terms) - row
        more = seconds_of_panel(monitor, terms) - row if views > 1 else 0.0
        panel = (rows - 1) * row + max(first, 0.0) + (views - 1) * max(more, 0.0)
    else:
        row, view = priced_panel(session, pace)
        panel = rows * row + views * view
    return Timing(pace, pace * steps, panel, records, ready - begun + warmup, timed)


def time_steps(session: Session) -> tuple[float, float, int, Terms]:
    """What the first steps take longer, and the pace of later ones, in seconds; their number, and the last terms."""
    device, source = session.dist.device, loop.open_source(session)
    ahead = 2 + 2 * (session.run.loop.workers or 0)

    def steps(batches: Iterator[Batch], least: int, most: int, seconds: float) -> tuple[float, int, Terms]:
        begun = read_clock(device)
        for k in range(1, most + 1):
            terms = loop.take_step(session, source, next(batches), session.run.optim).terms
            elapsed = read_clock(device) - begun
            # The mean, as every rank has to stop at the same step.
            if k >= least and mean_over_ranks(session, elapsed) > seconds:
                break
        return elapsed, k, terms

    begun = read_clock(device)
    with closing(source.batches()) as batches:
        _, early, _ = steps(batches, 1, ahead, WARMUP_SECONDS)
        warmup = read_clock(device) - begun
        seconds, timed, terms = steps(batches, MIN_TIMED, MAX_TIMED, TIMED_SECONDS)
    pace = seconds / timed
    return max(warmup - early * pace, 0.0), pace, timed, terms


def mean_over_ranks(session: Session, seconds: float) -> float:
    """The mean of a duration over all ranks, the same on every one."""
    return float(distributed.all_reduce_sum(torch.tensor(seconds, device=session.dist.device))) / session.dist.world


def seconds_of_panel(monitor: Monitor, terms: Terms | None) -> float:
    """Seconds of one row of the panel; with terms, of one with the numbers of views."""
    device = monitor.session.dist.device
    begun = read_clock(device)
    monitor.observe(terms, last=terms is not None)
    return read_clock(device) - begun


def seconds_of_scores(session: Session) -> float:
    """Seconds of scoring the encoder by labels, before a checkpoint; 0 where the run does not."""
    wanted = session.run.evals.online if session.dist.main else 0
    if not wanted:
        return 0.0
    labelled = online.choose_labelled(session, wanted)
    begun = read_clock(session.dist.device)
    labelled.judge(session.method)
    return read_clock(session.dist.device) - begun


def seconds_to_save(session: Session) -> float:
    """Seconds of writing a checkpoint; 0 where it would be larger than MAX_WRITTEN bytes, or another rank writes it."""
    size = 3 * sum(p.numel() * p.element_size() for p in session.method.parameters())
    if size > MAX_WRITTEN or not session.dist.main:
        return 0.0
    begun = read_clock(session.dist.device)
    checkpoint.save_checkpoint(session.out, session.step, session.method, session.optimizer, {})
    return read_clock(session.dist.device) - begun


def priced_panel(session: Session, pace: float) -> tuple[float, float]:
    """Seconds of a row of the panel and of the numbers of views, from what they cost in encodings."""
    settings = session.run.loop
    device = str(session.dist.device)
    price = session.run.length.batch * intervals.encodings_per_sample(device, bool(settings.amp))
    return 2 * (settings.panel_size or 0) / price * pace, intervals.VIEWS_PRICE / price * pace


def count_panel_rows(steps: int, settings: Loop) -> tuple[int, int]:
    """The number of panel rows of a run, with that of step 0, and how many of them have the numbers of views."""
    rows = [*range(0, steps, settings.panel_every or 1), steps]
    return len(rows), 1 + sum(are_views_due(step, settings) for step in rows[:-1])


def read_clock(device: torch.device) -> float:
    """The time in seconds, read after the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
