"""What every encoder is: patches in, one token per patch out."""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from ..types import Grid, Signal, Size
from .patch import grid_of


class Encoder(nn.Module):
    """Signals (B, C, *size) to tokens (B, N, D). Subclasses set `dim`, `patch` and `grid` (of the signal's own size),
    and `depth` where they have blocks; `leaves_out` is False where they cannot leave patches out, as masks need it,
    `mixes` True where a token sees other times than its own.

    With `checkpoint_activations` set, blocks are recomputed in the backward pass: same numbers, less memory, more time.
    """

    dim: int
    patch: Size
    grid: Grid
    depth: int = 1
    checkpoint_activations: bool = False
    leaves_out: bool = True
    mixes: bool = False

    def grid_of(self, x: Shaped[Tensor, "b c ..."]) -> Grid:
        """The grid of patches of x. Raises ValueError where the patch does not divide its size."""
        return grid_of(tuple(x.shape[2:]), self.patch)

    def read_weights(self) -> str:
        """Copy the weights of the file that the settings name, and return its hash; nothing where they name none.

        Building an encoder does not do it, so that a trained one is loaded without the file that it began with.
        Raises ValueError where the file cannot be read or does not fit.
        """
        return ""

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """Tokens of the patches in `keep` (all where None), of which only those at positions `read` are returned.

        `keep` indexes the grid of x, row-major; what it leaves out is never seen. `read` indexes the kept tokens.
        Raises ValueError where the patch does not divide the size of x.
        """
        raise NotImplementedError

    def average(
        self, x: Float[Tensor, "b c ..."], last: int, read: Int[Tensor, "b r"] | None = None
    ) -> Float[Tensor, "b _ d"]:
        """The mean over the last `last` blocks of their outputs, each token normalised (eps 1e-5, no affine).

        `last` is at most `depth`. Source: data2vec, arXiv:2202.03555.
        """
        raise NotImplementedError


@runtime_checkable
class EncoderConfig(Protocol):
    """A frozen dataclass that builds an encoder for a signal; raises ValueError where they do not fit."""

    def build(self, signal: Signal) -> Encoder:
        """The encoder, for that signal's channels and number of axes."""
        ...


def read_weights(module: nn.Module) -> str:
    """Copy the file of weights into every encoder inside, targets too; its hash, or nothing where none is named."""
    return max((part.read_weights() for part in module.modules() if isinstance(part, Encoder)), default="")


def masked(cfg: EncoderConfig, signal: Signal, checks: Iterable[Callable[[Grid], None]]) -> Encoder:
    """The encoder of a method that shows it some of the patches; `checks` are those of its maskers, of the grid.

    Raises ValueError where the encoder cannot leave patches out, or where a masker does not fit its grid.
    """
    encoder = cfg.build(signal)
    if not encoder.leaves_out:
        name = type(cfg).__name__.lower()
        raise ValueError(f"a {name} cannot leave patches out, as masks need it; give encoder.name vit, mlp or cnn")
    for check in checks:
        check(encoder.grid)
    return encoder


def union(index: Int[Tensor, "b *k"], tokens: int) -> tuple[Int[Tensor, "b u"], Int[Tensor, "b *k"]]:
    """What to `read` so that every entry of `index` is read once, and where each entry is found in what was read.

    `take(encoder(x, read=read), where)` equals `take(encoder(x), index)`. Samples with fewer distinct entries than the
    largest read some further tokens, so that all have U.
    """
    flat = index.flatten(1)
    wanted = torch.zeros(len(flat), tokens, dtype=torch.bool, device=flat.device).scatter_(1, flat, True)
    # A stable sort puts the wanted tokens first, in grid order.
    order = wanted.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    read = order[:, : int(wanted.sum(1).max())]
    where = torch.zeros_like(order).scatter_(1, read, torch.arange(read.shape[1], device=read.device).expand_as(read))
    return read, where.gather(1, flat).reshape(index.shape)


def chosen(keep: Int[Tensor, "b k"] | None, read: Int[Tensor, "b r"] | None) -> Int[Tensor, "b _"] | None:
    """The grid cells a token-wise encoder has to compute: those of `keep` at `read`."""
    if keep is None or read is None:
        return keep if read is None else read
    return keep.gather(1, read)
