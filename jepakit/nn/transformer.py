"""Vision transformers over grids of any dimension: images (H, W), videos (T, H, W), series (T,).

The numerics are those of I-JEPA and V-JEPA: pre-norm blocks, LayerNorm eps 1e-6, erf GELU, q-k-v order, fixed sin-cos
positions, weights from a normal of std .02. Parameter names are those of the released files, which store the weight of
`patch_embed.proj` as a convolution's and the positions as a parameter.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..core.registry import no_such
from ..types import Grid, Signal, Size, take
from .encoder import Encoder
from .patch import PatchEmbed, check_patch, given_patch, grid_of
from .position import Order, axis_shares, sincos_positions

Read = Int[Tensor, "b r"] | slice | None
# Beyond this many tokens, plain attention costs more than it saves by avoiding the fused kernel's slow backward.
MAX_PLAIN_TOKENS = 512


def check_stack(width: int, depth: int, mlp_ratio: float) -> None:
    """Raise ValueError if blocks of these sizes cannot be built."""
    if width < 1 or depth < 1 or int(width * mlp_ratio) < 1:
        raise ValueError(f"width {width}, depth {depth} and mlp_ratio {mlp_ratio:g} must be positive")


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError if `heads` does not divide `width`."""
    if heads < 1 or width % heads:
        fitting = [h for h in range(1, min(width, 64) + 1) if width % h == 0]
        near = sorted(sorted(fitting, key=lambda h: abs(h - heads))[:2])
        raise ValueError(f"heads {heads} does not divide width {width}; use e.g. {' or '.join(map(str, near))} heads")


def attention(
    q: Float[Tensor, "b h q e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n e"]
) -> Float[Tensor, "b h q e"]:
    """softmax(q kᵀ / √e) v, by the fastest kernel for the device, the precision and the length.

    This is the fused kernel, except in half precision on a CPU, where its backward pass is 2 to 4 times slower.
    """
    half = q.dtype in (torch.bfloat16, torch.float16)
    if q.device.type == "cpu" and half and q.requires_grad and k.shape[2] <= MAX_PLAIN_TOKENS:
        return torch.softmax(q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2), -1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """Multi-head self-attention; `qkv` holds the three projections one after the other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def split(self, x: Float[Tensor, "b n _"], parts: int) -> tuple[Tensor, ...]:
        """(B, N, parts·D) to `parts` tensors (B, heads, N, D / heads)."""
        b, n, _ = x.shape
        return x.reshape(b, n, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def project_qkv(self, x: Float[Tensor, "b n d"], read: Read = None) -> tuple[Tensor, ...]:
        """The queries of the tokens at `read` (None: all), and the keys and values of all tokens."""
        if read is None:
            return self.split(self.qkv(x), 3)
        d = x.shape[2]
        weight, bias = self.qkv.weight, self.qkv.bias
        (q,) = self.split(F.linear(tokens_at(x, read), weight[:d], bias[:d]), 1)
        return q, *self.split(F.linear(x, weight[d:], bias[d:]), 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "b q d"]:
        """Attention of projected queries, keys and values (B, heads, ·, D / heads), then the output projection."""
        mixed: Tensor = self.proj(attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class FeedForward(nn.Module):
    """Linear, erf GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Apply the same function to every token."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """x + attention(norm1(x)), then + mlp(norm2(·))."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = FeedForward(width, int(width * mlp_ratio))

    def forward(self, x: Float[Tensor, "b n d"], read: Read = None) -> Float[Tensor, "b _ d"]:
        """The tokens at `read` (None: all) after the block; every token serves as key and value."""
        return self.mix(tokens_at(x, read), *self.attn.project_qkv(self.norm1(x), read))

    def mix(self, x: Float[Tensor, "b q d"], q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "b q d"]:
        """The rest of the block after the projections: tokens x attend from q to k and v, then pass the MLP."""
        x = x + self.attn(q, k, v)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def tokens_at(x: Float[Tensor, "b n d"], read: Read) -> Float[Tensor, "b _ d"]:
    """The tokens at `read`: an index per sample, one slice for all samples, or None for all tokens."""
    if isinstance(read, Tensor):
        return take(x, read)
    return x if read is None else x[:, read].contiguous()


def build_blocks(width: int, depth: int, heads: int, mlp_ratio: float) -> nn.ModuleList:
    """A list of `depth` transformer blocks."""
    return nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))


def run_blocks(blocks: nn.ModuleList, x: Float[Tensor, "b n d"], read: Read, recompute: bool) -> Float[Tensor, "b _ d"]:
    """Pass x through all blocks, the last one only for the tokens at `read`."""
    for i, block in enumerate(blocks, 1):
        x = call_block(block, x, read if i == len(blocks) else None, recompute=recompute)
    return x


def call_block(fn: Any, *args: Any, recompute: bool) -> Any:
    """fn(*args); with `recompute`, no activations are kept for the backward pass."""
    if recompute and torch.is_grad_enabled():
        # Blocks draw no random numbers, so there is no state to restore.
        return checkpoint(fn, *args, use_reentrant=False, preserve_rng_state=False)
    return fn(*args)


Init = Literal["normal", "xavier"]


def init_linears(module: nn.Module, init: Init = "normal") -> None:
    """Draw every linear's weight from a normal of std .02 and set its bias to zero, as in I-JEPA and V-JEPA.

    "xavier" draws each weight uniformly within √(6 / (in + out)), treating q, k and v as separate matrices. In a
    narrow network, a normal of std .02 gives an untrained target that carries little information about its input.
    """
    for name, part in module.named_modules():
        if not isinstance(part, nn.Linear):
            continue
        nn.init.zeros_(part.bias)
        if init == "normal":
            nn.init.trunc_normal_(part.weight, std=0.02)
        for weight in part.weight.chunk(3 if name.endswith("qkv") else 1) if init == "xavier" else ():
            nn.init.xavier_uniform_(weight)


