"""Measures the peak memory of a computation: the bytes of all tensors alive at once, storage by storage."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations create, also in backward passes, from their creation until they are freed.

    The storages of `without` existed before and do not count. Temporary memory inside a kernel is invisible.
    """

    def __init__(self, without: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {t.untyped_storage()._cdata for t in without}
        self.bytes, self.peak = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count the storages of its results."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.note(leaf)
        return out

    def note(self, tensor: Tensor) -> None:
        """Count the tensor's storage from now on, until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self.forget_storage, key, size).atexit = False

    def forget_storage(self, key: int, size: int) -> None:
        """Forget a freed storage, because its address may be reused."""
        self.known.discard(key)
        self.bytes -= size


def measure_peak(work: Callable[[], Any], without: Iterable[Tensor] = ()) -> int:
    """The peak bytes of tensors alive at once in `work`, including its result but not the tensors in `without`."""
    with Alive(without) as alive:
        work()
    return int(alive.peak)
