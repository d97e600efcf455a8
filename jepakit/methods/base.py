"""The contract of a method: what the trainer, the evaluators and the reports may ask of any JEPA."""

import sys
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..losses import Kind
from ..types import Batch, Rng, Signal, Terms

Weights = Literal["target", "context"]


class Method(nn.Module):
    """One joint-embedding method: parameters, a loss and an encoder, for one kind of signal.

    A method is one file with a frozen dataclass `Config` and one subclass of this. `needs` names what a batch must
    carry beyond `x`, of "time", "action", "views", "label". Raises ValueError where the signal lacks one.
    """

    Config: ClassVar[type[Any]]  # the module's, unless the class has one of its own
    needs: ClassVar[frozenset[str]] = frozenset()
    mean: Tensor
    std: Tensor

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        module = sys.modules[cls.__module__]
        if "Config" not in vars(cls) and hasattr(module, "Config"):
            cls.Config = module.Config

    def __init__(self, cfg: Any, signal: Signal) -> None:
        super().__init__()
        missing = sorted(self.needs - signal.has)
        if missing:
            raise ValueError(
                f"{type(self).__module__.rsplit('.', 1)[-1]} needs {' and '.join(missing)}, which the data lack; "
                f"they carry {', '.join(sorted(signal.has)) or 'samples only'}"
            )
        self.cfg, self.signal = cfg, signal
        shape = (signal.channels, *[1] * len(signal.size))
        # Buffers, so that they are saved, exported and moved with the weights.
        self.register_buffer("mean", torch.tensor(signal.mean or [0.0] * signal.channels).reshape(shape))
        self.register_buffer("std", torch.tensor(signal.std or [1.0] * signal.channels).reshape(shape))

    def normalize(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Raw units to zero mean and unit variance per channel; the first thing `loss` and `encode` do."""
        return (x - self.mean) / self.std

    def forward(self, batch: Batch, rng: Rng) -> Terms:
        """The loss: DDP and FSDP hook into forward."""
        return self.loss(batch, rng)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The training loss of one batch; all randomness comes from `rng`."""
        raise NotImplementedError

    def encode(self, x: Float[Tensor, "b c ..."], weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """Representations of raw samples (B, C, *size), one per token, by the target or the context encoder."""
        raise NotImplementedError

    @property
    def distance(self) -> Kind:
        """The distance by which the loss compares prediction and target."""
        kind: Kind = getattr(self.cfg, "distance", "l2")
        return kind

    def compared(self, target: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """A target as the loss compares it: normalised, where the method does that."""
        return target

    def after_step(self, progress: float) -> None:
        """What follows an optimiser step, such as the EMA; `progress` runs from 0 to 1 over the training."""

    def energy(self, x: Float[Tensor, "b c ..."], y: Float[Tensor, "b c ..."]) -> Float[Tensor, " b"]:
        """The method's own prediction distance per sample, low when y follows from x."""
        raise NotImplementedError
