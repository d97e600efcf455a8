"""The base class of methods: the interface that trainer, evaluators and reports use."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core import padding
from ..core.notes import Note
from ..losses import Kind
from ..nn.auto import fit_patch
from ..types import Batch, Rng, Signal, Size, Terms
from . import METHODS

Weights = Literal["target", "context"]

# How to provide what a signal lacks.
NEED_ADVICE = {
    "views": "set data.augment.views, e.g. [{count: 2}]",
    "time": "give a series, --data.name scanpaths, which fixates one place of a picture after another, or a stream of "
    "frames to jepa train rjepa-online",
    "action": "actions come with --data.name trajectories, or scanpaths, as saccades to the next fixation",
    "label": "give data with classes, e.g. a folder of images with one sub-folder per class, or trajectories generated "
    "with data.group",
}
# Methods of a Method that take a batch: a tensor instead becomes a batch of these samples alone.
TAKES_BATCHES = ("encode", "energy", "diagnostics", "calibrate")


def token_rows(parts: Sequence[Float[Tensor, "... d"]]) -> Float[Tensor, "r d"]:
    """All tokens of `parts` as rows, without gradients: what `Terms.compared` holds."""
    return torch.cat([part.detach().flatten(0, -2) for part in parts])


def method_name(kind: type["Method"]) -> str:
    """The registered name of a method; the name of its module if it is not registered."""
    try:
        return METHODS.name_of(kind)
    except ValueError:
        return kind.__module__.rpartition(".")[2]


def accept_tensors(of: Callable[..., Any]) -> Callable[..., Any]:
    """`of`, with every tensor argument replaced by a batch of these samples."""

    @wraps(of)
    def call(self: "Method", *args: Any, **named: Any) -> Any:
        batches = [Batch(value) if isinstance(value, Tensor) else value for value in args]
        return of(self, *batches, **{k: Batch(v) if isinstance(v, Tensor) else v for k, v in named.items()})

    return call


class Method(nn.Module):
    """One joint-embedding method: parameters, a loss and an encoder, for one kind of signal.

    A method is one file with a frozen dataclass `Config` and one subclass of this class. `needs` names what a batch
    must carry besides `x`: "time", "action", "views" or "label"; a signal that lacks one raises ValueError.
    `batch_statistics` says that the loss mixes samples, so the losses of two half batches do not add up to that of the
    whole. `reads_x` says whether the loss reads `Batch.x`; if it reads only views, the loader omits `x`. `chance_loss`
    is the loss of a prediction that is independent of its sample, divided by that of the best constant.
    """

    Config: ClassVar[type[Any]]  # the module's, unless the class defines its own
    needs: ClassVar[frozenset[str]] = frozenset()
    batch_statistics: ClassVar[bool] = False
    reads_x: ClassVar[bool] = True
    chance_loss: ClassVar[float] = 1.0
    mean: Tensor
    std: Tensor

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        module = sys.modules[cls.__module__]
        if "Config" not in vars(cls) and hasattr(module, "Config"):
            cls.Config = module.Config
        for name in vars(cls).keys() & set(TAKES_BATCHES):
            setattr(cls, name, accept_tensors(vars(cls)[name]))

    def __init__(self, cfg: Any, signal: Signal) -> None:
        super().__init__()
        missing = sorted(self.requires(cfg) - signal.has)
        if missing:
            advice = "; ".join(["", *[NEED_ADVICE[name] for name in missing if name in NEED_ADVICE]])
            raise ValueError(
                f"{method_name(type(self))} needs {' and '.join(missing)}, which the data lack; "
                f"they carry {', '.join(sorted(signal.has)) or 'samples only'}{advice}"
            )
        self.cfg, self.signal = cfg, signal
        shape = (signal.channels, *[1] * len(signal.size))
        # Buffers, so that they are saved, exported and moved with the weights.
        self.register_buffer("mean", torch.tensor(signal.mean or [0.0] * signal.channels).reshape(shape))
        self.register_buffer("std", torch.tensor(signal.std or [1.0] * signal.channels).reshape(shape))

    @classmethod
    def requires(cls, cfg: Any) -> frozenset[str]:
        """What a batch must carry with these settings: `needs`, and whatever a setting adds."""
        return cls.needs

    def check(self, samples: int) -> None:
        """Raise ValueError, naming the fix, if the loss cannot work on `samples` samples at a time.

        Called before step 1, with the number of samples of all processes in one micro-batch.
        """

    def check_steps(self, steps: int) -> None:
        """Raise ValueError if the loss cannot work on samples of `steps` steps, fewer than the signal has."""
        if self.reads_x:
            with torch.no_grad():
                self.loss(self.signal.zeros(2, steps=steps), Rng(0))

    def caution(self, samples: int) -> str:
        """A warning if `samples` samples at a time pass `check` but have a cost, such as much memory; otherwise ""."""
        return ""

    def normalize(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Normalise raw values to zero mean and unit variance per channel; `loss` and `encode` do this first."""
        return (x - self.mean) / self.std

    def forward(self, batch: Batch, rng: Rng) -> Terms:
        """The loss; padded samples are grouped by length. DDP and FSDP hook into forward."""
        return (
            self.loss(batch, rng)
            if batch.length is None
            else padding.loss_by_length(self.loss, batch, rng, self.patch_steps)
        )

    @property
    def patch_steps(self) -> int:
        """The number of steps in a patch of the encoder; 1 if it has no patches along time."""
        patch: Size = getattr(getattr(self, "encoder", None), "patch", (1,))
        # An encoder of single frames has no patch along time.
        return patch[0] if len(patch) == len(self.signal.size) else 1

    @property
    def calibration_samples(self) -> int:
        """The number of samples that `calibrate` needs; 0 if there is nothing to fit."""
        return 0

    def calibrate(self, batch: Batch) -> None:
        """Fit constants of the data, from `calibration_samples` raw samples, before the first step of a run."""

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        """The training loss of one batch; all randomness comes from `rng`."""
        raise NotImplementedError

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """Representations of raw samples, one per token, from the target or the context encoder.

        A caller may pass only the samples (B, C, *size) instead of a batch.
        """
        raise NotImplementedError

    def pooled(
        self, views: tuple[Float[Tensor, "b _ c ..."], ...], weights: Weights = "context"
    ) -> Float[Tensor, "v b d"]:
        """The mean token of every view, by default from the trained encoder; views may differ in size."""
        means = []
        for group in views:
            s = self.encode(Batch(group.flatten(0, 1)), weights).mean(1)
            means.append(s.reshape(*group.shape[:2], -1).transpose(0, 1))
        return torch.cat(means)

    @classmethod
    def fit_config(
        cls, cfg: Any, signal: Signal, proposal: tuple[Size, str] | None = None, frames: bool = False
    ) -> tuple[Any, list[Note]]:
        """The settings with all auto values chosen for a signal, and a note for each choice.

        By default, chooses the encoder's patch: one frame with `frames`, else the data's `proposal` with its reason, if
        any.
        """
        notes: list[Note] = []
        if getattr(cfg, "encoder", None) is not None:
            encoder, notes = fit_patch(cfg.encoder, signal.size, proposal, frames)
            cfg = replace(cfg, encoder=encoder)
        return cfg, notes

    @property
    def distance(self) -> Kind:
        """The distance that the loss uses between prediction and target."""
        kind: Kind = getattr(self.cfg, "distance", "l2")
        return kind

    def after_step(self, progress: float) -> None:
        """Called after every optimiser step, e.g. to update the EMA; `progress` goes from 0 to 1 over the training."""

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars for every logged row, from the parameters and from raw samples that are always the same.

        Called separately from the loss, in evaluation mode and without gradients.
        """
        return {}

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        """The method's own prediction distance per sample, low when `other` follows from `batch`."""
        raise NotImplementedError
