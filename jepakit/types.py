"""The values that the modules exchange, and the axis legend.

Axes: B batch, V views, C channels, T time, H W space, N tokens (row-major over the grid), K kept tokens, M target
blocks, D features, A action features. Raw signals are channels-first, `(B, C, *size)` with size `(H, W)`, `(T, H, W)`
or `(T,)`; tokens, states and actions are features-last. A grid is the number of patches along each axis of size.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped
from torch import Tensor

Size = tuple[int, ...]
Device = torch.device | str
Grid = tuple[int, ...]
Ids = Int64[np.ndarray, " b"]
"""The items of a batch, by index in their data set."""


@dataclass(frozen=True)
class ActionSpec:
    """The form of an action: `size` numbers, between `low` and `high` if these are given, with one entry per number.

    A `discrete` action is one of `size` choices, written as a one-hot vector. `names` are those of the numbers or of
    the choices. `max_norm` bounds the Euclidean length of a continuous action. An action of several `parts` is that
    many actions in a row, one vector; `max_norm` bounds each of them. Raises ValueError if there are not `size`
    entries, if a lower bound is not below the upper one, or if the parts do not divide the action.
    """

    size: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    discrete: bool = False
    names: tuple[str, ...] = ()
    max_norm: float | None = None
    parts: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"an action of size {self.size} holds nothing; give 1 or more, or no action")
        for name, entries in (("low", self.low), ("high", self.high), ("names", self.names)):
            if len(entries) not in (0, self.size):
                raise ValueError(
                    f"{name} has {len(entries)} entries for an action of size {self.size}; give {self.size} or none"
                )
        if any(low >= high for low, high in zip(self.low, self.high, strict=False)):
            raise ValueError(f"low is {self.low} and high {self.high}; every low must be below its high")
        if self.max_norm is not None and not (0 < self.max_norm < float("inf") and not self.discrete):
            raise ValueError(f"max_norm is {self.max_norm}; give a length above 0 for continuous actions, or None")
        if self.parts < 1 or self.size % self.parts:
            raise ValueError(
                f"an action of size {self.size} cannot have {self.parts} parts; give a divisor of its size"
            )

    def repeat(self, parts: int) -> "ActionSpec":
        """The form of `parts` such actions in a row, as one vector. Raises ValueError for discrete actions."""
        if self.discrete and parts > 1:
            raise ValueError("discrete actions cannot be joined into blocks; give a block of 1 action")
        return replace(
            self,
            size=self.size * parts,
            low=self.low * parts,
            high=self.high * parts,
            names=self.names * parts,
            parts=self.parts * parts,
        )


@dataclass(frozen=True)
class Signal:
    """What one sample looks like, and the statistics that bring it to zero mean and unit variance per channel.

    `mean` and `std` (length `channels`, in the units of the data) are fitted on the training part only; empty means
    0 and 1. `views` counts the augmented views a batch carries, `action` says what its
    actions are, None where there are none, `classes` counts its labels, and `proprio` the proprioceptive values beside
    each frame.
    """

    channels: int
    size: Size
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    views: int = 0
    action: ActionSpec | None = None
    classes: int = 0
    proprio: int = 0

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, self.channels):
                raise ValueError(
                    f"{name} has {len(values)} entries for {self.channels} channels; give one per channel or none"
                )

    @property
    def has(self) -> frozenset[str]:
        """The parts among "time", "action", "views", "label" that a batch of this signal carries."""
        present = {
            "time": len(self.size) != 2,
            "action": self.action is not None,
            "views": self.views > 0,
            "label": self.classes > 0,
        }
        return frozenset(name for name, here in present.items() if here)

    @property
    def action_size(self) -> int:
        """The number of values in an action; 0 if there are no actions."""
        return 0 if self.action is None else self.action.size

    def zeros(self, batch: int = 1, device: Device = "cpu", steps: int | None = None) -> "Batch":
        """A batch of zeros of this signal's shape, with actions and proprioception if it has them.

        `steps` replaces the first side.
        """
        size = self.size if steps is None else (steps, *self.size[1:])
        action = torch.zeros(batch, size[0] - 1, self.action.size, device=device) if self.action else None
        proprio = torch.zeros(batch, size[0], self.proprio, device=device) if self.proprio else None
        return Batch(torch.zeros(batch, self.channels, *size, device=device), action=action, proprio=proprio)


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of raw samples, as the loader yields it and `Method.loss` reads it.

    Pixels lie in [0, 1], other signals in their own units; normalisation belongs to the model. 8-bit pixels leave the
    loader as they are, a quarter of the bytes: `to` makes them floats. `id` (B,) indexes the dataset, so that a sample
    can be named. `length` (B,) counts the steps that are not padding, which reaches no statistic.
    `views` holds one (B, V, C, *size) tensor per resolution. `action` t leads from frame t to frame t + 1; `reward` t
    and `done` t belong to that step, and `proprio` to a frame.
    """

    x: Shaped[Tensor, "b ..."]
    views: tuple[Shaped[Tensor, "b _ c ..."], ...] = ()
    action: Float[Tensor, "b t a"] | None = None
    proprio: Float[Tensor, "b f p"] | None = None
    reward: Float[Tensor, "b t"] | None = None
    done: Bool[Tensor, "b t"] | None = None
    length: Int[Tensor, " b"] | None = None
    label: Int[Tensor, " b"] | None = None
    id: Int[Tensor, " b"] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def __post_init__(self) -> None:
        if not len(self.id):  # Nobody said which samples of a data set these are.
            object.__setattr__(self, "id", torch.full((len(self.x),), -1, device=self.x.device))

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Batch":
        """The same batch on `device`, 8-bit pixels as float32 in [0, 1] and floating-point entries as `dtype`."""

        def moved(t: Tensor) -> Tensor:
            t = unit(t.to(device, non_blocking=True))
            return t.to(dtype) if t.is_floating_point() else t

        return self._map(moved)

    def __getitem__(self, part: slice | Int[Tensor, " k"]) -> "Batch":
        """The samples of `part`, as a batch."""
        return self._map(lambda t: t[part])

    def _map(self, fn: Callable[[Tensor], Tensor]) -> "Batch":
        values: dict[str, object] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                values[f.name] = fn(value)
            elif isinstance(value, tuple):
                values[f.name] = tuple(fn(v) for v in value)
        return replace(self, **values)  # type: ignore[arg-type]


