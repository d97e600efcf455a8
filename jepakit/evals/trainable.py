"""Provides samples to train on and encoders to train, for kinds of probe that do more than read frozen features."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..data import Dataset, loader
from ..methods.base import Method, Weights
from ..types import Batch, Signal
from .baselines import raw_tokens
from .split import Part


@dataclass(frozen=True, eq=False)
class Live(Part):
    """Items `id` of a data set, with labels `y` (-1: none), and `build`, which makes the encoder to train.

    Every call of `build` gives a new copy on `device`, samples to tokens, of which exactly the parameters that the
    tokens depend on require a gradient.
    """

    dataset: Dataset
    build: Callable[[], nn.Module]
    y: Int64[np.ndarray, " n"]
    id: Int64[np.ndarray, " n"]
    signal: Signal
    workers: int = 0
    device: str = "cpu"

    ROWS = ("y", "id")

    def same(self, other: "Live") -> bool:
        """Whether both hold the same samples."""
        return np.array_equal(self.id, other.id) and self.dataset.fingerprint() == other.dataset.fingerprint()

    def augmented_batches(self, batch: int, steps: int, seed: int) -> Iterable[Batch]:
        """`steps` training batches as the run's own are made; `Batch.id` counts the samples of this part."""
        part = self.dataset.subset(self.id, self.y)
        return loader.batches(part, self.signal, seed=seed, batch=batch, start=0, stop=steps, workers=self.workers)

    def plain(self, batch: int) -> Iterable[Batch]:
        """Every sample once, without augmentation."""
        part = self.dataset.subset(self.id, self.y)
        return loader.read_stream(part, self.signal, batch=batch, workers=self.workers)


class Encoding(nn.Module):
    """The encoder of a method, as a module that can be trained."""

    def __init__(self, method: Method, weights: Weights) -> None:
        super().__init__()
        self.method, self.weights = method, weights

    def forward(self, batch: Batch) -> Float[Tensor, "b n d"]:
        """Samples to tokens."""
        return self.method.encode(batch, self.weights)


class Pixels(nn.Module):
    """The raw input as one token: nothing to train."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method.requires_grad_(False)

    def forward(self, batch: Batch) -> Float[Tensor, "b 1 d"]:
        """Samples to what the raw baseline of every kind sees."""
        return raw_tokens(self.method.normalize(batch.x))


def trainable_encoder(method: Method, weights: Weights, device: str) -> nn.Module:
    """A copy of the method's encoder, to be trained: see `Live.build`.

    Raises ValueError where no gradient passes through the method's `encode`.
    """
    module = Encoding(copy.deepcopy(method), weights).to(device).requires_grad_(True)
    tokens = module(method.signal.zeros(device=device))
    if tokens.requires_grad:
        tokens.sum().backward()
    parameters = list(module.parameters())
    for p in parameters:
        p.requires_grad_(p.grad is not None)
        p.grad = None
    if not any(p.requires_grad for p in parameters):
        raise ValueError(
            f"{type(method).__name__}.encode passes no gradient, so it cannot be fine-tuned; take off its no_grad"
        )
    return module


def raw_baseline(method: Method, device: str) -> nn.Module:
    """The raw baseline."""
    return Pixels(copy.deepcopy(method)).to(device)
