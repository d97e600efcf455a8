"""A trained run to call from Python: encode tensors or files, or follow a sequence frame by frame."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from .core.padding import equal_length_groups
from .data import guess_kind, loader
from .data.images.files import read_image
from .methods.base import Method, Weights, method_name
from .methods.predictive import Predictive
from .run import checkpoint, parse
from .training.request import PathLike
from .types import Batch, Signal, State

FILE_BATCH: Final = 64
"""Samples of a file that are encoded at a time."""


@dataclass(frozen=True)
class Model:
    """A trained run, ready to use: `model.encode("photo.jpg")`."""

    loaded: checkpoint.LoadedRun

    @property
    def method(self) -> Method:
        """The trained method, in eval mode."""
        return self.loaded.method

    def encode(
        self,
        samples: torch.Tensor | PathLike | Sequence[PathLike],
        weights: Weights = "target",
        action: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Representations (B, N, D), one per patch, on the CPU.

        `samples` is a tensor (B, C, *size) of raw values (pixels in [0, 1]; any size the patch divides), or one or
        several files. An image file is one sample, resized and cut to the centre as in training's evaluation. Any other
        file is read as the run reads its data and gives all its samples in order: use `jepa embed` for many. `action`
        (B, T - 1, A) belongs to a tensor, if the representations depend on actions. Raises ValueError, saying what to
        do, for anything else, and for samples of unequal lengths.
        """
        signal = self.method.signal
        if isinstance(samples, torch.Tensor):
            return self._encode_batch(Batch(_check_samples(samples, signal), action=action), weights)
        parts = [part for path in _check_paths(samples) for part in self._encode_file(path, weights)]
        counts = [part.shape[1] for part in parts]
        if min(counts) < max(counts):
            raise ValueError(
                f"the samples have {min(counts)} to {max(counts)} patches; encode files of one length at a time, or "
                "write the mean of each by jepa embed"
            )
        return torch.cat(parts)

    def _encode_batch(self, batch: Batch, weights: Weights) -> torch.Tensor:
        mean = self.method.mean
        with torch.inference_mode():
            return self.method.encode(batch.to(mean.device, mean.dtype), weights)

    def _encode_file(self, path: PathLike, weights: Weights) -> Iterator[torch.Tensor]:
        """All samples of a file, those of one length together; a file that no kind of data reads is an image."""
        signal = self.method.signal
        if len(signal.size) == 2 and not _is_dataset(path):
            yield self._encode_batch(Batch(read_image(Path(path), signal)[None]), weights)
            return
        dataset = parse.other_data(self.loaded.run, os.fspath(path), signal, {}).open()
        with closing(loader.read_stream(dataset, signal, batch=FILE_BATCH, corrupt="fail")) as batches:
            for batch in batches:
                groups = equal_length_groups(batch.to(self.method.mean.device), self.method.patch_steps)
                yield from (self._encode_batch(part, weights) for _, part in groups)

    def start(self, frame: torch.Tensor) -> State:
        """The state of a predictive model after a first frame (B, C, H, W), or (B, C, p) for series.

        Raises ValueError if the method is not predictive, or if the frame does not fit its data.
        """
        method = self._predictive_method()
        with torch.inference_mode():
            return method.start(check_frame(frame, method.signal).to(method.mean))

    def observe(self, state: State, frame: torch.Tensor, action: torch.Tensor | None = None) -> State:
        """The state after a new frame, to which `action` (B, A) led; its `tokens` (B, P, D) represent the frame."""
        method = self._predictive_method()
        with torch.inference_mode():
            return method.observe(state, check_frame(frame, method.signal).to(method.mean), action)

    def step(self, state: State, action: torch.Tensor | None = None) -> State:
        """The state predicted for the next frame, which the model does not see; `action` (B, A) leads to that frame."""
        method = self._predictive_method()
        with torch.inference_mode():
            return method.step(state, action)

    def _predictive_method(self) -> Predictive:
        if not isinstance(self.method, Predictive):
            name = method_name(type(self.method))
            raise ValueError(f"{name} has no state that goes on from frame to frame; give a run of rjepa")
        return self.method


def check_frame(frame: torch.Tensor, signal: Signal) -> torch.Tensor:
    """`frame`, if it holds raw values of one time step of the signal. Raises ValueError, saying what to give."""
    axes, example = max(len(signal.size) - 1, 1), (1, signal.channels, *(signal.size[1:] or ("steps of a patch",)))
    if frame.ndim != 2 + axes or frame.shape[1] != signal.channels:
        raise ValueError(
            f"the frame is {tuple(frame.shape)}, but the model takes (batch, {signal.channels}, …), e.g. "
            f"({', '.join(map(str, example))}); frame[None] makes a batch of one"
        )
    if not frame.is_floating_point():
        raise ValueError(f"the frame is {frame.dtype}; give floats, pixels in [0, 1], e.g. frame / 255")
    return frame


def _check_samples(x: torch.Tensor, signal: Signal) -> torch.Tensor:
    """`x`, if it is a batch of raw samples of the signal. Raises ValueError, saying what to give."""
    if x.ndim != 2 + len(signal.size) or x.shape[1] != signal.channels:
        raise ValueError(
            f"the samples are {tuple(x.shape)}, but the model takes (batch, {signal.channels}, *size), e.g. "
            f"{(1, signal.channels, *signal.size)}; x[None] makes a batch of one sample, "
            f"x.repeat_interleave({signal.channels}, 1) repeats a single channel"
        )
    if not x.is_floating_point():
        raise ValueError(f"the samples are {x.dtype}; give floats, pixels in [0, 1], e.g. x / 255")
    return x


def _check_paths(samples: object) -> Sequence[PathLike]:
    """`samples` as a list of paths. Raises ValueError, saying what to give, if they are not one path or several."""
    paths = [samples] if isinstance(samples, (str, os.PathLike)) else samples
    if not isinstance(paths, Sequence) or not paths or not all(isinstance(p, (str, os.PathLike)) for p in paths):
        raise ValueError(
            "encode takes a float tensor (batch, channels, *size), or one file or more, such as images; "
            "turn an array into a tensor by torch.from_numpy(x), or join several tensors by torch.stack(x)"
        )
    return paths


def _is_dataset(path: PathLike) -> bool:
    """Whether some kind of data, not counting single images, reads a path."""
    try:
        guess_kind(os.fspath(path))
    except ValueError:
        return False
    return True


def load(run: PathLike, step: int | None = None) -> Model:
    """The model of a run folder, from its newest checkpoint or from that of `step`."""
    return Model(checkpoint.load_run(Path(run), step))