class Sample(NamedTuple):
    """One item as a data set makes it, before samples are stacked; what the data do not have is None.

    `x` (C, *size); `views` one (V, C, *size) tensor per resolution; `action` (T, A), `reward` (T,), `done` (T,) and
    `proprio` (T + 1, P); `length` counts the steps of x that are not padding.
    """

    x: Shaped[Tensor, "c ..."] | None = None
    views: tuple[Shaped[Tensor, "_ c ..."], ...] = ()
    action: Float[Tensor, "t a"] | None = None
    reward: Float[Tensor, " t"] | None = None
    done: Bool[Tensor, " t"] | None = None
    proprio: Float[Tensor, "f p"] | None = None
    length: int | None = None


class Samples(NamedTuple):
    """B samples as they leave a loader's worker, 8-bit pixels as uint8; fields as in `Sample`, with B in front.

    `id` and `label` say which items they are and of which class, as in `Batch`. `skipped` maps the name of every item
    that could not be read to the reason.
    """

    x: Shaped[Tensor, "b c ..."] | None
    id: Int[Tensor, " b"]
    skipped: Mapping[str, str]
    label: Int[Tensor, " b"] | None = None
    views: tuple[Shaped[Tensor, "b _ c ..."], ...] = ()
    action: Float[Tensor, "b t a"] | None = None
    reward: Float[Tensor, "b t"] | None = None
    done: Bool[Tensor, "b t"] | None = None
    proprio: Float[Tensor, "b f p"] | None = None
    length: Int[Tensor, " b"] | None = None

    def batch(self) -> "Batch":
        """The batch that a method reads; if samples are views only, the first view is also `x`."""
        values = self._asdict()
        del values["skipped"]
        return Batch(**values | {"x": self.views[0][:, 0] if self.x is None else self.x})


