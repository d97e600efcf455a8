"""The data set of trajectories: windows of frames, the actions between them, rewards and ends."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

from ...types import ActionSpec, Ids, Rng, Samples, Signal, Size
from ..base import Dataset, Place, Words
from ..config import DataConfig
from ..report import Progress, Report
from .store import Steps
from .windows import Cut, Form

WORDS = Words(
    "window",
    "windows",
    "frames",
    "give windows of one length",
    "trajectories have none; choose a probe that needs none",
)
MAX_PATCH = 16
CHANNEL_ORDERS = {"": (0, 2, 1), "HWC": (0, 4, 1, 2, 3), "CHW": (0, 2, 1, 3, 4)}


@runtime_checkable
class Source(Protocol):
    """Where windows come from: episodes in files, or an environment. See `Store` for the meanings."""

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def layout(self) -> str: ...  # noqa: D102
    @property
    def channels(self) -> int: ...  # noqa: D102
    @property
    def size(self) -> Size: ...  # noqa: D102
    @property
    def column_names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def spec(self) -> ActionSpec: ...  # noqa: D102
    @property
    def proprio_size(self) -> int: ...  # noqa: D102
    @property
    def factor_names(self) -> tuple[str, ...]: ...  # noqa: D102
    def read(self, episode: Int64[np.ndarray, " b"], begin: Int64[np.ndarray, " b"], form: Form) -> Steps: ...  # noqa: D102
    def factors(self, episode: int, at: Int64[np.ndarray, " f"]) -> Float32[np.ndarray, "f k"] | None: ...  # noqa: D102
    def fingerprint(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Trajectories(Dataset):
    """Samples (C, T + 1, H, W) or (C, T + 1) with actions (T, A).

    `cut` says where in the episodes of `source` they begin. Where `cfg.group` episodes in a row belong together, the
    group is their label; other trajectories have none. Groups count from `first_group`, so that no group of a test part
    has the name of one of the training part. `given` are the labels of a subset.
    """

    source: Source
    form: Form
    stride: int
    cut: Cut
    notes: tuple[str, ...]
    cfg: Any = field(default_factory=DataConfig, kw_only=True)
    given: Int64[np.ndarray, " n"] | None = field(default=None, kw_only=True)
    first_group: int = field(default=0, kw_only=True)

    words = WORDS

    @cached_property
    def _groups(self) -> Int64[np.ndarray, " n"] | None:
        """The group that each window belongs to, from 0; None if episodes are not grouped."""
        share = getattr(self.cfg, "group", 1)
        return None if share == 1 else self.cut.episode // share

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the groups; empty if episodes are not grouped."""
        if self._groups is None:
            return ()
        return tuple(f"group {self.first_group + k}" for k in range(int(self._groups.max()) + 1))

    @cached_property
    def group(self) -> int:
        """The windows of a group, if all but the last have as many and each is in one piece; else 1."""
        if self._groups is None:
            return 1
        count = int((self._groups == self._groups[0]).sum())
        groups = self._groups[: len(self._groups) // count * count].reshape(-1, count)
        return count if (groups == groups[:, :1]).all() else 1

    @property
    def channels(self) -> int:
        """The number of channels of a sample: those of a frame, times the frames in a stack."""
        return self.source.channels * self.form.stack

    @property
    def native(self) -> Size:
        """(T + 1, H, W), or (T + 1,) if observations are vectors."""
        return (self.form.window, *self.source.size)

    @property
    def picture_channels(self) -> int:
        """The number of channels of one recorded frame."""
        return self.source.channels

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the numbers of an observation, for every frame of a stack."""
        return self.source.column_names * self.form.stack

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The names of the true quantities; empty if the data have none."""
        return self.source.factor_names

    def __len__(self) -> int:
        return len(self.cut.begin)

    def name(self, i: int) -> str:
        """The episode, and the recorded frames from the first to the one after the last."""
        begin, end = self.step_span(i)
        return f"{self.source.names[int(self.cut.episode[i])]}[{begin}:{end}]"

    def label(self, i: int) -> int:
        """The label given to a subset, the window's group, or -1."""
        labels = self._groups if self.given is None else self.given
        return -1 if labels is None else int(labels[i])

    def step_span(self, i: int) -> tuple[int, int]:
        """The first recorded frame of a window in its episode, and the frame after its last."""
        begin = int(self.cut.begin[i])
        return begin, begin + self.form.steps + 1

    def place(self, i: int) -> Place:
        """The episode of a window, and the recorded frame that its first frame shows, or shows last in its stack."""
        first = int(self.cut.begin[i]) + (self.form.stack - 1) * self.form.every
        return Place(self.source.names[int(self.cut.episode[i])], first, self.form.every)

    def action_spec(self) -> ActionSpec:
        """The form of the action between two frames. Raises ValueError if discrete actions are joined to blocks."""
        return self.source.spec.repeat(self.form.block)

    def proprio_size(self) -> int:
        """The number of proprioceptive values beside each frame."""
        return self.source.proprio_size

    def read(self, ids: Ids, size: Size) -> Samples:
        """Windows `ids`, with actions, rewards and ends. Raises ValueError if the model takes another size."""
        if tuple(size) != self.native:
            raise ValueError(
                f"windows have {self._size_text(self.native)} but the model takes {self._size_text(size)}; set "
                f"data.window={size[0]}" + (f" and data.size={list(size[1:])}" if size[1:] != self.native[1:] else "")
            )
        found = self.source.read(self.cut.episode[ids], self.cut.begin[ids], self.form)
        action, reward, done = between_frames(found, self.form)
        proprio = found.proprio
        return Samples(
            stack_frames(found.frames, self.source.layout, self.form),
            torch.from_numpy(ids.copy()),
            {},
            self.labels_of(ids),
            action=torch.from_numpy(action),
            reward=None if reward is None else torch.from_numpy(reward),
            done=None if done is None else torch.from_numpy(done),
            proprio=None if proprio is None else torch.from_numpy(proprio[:, self.form.stack - 1 :].copy()),
        )

    def _size_text(self, size: Size) -> str:
        return f"{size[0]} frames" + (f" of {size[1]} x {size[2]} px" if len(size) == 3 else "")

    def draw(self, ids: Ids, rng: Rng, signal: Signal, include_x: bool = True) -> Samples:
        """Windows `ids` as they are: trajectories are not augmented."""
        return self.read(ids, signal.size)

    def factors(self, i: int) -> Float[np.ndarray, "t k"] | None:
        """The true quantities at the frames of window i, (T + 1, k) with `factor_names`; None if the data have none."""
        at = self.form.rows(self.cut.begin[i : i + 1])[0, self.form.stack - 1 :]
        return self.source.factors(int(self.cut.episode[i]), at)

    def subset(self, rows: Int64[np.ndarray, " k"], labels: Int64[np.ndarray, " k"] | None = None) -> "Trajectories":
        """The windows `rows`, with their own labels or with `labels`."""
        given = self.given[rows] if labels is None and self.given is not None else labels
        return replace(self, cut=Cut(self.cut.episode[rows], self.cut.begin[rows]), given=given)

    def auto_patch(self, cells: int) -> tuple[tuple[int, ...], str]:
        """A patch of one frame, with at least `cells` patches along each side of a picture, and the reason."""
        if cells == 1:
            return (1, *self.native[1:]), "one frame"
        sides = [
            max(p for p in range(1, MAX_PATCH + 1) if n % p == 0 and (n // p >= cells or p == 1))
            for n in self.native[1:]
        ]
        return (1, *sides), "one frame" + (f", {cells} patches or more along each side of it" if sides else "")

    def report(self, progress: Progress = None) -> Report:
        """The report on all episodes of this data path, with the problems of each."""
        report: Report = self.cfg.report(progress)
        return report

    def fingerprint(self) -> str:
        """A hash of the episodes, of how they are cut, and of where the windows begin."""
        digest = hashlib.blake2b(repr((self.source.fingerprint(), self.form)).encode(), digest_size=8)
        for column in self.cut:
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def stack_frames(frames: Shaped[np.ndarray, "b f ..."], layout: str, form: Form) -> Shaped[Tensor, "b c ..."]:
    """Recorded frames as x (B, C, T + 1, …): the frames of a stack are channels, the oldest first."""
    x = torch.from_numpy(frames)
    # A permutation copies nothing; 8-bit frames become floats later, in one pass over whatever order they have.
    x = x[:, None] if layout == "HW" else x.permute(*CHANNEL_ORDERS[layout])
    if form.stack == 1:
        return x
    return torch.cat([x[:, :, s : s + form.window] for s in range(form.stack)], dim=1)


def between_frames(
    found: Steps, form: Form
) -> tuple[Float32[np.ndarray, "b t a"], Float32[np.ndarray, "b t"] | None, Shaped[np.ndarray, "b t"] | None]:
    """The action, the sum of the rewards, and whether the episode ends, between two frames of a window."""
    rows, lead = len(found.action), (form.stack - 1) * form.every

    def group_steps(values: Shaped[np.ndarray, "b s ..."]) -> Shaped[np.ndarray, "b t ..."]:
        return values[:, lead:].reshape(rows, form.window - 1, form.every, *values.shape[2:])

    actions = group_steps(found.action)[:, :, :: form.repeat].reshape(rows, form.window - 1, -1)
    reward = None if found.reward is None else group_steps(found.reward).sum(2, dtype=np.float32)
    done = None if found.done is None else np.any(group_steps(found.done), axis=2)
    return np.ascontiguousarray(actions), reward, done
