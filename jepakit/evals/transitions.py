"""Windows of episodes as a world model sees and imagines them: latents, roll-outs, actions, true quantities."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ..data import Dataset
from ..data.draws import spread_evenly
from ..methods.base import Method, method_name
from ..methods.predictive import Predictive
from ..types import ActionSpec, Batch, Rng, State
from .baselines import raw_tokens
from .metrics.actions import Rows, Step
from .split import Unlabelled

MIN_WINDOWS, MIN_EPISODES = 10, 2
"""The fewest windows to fit on, and episodes to score: an interval over one episode says nothing."""

RAW_FRAME_VALUES = 1024
"""The most values of a frame as raw input."""

MAX_VALUES = 2**27
"""The most values of all latents of one encoder in a part, 512 MiB."""

MAX_TURNS = 4
"""At how many frames of a window the states are kept, to try actions from there."""

FEW_EPISODES = 50
"""Of more windows than are asked for, those of at least so many episodes are taken, where there are so many."""


@dataclass(frozen=True, eq=False)
class Transitions(Unlabelled):
    """Row i is window `id[i]`, of T + 1 frames and T actions, cut from episode number `sequence[i]`.

    `s` are the latents of all frames, tokens side by side. `pred` are the latents that the model imagines of frames
    1 … T from frame 0 and the actions alone; None without a model. `states` are what the model needs to continue from
    the real frames up to each of `turns`, and `step` continues; it differentiates in the actions. `frame` are the
    numbers of the frames in their episode, and `factors` true quantities at every frame; None without any.
    """

    s: Float32[np.ndarray, "n f d"]
    action: Float32[np.ndarray, "n t a"]
    pred: Float32[np.ndarray, "n t d"] | None
    states: tuple[Rows, ...]
    frame: Int64[np.ndarray, "n f"]
    sequence: Int64[np.ndarray, " n"]
    id: Int64[np.ndarray, " n"]
    spec: ActionSpec
    turns: tuple[int, ...] = (0,)
    step: Step | None = None
    factors: Float[np.ndarray, "n f k"] | None = None
    factor_names: tuple[str, ...] = ()
    device: str = "cpu"

    ROWS = ("s", "action", "pred", "frame", "sequence", "id", "factors")
    SEQUENCE: ClassVar[str] = "episode"

    def where(self, rows: Bool[np.ndarray, " n"]) -> "Transitions":
        """The windows where `rows` is true."""
        columns = {name: value[rows] for name in self.ROWS if (value := getattr(self, name)) is not None}
        kept = torch.from_numpy(rows)
        return replace(self, states=tuple(tuple(part[kept] for part in each) for each in self.states), **columns)

    def same(self, other: "Transitions") -> bool:
        """Whether both hold equal latents."""
        return np.array_equal(self.s, other.s)

    def check_values(self) -> None:
        """Raise ValueError if there are too few windows to fit on, or if something is not finite."""
        if len(self) < MIN_WINDOWS:
            raise ValueError(
                f"there are {len(self)} windows to fit on; give {MIN_WINDOWS} or more, or a smaller data.stride"
            )
        self.check_finite()

    def check_scored(self) -> None:
        """Raise ValueError if the windows are of too few episodes to score, or if something is not finite."""
        if len(np.unique(self.sequence)) < MIN_EPISODES:
            raise ValueError(
                "there is 1 held-out episode, and an interval needs 2 or more; give data of more episodes as --test, "
                "or train with a larger data.held_out"
            )
        self.check_finite()

    def check_finite(self) -> None:
        """Raise ValueError if an action, a latent or a prediction is not finite."""
        if not np.isfinite(self.action).all():
            raise ValueError("an action is not finite; look at jepa check-data")
        if not np.isfinite(self.s).all():
            raise ValueError("a representation is not finite; use an earlier checkpoint")
        if self.pred is not None and not np.isfinite(self.pred).all():
            raise ValueError(
                f"a prediction over {self.pred.shape[1]} steps is not finite: roll-outs diverge; use an earlier "
                "checkpoint, or data with a smaller data.window"
            )

    @property
    def held(self) -> Bool[np.ndarray, " n"]:
        """The windows on which strengths are chosen: the last fifth of the episodes, or of the windows of one."""
        episodes = np.unique(self.sequence)
        if len(episodes) < 2:
            rows: np.ndarray = np.arange(len(self)) >= len(self) - max(1, len(self) // 5)
            return rows
        last: np.ndarray = np.isin(self.sequence, episodes[-max(1, len(episodes) // 5) :])
        return last


def check_world_model(method: Method) -> None:
    """Raise ValueError, naming the fix, if the method does not predict what actions lead to."""
    if not isinstance(method, Predictive) or "action" not in method.requires(method.cfg):
        raise ValueError(
            f"{method_name(type(method))} predicts nothing from actions, so it has no dynamics to probe; give a run of "
            "worldmodel, or of rjepa with method.saccade"
        )


class Unfolded(NamedTuple):
    """Latents of all frames of a batch, imagined latents, and the states at some frames; see `Transitions`."""

    s: Float[Tensor, "b f n d"]
    pred: Float[Tensor, "b t n d"]
    states: tuple[Rows, ...]


@torch.no_grad()
def unfold(method: Predictive, batch: Batch, turns: Sequence[int] = ()) -> Unfolded:
    """What the method makes of the frames of a batch, and what it imagines from the first one and the actions."""
    assert batch.action is not None
    start, observe = cast(Any, method.start), cast(Any, method.observe)  # some take proprioception, too
    frames = split_frames(batch.x)
    extra: list[Any] = [()] * len(frames)
    if batch.proprio is not None and proprio_size(method):
        extra = [(own,) for own in batch.proprio.unbind(1)]
    state = imagined = start(frames[0], *extra[0])
    seen, pred, states = [state.tokens], [], []
    for t, (frame, action) in enumerate(zip(frames[1:], batch.action.unbind(1), strict=True)):
        if t in turns:
            states.append((state.tokens.cpu(), *(part.cpu() for part in state.hidden)))
        imagined = method.step(imagined, action)
        pred.append(imagined.tokens)
        state = observe(state, frame, action, *extra[t + 1])
        seen.append(state.tokens)
    return Unfolded(torch.stack(seen, 1), torch.stack(pred, 1), tuple(states))


def proprio_size(method: Predictive) -> int:
    """The number of proprioceptive values that a method reads beside each frame; 0 for those that read none."""
    return int(getattr(method, "proprio", 0))


def split_frames(x: Float[Tensor, "b c t ..."]) -> list[Tensor]:
    """The frames of samples as a `Predictive` method reads them: (B, C, H, W), or (B, C, 1) of vectors."""
    return list(torch.split(x, 1, 2)) if x.ndim == 3 else list(x.unbind(2))


def raw_frames(method: Method, batch: Batch) -> Float[Tensor, "b f 1 d"]:
    """The normalised frames as latents, at a bounded resolution."""
    frames = split_frames(method.normalize(batch.x))
    return torch.stack([raw_tokens(frame, RAW_FRAME_VALUES) for frame in frames], 1)


def method_step(method: Predictive, device: str) -> Step:
    """The method's prediction as a function of tensors, from anywhere to `device`."""

    def step(states: Rows, action: Float[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        tokens, *hidden = (part.to(device) for part in states)
        return method.step(State(tokens, tuple(hidden)), action.to(device)).tokens.flatten(1)

    return step


def read_transitions(
    methods: Mapping[str, Predictive | None],
    normalize: Method,
    dataset: Dataset,
    batches: Iterable[Batch],
    device: str = "cpu",
) -> dict[str, Transitions]:
    """The windows in `batches`, of `dataset`, by every model; None stands for the frames that `normalize` normalises.

    Raises ValueError if there are none, or if they have no actions.
    """
    turns = tuple(spread_evenly(normalize.signal.size[0] - 1, MAX_TURNS))
    found: dict[str, list[tuple[Any, ...]]] = {key: [] for key in methods}
    ids, actions = [], []
    for batch in batches:
        moved = batch.to(device)
        if moved.action is None:
            raise ValueError("the data have no actions, so there are no dynamics to probe; give episodes with actions")
        ids.append(batch.id.numpy())
        actions.append(moved.action.cpu().numpy())
        for key, method in methods.items():
            found[key].append(_unfolded_rows(method, normalize, moved, turns))
    if not ids:
        raise ValueError("there is nothing to evaluate: the data contain no window")
    every, action = np.concatenate(ids), np.concatenate(actions)
    places = [dataset.place(i) for i in every.tolist()]
    number = {name: k for k, name in enumerate(dict.fromkeys(place.episode for place in places))}
    known = [dataset.factors(i) for i in every.tolist()] if dataset.factor_names else []
    shared = {
        "action": action,
        "frame": np.stack([place.first + np.arange(action.shape[1] + 1) * place.every for place in places]),
        "sequence": np.array([number[place.episode] for place in places], dtype=np.int64),
        "id": every,
        "spec": cast(ActionSpec, normalize.signal.action),
        "turns": turns,
        "factors": np.stack(known).astype(np.float64) if known else None,  # type: ignore[arg-type]
        "factor_names": dataset.factor_names,
        "device": device,
    }
    return {key: _join_rows(methods[key], rows, shared, device) for key, rows in found.items()}


def _unfolded_rows(
    method: Predictive | None, normalize: Method, batch: Batch, turns: Sequence[int]
) -> tuple[np.ndarray, np.ndarray | None, tuple[Rows, ...]]:
    if method is None:
        s = raw_frames(normalize, batch).flatten(2).float().cpu()
        return s.numpy(), None, tuple((s[:, t, None],) for t in turns)
    s, pred, states = unfold(method, batch, turns)
    flat, imagined = (part.flatten(2).float().cpu().numpy() for part in (s, pred))
    return flat, imagined, states


def _join_rows(
    method: Predictive | None, rows: Sequence[tuple[Any, ...]], shared: Mapping[str, Any], device: str
) -> Transitions:
    s, pred, states = zip(*rows, strict=True)
    joined = tuple(tuple(torch.cat(parts) for parts in zip(*turn, strict=True)) for turn in zip(*states, strict=True))
    return Transitions(
        s=np.concatenate(s),
        pred=None if method is None else np.concatenate(pred),
        states=joined,
        step=None if method is None else method_step(method, device),
        **shared,
    )


def choose_windows(dataset: Dataset, most: int) -> Int64[np.ndarray, " k"]:
    """At most `most` windows in order, spread over whole episodes; the same on every call."""
    if len(dataset) <= most:
        return np.arange(len(dataset), dtype=np.int64)
    episodes: dict[str, list[int]] = {}
    for i in range(len(dataset)):
        episodes.setdefault(dataset.place(i).episode, []).append(i)
    each = -(-most // min(len(episodes), FEW_EPISODES))
    parts, chosen = list(episodes.values()), list[int]()
    for k in torch.randperm(len(parts), generator=Rng(0).fork("probe", "episodes").generator()).tolist():
        if (room := most - len(chosen)) > 0:
            chosen += [parts[k][j] for j in spread_evenly(len(parts[k]), min(each, room))]
    return np.array(sorted(chosen), dtype=np.int64)


def window_limit(method: Predictive, most: int) -> int:
    """At most `most` windows, and no more than fit into MAX_VALUES latent values."""
    signal = method.signal
    with torch.no_grad():
        tokens = method.start(*_first_frame(method)).tokens
    return max(MIN_WINDOWS, min(most, MAX_VALUES // (2 * signal.size[0] * tokens[0].numel())))


def _first_frame(method: Predictive) -> tuple[Tensor, ...]:
    """One frame of zeros, with the proprioception that the method reads."""
    device = method.mean.device
    frame = split_frames(method.signal.zeros(device=device).x)[0]
    return (frame, torch.zeros(1, proprio_size(method), device=device)) if proprio_size(method) else (frame,)
