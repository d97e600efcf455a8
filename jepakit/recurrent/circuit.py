"""Stacked recurrent gated circuits: each step combines the maps below with the past.

A level reads maps (N, C, h, w); vectors are the 1 x 1 case. Its input weights are a convolution, shared by
all positions, and every channel has its own past at every position. `step` takes the levels from the bottom up; with
feedback, a level also reads the previous output of the level above it, enlarged to its own size.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import Grid
from .cells import Cell, Gated, Kind, Memoryless, Reciprocal

States = tuple[Float[Tensor, "_ _ _"], ...]  # one (rows, m, b) per level


@dataclass(frozen=True)
class Circuit:
    """A recurrent circuit of `width` units, on top of an encoder or of `levels` of its own convolutional circuits.

    `levels` are the channels of circuits with kernel 3 and stride 2, which read the frames directly: then no encoder is
    built. `recurrence` says which levels have a past. `block` couples units of a gated circuit; `kernel` is the side of
    the top level's convolution over positions. Initial weights are uniform within `scale` / √inputs, those on the past
    within `recurrent` / √block; a `rank` above 0 limits the rank of the top level's. `norm` normalises the maps that a
    level reads, over channels and positions; `standardize` gives every channel that the lowest level reads zero mean
    and unit variance over samples of the data.
    """

    cell: Kind = "gated"
    width: int = 256
    block: int = 1
    kernel: int = 1
    levels: tuple[int, ...] = ()
    recurrence: Literal["top", "all", "none"] = "top"
    feedback: bool = False
    scale: float = 1.0
    recurrent: float = 1.0
    rank: int = 0
    norm: bool = True
    standardize: bool = False

    def __post_init__(self) -> None:
        if min(self.width, self.block, *self.levels, self.width) < 1 or self.rank < 0:
            raise ValueError(
                f"width is {self.width}, block {self.block}, levels {self.levels} and rank {self.rank}; give units, "
                "blocks and channels of 1 or more, and a rank of 0 or more"
            )
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}; give an odd number, e.g. 1 or 3")
        if self.block > 1 and self.cell != "gated":
            raise ValueError(f"block is {self.block}, which couples gated units; give cell gated, or block 1")
        if self.feedback and not self.levels:
            raise ValueError("feedback is on, but there is one level; give circuit.levels, e.g. (32, 64)")

    def build(self, inputs: int, grid: Grid) -> "Circuits":
        """The circuits for maps of `inputs` channels on `grid` (h, w)."""
        return Circuits(self, inputs, grid)

    def cell_of(self, inputs: int, width: int, top: bool) -> Cell:
        """The circuit of one level."""
        kind = self.cell if self.recurrence == "all" or (top and self.recurrence == "top") else "memoryless"
        if kind == "memoryless":
            return Memoryless(inputs, width, self.scale)
        if kind == "reciprocal":
            return Reciprocal(inputs, width, self.scale, self.recurrent)
        block = width if kind == "dense" else self.block
        minimal = kind == "mingru"
        return Gated(inputs, width, block, not minimal, self.scale, self.recurrent, linear=minimal)


class Level(nn.Module):
    """A circuit from maps of `channels` on `grid`, with `fed` channels of feedback, to maps on `self.grid`."""

    def __init__(self, cfg: Circuit, channels: int, grid: Grid, width: int, fed: int, top: bool) -> None:
        super().__init__()
        # With `levels`, the top reads the whole map below as one vector; otherwise it stays on the grid.
        self.flat = top and bool(cfg.levels)
        self.kernel, self.stride = (cfg.kernel, 1) if top else (3, 2)
        self.grid: Grid = (1, 1) if self.flat else tuple(-(-side // self.stride) for side in grid)
        self.grid_below = grid
        area = prod(grid) if self.flat else self.kernel**2
        self.normed = cfg.norm
        self.cell = cfg.cell_of((channels + fed) * area, width, top)

    def rows(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "np d"]:
        """The circuit's input at every position of the maps, as rows."""
        if self.flat:
            return maps.flatten(1)
        windows = (
            maps if self.kernel == 1 else F.unfold(maps, self.kernel, padding=self.kernel // 2, stride=self.stride)
        )
        return windows.flatten(2).transpose(1, 2).flatten(0, 1)

    def read(self, below: Float[Tensor, "n c h w"]) -> Float[Tensor, "np d"]:
        """The rows of the maps below, normalised if `norm` is set."""
        return self.rows(F.layer_norm(below, below.shape[1:]) if self.normed else below)

    def beside(self, rows: Float[Tensor, "np d"], above: Float[Tensor, "n f _ _"]) -> Float[Tensor, "np e"]:
        """The rows of the maps below, joined with those of the level above, enlarged to this grid."""
        return torch.cat([rows, self.rows(F.interpolate(above, size=self.grid_below))], 1)

    def maps(self, state: Float[Tensor, "np m b"]) -> Float[Tensor, "n w h v"]:
        """The circuit's output as maps."""
        return self.cell.out(state).reshape(-1, *self.grid, self.cell.width).movedim(-1, 1)


class Circuits(nn.Module):
    """All levels of a `Circuit`, bottom first; their output has `width` features at every position of `grid`."""

    levels: list[Level]
    mean: Tensor
    std: Tensor

    def __init__(self, cfg: Circuit, inputs: int, grid: Grid) -> None:
        super().__init__()
        widths = [*cfg.levels, cfg.width]
        self.cfg, self.reads = cfg, (inputs, grid)
        self.width, self.feedback = cfg.width, cfg.feedback
        levels: list[Level] = []
        channels = inputs
        for i, width in enumerate(widths):
            top = i == len(widths) - 1
            levels.append(Level(cfg, channels, grid, width, 0 if top or not cfg.feedback else widths[i + 1], top))
            channels, grid = width, levels[-1].grid
        self.levels = cast(list[Level], nn.ModuleList(levels))
        self.grid = grid
        # Used by `standardize`: fitted before the first step and constant from then on.
        self.register_buffer("mean", torch.zeros(inputs, 1, 1), persistent=cfg.standardize)
        self.register_buffer("std", torch.ones(inputs, 1, 1), persistent=cfg.standardize)
        self.standardizes = cfg.standardize
        if cfg.rank:
            truncate_rank(self.top.cell, cfg.rank)

    @property
    def top(self) -> Level:
        """The level whose state is the representation."""
        return self.levels[-1]

    @property
    def cells(self) -> list[Cell]:
        """The circuits, bottom first."""
        return [level.cell for level in self.levels]

    def start(self, samples: int) -> States:
        """The states before any input."""
        return tuple(level.cell.start(samples * prod(level.grid)) for level in self.levels)

    def read(self, frames: Float[Tensor, "t n c h w"]) -> Float[Tensor, "t np d"]:
        """The lowest level's input rows for all frames at once, given as maps."""
        maps = (frames - self.mean) / self.std if self.standardizes else frames
        rows = self.levels[0].read(maps.flatten(0, 1))
        return rows.reshape(len(frames), -1, rows.shape[-1])

    @torch.no_grad()
    def fit(self, frames: Float[Tensor, "t n c h w"]) -> None:
        """Set mean and standard deviation of every channel from these frames."""
        each = frames.movedim(2, 0).flatten(1)
        self.mean.copy_(each.mean(1).reshape(-1, 1, 1))
        # A constant channel is not scaled.
        std = each.std(1)
        self.std.copy_(torch.where(std > 1e-6, std, 1.0).reshape(-1, 1, 1))

    def inputs(self, i: int, rows: Float[Tensor, "np d"], states: States) -> Float[Tensor, "np e"]:
        """The input rows of level i: the maps below it and, with feedback, the previous output of the level above."""
        if not self.feedback or i + 1 == len(self.levels):
            return rows
        return self.levels[i].beside(rows, self.levels[i + 1].maps(states[i + 1]))

    def step(self, states: States, rows: Float[Tensor, "np d"]) -> tuple[States, tuple[Float[Tensor, "_ _"], ...]]:
        """The states after one more frame, whose input rows are `rows`, and the input of each level."""
        new, seen = [], []
        for i, level in enumerate(self.levels):
            seen.append(self.inputs(i, rows, states))
            new.append(level.cell(states[i], level.cell.drive(seen[-1])))
            if i + 1 < len(self.levels):
                rows = self.levels[i + 1].read(level.maps(new[-1]))
        return tuple(new), tuple(seen)

    def shown(self, top: Float[Tensor, "*k np m b"]) -> Float[Tensor, "*k n p w"]:
        """The representation: the top level's output, one token per position."""
        h = self.top.cell.out(top)
        return h.reshape(*h.shape[:-2], -1, prod(self.grid), self.width)


@torch.no_grad()
def truncate_rank(cell: Cell, rank: int) -> None:
    """Keep only the `rank` largest singular values of the input weights, in place."""
    flat = cell.weight.flatten(0, 1)
    u, s, v = torch.linalg.svd(flat, full_matrices=False)
    flat.copy_((u[:, :rank] * s[:rank]) @ v[:rank])


def check_inputs(cell: nn.Module, inputs: Float[Tensor, "n t d"]) -> None:
    """Raise ValueError if forward propagation cannot run this circuit over these inputs."""
    if not isinstance(cell, Cell):
        raise ValueError(
            f"{type(cell).__name__} is not a circuit with its own derivatives; give one of jepakit.recurrent.cells, or "
            "a subclass of its Cell"
        )
    shape, d = tuple(inputs.shape), cell.weight.shape[2]
    if len(shape) != 3 or shape[1] < 1 or shape[2] != d:
        raise ValueError(f"inputs are {shape}; give (rows, 1 step or more, {d})")
    if inputs.requires_grad:
        raise ValueError(
            "inputs are constants here, so whatever computed them would get no gradient; give inputs.detach(), or "
            "train that part with R-JEPA and method.below full"
        )
