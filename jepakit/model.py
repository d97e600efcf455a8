"""A trained run, ready to use from Python."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .data.images.files import read_image
from .methods.base import Method, Weights
from .methods.predictive import Predictive
from .run import checkpoint
from .training.request import PathLike
from .types import Batch, Signal, State


@dataclass(frozen=True)
class Model:
    """A trained run, ready to use: `model.encode(images)`."""

    loaded: checkpoint.Loaded

    @property
    def method(self) -> Method:
        """The trained method, in eval mode."""
        return self.loaded.method

    def encode(self, images: torch.Tensor | PathLike | Sequence[PathLike], weights: Weights = "target") -> torch.Tensor:
        """Representations (B, N, D), one per patch, on the CPU.

        `images` is a tensor (B, C, *size) of raw values (pixels in [0, 1]; any size the patch divides), or one or
        several image files, which are resized and cut to the centre as in training's evaluation. Raises ValueError,
        with the way out, for anything else.
        """
        x = _samples(images, self.method.signal)
        with torch.inference_mode():
            return self.method.encode(Batch(x.to(self.method.mean)), weights)

    def start(self, frame: torch.Tensor) -> State:
        """What a model that unfolds in time knows after a first frame: (B, C, H, W), or (B, C, p) of series.

        Raises ValueError where the method does not unfold in time, or the frame is not one of its data.
        """
        method = self._unfolding()
        with torch.inference_mode():
            return method.start(_frame(frame, method.signal).to(method.mean))

    def observe(self, state: State, frame: torch.Tensor, action: torch.Tensor | None = None) -> State:
        """The same after a further frame, to which `action` (B, A) led; `tokens` (B, P, D) are the representation."""
        method = self._unfolding()
        with torch.inference_mode():
            return method.observe(state, _frame(frame, method.signal).to(method.mean), action)

    def step(self, state: State, action: torch.Tensor | None = None) -> State:
        """What the model imagines to know after a further frame that it does not see, to which `action` (B, A) led."""
        method = self._unfolding()
        with torch.inference_mode():
            return method.step(state, action)

    def _unfolding(self) -> Predictive:
        if not isinstance(self.method, Predictive):
            name = type(self.method).__module__.rsplit(".", 1)[-1]
            raise ValueError(f"{name} has no state that goes on from frame to frame; give a run of rjepa")
        return self.method


def _frame(frame: torch.Tensor, signal: Signal) -> torch.Tensor:
    """What `start` and `observe` were given, as raw values of one time step."""
    axes, example = max(len(signal.size) - 1, 1), (1, signal.channels, *(signal.size[1:] or ("steps of a patch",)))
    if frame.ndim != 2 + axes or frame.shape[1] != signal.channels:
        raise ValueError(
            f"the frame is {tuple(frame.shape)}, but the model takes (batch, {signal.channels}, …), e.g. "
            f"({', '.join(map(str, example))}); frame[None] makes a batch of one"
        )
    if not frame.is_floating_point():
        raise ValueError(f"the frame is {frame.dtype}; give floats, pixels in [0, 1], e.g. frame / 255")
    return frame


def _samples(images: object, signal: Signal) -> torch.Tensor:
    """What `encode` was given, as a batch of raw samples."""
    if isinstance(images, torch.Tensor):
        if images.ndim != 2 + len(signal.size) or images.shape[1] != signal.channels:
            raise ValueError(
                f"the samples are {tuple(images.shape)}, but the model takes (batch, {signal.channels}, *size), e.g. "
                f"{(1, signal.channels, *signal.size)}; x[None] makes a batch of one sample, "
                f"x.repeat_interleave({signal.channels}, 1) repeats a single channel"
            )
        if not images.is_floating_point():
            raise ValueError(f"the samples are {images.dtype}; give floats, pixels in [0, 1], e.g. x / 255")
        return images
    paths = [images] if isinstance(images, (str, os.PathLike)) else images
    if not isinstance(paths, Sequence) or not paths or not all(isinstance(p, (str, os.PathLike)) for p in paths):
        raise ValueError(
            "encode takes a float tensor (batch, channels, *size) or one image file or more; "
            "turn an array into one by torch.from_numpy(x), or several tensors by torch.stack(x)"
        )
    return torch.stack([read_image(Path(p), signal) for p in paths])


def load(run: PathLike, step: int | None = None) -> Model:
    """The model of a run folder, from its newest checkpoint or that of `step`."""
    return Model(checkpoint.load_run(Path(run), step))
