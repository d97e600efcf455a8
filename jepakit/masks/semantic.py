"""Masks that follow what is in a picture: clusters of tokens that touch and are alike, by a representation of them.

Nothing of another sample matters, and every size is known before a token is read: a batch in parts has the masks of the
batch as a whole.
"""

from dataclasses import dataclass
from math import floor, prod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..types import Grid, Masks, Rng

TIES = 0.01  # how much touching, and chance, count beside likeness, which lies in [-1, 1]
TAKEN = 10.0  # more than likeness, touching and chance together


@dataclass(frozen=True)
class Semantic:
    """Connected clusters of tokens that are alike, to predict; the rest is the context. Grids of any number of axes.

    Each target grows from a token drawn at random, by the neighbour most like the cluster so far: the cosine, averaged
    over its members, of representations from which the sample's mean token is taken. Where several are about equally
    alike, the one that touches more of the cluster comes first, then chance.

    All targets (B, M, Kt) of a step cover the same share of the grid, drawn uniformly from `target_scale`. A target
    takes a token of another one only where it has no other neighbour left, so overlaps are few. The context (B, K) has
    N − M · Kt tokens, drawn at random where overlaps leave more.

    Where there is nothing to read (energies, the panel's views), all tokens are alike: the targets are round blobs.

    I-JEPA and C-JEPA read the target encoder, MAE its encoder, as they stand at that step, all tokens seen.
    """

    num_targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)

    def check(self, grid: Grid) -> None:
        """Raises ValueError, naming the fix, where the settings make no sense or could leave no context."""
        low, high = self.target_scale
        if self.num_targets < 1:
            raise ValueError(f"num_targets is {self.num_targets}; give at least 1")
        if not 0 < low <= high < 1:
            raise ValueError(f"target_scale is {(low, high)}; give two numbers with 0 < low <= high < 1")
        hidden = self.num_targets * _size(grid, high)
        if hidden >= prod(grid):
            raise ValueError(
                f"grid {grid} is too small: {self.num_targets} targets of {_size(grid, high)} tokens leave no context "
                f"of its {prod(grid)}; use a smaller patch, fewer num_targets or target_scale below {high:g}"
            )

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        """Context (B, K) and targets (B, M, Kt), int64 on the CPU, of blobs. Raises ValueError where `check` does."""
        return self.guided(grid, torch.zeros(batch, prod(grid), 1), rng)

    def guided(self, grid: Grid, tokens: Float[Tensor, "b n d"], rng: Rng) -> Masks:
        """Context (B, K) and targets (B, M, Kt), int64 where the tokens are. Raises ValueError where `check` does."""
        self.check(grid)
        total, part = rng.global_batch(len(tokens))
        gen = rng.generator()
        low, high = self.target_scale
        size = _size(grid, low + (high - low) * float(torch.rand((), generator=gen, dtype=torch.float64)))
        chance = torch.rand(self.num_targets + 1, total, prod(grid), generator=gen)[:, part].to(tokens.device)
        near, alike = _touching(grid).to(tokens.device), likeness(tokens)
        taken = torch.zeros_like(chance[0], dtype=torch.bool)
        targets = []
        for luck in chance[:-1]:
            targets.append(_grown(alike, near, taken, luck, size))
            taken = taken.scatter(1, targets[-1], True)
        rest = chance[-1].masked_fill(taken, -1.0).topk(prod(grid) - self.num_targets * size).indices
        return Masks(rest.sort().values, torch.stack(targets, 1))


def likeness(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n n"]:
    """The cosine between the tokens of each sample, its mean token taken from all; 0 for a token that is the mean."""
    with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
        centred = tokens.detach().to(torch.promote_types(tokens.dtype, torch.float32))
        centred = F.normalize(centred - centred.mean(1, keepdim=True), dim=-1, eps=1e-6)
        return centred @ centred.transpose(1, 2)


def _grown(
    alike: Float[Tensor, "b n n"],
    near: Float[Tensor, "n n"],
    taken: Bool[Tensor, "b n"],
    luck: Float[Tensor, "b n"],
    size: int,
) -> Int[Tensor, "b k"]:
    """One connected cluster of `size` tokens per sample, in raster order.

    It ends whatever is taken: as long as a part of a connected grid is missing, some missing token touches the cluster.
    """
    rows = torch.arange(len(taken), device=taken.device)
    inside, touched = torch.zeros_like(taken), torch.zeros_like(luck)
    total = torch.zeros_like(alike[:, 0])
    shunned = TIES * luck - TAKEN * taken.to(luck.dtype)
    new = shunned.argmax(1)
    for count in range(1, size + 1):
        inside[rows, new] = True
        touched += near[new]
        total += alike[rows, new]
        wish = total / count + TIES * touched + shunned
        new = wish.masked_fill_(inside | (touched == 0), -torch.inf).argmax(1)
    return inside.nonzero()[:, 1].reshape(len(taken), size)


def _touching(grid: Grid) -> Float[Tensor, "n n"]:
    """1 for two cells that are neighbours along one axis, 0 for any other two."""
    axes = torch.meshgrid(*[torch.arange(side) for side in grid], indexing="ij")
    cells = torch.stack([axis.flatten() for axis in axes], 1)
    return ((cells[:, None] - cells).abs().sum(2) == 1).float()


def _size(grid: Grid, share: float) -> int:
    # A product that is a whole number may come out a little below it.
    return max(1, floor(share * prod(grid) + 1e-6))