class Masks(NamedTuple):
    """Token indices: one context and M equal target blocks per sample, on `grid` (None: the signal's own)."""

    context: Int[Tensor, "b k"]
    targets: Int[Tensor, "b m kt"]
    grid: Grid | None = None

    def repeat_for(self, batch: int, device: Device) -> "Masks":
        """The masks of one sample for each of `batch`, on `device`."""
        seen, hidden = (side.to(device).expand(batch, *side.shape[1:]) for side in (self.context, self.targets))
        return Masks(seen, hidden, self.grid)


class State(NamedTuple):
    """A method's state after the frames so far, batch first: its visible tokens, and whatever it needs to continue."""

    tokens: Float[Tensor, "b n d"]
    hidden: tuple[Float[Tensor, "_ ..."], ...] = ()


@dataclass(frozen=True, eq=False)
class Terms:
    """What a loss returns: weighted scalars to sum, values to log, and what the collapse panel reads.

    `compared` holds predictions and targets (…, D), detached and exactly as the loss compares them: where the loss
    normalises either, so is it here. The panel's normalised loss is computed from them.
    """

    loss: Mapping[str, Float[Tensor, ""]]
    log: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    compared: tuple[Float[Tensor, "... d"], Float[Tensor, "... d"]] | None = None

    @property
    def total(self) -> Float[Tensor, ""]:
        """The sum of the weighted scalars."""
        return torch.stack(list(self.loss.values())).sum()


def averaged(parts: Sequence[Terms], weights: Sequence[float]) -> Terms:
    """The weighted sum of every scalar; the `compared` rows of all parts that have them, concatenated."""

    def mean(entries: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {k: torch.stack([w * e[k] for w, e in zip(weights, entries, strict=True)]).sum(0) for k in entries[0]}

    pairs = [part.compared for part in parts if part.compared is not None]
    return Terms(
        mean([part.loss for part in parts]),
        mean([part.log for part in parts]),
        (torch.cat([pred for pred, _ in pairs]), torch.cat([target for _, target in pairs])) if pairs else None,
    )


@dataclass(frozen=True)
class Rng:
    """The source of randomness: a value, never global state.

    What is drawn depends on `seed`, `step` and the `path` of forks alone. It is drawn for the global batch of `total`
    samples; this process (or micro-batch) sees samples `offset …`, or of those the `picked` ones. So sample b meets the
    same draw however the batch is split over ranks, workers or micro-batches. Draws happen on the CPU.
    """

    seed: int
    step: int = 0
    offset: int = 0
    total: int = 0
    path: tuple[str | int, ...] = ()
    picked: tuple[int, ...] = ()

    def fork(self, *names: str | int) -> "Rng":
        """An independent stream, named."""
        return replace(self, path=(*self.path, *names))

    def generator(self) -> torch.Generator:
        """A fresh CPU generator for this stream, always in the same state."""
        text = repr((self.seed, self.step, self.path)).encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
        return torch.Generator().manual_seed(seed)

    def of(self, rows: Sequence[int], batch: int) -> "Rng":
        """The same stream for these rows of a local batch of `batch` samples."""
        return replace(self, total=self.total or batch, picked=tuple(rows))

    def global_batch(self, batch: int) -> tuple[int, slice | list[int]]:
        """The size to draw for, and the part of the draw that belongs to the local batch of `batch` samples."""
        if self.picked:
            return self.total, [self.offset + row for row in self.picked]
        return self.total or batch, slice(self.offset, self.offset + batch)


def unit(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """uint8 as float32 in [0, 1]; anything else unchanged."""
    if x.dtype != torch.uint8:
        return x
    if x.device.type != "cpu":
        return x.float() / 255
    # numpy divides in one pass and asks for huge pages, which torch's two passes over a fresh batch do not.
    return torch.from_numpy(np.divide(x.numpy(), np.float32(255), dtype=np.float32))


def take(tokens: Float[Tensor, "b n d"], index: Int[Tensor, "b *k"]) -> Float[Tensor, "b *k d"]:
    """The tokens at `index`: `out[b, …] = tokens[b, index[b, …]]`."""
    rows = torch.arange(len(tokens), device=tokens.device).reshape(-1, *[1] * (index.ndim - 1))
    return tokens[rows, index]
