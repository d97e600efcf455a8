"""The clause on methods that unfold in time."""

from typing import cast

import torch

from ..methods.predictive import Predictive
from ..types import State
from .case import BATCH, Case
from .clauses import require


def knows_no_future(case: Case) -> None:
    """Changing frame t + 1 leaves the states up to t equal to the bit; streamed states are those of `encode`."""
    if not issubclass(case.method, Predictive):
        return
    method, x = cast(Predictive, case.build().eval()), case.batch.x
    with torch.no_grad():
        states = method.encode(x)
        steps = int(method.encoder.grid[0])  # type: ignore[union-attr, index]
        whole, each = states.reshape(BATCH, steps, -1), x.shape[2] // steps
        for t in range(1, steps):
            other = x.clone()
            other[:, :, t * each :] = 1 - other[:, :, t * each :]
            same = torch.equal(method.encode(other).reshape(BATCH, steps, -1)[:, :t], whole[:, :t])
            require(same, f"changing frame {t + 1} changes states up to {t}; a state may read the past alone")
        frames = [f if each > 1 or x.ndim == 3 else f[:, :, 0] for f in torch.split(x, each, 2)]
        state: State = method.start(frames[0])
        for t, frame in enumerate(frames):
            state = state if t == 0 else method.observe(state, frame)
            close = torch.allclose(state.tokens.reshape(BATCH, -1), whole[:, t], atol=1e-5)
            require(close, f"observe gives another state {t + 1} than encode; both see the same frames")
