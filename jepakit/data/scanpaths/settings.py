"""The settings of scanpath data, and how fixations and images become samples."""

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
from jaxtyping import Int64

from ...core.notes import Note
from ...types import Size
from ..base import Dataset
from ..collation import Unreadable
from ..config import DataConfig, shared_last
from ..images.box import check_size
from ..images.dataset import PictureSet
from ..paths import file_name
from ..registry import guess_kind, load
from ..report import Problem, Progress, Report
from ..rows import select_part
from .augment import GazeAugment
from .dataset import Fixations, Label, Rows, Scanpaths
from .paths import Order, Synthetic
from .pictures import Pictures, View
from .record import ColumnRequest, Looked, Timing, Track, placement_problems, read_fixations
from .report import Training, report_scanpaths

MAX_FIXATIONS = 16
MAX_ENLARGED_SIDE = 8192
PICTURES_FOLDER = "pictures"
FIXATION_ENDINGS = (".json", ".json.gz")


@shared_last(split_by="split")
@dataclass(frozen=True)
class Config(DataConfig):
    """Images and the fixations on them. `path` names images of any kind, `fixations` a .json or .csv file.

    Without `fixations`, `viewers` scanpaths of `count` places each are generated per image, by the rule `synthetic`,
    from `seed`. `path` may be the .json file itself, with images.tar or images/ beside it.
    A fixation sees `size` (h, w; None: its own pixels, at most 32). Its height is `crop` of the image's shorter side;
    each `fovea` level above 1 covers twice as much. `steps` fixations are read (None: the longest, at most 16);
    scanpaths with fewer than `least` are left out. `order` changes human scanpaths, as a baseline. `subject` and
    `time` name columns, `timing` says what times mean. The `label` is the image's class, the image, or the subject.
    `split` holds out the fraction `held_out` of images or of subjects (`split_by`). The rest is as in `DataConfig`.
    """

    fixations: str = ""
    size: tuple[int, int] | None = None
    crop: float = 0.2
    fovea: int = 1
    steps: int | None = None
    least: int = 2
    order: Order = "human"
    synthetic: Synthetic = "saliency"
    count: int = 10
    viewers: int = 1
    seed: int = 0
    subject: str = ""
    time: str = ""
    timing: Timing = "auto"
    label: Label = "class"
    split_by: Literal["image", "subject"] = "image"
    augment: GazeAugment = field(default_factory=GazeAugment, kw_only=True)

    axes: ClassVar[tuple[int, ...]] = (3,)
    holds: ClassVar[str] = "pictures"
    # Here `label` is not a column name, `time` is the column of fixation times, and `count` counts places, not images.
    meanings: ClassVar[frozenset[str]] = frozenset({"label", "time", "count", "seed"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size)
        for key, least in (("fovea", 1), ("steps", 2), ("least", 2), ("count", 2), ("viewers", 1)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f"{key} is {value}; give {least} or more")
        if not 0 < self.crop <= 1 or max(self.size or (32,)) / self.crop > MAX_ENLARGED_SIDE:
            raise ValueError(
                f"crop is {self.crop:g} of the picture's shorter side, seen as {self.size or 'at most 32'} px; "
                "give a share up to 1 that does not enlarge the picture beyond 8192 px, e.g. crop=0.2"
            )
        if self.fovea > 6:
            raise ValueError(f"fovea is {self.fovea} levels, each twice as wide as the last; give 6 or fewer")
        if self.steps is not None and self.steps < self.least:
            raise ValueError(
                f"steps is {self.steps} but scanpaths have at least {self.least} fixations (least); give larger steps"
            )

    @classmethod
    def recognises(cls, path: str) -> str:
        """The reason to read a fixation file, from its name."""
        return "a .json file holds fixations" if file_name(path).endswith(FIXATION_ENDINGS) else ""

    def claims(self, kind: str, path: str) -> bool:
        """A run on scanpaths reads images as the images that viewers look at."""
        return load(kind).holds == PICTURES_FOLDER

    @property
    def overlapping(self) -> bool:
        """Always true: viewers of one image see the same content."""
        return True

    def at(self, path: str, **changes: Any) -> "Config":
        """The same settings for other images or, if `path` is a fixation file, for the images beside it."""
        own = {"fixations": ""} if path.lower().endswith(FIXATION_ENDINGS) else {}
        return dataclasses.replace(self, path=path, **own | changes)

    def with_names(self, image: str, label: str) -> "Config":
        """The same settings: no column holds images or labels."""
        return self

    def resolve(
        self, dataset: Dataset, needs: frozenset[str], method: str, patch: Size | None = None
    ) -> tuple["Config", list[Note]]:
        """Also resolves the crop size and the number of fixations, so that other data are read the same way."""
        cfg, notes = super().resolve(dataset, needs, method, patch)
        assert isinstance(dataset, Scanpaths)
        height, width = dataset.view.size
        return dataclasses.replace(cast(Config, cfg), size=(height, width), steps=dataset.steps), notes

    def report(self, progress: Progress = None) -> Report:
        """The report on all scanpaths and images with the problems of each, even if they cannot be trained on."""
        looked = read_sources(self)
        return report_scanpaths(looked, what_training_reads(self, looked), self.viewers, self.count, progress)

    def open(self) -> Scanpaths:
        """Read the fixations and find the images. Raises ValueError, with file, row and remedy."""
        found = read_sources(self)
        if found.problems:
            raise ValueError(str(found.problems[0]))
        return build_scanpaths(self, found)


def read_sources(cfg: Config) -> Looked:
    """Images and fixations, with all their problems. Raises ValueError if there is nothing to read."""
    path, file = source_paths(cfg.path, cfg.fixations)
    source = open_pictures(path)
    if not file:
        return Looked(source, None, [], [])
    found = read_fixations(file, ColumnRequest(cfg.subject, cfg.time, cfg.timing))
    known = pictures_by_name(source)
    image = [known.get(track.image, known.get(os.path.basename(track.image), -1)) for track in found.tracks]
    tracks = [t for t, i in zip(found.tracks, image, strict=True) if i >= 0]
    problems = [
        *found.problems,
        *_unknown_pictures(found.tracks, image, path, known),
        *_misplaced_fixations(found.tracks, image, source),
    ]
    return Looked(source, dataclasses.replace(found, tracks=tracks), [i for i in image if i >= 0], problems)


def source_paths(path: str, fixations: str) -> tuple[str, str]:
    """The path of the images and the path of the fixations; for a .json file alone, the images are beside it."""
    if fixations or not path.lower().endswith(FIXATION_ENDINGS):
        return path, fixations
    folder = Path(path).expanduser().parent
    beside = next((folder / name for name in ("images.tar", "images") if (folder / name).exists()), folder)
    return str(beside), path


def open_pictures(path: str) -> PictureSet:
    """The data set of images at a path. Raises ValueError if it holds none."""
    kind, why = guess_kind(path)
    found = load(kind)(path=path).open() if kind != "scanpaths" and load(kind).holds == PICTURES_FOLDER else None
    if not isinstance(found, PictureSet):
        raise ValueError(f"scanpaths need pictures, but {path!r} is read as {kind} ({why}); give a folder of images")
    return found


def pictures_by_name(source: PictureSet) -> dict[str, int]:
    """The image index for each name a fixation file may use: full name, last part, or the row of an array or table.

    A name that fits two images maps to -2.
    """
    names = [source.name(i) for i in range(len(source))]
    last = [name.rpartition("[")[2].rstrip("]") if name.endswith("]") else os.path.basename(name) for name in names]
    times = Counter(last)
    short = {name: i if times[name] == 1 else -2 for i, name in enumerate(last)}
    return {**short, **{name: i for i, name in enumerate(names)}}


def _unknown_pictures(
    tracks: Sequence[Track], image: list[int], path: str, known: Mapping[str, int]
) -> Iterator[Problem]:
    told: set[str] = set()
    for track, i in zip(tracks, image, strict=True):
        if i >= 0 or track.image in told:
            continue
        told.add(track.image)
        where = track.rows[0] if track.rows else track.image
        if i == -2:
            detail = f"several images in {path!r} are called {track.image!r}"
            yield Problem(where, "image", detail, "write their folder before the name, as jepa check-data lists them")
        else:
            detail = f"image {track.image!r} is not among the pictures in {path!r}, e.g. {next(iter(known), 'none')}"
            yield Problem(where, "image", detail, "add it there, or remove its fixations")


def _misplaced_fixations(tracks: Sequence[Track], image: list[int], source: PictureSet) -> Iterator[Problem]:
    sizes: dict[int, tuple[int, int] | None] = {}
    for track, i in zip(tracks, image, strict=True):
        if i < 0:
            continue
        if i not in sizes:
            try:
                sizes[i] = source.height_and_width(i)
            except Unreadable:
                sizes[i] = None  # reading the image later skips it or raises the error
        if (size := sizes[i]) is not None:
            yield from placement_problems(track, *size, track.image)


def build_scanpaths(cfg: Config, looked: Looked) -> Scanpaths:
    """The samples of the chosen part. Raises ValueError if there are none."""
    source = looked.source
    if looked.found is None:
        rows, recorded, subjects, notes = _made_up_rows(cfg, source)
    else:
        rows, recorded, subjects, notes = _recorded_rows(cfg, looked)
    steps, said = _choose_steps(cfg, rows.length)
    rows = rows._replace(length=np.minimum(rows.length, steps))
    view = View(_choose_size(cfg, source, int(rows.image[0])), cfg.crop, cfg.fovea)
    dataset = Scanpaths(
        Pictures(source), rows, recorded, subjects, view, steps, cfg.order, cfg.synthetic, cfg.seed, cfg.label,
        (*source.notes, *notes, *said), cfg=cfg,
    )  # fmt: skip
    kept = _part_rows(cfg, dataset)
    return dataclasses.replace(dataset, rows=Rows(*(column[kept] for column in rows)))


def _made_up_rows(cfg: Config, source: PictureSet) -> tuple[Rows, None, tuple[str, ...], list[str]]:
    if cfg.count < cfg.least:
        raise ValueError(f"count is {cfg.count} generated fixations but least is {cfg.least}; give count={cfg.least}")
    n = len(source) * cfg.viewers
    key = np.arange(n, dtype=np.int64)
    rows = Rows(key, key // cfg.viewers, key % cfg.viewers, np.full(n, cfg.count, dtype=np.int64))
    note = f"{n} scanpaths of {cfg.count} fixations are generated: {cfg.synthetic} (data.synthetic)"
    return rows, None, tuple(map(str, range(cfg.viewers))), [note]


def _recorded_rows(cfg: Config, looked: Looked) -> tuple[Rows, Fixations, tuple[str, ...], list[str]]:
    found = looked.found
    assert found is not None
    kept = [k for k, track in enumerate(found.tracks) if len(track.xy) >= cfg.least]
    if not kept:
        raise ValueError(
            f"{source_paths(cfg.path, cfg.fixations)[1]}: none of {len(found.tracks)} scanpaths on "
            f"{len(looked.source)} pictures has {cfg.least} fixations or more; give x and y of at least two "
            "fixations for each scanpath"
        )
    tracks, image = [found.tracks[k] for k in kept], np.array([looked.image[k] for k in kept], dtype=np.int64)
    subjects = tuple(sorted({track.subject for track in tracks}, key=lambda s: (not s.isdecimal(), len(s), s)))
    index = {name: k for k, name in enumerate(subjects)}
    length = np.array([len(track.xy) for track in tracks], dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    recorded = Fixations(
        np.concatenate([track.xy for track in tracks]), np.concatenate([track.duration for track in tracks]), first
    )
    subject = np.array([index[track.subject] for track in tracks], dtype=np.int64)
    rows = Rows(np.arange(len(kept), dtype=np.int64), image, subject, length)
    return rows, recorded, subjects, [*found.notes, *_count_notes(cfg, looked, len(kept), len(np.unique(image)))]


def _count_notes(cfg: Config, looked: Looked, kept: int, used: int) -> Iterator[str]:
    assert looked.found is not None
    yield f"{kept} scanpaths on {used} pictures"
    if short := len(looked.found.tracks) - kept:
        yield f"{short} scanpaths have fewer than {cfg.least} fixations and are left out (data.least)"
    if looked.found.without:
        yield f"{looked.found.without} entries of the fixation file have no image and are left out"
    if unseen := len(looked.source) - used:
        yield f"{unseen} pictures have no fixations and are left out"


def _choose_steps(cfg: Config, length: Int64[np.ndarray, " n"]) -> tuple[int, list[str]]:
    """The number of fixations read from each scanpath, and notes on the fixations dropped."""
    most = int(length.max())
    steps = cfg.steps or max(min(most, MAX_FIXATIONS), cfg.least)
    cut = int((length > steps).sum())
    what = (
        "as set"
        if cfg.steps
        else f"the most of any, {most}"
        if most <= MAX_FIXATIONS
        else f"at most {MAX_FIXATIONS}; the longest {most}"
    )
    notes = [f"steps {steps} ({what})"]
    if cut:
        notes.append(f"{cut} longer scanpaths are cut to their first {steps} fixations (data.steps)")
    return steps, notes


def _choose_size(cfg: Config, source: PictureSet, i: int) -> tuple[int, int]:
    """The height and width of a fixation: its own pixels in the first image, from 8 to 32."""
    if cfg.size:
        return cfg.size
    try:
        side = round(cfg.crop * min(source.height_and_width(i)))
    except Unreadable as error:
        raise ValueError(f"cannot read {error}; remove it, or set data.size") from None
    side = min(max(side // 8 * 8, 8), 32)
    return side, side


def _part_rows(cfg: Config, dataset: Scanpaths) -> Int64[np.ndarray, " k"]:
    """The samples of a part: whole images, or everything some subjects saw. Raises ValueError if it is empty."""
    rows, source = dataset.rows, dataset.source
    if cfg.split == "all":
        kept = np.arange(len(rows.key))
    elif cfg.split_by == "image":
        used = np.unique(rows.image)
        chosen = used[select_part([source.name(int(i)) for i in used], cfg.split, cfg.held_out, 0)]
        kept = np.flatnonzero(np.isin(rows.image, chosen))
    else:
        kept = np.flatnonzero(
            np.isin(rows.subject, held_out_subjects(dataset.subjects, cfg.held_out)) == (cfg.split == "test")
        )
    if 0 < cfg.limit < len(kept):
        names = [f"{dataset.name(int(k))} {rows.key[k]}" for k in kept]
        kept = kept[select_part(names, "all", cfg.held_out, cfg.limit)]
    return kept


def held_out_subjects(subjects: Sequence[str], held_out: float) -> list[int]:
    """The fraction of subjects whose names hash lowest, at least one and not all. Raises ValueError for one subject."""
    if len(subjects) < 2:
        raise ValueError(f"there is one subject, {subjects[0]!r}, so none can be held out; set data.split_by=image")
    keys = [hashlib.blake2b(name.encode(), digest_size=8, person=b"subject").digest() for name in subjects]
    order = sorted(range(len(subjects)), key=lambda k: keys[k])
    return order[: min(max(1, round(held_out * len(subjects))), len(subjects) - 1)]


def what_training_reads(cfg: Config, looked: Looked) -> Training:
    """What training would read from these scanpaths with these settings."""
    if looked.problems:
        return Training(f"nothing: {looked.problems[0]}", float("nan"), looked.found.notes if looked.found else ())
    try:
        data = build_scanpaths(cfg, looked)
        some = [data.clip(int(i), data.native).action for i in np.linspace(0, len(data) - 1, min(len(data), 256))]
    except (ValueError, Unreadable) as error:
        return Training(f"nothing: {error}", float("nan"), looked.source.notes)
    lengths = np.concatenate([action.norm(dim=1).numpy() for action in some])
    height, width = data.view.size
    kind = f"up to {data.steps} crops of {data.channels} x {height} x {width}"
    return Training(f"{len(data)} samples: {kind}", float(np.median(lengths)), data.notes)
