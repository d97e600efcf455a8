"""Episodes in an .npz file: observations, the actions that lead from one to the next, rewards and ends."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from jepakit.data import DataConfig, Dataset, Words
from jepakit.data.paths import file_name
from jepakit.data.rows import select_part
from jepakit.types import ActionSpec, Sample, Size

STEPS = ("actions", "rewards", "dones")
WORDS = Words("episode", "episodes", "frames", "cut the episodes to one length")


@dataclass(frozen=True)
class Config(DataConfig):
    """`observations` (N, T + 1, D) or (N, T + 1, C, H, W), `actions` (N, T, A), perhaps `rewards`, `dones`, `labels`.

    `lengths` (N,), where they are given, count the observations of each episode; what follows them is padding.
    """

    @classmethod
    def recognises(cls, path: str) -> str:
        """An .npz file with observations and actions."""
        if not file_name(path).endswith(".npz"):
            return ""
        try:
            with np.load(path, allow_pickle=False) as file:
                return "an .npz of observations and actions" if {"observations", "actions"} <= set(file.files) else ""
        except (OSError, ValueError):
            return ""

    def open(self) -> "Episodes":
        """The episodes of the part asked for. Raises ValueError."""
        with np.load(self.path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if len(arrays["observations"]) != len(arrays["actions"]):
            raise ValueError(f"{self.path!r} holds observations and actions of different numbers of episodes")
        rows = select_part([str(i) for i in range(len(arrays["actions"]))], self.split, self.held_out, self.limit)
        return Episodes(arrays, rows, Path(self.path).name, self)


@dataclass(frozen=True, eq=False)
class Episodes(Dataset):
    """Samples (C, T + 1, *size) with actions (T, A)."""

    arrays: dict[str, np.ndarray]
    rows: np.ndarray
    source: str
    cfg: Config

    words = WORDS

    @property
    def channels(self) -> int:
        return int(self.arrays["observations"].shape[2])

    @property
    def classes(self) -> tuple[str, ...]:
        labels = self.arrays.get("labels")
        return () if labels is None else tuple(map(str, range(int(labels.max()) + 1)))

    @property
    def native(self) -> Size:
        frames, _, *size = self.arrays["observations"].shape[1:]
        return (frames, *size)

    @property
    def lengths(self) -> np.ndarray | None:
        lengths = self.arrays.get("lengths")
        return None if lengths is None else lengths[self.rows].astype(np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, i: int) -> str:
        return f"{self.source}[{int(self.rows[i])}]"

    def label(self, i: int) -> int:
        labels = self.arrays.get("labels")
        return -1 if labels is None else int(labels[self.rows[i]])

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(self.rows.tobytes(), digest_size=8)
        for array in self.arrays.values():
            digest.update(np.ascontiguousarray(array[self.rows]).tobytes())
        return digest.hexdigest()

    def action_spec(self) -> ActionSpec:
        return ActionSpec(int(self.arrays["actions"].shape[2]))

    def sample(self, i: int, size: Size) -> Sample:
        row, frames = int(self.rows[i]), size[0]
        longer = frames > self.native[0] and self.lengths is not None
        if size[1:] != self.native[1:] or not (longer or frames == self.native[0]):
            raise ValueError(f"{self.name(i)} is of size {self.native}, but the model takes {size}; give such episodes")
        length = self.native[0] if self.lengths is None else int(self.lengths[i])
        x = self._padded("observations", row, frames, length)
        action, reward, done = (self._padded(name, row, frames - 1, length - 1) for name in STEPS)
        return Sample(
            x if x is None else x.transpose(0, 1).contiguous(),
            action=action,
            reward=reward,
            done=done if done is None else done.bool(),
            length=None if self.lengths is None else length,
        )

    def _padded(self, name: str, row: int, steps: int, length: int) -> torch.Tensor | None:
        """The first `length` steps of an array, and zeros up to `steps`; None where the file has no such array."""
        if name not in self.arrays:
            return None
        values = self.arrays[name][row][:length].astype(np.float32)
        out = np.zeros((steps, *values.shape[1:]), np.float32)
        out[: len(values)] = values
        return torch.from_numpy(out)
