"""The warm-up set of a stream: its first frames, which give the statistics and the panel's samples."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor

from ...types import Sample, Signal, Size
from ..base import Dataset, Words
from ..config import DataConfig
from ..draws import spread_evenly
from .frames import Frame
from .source import Source

MAX_SAMPLES = 64


@dataclass(frozen=True, eq=False)
class FirstFrames(Dataset):
    """The first frames as a data set of up to 64 windows (C, T, *size) of `steps` frames, evenly spaced.

    `frames_read` are those to learn from before `source` goes on; a resumed run has learnt from them.
    """

    frames: Float[Tensor, "f c ..."]
    steps: int
    frames_read: tuple[Frame, ...] = ()
    source: Source | None = None
    cfg: Any = field(default_factory=DataConfig, kw_only=True)

    words = Words("window", "windows", "frames")
    arrives = True

    @classmethod
    def from_frames(cls, frames: Sequence[Frame], steps: int, source: Source) -> "FirstFrames":
        """The warm-up set from frames read from `source`."""
        return cls(torch.stack([frame.x for frame in frames]), steps, tuple(frames), source)

    @classmethod
    def load(cls, path: Path, steps: int) -> "FirstFrames":
        """The warm-up set that `to_bytes` wrote. Raises ValueError if its file is missing."""
        if not path.is_file():
            raise ValueError(f"{path}, which holds the run's first frames, is missing; restore it, or start a new run")
        return cls(load_file(path)["frames"], steps)

    def to_bytes(self) -> bytes:
        """The warm-up set as bytes, for `load`."""
        return save({"frames": self.frames.contiguous()})

    @property
    def channels(self) -> int:
        """The number of channels, or of numbers in a vector."""
        return self.frames.shape[1]

    @property
    def native(self) -> Size:
        """(T,) or (T, H, W)."""
        return (self.steps, *self.frames.shape[2:])

    @property
    def notes(self) -> tuple[str, ...]:
        """The decisions made on opening the data."""
        return (f"mean and deviation come from the first {len(self.frames)} frames and stay fixed",)

    @property
    def window_starts(self) -> list[int]:
        """The start frame of each window."""
        return spread_evenly(len(self.frames) - self.steps + 1, MAX_SAMPLES)

    def __len__(self) -> int:
        return len(self.window_starts)

    def name(self, i: int) -> str:
        """The frame range of a window, as text."""
        first = self.window_starts[i]
        return f"frames {first} to {first + self.steps - 1}"

    def raw(self, i: int) -> Float[Tensor, "c t ..."]:
        """Window i."""
        first = self.window_starts[i]
        return self.frames[first : first + self.steps].transpose(0, 1)

    def sample(self, i: int, size: Size) -> Sample:
        """Window i at its own size, whatever `size` is: all frames of a stream have one size."""
        return Sample(self.raw(i))

    def with_config(self, cfg: Any) -> "FirstFrames":
        """The same frames: no setting changes them."""
        return self

    def fingerprint(self) -> str:
        """A hash of the frames."""
        return blake2b(self.frames.numpy().tobytes(), digest_size=16).hexdigest()

    def signal(self) -> Signal:
        """The signal; the deviation of a constant channel is 1."""
        values = self.frames.transpose(0, 1).flatten(1).double()
        std = [float(v) if v > 1e-8 else 1.0 for v in values.std(1, correction=0)]
        return Signal(self.channels, self.native, tuple(values.mean(1).tolist()), tuple(std))
