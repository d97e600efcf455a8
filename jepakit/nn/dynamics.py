"""Predictors with actions: from the latent of a frame and an action to the latent of the next frame.

A latent is N tokens of D features: one vector (N = 1), or a grid of them. Every predictor is residual or gated, so that
an untrained one predicts that little changes:

mlp           s′ = s + MLP([s, a]), the same for every token
gru           [s′, m′] = GRU(a, [s, m]): the latent is the recurrent state, beside `memory` further features
conv          s′ = s + CNN([s, a]), convolutions over the grid, the action at every cell
transformer   s′ = s + T(s_{t−H+1 … t}, a_{t−H+1 … t}): attention over the tokens of the last `history` frames, causal
              by frame; actions set the shifts, scales and gates of adaptive LayerNorm, which start at zero

What a predictor knows beside the current latent is an explicit tuple of tensors (B, …), its `hidden` state.

Sources: the GRU whose state is the latent is that of PLDM (arXiv:2502.14819); AdaLN-zero is of DiT (arXiv:2212.09748).
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import Grid
from .mlp import build_perceptron, count_with_differences, with_differences
from .position import axis_shares, sincos_positions
from .transformer import Attention, FeedForward, check_heads, check_stack

Hidden = tuple[Float[Tensor, "b ..."], ...]


class Dynamics(nn.Module):
    """A predictor of the next latent; `remembers` says whether more than the current latent and action reach it."""

    remembers: bool = False

    def start(self, tokens: Float[Tensor, "b n d"]) -> Hidden:
        """The hidden state before any action."""
        return ()

    def forward(
        self, tokens: Float[Tensor, "b n d"], action: Float[Tensor, "b a"], hidden: Hidden
    ) -> tuple[Float[Tensor, "b n d"], Hidden]:
        """The next latent after `action`, and the next hidden state."""
        raise NotImplementedError

    def remember(self, tokens: Float[Tensor, "b n d"], action: Float[Tensor, "b a"], hidden: Hidden) -> Hidden:
        """The next hidden state alone."""
        if not self.remembers:
            return hidden
        _, after = self(tokens, action, hidden)
        return after  # type: ignore[no-any-return]

    def predict_each(
        self, tokens: Float[Tensor, "b t n d"], action: Float[Tensor, "b t a"]
    ) -> Float[Tensor, "b t n d"]:
        """The prediction of every next latent from the true ones so far (teacher forcing)."""
        if not self.remembers:
            flat, _ = self(tokens.flatten(0, 1), action.flatten(0, 1), ())
            preds: Tensor = flat.reshape(tokens.shape)
            return preds
        hidden, found = self.start(tokens[:, 0]), []
        for now, a in zip(tokens.unbind(1), action.unbind(1), strict=True):
            pred, hidden = self(now, a, hidden)
            found.append(pred)
        return torch.stack(found, 1)


@runtime_checkable
class DynamicsConfig(Protocol):
    """A frozen dataclass that builds a predictor of the next latent."""

    def build(self, dim: int, action: int, grid: Grid) -> Dynamics:
        """The predictor for tokens of `dim` features on `grid`, the cells of a frame, and `action` action values.

        Raises ValueError if the settings do not fit these.
        """
        ...


def zero_last_linear(layers: nn.Sequential) -> nn.Sequential:
    """`layers` with zero weights and biases in the last one, so that they add nothing to a residual at first."""
    nn.init.zeros_(layers[-1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(layers[-1].bias)  # type: ignore[arg-type]
    return layers


@dataclass(frozen=True)
class ResidualMLP:
    """A perceptron of `depth` hidden layers (linear, LayerNorm, GELU) that predicts the change of every token.

    With `differences`, it also reads the differences of all pairs of features; for features that are coordinates.
    """

    hidden: int = 512
    depth: int = 2
    differences: bool = False

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.depth < 1:
            raise ValueError(f"hidden is {self.hidden} and depth {self.depth}; give 1 or more")

    def build(self, dim: int, action: int, grid: Grid) -> "ResidualMLPDynamics":
        """The predictor; see `DynamicsConfig.build`."""
        return ResidualMLPDynamics(self, dim, action)


class ResidualMLPDynamics(Dynamics):
    """The network that `ResidualMLP` describes; no token sees another."""

    def __init__(self, cfg: ResidualMLP, dim: int, action: int) -> None:
        super().__init__()
        self.differences = cfg.differences
        seen = count_with_differences(dim) if cfg.differences else dim
        self.layers = zero_last_linear(
            build_perceptron([seen + action, *[cfg.hidden] * cfg.depth, dim], "layer", nn.GELU)
        )

    def forward(self, tokens: Tensor, action: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """The next latent; see `Dynamics.forward`."""
        each = action[:, None].expand(-1, tokens.shape[1], -1)
        seen = with_differences(tokens) if self.differences else tokens
        return tokens + self.layers(torch.cat([seen, each], -1)), hidden


@dataclass(frozen=True)
class GRU:
    """A gated recurrent unit that actions drive and whose state is the latent, beside `memory` further features."""

    memory: int = 0

    def __post_init__(self) -> None:
        if self.memory < 0:
            raise ValueError(f"memory is {self.memory}; give 0 features or more")

    def build(self, dim: int, action: int, grid: Grid) -> "GRUDynamics":
        """The predictor; see `DynamicsConfig.build`."""
        return GRUDynamics(self, dim, action)


class GRUDynamics(Dynamics):
    """The network that `GRU` describes, the same for every token; no token sees another."""

    def __init__(self, cfg: GRU, dim: int, action: int) -> None:
        super().__init__()
        self.memory, self.remembers = cfg.memory, cfg.memory > 0
        self.cell = nn.GRUCell(action, dim + cfg.memory)

    def start(self, tokens: Float[Tensor, "b n d"]) -> Hidden:
        """An empty memory (B, N, memory), or none."""
        return (tokens.new_zeros(*tokens.shape[:2], self.memory),) if self.memory else ()

    def forward(self, tokens: Tensor, action: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """The next latent; see `Dynamics.forward`."""
        state = torch.cat([tokens, *hidden], -1)
        each = action[:, None].expand(-1, tokens.shape[1], -1)
        new: Tensor = self.cell(each.flatten(0, 1), state.flatten(0, 1).to(each.dtype))
        new = new.reshape(state.shape)
        return (new[..., : tokens.shape[-1]], (new[..., tokens.shape[-1] :],)) if self.memory else (new, ())


@dataclass(frozen=True)
class GridConv:
    """Convolutions of kernel 3 over the grid, `depth` hidden ones of `width` channels, that predict the change.

    Every hidden layer is followed by LayerNorm over channels and GELU. For one token it is a perceptron.
    """

    width: int = 64
    depth: int = 3

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1:
            raise ValueError(f"width is {self.width} and depth {self.depth}; give 1 or more")

    def build(self, dim: int, action: int, grid: Grid) -> "GridConvDynamics":
        """The predictor; see `DynamicsConfig.build`."""
        return GridConvDynamics(self, dim, action, grid)


class GridConvDynamics(Dynamics):
    """The network that `GridConv` describes."""

    def __init__(self, cfg: GridConv, dim: int, action: int, grid: Grid) -> None:
        super().__init__()
        self.grid = frame_grid(grid)
        kernel = 3 if prod(self.grid) > 1 else 1
        widths = [dim + action, *[cfg.width] * cfg.depth]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(cfg.width) for _ in self.convs)
        self.out = nn.Linear(cfg.width, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor, action: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """The next latent; see `Dynamics.forward`."""
        each = action[:, None].expand(-1, tokens.shape[1], -1)
        x = torch.cat([tokens, each], -1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            maps = conv(x.transpose(1, 2).reshape(len(x), -1, *self.grid))
            x = F.gelu(norm(maps.flatten(2).transpose(1, 2)))
        return tokens + self.out(x), hidden


@dataclass(frozen=True)
class CausalTransformer:
    """A transformer over the tokens of the last `history` frames; actions enter by AdaLN-zero; `heads` divides `width`.

    A token attends to all tokens of its own frame and of earlier ones.
    """

    width: int = 192
    depth: int = 4
    heads: int = 3
    mlp_ratio: float = 4.0
    history: int = 3

    def __post_init__(self) -> None:
        check_stack(self.width, self.depth, self.mlp_ratio)
        check_heads(self.width, self.heads)
        if self.history < 1:
            raise ValueError(f"history is {self.history}; give 1 frame or more")

    def build(self, dim: int, action: int, grid: Grid) -> "TransformerDynamics":
        """The predictor; see `DynamicsConfig.build`."""
        return TransformerDynamics(self, dim, action, grid)


class TransformerDynamics(Dynamics):
    """The network that `CausalTransformer` describes; its hidden state holds past tokens and past actions."""

    remembers = True

    def __init__(self, cfg: CausalTransformer, dim: int, action: int, grid: Grid) -> None:
        super().__init__()
        self.history, self.width, self.actions = cfg.history, cfg.width, action
        self.grid = frame_grid(grid)
        axis_shares(2, cfg.width, "column-row")
        self.embed = nn.Linear(dim, cfg.width)
        self.condition = build_perceptron([action, cfg.width, cfg.width], "none", nn.SiLU)
        self.time = nn.Parameter(0.02 * torch.randn(cfg.history, 1, cfg.width))
        self.blocks = nn.ModuleList(ConditionedBlock(cfg.width, cfg.heads, cfg.mlp_ratio) for _ in range(cfg.depth))
        self.norm = nn.LayerNorm(cfg.width, eps=1e-6)
        self.out = nn.Linear(cfg.width, dim)

    def start(self, tokens: Float[Tensor, "b n d"]) -> Hidden:
        """No past tokens (B, 0, N, D) and no past actions (B, 0, A)."""
        return tokens.new_zeros(len(tokens), 0, *tokens.shape[1:]), tokens.new_zeros(len(tokens), 0, self.actions)

    def remember(self, tokens: Tensor, action: Tensor, hidden: Hidden) -> Hidden:
        """The last `history` − 1 tokens and actions."""
        first = max(0, hidden[0].shape[1] + 2 - self.history)
        if self.history == 1:
            return self.start(tokens)
        now = (tokens[:, None], action[:, None])
        return tuple(torch.cat([past, new], 1)[:, first:] for past, new in zip(hidden, now, strict=True))

    def forward(self, tokens: Tensor, action: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """The next latent; see `Dynamics.forward`."""
        frames = torch.cat([hidden[0], tokens[:, None]], 1)
        actions = torch.cat([hidden[1], action[:, None]], 1)
        return self.window(frames, actions)[:, -1], self.remember(tokens, action, hidden)

    def predict_each(
        self, tokens: Float[Tensor, "b t n d"], action: Float[Tensor, "b t a"]
    ) -> Float[Tensor, "b t n d"]:
        """The prediction of every next latent; the first `history` frames in one pass, later ones window by window."""
        first = self.window(tokens[:, : self.history], action[:, : self.history])
        if tokens.shape[1] <= self.history:
            return first
        frames, actions = (x[:, 1:].unfold(1, self.history, 1).movedim(-1, 2) for x in (tokens, action))
        later = self.window(frames.flatten(0, 1), actions.flatten(0, 1))[:, -1]
        return torch.cat([first, later.reshape(len(tokens), -1, *tokens.shape[2:])], 1)

    def window(self, tokens: Float[Tensor, "b h n d"], action: Float[Tensor, "b h a"]) -> Float[Tensor, "b h n d"]:
        """The prediction after each of at most `history` frames, from it and those before it."""
        b, h, n, _ = tokens.shape
        x = self.embed(tokens) + self.time[:h]
        if n > 1:
            x = x + sincos_positions(self.grid, self.width, device=x.device).to(x.dtype)
        c = self.condition(action)[:, :, None].expand(-1, -1, n, -1).flatten(1, 2)
        mask = None
        if h > 1:
            frame = torch.arange(h, device=x.device).repeat_interleave(n)
            mask = frame[:, None] >= frame
        x = x.flatten(1, 2)
        for block in self.blocks:
            x = block(x, c, mask)
        change: Tensor = self.out(self.norm(x))
        return tokens + change.reshape(b, h, n, -1)


class ConditionedBlock(nn.Module):
    """A transformer block with AdaLN-zero: conditions give shift, scale and gate of both halves, all zero at first."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.mlp = FeedForward(width, int(width * mlp_ratio))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Float[Tensor, "b l w"], condition: Float[Tensor, "b l w"], mask: Bool[Tensor, "l l"] | None
    ) -> Float[Tensor, "b l w"]:
        """The tokens after the block; `mask` is True where a token (row) may attend to another (column)."""
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(F.silu(condition)).chunk(6, -1)
        q, k, v = self.attn.project_qkv(normalize(x) * (1 + scale) + shift)
        mixed = F.scaled_dot_product_attention(q, k, v, mask)
        x = x + gate * self.attn.proj(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + gate2 * self.mlp(normalize(x) * (1 + scale2) + shift2)
        return out


def normalize(x: Float[Tensor, "*n w"]) -> Float[Tensor, "*n w"]:
    """LayerNorm without affine, eps 1e-6."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def frame_grid(grid: Grid) -> Grid:
    """The cells of a frame as (h, w); a vector is one cell."""
    return (*grid, 1, 1)[:2]


# The names of the registry.
DYNAMICS = {"mlp": ResidualMLP(), "gru": GRU(), "conv": GridConv(), "transformer": CausalTransformer()}
