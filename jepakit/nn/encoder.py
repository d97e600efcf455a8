"""The interface of every encoder: patches in, one token per patch out."""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from ..types import Grid, Signal, Size
from .patch import grid_of


class Encoder(nn.Module):
    """Maps signals (B, C, *size) to tokens (B, N, D).

    Subclasses set `dim`, `patch` and `grid` (for the signal's own size), and `depth` if they have blocks. `leaves_out`
    is False if the encoder cannot skip the patches that a mask hides; `mixes` is True if a token sees other times than
    its own. With `checkpoint_activations`, blocks are recomputed in the backward pass: same numbers, less memory, more
    time.
    """

    dim: int
    patch: Size
    grid: Grid
    depth: int = 1
    checkpoint_activations: bool = False
    leaves_out: bool = True
    mixes: bool = False

    def grid_of(self, x: Shaped[Tensor, "b c ..."]) -> Grid:
        """The grid of patches of x. Raises ValueError if the patch does not divide the size of x."""
        return grid_of(tuple(x.shape[2:]), self.patch)

    def read_weights(self) -> str:
        """Load the weights from the file that the settings name, and return the file's hash; "" if they name none.

        Building an encoder does not read the file, so that a trained encoder loads without the file it started from.
        Raises ValueError if the file cannot be read or does not fit.
        """
        return ""

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """The tokens of the patches in `keep` (None: all patches); with `read`, only the tokens at those positions.

        `keep` indexes the grid of x, row-major; patches outside it are never seen. `read` indexes the kept tokens.
        Raises ValueError if the patch does not divide the size of x.
        """
        raise NotImplementedError

    def average(
        self, x: Float[Tensor, "b c ..."], last: int, read: Int[Tensor, "b r"] | None = None
    ) -> Float[Tensor, "b _ d"]:
        """The mean of the outputs of the last `last` blocks, each token normalised (eps 1e-5, no affine).

        `last` is at most `depth`. Source: data2vec, arXiv:2202.03555.
        """
        raise NotImplementedError


@runtime_checkable
class EncoderConfig(Protocol):
    """A frozen dataclass that builds an encoder for a signal."""

    def build(self, signal: Signal) -> Encoder:
        """The encoder for the signal's channels and axes. Raises ValueError if the settings do not fit the signal."""
        ...


def read_weights(module: nn.Module) -> str:
    """Load the weights file into every encoder in `module`, targets too; the file's hash, or "" if none is named."""
    return max((part.read_weights() for part in module.modules() if isinstance(part, Encoder)), default="")


def masked(cfg: EncoderConfig, signal: Signal, checks: Iterable[Callable[[Grid], None]]) -> Encoder:
    """Build the encoder of a method that masks patches; `checks` are the maskers' checks of the grid.

    Raises ValueError if the encoder cannot leave patches out, or if a masker does not fit its grid.
    """
    encoder = cfg.build(signal)
    if not encoder.leaves_out:
        name = type(cfg).__name__.lower()
        raise ValueError(f"a {name} cannot leave patches out, which masks require; give encoder.name vit, mlp or cnn")
    for check in checks:
        check(encoder.grid)
    return encoder


def union(index: Int[Tensor, "b *k"], tokens: int) -> tuple[Int[Tensor, "b u"], Int[Tensor, "b *k"]]:
    """(read, where): each distinct token of `index` once, and where each entry of `index` is among those read.

    `take(encoder(x, read=read), where)` equals `take(encoder(x), index)`. Samples with fewer distinct entries than the
    largest read a few more tokens, so that every sample reads U.
    """
    flat = index.flatten(1)
    wanted = torch.zeros(len(flat), tokens, dtype=torch.bool, device=flat.device).scatter_(1, flat, True)
    # A stable sort puts the wanted tokens first, in grid order.
    order = wanted.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    read = order[:, : int(wanted.sum(1).max())]
    where = torch.zeros_like(order).scatter_(1, read, torch.arange(read.shape[1], device=read.device).expand_as(read))
    return read, where.gather(1, flat).reshape(index.shape)


def cells_to_compute(keep: Int[Tensor, "b k"] | None, read: Int[Tensor, "b r"] | None) -> Int[Tensor, "b _"] | None:
    """The grid cells that a token-wise encoder computes: the entries of `keep` at `read`; None for all cells."""
    if keep is None or read is None:
        return keep if read is None else read
    return keep.gather(1, read)
