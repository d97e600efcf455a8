"""Trains several runs of one BiJEPA side by side, with the results of the training loop in a fraction of the time.

One call computes a step of all trainings (`studies/side_by_side.py`). Weights, batches, schedules and the order of
samples are the same as in the loop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ... import losses, methods
from ...core import schedules
from ...data.loader import batch_ids
from ...data.series.dataset import Series
from ...masks import draw_masks
from ...masks.halves import Halves
from ...methods.bidirectional import direction_errors, swap_masks
from ...methods.bijepa import BiJEPA, Config
from ...run.settings import Run
from ...types import Grid, Masks, Rng, Signal
from ..side_by_side import Adam, Matrix

CURVE_POINTS: Final = 100  # of every curve


@dataclass(frozen=True)
class TrainedForms:
    """The methods, and curves (K, M) of the forward error and of the mean length of f's tokens at `steps`."""

    methods: list[BiJEPA]
    steps: list[int]
    forward: Float[Tensor, "k m"]
    norm: Float[Tensor, "k m"]


class Step(nn.Module):
    """The loss of one batch under each of `masks`, as a module so that its parameters can be given from outside."""

    def __init__(self, method: BiJEPA) -> None:
        super().__init__()
        self.method = method

    def forward(self, x: Tensor, share: Float[Tensor, " s"], masks: list[Masks]) -> tuple[Tensor, Tensor, Tensor]:
        """The mean of the weighted distances, `share` of it by each of `masks`; the forward error, and the norm."""
        method, found = self.method, []
        for one in masks:
            sides = [
                method.make_direction(p, x, x, side)
                for p, side in zip(method.predictors, (one, swap_masks(one)), strict=False)
            ]
            each = [direction_errors([way], method.cfg.distance).mean() for way in sides]
            total = torch.stack([w * e for w, e in zip(method.shares.values(), each, strict=True)]).sum()
            found.append((total, each[0], losses.norms(torch.cat([way.s.flatten(0, 1) for way in sides])).mean()))
        total, ahead, norm = (torch.stack(column) @ share for column in zip(*found, strict=True))
        return total, ahead, norm


def train_together(runs: Sequence[Run], dataset: Series, signal: Signal) -> TrainedForms:
    """Train runs that differ only in seed and `optim`, on unaugmented samples of one length."""
    made: list[Any] = [methods.build(run.method, signal, run.seed) for run in runs]
    cfg, steps, batch = runs[0].method, runs[0].length.steps, runs[0].length.batch
    assert isinstance(cfg, Config)
    assert steps is not None
    module, online, target = (
        Step(made[0]),
        Matrix([Step(m) for m in made], True),
        Matrix([Step(m) for m in made], False),
    )
    masks, share = _mask_sides(cfg, made[0].encoder.grid, batch, [run.seed for run in runs], steps)
    index = _batch_order(len(dataset), [run.seed for run in runs], steps, batch)
    x, _ = dataset.whole(np.arange(len(dataset), dtype=np.int64), signal.size)
    adam, curves = Adam(online, [run.optim for run in runs]), []

    def one(parameters: Mapping[str, Tensor], fixed: Mapping[str, Tensor], x: Tensor, share: Tensor) -> Any:
        return functional_call(module, ({**parameters, **fixed},), (x, share, masks))

    every = ceil(steps / CURVE_POINTS)
    for k in range(steps):
        total, ahead, norm = vmap(one)(online.named(), target.named(), x[index[k]], share[k])
        (gradient,) = torch.autograd.grad(total.sum(), online.values)
        adam.step(gradient, k, steps)
        with torch.no_grad():
            decay = schedules.linear_schedule(schedules.run_progress(k, steps), *cfg.ema)
            target.values.lerp_(online.values[:, : target.values.shape[1]], 1 - decay)
        if k % every == 0 or k == steps - 1:
            curves.append((k + 1, ahead.detach(), norm.detach()))
    online.write_to([Step(m) for m in made])
    target.write_to([Step(m) for m in made])
    at, forward, norms = zip(*curves, strict=True)
    return TrainedForms([m.eval() for m in made], list(at), torch.stack(forward), torch.stack(norms))


def _mask_sides(
    cfg: Config, grid: Grid, batch: int, seeds: Sequence[int], steps: int
) -> tuple[list[Masks], Float[Tensor, "k m s"]]:
    """The distinct masks, and the share (0 or 1) of each in every step of every training, (K, M, S)."""
    (masker,) = cfg.masks
    assert isinstance(masker, Halves)
    if masker.context != "either":
        return [masker(grid, batch, Rng(0))], torch.ones(steps, len(seeds), 1)
    pair = [Halves(masker.axis, "first")(grid, batch, Rng(0)), Halves(masker.axis, "last")(grid, batch, Rng(0))]
    leads = torch.tensor([[_first_half_leads(cfg, grid, Rng(seed, k)) for seed in seeds] for k in range(steps)])
    return pair, torch.stack([leads, 1 - leads], -1)


def _first_half_leads(cfg: Config, grid: Grid, rng: Rng) -> float:
    """1 if the context of a step is the first half, else 0."""
    (one,) = draw_masks(cfg.masks, grid, 1, rng)
    return float(one.context[0, 0] == 0)


def _batch_order(items: int, seeds: Sequence[int], steps: int, batch: int) -> np.ndarray:
    """The samples in batch k of each training, (K, M, B), in the training loop's own order."""
    found = [np.stack([batch_ids(k, items, seed, batch, 0, batch)[0] for k in range(steps)]) for seed in seeds]
    return np.stack(found, axis=1)
