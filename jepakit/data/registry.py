"""Find the kind of data by name or by path, and read other data the way a run reads its own.

A kind is a module or folder of `jepakit.data`, or of another package under the entry-point group "jepakit.data", that
has a `Config`. The first kind that recognises a path reads it. Kinds that name their contents exactly are asked
first, in alphabetical order; then the kinds that read whole families of files: series, scanpaths, arrays, images.
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


def training_settings(name: str) -> SourceConfig:
    """The settings from which a training on data of this kind starts: a part stays out, for tests on unseen data."""
    kind = load(name)
    return kind(split="train") if "split" in {f.name for f in dataclasses.fields(kind)} else kind()  # type: ignore[call-arg]


def guess_kind(path: str) -> tuple[str, str]:
    """The kind that reads a path, and the reason. Raises ValueError if nothing is there or no kind reads it."""
    broken = KINDS.unusable_members(own=True)
    for name in [*(name for name in KINDS.names() if name not in (*GUESS_ORDER, *broken)), *GUESS_ORDER]:
        if why := load(name).recognises(path):
            return name, why
    expand_pattern(split_key(path)[0])
    raise ValueError(
        f"cannot tell what {path!r} holds; give a folder of images or series, "
        ".csv, .tar, .parquet, .npz, .npy, .ts or idx files, fixations in .json, or episodes in .npz or .hdf5"
        + "".join(f"; {sentence}" for sentence in broken.values())
    )


def read_like(old: Any, path: str, *, channels: int | None = None, **changes: Any) -> Any:
    """Settings of the kind that `guess_kind` finds for `path`; they keep the values of `old`, except for `changes`.

    `channels`, the number that a model was trained on, is passed to kinds that can convert samples; `read_stream`
    rejects a mismatch.
    """
    kind, _ = guess_kind(path)
    if type(old) is not load(kind) and not old.claims(kind, path):
        old = _take_over(old, load(kind)())
    new: SourceConfig = old.at(path, **changes)
    return new.with_channels(channels) if channels else new


def _take_over(old: SourceConfig, new: SourceConfig) -> SourceConfig:
    """The settings `new`, with the values from `old` that mean the same in both."""
    shared = {f.name for f in dataclasses.fields(new)} & {f.name for f in dataclasses.fields(old)}
    shared -= new.meanings | old.meanings
    if type(getattr(new, "augment", None)) is not type(getattr(old, "augment", None)):
        # Sizes and augmentation of one kind do not carry over to another.
        shared -= {"size", "augment"}
    return dataclasses.replace(new, **{name: getattr(old, name) for name in shared})


def check_kind(cfg: SourceConfig, axes: int) -> None:
    """Raises ValueError if the settings read samples with other axes than those a run was trained on."""
    if cfg.axes and axes not in cfg.axes:
        wants = {1: "series", 2: "pictures"}.get(axes, "clips")
        raise ValueError(f"{cfg.path!r} holds {cfg.holds}, but the run was trained on {wants}; give data of its kind")
