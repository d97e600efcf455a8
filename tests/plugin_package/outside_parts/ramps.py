"""Generated pictures that grow brighter from one side to the other."""

from dataclasses import dataclass

import torch

from jepakit.data.base import Dataset
from jepakit.data.config import DataConfig
from jepakit.types import Sample, Size


@dataclass(frozen=True)
class Config(DataConfig):
    """`count` pictures of 16 x 16, for the path "ramps"."""

    path: str = "ramps"
    count: int = 32

    @classmethod
    def recognises(cls, path: str) -> str:
        """The name alone."""
        return f"{path!r} is a generated set" if path == "ramps" else ""

    def open(self) -> "Ramps":
        """The pictures."""
        return Ramps(self)


@dataclass(frozen=True, eq=False)
class Ramps(Dataset):
    """Pictures of one channel, of two classes."""

    cfg: Config

    channels, classes, native = 1, ("to the right", "downwards"), (16, 16)

    def __len__(self) -> int:
        return self.cfg.count

    def name(self, i: int) -> str:
        """Its number."""
        return f"ramp-{i}"

    def fingerprint(self) -> str:
        """How many there are."""
        return f"ramps-{len(self)}"

    def label(self, i: int) -> int:
        """Its direction."""
        return i % 2

    def sample(self, i: int, size: Size) -> Sample:
        """A ramp of a brightness of its own."""
        ramp = torch.linspace(0, 255 * (i + 1) / len(self), size[1]).repeat(size[0], 1)
        x = (ramp if i % 2 == 0 else ramp.T).to(torch.uint8)[None]
        return Sample(x.contiguous())
