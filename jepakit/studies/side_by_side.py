"""Trains several small networks at once: their parameters are the rows of one matrix, and AdamW updates all rows.

The networks of some studies are so small that a step of the training loop is almost all overhead. With the parameters
of M trainings in one matrix, one call computes a step of all of them (`torch.func.vmap`), and AdamW is a few matrix
operations.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..core import schedules
from ..run import optim


class Matrix:
    """The parameters of M modules of the same shape, as the rows of a matrix."""

    def __init__(self, modules: Sequence[nn.Module], grad: bool) -> None:
        first = dict(modules[0].named_parameters())
        self.names = [name for name, p in first.items() if p.requires_grad == grad]
        self.shapes = [first[name].shape for name in self.names]
        self.sizes = [shape.numel() for shape in self.shapes]
        rows = [dict(m.named_parameters()) for m in modules]
        self.values = torch.stack([torch.cat([row[n].detach().flatten() for n in self.names]) for row in rows])
        self.values.requires_grad_(grad)

    def named(self) -> dict[str, Tensor]:
        """All parameters by name, each (M, *shape)."""
        parts = torch.split(self.values, self.sizes, dim=1)
        return {n: p.reshape(-1, *s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}

    def where(self, wanted: Callable[[str, torch.Size], bool]) -> Tensor:
        """A mask of entries: 1 for parameters for which `wanted(name, shape)` is true, else 0."""
        flags = [float(wanted(n, s)) for n, s in zip(self.names, self.shapes, strict=True)]
        return torch.repeat_interleave(torch.tensor(flags), torch.tensor(self.sizes))

    @torch.no_grad()
    def write_to(self, modules: Sequence[nn.Module]) -> None:
        """Copy the rows into the parameters of the modules."""
        for k, module in enumerate(modules):
            own = dict(module.named_parameters())
            for name, value in self.named().items():
                own[name].copy_(value[k])


class Adam:
    """AdamW on the rows of a matrix, with a schedule per training."""

    def __init__(self, online: Matrix, runs: Sequence[optim.Optim]) -> None:
        self.values, self.runs = online.values, runs
        self.first, self.second = torch.zeros_like(online.values), torch.zeros_like(online.values)
        self.decayed = online.where(lambda name, shape: len(shape) > 1 and not name.endswith("bias"))

    @torch.no_grad()
    def step(self, gradient: Tensor, k: int, steps: int) -> None:
        """Take step k of `steps`."""
        p, (b1, b2) = schedules.run_progress(k, steps), self.runs[0].betas
        lr = torch.tensor([[optim.learning_rate(cfg, p)] for cfg in self.runs])
        decay = torch.tensor([[optim.weight_decay(cfg, p)] for cfg in self.runs])
        self.first.lerp_(gradient, 1 - b1)
        self.second.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        size = (self.second / (1 - b2 ** (k + 1))).sqrt_().add_(self.runs[0].eps)
        self.values.mul_(1 - lr * decay * self.decayed)
        self.values.sub_(lr / (1 - b1 ** (k + 1)) * self.first / size)
