"""Runs several ranks of a training in one process: threads between which torch.distributed sums tensors."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")
TIMEOUT_SECONDS: Final = 60


def run_ranks(world: int, work: Callable[[int], Result]) -> list[Result]:
    """What `work(rank)` returns on each of `world` ranks, which run at the same time.

    On these ranks, `jepakit.core.distributed` works as under torchrun, as far as a loss on the CPU uses it: rank, world
    size, and sums of tensors, also in the backward pass. It takes milliseconds, where processes take seconds to start.
    Raises what a rank raises.
    """
    own = threading.local()
    barrier = threading.Barrier(world, timeout=TIMEOUT_SECONDS)
    parts: list[Tensor] = [torch.empty(0)] * world

    def is_rank() -> bool:
        return hasattr(own, "rank")

    def all_reduce(tensor: Tensor, op: Any = dist.ReduceOp.SUM, **_: Any) -> None:
        if op != dist.ReduceOp.SUM:
            raise ValueError(f"all_reduce is asked for {op}, but only sums can be checked; write it as sums")
        parts[own.rank] = tensor.detach().clone()
        barrier.wait()
        total = torch.stack(parts).sum(0)
        barrier.wait()  # until all have read the parts, nobody replaces one
        with torch.no_grad():
            tensor.copy_(total)

    def start(rank: int) -> Result:
        own.rank = rank
        try:
            return work(rank)
        except BaseException:
            barrier.abort()  # the others would wait for this rank
            raise

    simulated: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": is_rank,
        "get_world_size": lambda group=None: world if is_rank() else 1,
        "get_rank": lambda group=None: own.rank if is_rank() else 0,
        "all_reduce": all_reduce,
    }
    with patch.multiple(dist, **simulated), ThreadPoolExecutor(world) as pool:
        ranks = [pool.submit(start, rank) for rank in range(world)]
    errors = [error for rank in ranks if (error := rank.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [rank.result() for rank in ranks]
