"""The target network: a copy of the online module that follows it as an exponential moving average (EMA)."""

from copy import deepcopy
from typing import Literal, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)
Buffers = Literal["copy", "batch"]


def check(decays: tuple[float, float]) -> None:
    """Raise ValueError if the first or the last decay is outside [0, 1]."""
    if not all(0 <= decay <= 1 for decay in decays):
        raise ValueError(f"ema is {decays}; give two decays from 0 to 1, e.g. (0.996, 1.0)")


def target(online: M) -> M:
    """A copy of `online` in evaluation mode whose parameters take no gradient."""
    return deepcopy(online).requires_grad_(False).eval()


@torch.no_grad()
def update(target: nn.Module, online: nn.Module, decay: float, buffers: Buffers = "copy") -> None:
    """target ← decay · target + (1 − decay) · online, in place, parameter by parameter.

    Buffers are copied from `online`; with `buffers="batch"` they follow the target's own batches instead.
    """
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1.0 - decay)
    if buffers == "copy":
        # Buffers are copied, not averaged: running counts have no meaningful mean.
        for mine, theirs in zip(target.buffers(), online.buffers(), strict=True):
            mine.copy_(theirs)
