"""The contract clause on methods that unfold in time."""

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from ..methods.predictive import Predictive
from ..types import Batch
from .case import BATCH_SIZE, Case
from .clauses import require


def knows_no_future(case: Case) -> None:
    """Changing frame t + 1, and the action that leads to it, leaves the states up to t bit-equal.

    Streamed states equal those of `encode`; `observe` gets actions if the method needs them.
    """
    if not issubclass(case.method, Predictive):
        return
    method, batch = cast(Predictive, case.build().eval()), case.batch
    with torch.no_grad():
        states = method.encode(batch)
        steps = int(method.encoder.grid[0])  # type: ignore[union-attr, index]
        whole, each = states.reshape(BATCH_SIZE, steps, -1), batch.x.shape[2] // steps
        for t in range(1, steps):
            same = torch.equal(
                method.encode(change_future(batch, t * each)).reshape(BATCH_SIZE, steps, -1)[:, :t], whole[:, :t]
            )
            require(same, f"changing frame {t + 1} changes states up to {t}; a state may read the past alone")
        acts = "action" in method.requires(case.cfg)
        state = None
        for t, (frame, action) in enumerate(split_frames(batch, each)):
            led = action if acts else None
            state = method.start(frame) if state is None else method.observe(state, frame, led)
            close = torch.allclose(state.tokens.reshape(BATCH_SIZE, -1), whole[:, t], atol=1e-5)
            require(close, f"observe gives another state {t + 1} than encode; both see the same frames and actions")


def change_future(batch: Batch, first: int) -> Batch:
    """The batch with other values in the frames from `first` on, and in the actions that lead to them."""
    x, action = batch.x.clone(), batch.action
    x[:, :, first:] = 1 - x[:, :, first:]
    if action is not None:
        action = action.clone()
        action[:, first - 1 :] = 1 - action[:, first - 1 :]
    return replace(batch, x=x, action=action)


def split_frames(batch: Batch, each: int) -> Iterator[tuple[Float[Tensor, "b c ..."], Float[Tensor, "b a"] | None]]:
    """The inputs of `start` and `observe`: `each` time steps of x, and the action that led to the first of them."""
    for t, frame in enumerate(torch.split(batch.x, each, 2)):
        action = None if batch.action is None or t == 0 else batch.action[:, t * each - 1]
        yield frame if each > 1 or batch.x.ndim == 3 else frame[:, :, 0], action
