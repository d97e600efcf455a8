"""The baselines that a representation has to beat: the raw signal, and the same encoder before any training."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .. import methods
from ..types import Signal
from .features import Encode

RAW_VALUES = 3072
"""The most values per sample that `raw_tokens` usually returns: a colour image of 32 x 32."""


def raw_tokens(x: Float[Tensor, "b c ..."], values: int = RAW_VALUES) -> Float[Tensor, "b 1 _"]:
    """The sample itself as one token (B, 1, values), at a resolution of at most so many `values`.

    A side longer than (values / C)^(1 / axes) (32 for colour images, 55 for grey ones, 10 for colour video, 3072 for
    one-channel series) is averaged down to that length; shorter sides, and so small signals, stay as they are.
    """
    axes = x.ndim - 2
    limit = max(1, int((values / x.shape[1]) ** (1 / axes) + 1e-9))
    pool: Callable[..., Tensor] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[axes - 1]
    return pool(x, [min(side, limit) for side in x.shape[2:]]).flatten(1)[:, None]


def random_init(config: Any, signal: Signal, seed: int = 0, device: torch.device | str = "cpu") -> Encode:
    """The `encode` of an untrained method with these settings, in evaluation mode; it keeps the global random state."""
    return methods.build(config, signal, seed).to(device).eval().encode
