"""The settings of trajectories, and how episodes become samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np
from jaxtyping import Int64

from ...core.notes import Note
from ...types import Size
from ..base import Dataset
from ..config import DataConfig, shared_last
from ..images.box import check_size
from ..report import Progress, Report
from ..rows import generated_part, select_part
from .dataset import Trajectories
from .generated import Recipe, SimulatedEpisodes, generate, is_environment, keep_trajectories
from .keys import Request
from .recognise import read_logs, why_trajectories
from .report import report_store
from .store import Store, build_store, repeat_problems
from .windows import USUAL_WINDOW, Form, choose_stride, limit_windows, slide_windows, too_short

LEAST = {
    "window": 2,
    "stride": 1,
    "action_repeat": 1,
    "action_block": 1,
    "stack": 1,
    "count": 1,
    "steps": 1,
    "group": 1,
}
MAX_REPORTED = 200


@shared_last()
@dataclass(frozen=True)
class Config(DataConfig):
    """Trajectories: episodes of observations and actions in .npz or .hdf5 files, Minari or LeRobot folders, or frames.

    A sample has `window` frames (None: 9) and the actions between them; samples of an episode begin `stride` steps
    apart (None: chosen). Frames are `action_repeat` · `action_block` steps apart: actions are held for `action_repeat`
    steps (checked), and `action_block` actions are joined to one. `stack` recorded frames make the channels of a frame.
    `keys` are the observations that make x, `proprio` is a vector beside it (None: chosen; "": none). Pictures are
    resized to `size`. `held_out` is a fraction of whole episodes. The rest is as in `DataConfig`.
    If `path` names an environment, as two-rooms-random does, it generates `count` trajectories by its `policy` from
    `seed`, each of `steps` steps (None: one sample if it has goals, else up to its time limit, at most 200). `group` of
    them in a row share what the environment draws for each group, such as where walls stand; that is their label, and
    they follow one another in batches.
    """

    window: int | None = None
    stride: int | None = None
    action_repeat: int = 1
    action_block: int = 1
    stack: int = 1
    keys: tuple[str, ...] | None = None
    proprio: str | None = None
    size: tuple[int, int] | None = None
    count: int = 10_000
    policy: str = "random"
    seed: int = 0
    steps: int | None = None
    group: int = 1

    axes: ClassVar[tuple[int, ...]] = (1, 3)
    holds: ClassVar[str] = "trajectories"
    # Here `window`, `stride` and `steps` count frames and steps of episodes, and `size` is that of frames.
    meanings: ClassVar[frozenset[str]] = frozenset({"window", "stride", "steps", "size", "count", "seed"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size)
        for key, least in LEAST.items():
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f"{key} is {value}; give {least} or more")

    @classmethod
    def recognises(cls, path: str) -> str:
        """The reason to read a path as trajectories, from its name or the names of its arrays."""
        return f"{path!r} names an environment" if is_environment(path) else why_trajectories(path)

    @property
    def is_generated(self) -> bool:
        """Whether the path names an environment."""
        return is_environment(self.path)

    @property
    def overlapping(self) -> bool:
        """Always true: the windows of an episode overlap or follow one another."""
        return True

    @property
    def form(self) -> Form:
        """How steps become a sample."""
        return Form(self.window or USUAL_WINDOW, self.action_repeat, self.action_block, self.stack)

    def without_overlap(self) -> "Config":
        """The same settings with consecutive windows that share no action."""
        return replace(self, stride=(self.form.window - 1) * self.form.every)

    def resolve(
        self, dataset: Dataset, needs: frozenset[str], method: str, patch: Size | None = None
    ) -> tuple["Config", list[Note]]:
        """Also resolves the window, the stride, the keys and the size, so that other data are read the same way."""
        cfg, notes = super().resolve(dataset, needs, method, patch)
        assert isinstance(dataset, Trajectories)
        found = replace(cast(Config, cfg), window=dataset.form.window, stride=dataset.stride)
        if is_environment(self.path):
            return found, notes
        assert isinstance(dataset.source, Store)
        chosen, size = dataset.source.chosen, dataset.source.size
        found = replace(found, keys=chosen.keys, proprio=chosen.proprio)
        return replace(found, size=(size[0], size[1]) if size else None), notes

    def report(self, progress: Progress = None) -> Report:
        """The report on all episodes with the problems of each, even if they cannot be trained on.

        Of generated trajectories, the report is on the first 200.
        """
        if is_environment(self.path):
            few = replace(self, count=min(self.count, MAX_REPORTED))
            store = keep_generated(few, np.arange(few.count, dtype=np.int64))
            return report_store(store, describe_samples(self.open), progress)
        store = read_store(self)
        return report_store(store, describe_samples(lambda: build_trajectories(store, self)), progress)

    def open(self) -> Trajectories:
        """Read or map the episodes, or get ready to generate them. Raises ValueError, with episode, step and remedy."""
        if is_environment(self.path):
            return open_generated(self)
        return build_trajectories(read_store(self), self)

    @property
    def recipe(self) -> Recipe:
        """What makes generated trajectories."""
        return Recipe(self.path, self.size, self.policy, self.seed, self.steps, self.action_repeat, self.group)


def read_store(cfg: Config) -> Store:
    """The steps of all episodes at a path, with their problems. Raises ValueError."""
    logs = read_logs(cfg.path, cfg.keys or ())
    store = build_store(logs, Request(cfg.keys, cfg.proprio, cfg.size))
    return replace(store, problems=(*store.problems, *repeat_problems(store, cfg.action_repeat)))


def build_trajectories(store: Store, cfg: Config) -> Trajectories:
    """The windows of the chosen part of whole episodes. Raises ValueError if there are none, or for a problem."""
    if store.problems:
        raise ValueError(str(store.problems[0]))
    if cfg.group > 1:
        raise ValueError(f"data.group is {cfg.group}, which is for generated trajectories; leave data.group out")
    rows = select_part(store.names, cfg.split, cfg.held_out, 0)
    return cut_trajectories(store, rows, cfg, store.notes)


def open_generated(cfg: Config) -> Trajectories:
    """The windows of the chosen part of generated trajectories. Raises ValueError."""
    if cfg.keys not in (None, ("observations",)) or cfg.proprio:
        raise ValueError(f"{cfg.path} has a single observation; leave data.keys and data.proprio out")
    ids, _ = generated_part(cfg.count, cfg.split, cfg.held_out, 0, "trajectories", cfg.group)
    source = generate(cfg.recipe, ids, cfg.form)
    note = f"{len(ids):,} generated trajectories, {cfg.path}, policy {cfg.policy}, seed {cfg.seed}"
    found = cut_trajectories(source, np.arange(len(ids), dtype=np.int64), cfg, (note,))
    return replace(found, first_group=int(ids[0]) // cfg.group)


def keep_generated(cfg: Config, ids: Int64[np.ndarray, " e"]) -> Store:
    """Generated trajectories, all of them in memory. Raises ValueError."""
    env = cfg.recipe.build()
    return keep_trajectories(cfg.recipe, env, ids, cfg.recipe.length(env, cfg.form))


def cut_trajectories(
    source: Store | SimulatedEpisodes, rows: Int64[np.ndarray, " k"], cfg: Config, notes: Sequence[str]
) -> Trajectories:
    """The windows of episodes `rows`. Raises ValueError if there are none, or if actions cannot be joined."""
    form = cfg.form
    source.spec.repeat(form.block)
    stride, said = choose_stride(source.steps, form, cfg.stride)
    cut = limit_windows(slide_windows(source.steps, rows, form, stride), cfg.limit, cfg.group)
    if not len(cut.begin):
        part = "" if cfg.split == "all" else f" of the {cfg.split} part"
        raise ValueError(too_short([source.names[int(k)] for k in rows], source.steps[rows], form, part))
    notes = [*notes, *([f"data.window = {form.window}"] if cfg.window is None else []), *([said] if said else [])]
    if short := int((source.steps < form.steps).sum()):
        notes.append(f"{short} of {len(source.steps)} episodes are shorter than a window and are left out")
    return Trajectories(source, form, stride, cut, tuple(notes), cfg=cfg)


def describe_samples(open_data: Callable[[], Trajectories]) -> str:
    """A description of the samples that training would read, or why there are none."""
    try:
        found = open_data()
        signal = found.signal()
    except ValueError as error:
        return f"nothing: {error}"
    size = " x ".join(map(str, signal.size[1:]))
    pixels = f" of {size} px" if size else ""
    return (
        f"{len(found)} windows of {found.form.window} frames, stride {found.stride}, {signal.channels} channels"
        f"{pixels}, actions of {signal.action_size} number{'' if signal.action_size == 1 else 's'}"
    )
