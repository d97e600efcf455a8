"""The base class of heads: methods such as a decoder, an actor or a learned energy, trained on top of frozen runs.

The parents are kept outside the head's modules: they move with the head, but are neither trained nor saved with it. A
run of a head names the runs of its parents and stores a hash of the weights of each.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from ..types import Batch, Masks, Signal
from .base import Method, Weights, method_name
from .masked import Masked
from .predictive import Predictive


class Head(Method):
    """A method on frozen `parents`; its `Config` has `parents` (run folders) and `parent_hashes`, both tuples of str.

    `Parents` lists the class of each parent; the last class also applies to all further parents. A head sees samples
    like its first parent: with its statistics and at its size. Its representations are that parent's, so that embedding
    and reports work as for the parent. Raises ValueError if parents are missing or of another class, or if they do not
    accept the samples.
    """

    Parents: ClassVar[tuple[type[Method], ...]] = (Method,)
    parents: tuple[Method, ...]

    def __init__(self, cfg: Any, signal: Signal, parents: Sequence[Method] = ()) -> None:
        name = method_name(type(self))
        self._check_parents(name, parents)
        for parent in parents:
            # A parent that reads frame by frame takes any number of them.
            first = isinstance(parent, Predictive) and len(signal.size) == len(parent.signal.size)
            here, there = ((found.channels, tuple(found.size)) for found in (signal, parent.signal))
            if (here[0], here[1][first:]) != (there[0], there[1][first:]):
                raise ValueError(
                    f"the samples have {here[0]} channels and size {here[1]}, but those of the parent run of {name} "
                    f"have {there[0]} and {there[1]}; give data like its own"
                )
        super().__init__(cfg, replace(signal, mean=parents[0].signal.mean, std=parents[0].signal.std))
        # Bypasses the registration of modules, so that the parents are not saved and trained with the head.
        object.__setattr__(self, "parents", tuple(parent.requires_grad_(False).eval() for parent in parents))

    @classmethod
    def _check_parents(cls, name: str, parents: Sequence[Method]) -> None:
        kinds = [*cls.Parents, *cls.Parents[-1:] * (len(parents) - len(cls.Parents))]
        if len(parents) < len(kinds):
            given = {0: "none is given", 1: "one is given"}.get(len(parents), f"{len(parents)} are given")
            if len(kinds) == 1:
                raise ValueError(f"{name} is trained on top of a finished run, but {given}; name one with --init RUN")
            raise ValueError(
                f"{name} is trained on top of {len(kinds)} finished runs, but {given}; name them with "
                "--method.parents '[RUN, RUN]'"
            )
        for parent, kind in zip(parents, kinds, strict=True):
            if not isinstance(parent, kind):
                raise ValueError(
                    f"{name} is trained on top of a run of a {kind.__name__}, not of {type(parent).__name__}"
                )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Head":
        """Apply `fn` to the parents too, so that `to`, `double` and similar methods also move them."""
        for parent in self.parents:
            parent._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def parent(self) -> Method:
        """The first parent."""
        return self.parents[0]

    @property
    def encoder(self) -> nn.Module:
        """The first parent's encoder."""
        found: nn.Module = self.parent.encoder  # type: ignore[assignment]
        return found

    def context(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b k d"]:
        """The first parent's representations of the context patches; the other patches are never read.

        Raises ValueError if that parent masks nothing.
        """
        if not isinstance(self.parent, Masked):
            name = type(self.parent).__name__
            raise ValueError(f"{name}, the parent run, masks nothing; give a run of ijepa or bijepa")
        return self.parent.context(x, masks)

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """The first parent's representations (B, N, D)."""
        return self.parent.encode(batch, weights)
