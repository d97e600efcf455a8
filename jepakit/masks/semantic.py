"""Masks that follow the content of a picture: connected clusters of tokens whose representations are similar.

The masks of a sample depend on no other sample, and every size is drawn before a token is read: so a batch in parts
gets the masks of the whole batch.
"""

from dataclasses import dataclass
from math import floor, prod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..types import Grid, Masks, Rng

TIE_WEIGHT = 0.01  # the weight of touching, and of chance, relative to similarity in [-1, 1]
TAKEN_PENALTY = 10.0  # outweighs similarity, touching and chance together


@dataclass(frozen=True)
class Semantic:
    """Hide connected clusters of similar tokens, on a grid with any number of axes; the rest is the context.

    Each target grows from a random token, each time by the neighbour most similar to the cluster so far. Similarity is
    the cosine between representations, less the sample's mean token, averaged over the cluster. Among about equally
    similar neighbours, the one that touches more of the cluster is taken, then chance decides.

    All targets (B, M, Kt) of a step cover the same share of the grid, drawn uniformly from `target_scale`. A target
    takes a token of another target only if it has no other neighbour left, so there is little overlap. The context
    (B, K) has N − M · Kt tokens; if overlaps leave more, they are drawn at random.

    If there are no tokens to read (energies, the panel's views), all tokens are equally similar and targets are round.

    I-JEPA and C-JEPA read the target encoder, and MAE its encoder, at its current weights on the whole sample.
    """

    num_targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)

    def check(self, grid: Grid) -> None:
        """Raise ValueError, naming the fix, if a setting is out of range or could leave no context."""
        low, high = self.target_scale
        if self.num_targets < 1:
            raise ValueError(f"num_targets is {self.num_targets}; give at least 1")
        if not 0 < low <= high < 1:
            raise ValueError(f"target_scale is {(low, high)}; give two numbers with 0 < low <= high < 1")
        hidden = self.num_targets * _target_size(grid, high)
        if hidden >= prod(grid):
            raise ValueError(
                f"grid {grid} is too small: {self.num_targets} targets of {_target_size(grid, high)} tokens leave "
                f"no context of its {prod(grid)}; use a smaller patch, fewer num_targets or target_scale below {high:g}"
            )

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        """Draw round targets: context (B, K) and targets (B, M, Kt), int64 on the CPU. Raises ValueError as `check`."""
        return self.guided(grid, torch.zeros(batch, prod(grid), 1), rng)

    def guided(self, grid: Grid, tokens: Float[Tensor, "b n d"], rng: Rng) -> Masks:
        """Draw context (B, K) and targets (B, M, Kt), int64 on the tokens' device. Raises ValueError as `check`."""
        self.check(grid)
        total, part = rng.global_batch(len(tokens))
        gen = rng.generator()
        low, high = self.target_scale
        size = _target_size(grid, low + (high - low) * float(torch.rand((), generator=gen, dtype=torch.float64)))
        chance = torch.rand(self.num_targets + 1, total, prod(grid), generator=gen)[:, part].to(tokens.device)
        near, alike = _adjacency_matrix(grid).to(tokens.device), token_similarity(tokens)
        taken = torch.zeros_like(chance[0], dtype=torch.bool)
        targets = []
        for luck in chance[:-1]:
            targets.append(_grow_clusters(alike, near, taken, luck, size))
            taken = taken.scatter(1, targets[-1], True)
        rest = chance[-1].masked_fill(taken, -1.0).topk(prod(grid) - self.num_targets * size).indices
        return Masks(rest.sort().values, torch.stack(targets, 1))


def token_similarity(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n n"]:
    """The cosine between the tokens of each sample, less the sample's mean token; 0 for a token equal to the mean."""
    with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
        centred = tokens.detach().to(torch.promote_types(tokens.dtype, torch.float32))
        centred = F.normalize(centred - centred.mean(1, keepdim=True), dim=-1, eps=1e-6)
        return centred @ centred.transpose(1, 2)


def _grow_clusters(
    alike: Float[Tensor, "b n n"],
    near: Float[Tensor, "n n"],
    taken: Bool[Tensor, "b n"],
    luck: Float[Tensor, "b n"],
    size: int,
) -> Int[Tensor, "b k"]:
    """One connected cluster of `size` tokens per sample, in raster order.

    The loop always finds a token: while the cluster is smaller than the grid, some token outside it touches it.
    """
    rows = torch.arange(len(taken), device=taken.device)
    inside, touched = torch.zeros_like(taken), torch.zeros_like(luck)
    total = torch.zeros_like(alike[:, 0])
    shunned = TIE_WEIGHT * luck - TAKEN_PENALTY * taken.to(luck.dtype)
    new = shunned.argmax(1)
    for count in range(1, size + 1):
        inside[rows, new] = True
        touched += near[new]
        total += alike[rows, new]
        wish = total / count + TIE_WEIGHT * touched + shunned
        new = wish.masked_fill_(inside | (touched == 0), -torch.inf).argmax(1)
    return inside.nonzero()[:, 1].reshape(len(taken), size)


def _adjacency_matrix(grid: Grid) -> Float[Tensor, "n n"]:
    """The adjacency matrix of the grid: 1 for two cells that are neighbours along one axis, else 0."""
    axes = torch.meshgrid(*[torch.arange(side) for side in grid], indexing="ij")
    cells = torch.stack([axis.flatten() for axis in axes], 1)
    return ((cells[:, None] - cells).abs().sum(2) == 1).float()


def _target_size(grid: Grid, share: float) -> int:
    # Rounding may put a product that should be a whole number slightly below it.
    return max(1, floor(share * prod(grid) + 1e-6))
