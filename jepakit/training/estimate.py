"""Estimates the cost of a run from two real micro-batches: parameters, operations, memory and time."""

import time
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..types import Batch, Rng
from .session import Session
from .source import autocast_context


class Cost(NamedTuple):
    """The estimated cost of a run; memory and time are extrapolated from two real micro-batches."""

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
