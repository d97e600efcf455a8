"""The predictor: from the representation of the context to representations of the target blocks.

Exact mode is I-JEPA's: every target block is its own sequence, the context followed by the block's mask tokens. What
all target blocks of a sample share is computed once: the first layer's LayerNorm, queries, keys and values, for the
context and for the mask token at each position of the grid. The last layer runs for the mask tokens alone.

`shared_context=True` is a different model, not a faster way to the same one: context tokens attend only to one another,
so that all target blocks of a sample read the same context. It costs about half; compare scores before choosing it.
"""

from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..types import Grid, Masks
from .position import Order, axis_shares, sincos_positions
from .transformer import Block, Init, build_blocks, call_block, check_heads, check_stack, init_linears, run_blocks


@runtime_checkable
class PredictorConfig(Protocol):
    """A frozen dataclass that builds a network (context (B, K, D), masks) → predictions (B, M, Kt, out)."""

    def build(self, dim: int, grid: Grid, out: int | None = None) -> nn.Module:
        """The predictor. Raises ValueError if it does not fit the grid."""
        ...


@dataclass(frozen=True)
class Predictor:
    """A narrow transformer from context tokens and mask tokens to predictions; `heads` must divide `width`.

    `width` None is half the encoder's; `heads` None is one per 32 features or so: 384 and 12 for a ViT-B, as published.
    """

    width: int | None = None
    depth: int = 6
    heads: int | None = None
    mlp_ratio: float = 4.0
    positions: Order = "column-row"
    shared_context: bool = False
    init: Init = "normal"

    def __post_init__(self) -> None:
        check_stack(16 if self.width is None else self.width, self.depth, self.mlp_ratio)
        if self.heads is not None and self.width is not None:
            check_heads(self.width, self.heads)

    def build(self, dim: int, grid: Grid, out: int | None = None) -> "TransformerPredictor":
        """The predictor from tokens of `dim` features to tokens of `out` (None: `dim`).

        Raises ValueError if positions do not fit the width.
        """
        # A width that positions of up to 3 axes can share.
        width = max(16, dim // 16 * 8) if self.width is None else self.width
        heads = fitting_heads(width) if self.heads is None else self.heads
        check_heads(width, heads)
        return TransformerPredictor(self, width, heads, dim, grid, out or dim)


# The name of the registry, where the file's is another one.
PREDICTORS = {"transformer": Predictor()}


def fitting_heads(width: int) -> int:
    """The largest number of heads that divides `width` with at least 32 features per head; 1 if there is none."""
    return next(h for h in range(max(1, width // 32), 0, -1) if width % h == 0)


class TransformerPredictor(nn.Module):
    """The network that `Predictor` describes, for grids with any number of axes."""

    checkpoint_activations: bool = False

    def __init__(self, cfg: Predictor, width: int, heads: int, dim: int, grid: Grid, out: int) -> None:
        super().__init__()
        axis_shares(len(grid), width, cfg.positions)
        self.grid, self.width, self.positions, self.shared_context = grid, width, cfg.positions, cfg.shared_context
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = build_blocks(width, cfg.depth, heads, cfg.mlp_ratio)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.proj = nn.Linear(width, out)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        init_linears(self, cfg.init)

    def forward(self, context: Float[Tensor, "b k d"], masks: Masks) -> Float[Tensor, "b m kt _"]:
        """Predictions (B, M, Kt, out) at `masks.targets` from the tokens at `masks.context`."""
        position = sincos_positions(masks.grid or self.grid, self.width, self.positions, context.device).to(
            self.norm.weight.dtype
        )
        known = self.embed(context) + position[masks.context]
        asked = self.mask_token[0] + position  # (N, d): the mask token at every position
        predict = self._predict_shared if self.shared_context else self._predict_exact
        out: Tensor = self.proj(self.norm(predict(known, asked, masks.targets)))
        return out.reshape(*masks.targets.shape, -1)

    def _predict_exact(
        self, known: Float[Tensor, "b k d"], asked: Float[Tensor, "n d"], targets: Int[Tensor, "b m kt"]
    ) -> Float[Tensor, "bm kt d"]:
        """The mask tokens after all layers, with each target block as its own sequence."""
        first, last = cast(Block, self.blocks[0]), slice(known.shape[1], None)
        x = target_sequences(known, asked, targets)
        qkv = target_sequences(first.attn.qkv(first.norm1(known)), first.attn.qkv(first.norm1(asked)), targets)
        q, k, v = first.attn.split(qkv, 3)
        if len(self.blocks) == 1:
            return first.mix(x[:, last], q[:, :, last], k, v)
        x = call_block(first.mix, x, q, k, v, recompute=self.checkpoint_activations)
        return run_blocks(self.blocks[1:], x, last, self.checkpoint_activations)

    def _predict_shared(
        self, known: Float[Tensor, "b k d"], asked: Float[Tensor, "n d"], targets: Int[Tensor, "b m kt"]
    ) -> Float[Tensor, "bm kt d"]:
        """The mask tokens after all layers, with one context for all target blocks of a sample."""
        x = F.embedding(targets, asked).flatten(0, 1)
        for i, block in enumerate(self.blocks, 1):
            last = i == len(self.blocks)
            known, x = call_block(shared_block, block, known, x, last, recompute=self.checkpoint_activations)
        return x


def target_sequences(
    shared: Float[Tensor, "b k e"], table: Float[Tensor, "n e"], targets: Int[Tensor, "b m kt"]
) -> Float[Tensor, "bm l e"]:
    """One sequence per target block: the sample's `shared` tokens, then the rows of `table` at the block's cells."""
    repeated = shared[:, None].expand(-1, targets.shape[1], -1, -1)
    return torch.cat([repeated, F.embedding(targets, table)], 2).flatten(0, 1)


def shared_block(
    block: Block, known: Float[Tensor, "b k d"], x: Float[Tensor, "bm kt d"], last: bool
) -> tuple[Float[Tensor, "b k d"], Float[Tensor, "bm kt d"]]:
    """One layer in which context tokens see the context, and mask tokens see the context and their own target block."""
    q, k, v = block.attn.project_qkv(block.norm1(known))
    own_q, own_k, own_v = block.attn.project_qkv(block.norm1(x))
    times = len(x) // len(known)
    keys = torch.cat([k.repeat_interleave(times, 0), own_k], 2)
    values = torch.cat([v.repeat_interleave(times, 0), own_v], 2)
    return known if last else block.mix(known, q, k, v), block.mix(x, own_q, keys, values)
