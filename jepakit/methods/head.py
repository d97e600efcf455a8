"""What is trained over a frozen run: a decoder, an actor, a learned energy read the representations of a parent.

The parent is held outside of the head's modules: it is moved with them, and is neither trained nor saved with them. A
run of a head names the run of its parent, and keeps a hash of the weights that it read.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..types import Batch, Masks, Signal
from .base import Method, Weights
from .masked import Masked


class Head(Method):
    """A method over a frozen `parent`; its `Config` has the texts `parent`, a run folder, and `parent_hash`.

    It sees samples as its parent does: with the parent's statistics, and at its size. Its representations are the
    parent's, so that a head can be probed, embedded and reported as the run below it. Raises ValueError without a
    parent, over another head, and for samples that the parent does not take.
    """

    parent: Method

    def __init__(self, cfg: Any, signal: Signal, parent: Method | None = None) -> None:
        name = type(self).__module__.rsplit(".", 1)[-1]
        if parent is None or isinstance(parent, Head):
            given = "none is given" if parent is None else "that one is a head itself"
            raise ValueError(f"{name} is trained over a run that is finished, and {given}; name one by --init RUN")
        here, there = (signal.channels, tuple(signal.size)), (parent.signal.channels, tuple(parent.signal.size))
        if here != there:
            raise ValueError(
                f"the samples have {here[0]} channels and size {here[1]}, but those of the run below {name} "
                f"{there[0]} and {there[1]}; give data like its own"
            )
        super().__init__(cfg, replace(signal, mean=parent.signal.mean, std=parent.signal.std))
        # Past the registration of modules, or the parent would be saved and trained with the head.
        object.__setattr__(self, "parent", parent.requires_grad_(False).eval())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Head":
        """What `to`, `double` and their like are made of: the parent goes along."""
        self.parent._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def encoder(self) -> nn.Module:
        """The parent's."""
        found: nn.Module = self.parent.encoder  # type: ignore[assignment]
        return found

    def context(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b k d"]:
        """The parent's representations of the context patches, where the parent masks; the others are never read."""
        if not isinstance(self.parent, Masked):
            raise ValueError(
                f"{type(self.parent).__name__}, the run below, masks nothing; give a run of ijepa or bijepa"
            )
        return self.parent.context(x, masks)

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """The parent's representations (B, N, D)."""
        return self.parent.encode(batch, weights)
