"""Several trainings of one BiJEPA side by side: what the loop would make of each, at a fraction of its time.

The networks of the paper's series are so small that a step of the loop is all overhead. Here the parameters of M
trainings are the rows of one matrix, a step is one call for all of them (`torch.func.vmap`), and AdamW and the moving
average are a few operations on that matrix. Weights, batches, schedules and the order of samples are those of the loop.
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
from ...data.loader import drawn
from ...data.series.dataset import Series
from ...masks import draw
from ...masks.halves import Halves
from ...methods.bidirectional import errors, swapped
from ...methods.bijepa import BiJEPA, Config
from ...run import optim
from ...run.settings import Run
from ...types import Grid, Masks, Rng, Signal

POINTS: Final = 100  # of every curve


@dataclass(frozen=True)
class Trained:
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
            sides = [method.way(p, x, x, side) for p, side in zip(method.predictors, (one, swapped(one)), strict=False)]
            each = [errors([way], method.cfg.distance).mean() for way in sides]
            total = torch.stack([w * e for w, e in zip(method.shares.values(), each, strict=True)]).sum()
            found.append((total, each[0], losses.norms(torch.cat([way.s.flatten(0, 1) for way in sides])).mean()))
        total, ahead, norm = (torch.stack(column) @ share for column in zip(*found, strict=True))
        return total, ahead, norm


class Matrix:
    """Parameters of M modules of one shape, as the rows of a matrix."""

    def __init__(self, modules: Sequence[nn.Module], grad: bool) -> None:
        first = dict(modules[0].named_parameters())
        self.names = [name for name, p in first.items() if p.requires_grad == grad]
        self.shapes = [first[name].shape for name in self.names]
        self.sizes = [shape.numel() for shape in self.shapes]
        rows = [dict(m.named_parameters()) for m in modules]
        self.values = torch.stack([torch.cat([row[n].detach().flatten() for n in self.names]) for row in rows])
        self.values.requires_grad_(grad)

    def named(self) -> dict[str, Tensor]:
        """Every parameter by name, (M, *shape)."""
        parts = torch.split(self.values, self.sizes, dim=1)
        return {n: p.reshape(-1, *s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}

    def where(self, wanted: Any) -> Tensor:
        """1 at the entries of the parameters of which `wanted(name, shape)` holds, else 0."""
        flags = [float(wanted(n, s)) for n, s in zip(self.names, self.shapes, strict=True)]
        return torch.repeat_interleave(torch.tensor(flags), torch.tensor(self.sizes))

    @torch.no_grad()
    def give(self, modules: Sequence[nn.Module]) -> None:
        """Write the rows into the modules."""
        for k, module in enumerate(modules):
            own = dict(module.named_parameters())
            for name, value in self.named().items():
                own[name].copy_(value[k])


def train(runs: Sequence[Run], dataset: Series, signal: Signal) -> Trained:
    """Train the runs, which differ in seed and `optim` alone, on samples of one length that are not augmented."""
    made: list[Any] = [methods.build(run.method, signal, run.seed) for run in runs]
    cfg, steps, batch = runs[0].method, runs[0].length.steps, runs[0].length.batch
    assert isinstance(cfg, Config)
    assert steps is not None
    module, online, target = (
        Step(made[0]),
        Matrix([Step(m) for m in made], True),
        Matrix([Step(m) for m in made], False),
    )
    masks, share = _sides(cfg, made[0].encoder.grid, batch, [run.seed for run in runs], steps)
    index = _order(len(dataset), [run.seed for run in runs], steps, batch)
    x, _ = dataset.whole(np.arange(len(dataset), dtype=np.int64), signal.size)
    adam, curves = Adam(online, [run.optim for run in runs]), []

    def one(parameters: Mapping[str, Tensor], fixed: Mapping[str, Tensor], x: Tensor, share: Tensor) -> Any:
        return functional_call(module, ({**parameters, **fixed},), (x, share, masks))

    every = ceil(steps / POINTS)
    for k in range(steps):
        total, ahead, norm = vmap(one)(online.named(), target.named(), x[index[k]], share[k])
        (gradient,) = torch.autograd.grad(total.sum(), online.values)
        adam.step(gradient, k, steps)
        with torch.no_grad():
            decay = schedules.linear(schedules.progress(k, steps), *cfg.ema)
            target.values.lerp_(online.values[:, : target.values.shape[1]], 1 - decay)
        if k % every == 0 or k == steps - 1:
            curves.append((k + 1, ahead.detach(), norm.detach()))
    online.give([Step(m) for m in made])
    target.give([Step(m) for m in made])
    at, forward, norms = zip(*curves, strict=True)
    return Trained([m.eval() for m in made], list(at), torch.stack(forward), torch.stack(norms))


class Adam:
    """AdamW with the schedules of each training, on rows."""

    def __init__(self, online: Matrix, runs: Sequence[optim.Optim]) -> None:
        self.values, self.runs = online.values, runs
        self.first, self.second = torch.zeros_like(online.values), torch.zeros_like(online.values)
        self.decayed = online.where(lambda name, shape: len(shape) > 1 and not name.endswith("bias"))

    @torch.no_grad()
    def step(self, gradient: Tensor, k: int, steps: int) -> None:
        """One step, the k-th of `steps`."""
        p, (b1, b2) = schedules.progress(k, steps), self.runs[0].betas
        lr = torch.tensor([[optim.learning_rate(cfg, p)] for cfg in self.runs])
        decay = torch.tensor([[optim.weight_decay(cfg, p)] for cfg in self.runs])
        self.first.lerp_(gradient, 1 - b1)
        self.second.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        size = (self.second / (1 - b2 ** (k + 1))).sqrt_().add_(self.runs[0].eps)
        self.values.mul_(1 - lr * decay * self.decayed)
        self.values.sub_(lr / (1 - b1 ** (k + 1)) * self.first / size)


def _sides(
    cfg: Config, grid: Grid, batch: int, seeds: Sequence[int], steps: int
) -> tuple[list[Masks], Float[Tensor, "k m s"]]:
    """The masks that steps use, and the share of each, 0 or 1, in every step of every training."""
    (masker,) = cfg.masks
    assert isinstance(masker, Halves)
    if masker.context != "either":
        return [masker(grid, batch, Rng(0))], torch.ones(steps, len(seeds), 1)
    pair = [Halves(masker.axis, "first")(grid, batch, Rng(0)), Halves(masker.axis, "last")(grid, batch, Rng(0))]
    leads = torch.tensor([[_leads(cfg, grid, Rng(seed, k)) for seed in seeds] for k in range(steps)])
    return pair, torch.stack([leads, 1 - leads], -1)


def _leads(cfg: Config, grid: Grid, rng: Rng) -> float:
    """1 where the context of a step is the first half, else 0."""
    (one,) = draw(cfg.masks, grid, 1, rng)
    return float(one.context[0, 0] == 0)


def _order(items: int, seeds: Sequence[int], steps: int, batch: int) -> np.ndarray:
    """Which samples are in batch k of each training, (K, M, B): the loop's own order."""
    found = [np.stack([drawn(k, items, seed, batch, 0, batch)[0] for k in range(steps)]) for seed in seeds]
    return np.stack(found, axis=1)
