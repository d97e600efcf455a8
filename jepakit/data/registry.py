"""The kinds of data by name, which of them a path is, and other data read the way a run reads its own.

A kind is a module or folder of `jepakit.data`, or of another package under the entry-point group "jepakit.data", that
has a `Config`. A path is of the first kind that recognises it: the kinds that name what they hold exactly are asked
first, in the order of their names; then those that take whole families of files: series, scanpaths, arrays, images.
"""

import dataclasses
from typing import Any

from .config import SourceConfig
from .kinds import KINDS
from .paths import expand_pattern, split_key

GUESS_ORDER = ("series", "scanpaths", "arrays", "images")


def load(name: str) -> type[SourceConfig]:
    """The settings class of a kind. Raises ValueError for an unknown name."""
    return KINDS.load(name)


def guess_kind(path: str) -> tuple[str, str]:
    """Which kind reads a path, and why. Raises ValueError where nothing is there or nothing reads it."""
    broken = KINDS.unusable_members()
    for name in [*(name for name in KINDS.names() if name not in (*GUESS_ORDER, *broken)), *GUESS_ORDER]:
        if why := load(name).recognises(path):
            return name, why
    expand_pattern(split_key(path)[0])
    raise ValueError(
        f"cannot tell what {path!r} holds; give a folder of images or series, "
        ".csv, .tar, .parquet, .npz, .npy, .ts or idx files, or fixations in .json"
        + "".join(f"; {sentence}" for sentence in broken.values())
    )


def read_like(old: Any, path: str, *, channels: int | None = None, **changes: Any) -> Any:
    """Settings of the kind that `guess_kind` names for `path`; they keep what `old` says, but for `changes`.

    `channels`, those a model was trained on, are asked of kinds that can bring samples to them; `stream` refuses
    others.
    """
    kind, _ = guess_kind(path)
    if type(old) is not load(kind) and not old.claims(kind, path):
        old = _take_over(old, load(kind)())
    new: SourceConfig = old.at(path, **changes)
    return new.with_channels(channels) if channels else new


def _take_over(old: SourceConfig, new: SourceConfig) -> SourceConfig:
    """The settings `new` with those of `old` that mean the same in both."""
    shared = {f.name for f in dataclasses.fields(new)} & {f.name for f in dataclasses.fields(old)}
    shared -= new.meanings | old.meanings
    if type(getattr(new, "augment", None)) is not type(getattr(old, "augment", None)):
        # How samples of one kind are sized and changed says nothing of another.
        shared -= {"size", "augment"}
    return dataclasses.replace(new, **{name: getattr(old, name) for name in shared})


def check_kind(cfg: SourceConfig, axes: int) -> None:
    """Raises ValueError where the settings read samples that cannot have the axes of those a run was trained on."""
    if cfg.axes and axes not in cfg.axes:
        wants = {1: "series", 2: "pictures"}.get(axes, "clips")
        raise ValueError(f"{cfg.path!r} holds {cfg.holds}, but the run was trained on {wants}; give data of its kind")
