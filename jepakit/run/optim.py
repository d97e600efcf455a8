"""Defines AdamW, its parameter groups, and schedules as functions progress → value.

Progress goes from 0 to 1 over the optimiser steps of a run: step 0 of S has progress 0 and step S − 1 has progress 1,
so the first step uses exactly the start values and the last step exactly the end values. After the end, the end values
apply.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.notes import Note
from ..core.schedules import cosine_schedule, linear_schedule


@dataclass(frozen=True)
class Optim:
    """AdamW and its schedules.

    The learning rate rises linearly from `start_lr` to `lr` over the fraction `warmup` of the run, then follows a
    cosine to `final_lr`; weight decay goes from `weight_decay` to `final_weight_decay` along a cosine. `clip` limits
    the global gradient norm; 0 disables clipping.
    """

    lr: float = 1e-3
    start_lr: float = 2e-4
    final_lr: float = 1e-6
    warmup: float = 0.1
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup:g}; give a fraction of the run, from 0 to below 1")
        for name in ("lr", "start_lr", "final_lr", "weight_decay", "final_weight_decay", "clip"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name):g}; give a finite number of 0 or more")

    def without_schedule(self) -> tuple["Optim", list[Note]]:
        """These settings without any schedule, for a run of unknown length, with a note if that changes them."""
        decay = self.weight_decay
        steady = replace(self, start_lr=self.lr, final_lr=self.lr, warmup=0.0, final_weight_decay=decay)
        if steady == self:
            return self, []
        why = "the end of a stream is unknown, so lr and weight_decay stay constant"
        return steady, [Note("optim.warmup", 0.0, why)]


def learning_rate(cfg: Optim, progress: float) -> float:
    """Linear warm-up, then cosine; exactly `start_lr` at 0 (with a warm-up), `lr` at `warmup` and `final_lr` at 1."""
    if progress < cfg.warmup:
        return linear_schedule(progress / cfg.warmup, cfg.start_lr, cfg.lr)
    return cosine_schedule((progress - cfg.warmup) / (1 - cfg.warmup), cfg.lr, cfg.final_lr)


def weight_decay(cfg: Optim, progress: float) -> float:
    """Weight decay of the decayed group."""
    return cosine_schedule(progress, cfg.weight_decay, cfg.final_weight_decay)


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Trained parameters in two groups: with weight decay, and without (biases and all others with at most one axis).

    Mask tokens (1, 1, D) have three axes and are decayed, as in the reference.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    plain = {name for name, p in named if p.ndim < 2 or name.rsplit(".", 1)[-1] == "bias"}
    split = [
        {"params": [p for name, p in named if name not in plain], "decayed": True},
        {"params": [p for name, p in named if name in plain], "decayed": False, "weight_decay": 0.0},
    ]
    return [group for group in split if group["params"]]


def build_optimizer(cfg: Optim, module: nn.Module) -> torch.optim.AdamW:
    """AdamW over `parameter_groups(module)` at progress 0, fused if the device supports it.

    Raises ValueError if no parameter is trained.
    """
    split = parameter_groups(module)
    if not split:
        raise ValueError(f"{type(module).__name__} has no parameter to train; unfreeze one")
    devices = {p.device.type for group in split for p in group["params"]}
    optimizer = torch.optim.AdamW(split, cfg.lr, cfg.betas, cfg.eps, fused=devices <= {"cpu", "cuda"})
    set_schedule(optimizer, cfg, 0.0)
    return optimizer


def set_schedule(optimizer: torch.optim.Optimizer, cfg: Optim, progress: float) -> float:
    """Set learning rate and weight decay of every group for the next step; return the learning rate."""
    lr = learning_rate(cfg, progress)
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["weight_decay"] = weight_decay(cfg, progress) if group["decayed"] else 0.0
    return lr


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Float[Tensor, ""]:
    """Scale the gradient down to norm `limit` if it is larger (0: never), and return the global norm before scaling."""
    trained = [p for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if limit > 0:
        nn.utils.clip_grads_with_norm_(trained, limit, norm)
    return norm
