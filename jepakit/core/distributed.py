"""The same few functions for one process and for several started by torchrun; in one process each is the identity.

Gradients follow one rule: the training loss is the mean over ranks of the local losses, and DDP averages gradients
over ranks. So the backward pass of a sum over ranks is again a sum over ranks, on whichever rank the loss is computed,
and two ranks get the loss and the gradient that one process gets for the same global batch.
"""

import importlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Dist:
    """This process: its number `rank` among `world_size` processes, and the device it computes on."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this process writes the files and reports progress."""
        return self.rank == 0


@contextmanager
def process_group(device: str = "cpu") -> Iterator[Dist]:
    """Join the processes that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK), and leave them at the end.

    `device` is "cpu" (gloo), "cuda" (nccl, one device per local rank) or any other single device. If WORLD_SIZE is
    missing or 1, nothing is set up. Raises ValueError if the environment is incomplete or there are too few devices.
    """
    kind = torch.device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Dist(device=kind)
        return
    missing = sorted({"RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} - os.environ.keys())
    if missing:
        raise ValueError(f"WORLD_SIZE is {world} but {', '.join(missing)} is not set; start with torchrun")
    if kind.type == "cuda":
        kind = _local_device(int(os.environ["LOCAL_RANK"]))
    # DDP imports this module, which would keep a group that already exists: its threads would then outlive the
    # interpreter's shutdown, where one that releases a tensor aborts the process.
    importlib.import_module("torch._dynamo")
    dist.init_process_group("nccl" if kind.type == "cuda" else "gloo")
    try:
        yield Dist(dist.get_rank(), dist.get_world_size(), kind)
        # All leave together: a process that left early would close the connections of those still working.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def process_rank() -> int:
    """The number of this process; 0 if it is the only one."""
    return dist.get_rank() if _is_distributed() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _is_distributed() else 1


def wait_for_all() -> None:
    """Wait until every process has reached this call."""
    if _is_distributed():
        dist.barrier()


def merge_ranks(values: dict[str, str]) -> dict[str, str]:
    """The entries of all ranks on every rank, in order of rank."""
    if not _is_distributed():
        return values
    # JSON, because unpickling could run code.
    text = torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)
    return {key: value for part in _gather_bytes(text) for key, value in json.loads(bytes(part.tolist())).items()}


def all_reduce_sum(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sum over all ranks, on every rank; differentiable."""
    return _SumOverRanks.apply(x) if _is_distributed() else x  # type: ignore[no-untyped-call]


def all_gather(x: Float[Tensor, "n *shape"]) -> Float[Tensor, "_ *shape"]:
    """The rows of all ranks on every rank, in order of rank; differentiable. Every rank must have equally many."""
    if not _is_distributed():
        return x
    # A sum of parts that are zero elsewhere, so that a single differentiable collective is enough for everything.
    return all_reduce_sum(torch.cat([x if r == process_rank() else torch.zeros_like(x) for r in range(world_size())]))


def rank_counts(count: int, device: torch.device | str = "cpu") -> list[int]:
    """The `count` of every rank, in order of rank."""
    if not _is_distributed():
        return [count]
    own = torch.zeros(world_size(), dtype=torch.float64, device=device)
    own[process_rank()] = count
    return [int(n) for n in all_reduce_sum(own).tolist()]


def gather_rows(x: Float[Tensor, "n d"], own: Bool[Tensor, " k"]) -> Float[Tensor, "k d"]:
    """k rows on every rank, of which this rank holds those that are `own`; every row has exactly one owner."""
    if not _is_distributed():
        return x
    # Not in half precision, which not every backend sums.
    rows = torch.zeros(len(own), *x.shape[1:], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    rows[own.to(x.device)] = x.to(rows.dtype)
    return all_reduce_sum(rows)


def global_moments(
    x: Float[Tensor, "n d"],
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"], Float[Tensor, ""]]:
    """Mean, biased variance and number of rows over all ranks.

    A second pass takes the variance around the global mean, because cancellation would cost half the digits.
    """
    count = all_reduce_sum(x.new_tensor(float(len(x)))).clamp(min=1)
    mean = all_reduce_sum(x.sum(0)) / count
    return mean, all_reduce_sum((x - mean).square().sum(0)) / count, count


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _gather_bytes(data: UInt8[Tensor, " n"]) -> list[UInt8[Tensor, " _"]]:
    """The bytes of every rank, in order of rank; ranks may hold different numbers of them."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size())]
    dist.all_gather(lengths, torch.tensor([len(data)], device=device))
    longest = int(torch.cat(lengths).max())
    parts = [torch.empty(longest, dtype=torch.uint8, device=device) for _ in lengths]
    dist.all_gather(parts, torch.nn.functional.pad(data, (0, longest - len(data))).to(device))
    return [part[: int(length)].cpu() for part, length in zip(parts, lengths, strict=True)]


def _local_device(local: int) -> torch.device:
    if local >= torch.cuda.device_count():
        raise ValueError(
            f"local rank {local} has no GPU ({torch.cuda.device_count()} visible); start as many processes as GPUs"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.contiguous().clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        # Applied, not called, so that second derivatives are right too.
        return _SumOverRanks.apply(grad_outputs[0])  # type: ignore[no-any-return, no-untyped-call]