@dataclass(frozen=True)
class ViT:
    """A transformer encoder: `patch` has one length per axis of the signal, and `heads` must divide `width`.

    Training replaces `patch` None (auto) by a patch that suits the size of the data. `positions` orders the features of
    the sin-cos table: "column-row" as in I-JEPA, "row-column" as in V-JEPA. `init` is the argument of `init_linears`.
    """

    patch: Size | None = None
    width: int = 192
    depth: int = 12
    heads: int = 3
    mlp_ratio: float = 4.0
    positions: Order = "column-row"
    init: Init = "normal"

    def __post_init__(self) -> None:
        if self.patch is not None:
            check_patch(self.patch)
        check_stack(self.width, self.depth, self.mlp_ratio)
        check_heads(self.width, self.heads)

    def build(self, signal: Signal) -> "ViTEncoder":
        """The encoder. Raises ValueError if the patch does not tile the signal or positions do not fit the width."""
        return ViTEncoder(self, signal)


class ViTEncoder(Encoder):
    """The transformer that `ViT` describes; it embeds only kept patches, and its last block runs only for read ones."""

    mixes = True

    def __init__(self, cfg: ViT, signal: Signal) -> None:
        super().__init__()
        self.dim, self.depth = cfg.width, cfg.depth
        self.patch, self.positions = given_patch(cfg.patch), cfg.positions
        self.grid = grid_of(signal.size, self.patch)
        axis_shares(len(self.grid), self.dim, self.positions)
        self.patch_embed = PatchEmbed(signal.channels, self.patch, self.dim)
        self.blocks = build_blocks(self.dim, cfg.depth, cfg.heads, cfg.mlp_ratio)
        self.norm = nn.LayerNorm(self.dim, eps=1e-6)
        init_linears(self, cfg.init)

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """Normalised tokens at `keep` and `read`, see `Encoder.forward`; x may have any size that the patch divides."""
        out: Tensor = self.norm(run_blocks(self.blocks, self.embed(x, keep), read, self.checkpoint_activations))
        return out

    def average(
        self, x: Float[Tensor, "b c ..."], last: int, read: Int[Tensor, "b r"] | None = None
    ) -> Float[Tensor, "b _ d"]:
        """The mean of the outputs of the last `last` blocks, each token normalised; see `Encoder.average`."""
        s, levels = self.embed(x), []
        for i, block in enumerate(self.blocks, 1):
            top = i == self.depth
            s = call_block(block, s, read if top else None, recompute=self.checkpoint_activations)
            if i > self.depth - last:
                levels.append(F.layer_norm(s if top else tokens_at(s, read), (self.dim,)))
        return torch.stack(levels).mean(0)

    def embed(self, x: Float[Tensor, "b c ..."], keep: Int[Tensor, "b k"] | None = None) -> Float[Tensor, "b _ d"]:
        """The patches at `keep` (None: all), embedded and with positions, before the first block."""
        position = self.position(grid_of(tuple(x.shape[2:]), self.patch), x.device)
        out: Tensor = self.patch_embed(x, keep) + (position if keep is None else position[keep])
        return out

    def position(self, grid: Grid, device: torch.device) -> Float[Tensor, "n d"]:
        """The table of positions for `grid`, in the precision of the weights, which is that of the residual stream."""
        return sincos_positions(grid, self.dim, self.positions, device).to(self.norm.weight.dtype)


SIZES = {
    "tiny": ViT(patch=(16, 16)),
    "small": ViT(patch=(16, 16), width=384, heads=6),
    "base": ViT(patch=(16, 16), width=768, heads=12),
    "large": ViT(patch=(16, 16), width=1024, depth=24, heads=16),
    "huge": ViT(patch=(14, 14), width=1280, depth=32, heads=16),
}

# The names of the registry: the class at its defaults, and the published sizes.
ENCODERS = {
    "vit": ViT(),
    "vit_tiny": SIZES["tiny"],
    "vit_small": SIZES["small"],
    "vit_base": SIZES["base"],
    "vit_large": SIZES["large"],
    "vit_huge": SIZES["huge"],
}

DESCRIPTIONS = {
    "vit_tiny": "ViT-Ti/16: 192 features, 12 blocks, 3 heads.",
    "vit_small": "ViT-S/16: 384 features, 12 blocks, 6 heads.",
    "vit_base": "ViT-B/16: 768 features, 12 blocks, 12 heads.",
    "vit_large": "ViT-L/16: 1024 features, 24 blocks, 16 heads.",
    "vit_huge": "ViT-H/14: 1280 features, 32 blocks, 16 heads.",
}


def vit(size: str, **changes: Any) -> ViT:
    """The ViT of a published size (tiny, small, base, large, huge) for images, with `changes` to its fields."""
    if size not in SIZES:
        raise ValueError(no_such("ViT size", size, SIZES))
    return replace(SIZES[size], **cast(Any, changes))


def tiny(signal: Signal) -> ViT:
    """The smallest ViT that is useful to the contract: it cuts any signal into 16 tokens or fewer."""
    side = (16, 4, 2)[len(signal.size) - 1]
    return ViT(patch=tuple(max(1, n // side) for n in signal.size), width=48, depth=2, heads=2)
