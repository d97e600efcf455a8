"""The settings of trajectories, and how episodes become samples."""

from dataclasses import dataclass, replace
from typing import ClassVar, cast

from ...core.notes import Note
from ...types import Size
from ..base import Dataset
from ..config import DataConfig, shared_last
from ..images.box import check_size
from ..report import Progress, Report
from ..rows import select_part
from .dataset import Trajectories
from .recognise import read_logs, why_trajectories
from .report import report_store
from .store import Request, Store, build_store, repeat_problems
from .windows import USUAL_WINDOW, Form, choose_stride, limit_windows, slide_windows, too_short


@shared_last()
@dataclass(frozen=True)
class Config(DataConfig):
    """Trajectories: episodes of observations and actions in .npz or .hdf5 files, Minari or LeRobot folders, or frames.

    A sample has `window` frames (None: 9) and the actions between them; samples of an episode begin `stride` steps
    apart (None: chosen). Frames are `action_repeat` · `action_block` steps apart: actions are held for `action_repeat`
    steps (checked), and `action_block` actions are joined to one. `stack` recorded frames make the channels of a frame.
    `keys` are the observations that make x, `proprio` is a vector beside it (None: chosen; "": none). Pictures are
    resized to `size`. `held_out` is a fraction of whole episodes. The rest is as in `DataConfig`.
    """

    window: int | None = None
    stride: int | None = None
    action_repeat: int = 1
    action_block: int = 1
    stack: int = 1
    keys: tuple[str, ...] | None = None
    proprio: str | None = None
    size: tuple[int, int] | None = None

    axes: ClassVar[tuple[int, ...]] = (1, 3)
    holds: ClassVar[str] = "trajectories"
    # Here `window` and `stride` count frames and steps of episodes, and `size` is that of frames.
    meanings: ClassVar[frozenset[str]] = frozenset({"window", "stride", "size"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size)
        for key, least in (("window", 2), ("stride", 1), ("action_repeat", 1), ("action_block", 1), ("stack", 1)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f"{key} is {value}; give {least} or more")

    @classmethod
    def recognises(cls, path: str) -> str:
        """The reason to read a path as trajectories, from its name or the names of its arrays."""
        return why_trajectories(path)

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
        if not isinstance(dataset.source, Store):
            return found, notes
        chosen, size = dataset.source.chosen, dataset.source.size
        return replace(
            found, keys=chosen.keys, proprio=chosen.proprio, size=(size[0], size[1]) if size else None
        ), notes

    def report(self, progress: Progress = None) -> Report:
        """The report on all episodes with the problems of each, even if they cannot be trained on."""
        store = read_store(self)
        return report_store(store, what_training_reads(store, self), progress)

    def open(self) -> Trajectories:
        """Read or map the episodes. Raises ValueError, with episode, step and remedy."""
        store = read_store(self)
        if store.problems:
            raise ValueError(str(store.problems[0]))
        return build_trajectories(store, self)


def read_store(cfg: Config) -> Store:
    """The steps of all episodes at a path, with their problems. Raises ValueError."""
    logs = read_logs(cfg.path, cfg.keys or ())
    store = build_store(logs, Request(cfg.keys, cfg.proprio, cfg.size))
    return replace(store, problems=(*store.problems, *repeat_problems(store, cfg.action_repeat)))


def build_trajectories(store: Store, cfg: Config) -> Trajectories:
    """The windows of the chosen part. Raises ValueError if there are none."""
    form = cfg.form
    store.spec.repeat(form.block)
    rows = select_part(store.names, cfg.split, cfg.held_out, 0)
    stride, said = choose_stride(store.steps, form, cfg.stride)
    cut = limit_windows(slide_windows(store.steps, rows, form, stride), cfg.limit)
    if not len(cut.begin):
        part = "" if cfg.split == "all" else f" of the {cfg.split} part"
        raise ValueError(too_short([store.names[int(k)] for k in rows], store.steps[rows], form, part))
    notes = [f"data.window = {form.window}"] if cfg.window is None else []
    if said:
        notes.append(said)
    if short := int((store.steps < form.steps).sum()):
        notes.append(f"{short} of {len(store.steps)} episodes are shorter than a window and are left out")
    return Trajectories(store, form, stride, cut, (*store.notes, *notes), cfg=cfg)


def what_training_reads(store: Store, cfg: Config) -> str:
    """A description of the samples that the settings make of these episodes, or why there are none."""
    if store.problems:
        return f"nothing: {store.problems[0]}"
    try:
        found = build_trajectories(store, cfg)
        signal = found.signal()
    except ValueError as error:
        return f"nothing: {error}"
    size = " x ".join(map(str, signal.size[1:]))
    pixels = f" of {size} px" if size else ""
    return (
        f"{len(found)} windows of {found.form.window} frames, stride {found.stride}, {signal.channels} channels"
        f"{pixels}, actions of {signal.action_size} numbers"
    )
