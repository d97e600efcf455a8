"""Data other than the run's own, read the way the run reads its own: for embedding, probing and single images."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..types import Rng, Signal, unit
from . import stream, unaugmented
from .base import Dataset, Unreadable, stack
from .guess import FIXATIONS, guess
from .images import arrays, files, synthetic
from .images.augment import centred
from .images.decode import crops
from .scanpaths import settings
from .series import generated
from .series import settings as series
from .series.guess import ARRAYS, can_hold, ending, split_key

KINDS: Mapping[str, Any] = {
    "arrays": arrays.Config,
    "dynamics": generated.Config,
    "images": files.Config,
    "scanpaths": settings.Config,
    "series": series.Config,
    "stream": stream.Config,
    "synthetic": synthetic.Config,
}


def reading(old: Any, path: str, *, channels: int | None = None, **changes: Any) -> Any:
    """Settings that read `path`: of the kind that `guess` names, keeping what `old` says beside that, but `changes`.

    `channels`, those a model was trained on, are asked of images; arrays have those they have, and `stream` refuses
    others.
    """
    new = KINDS[_kind(old, path)]()
    if type(old) is not type(new):
        shared = {f.name for f in dataclasses.fields(new)} & {f.name for f in dataclasses.fields(old)}
        # A picture's size and changes say nothing of a series, and the other way round.
        shared -= set() if type(new.augment) is type(old.augment) else {"size", "augment"}
        # There label says what a label is, not which column holds it, and time is of fixations, which are counted.
        shared -= {"label", "time", "count", "seed"} if settings.Config in (type(old), type(new)) else set()
        old = dataclasses.replace(new, **{name: getattr(old, name) for name in shared})
    if isinstance(new, settings.Config) and path.lower().endswith(FIXATIONS):
        changes.setdefault("fixations", "")
    if channels and hasattr(old, "channels"):
        changes["channels"] = channels
    return dataclasses.replace(old, path=path, **changes)


def _kind(old: Any, path: str) -> str:
    """What `guess` says, unless the file may as well be what `old` reads: then that."""
    kind, _ = guess(path)
    file = Path(split_key(path)[0])
    if isinstance(old, settings.Config) and kind in settings.PICTURES:
        return "scanpaths"
    if isinstance(old, series.Config) and kind in ("arrays", "images") and can_hold(file):
        return "series"
    return "arrays" if isinstance(old, arrays.Config) and kind == "series" and ending(file) in ARRAYS else kind


def check_kind(cfg: Any, axes: int) -> None:
    """Raises ValueError where pictures are read by a run on series (`axes` 1), or series by a run on pictures."""
    if isinstance(cfg, stream.Config) or isinstance(cfg, series.Config | generated.Config) == (axes == 1):
        return
    holds, wants = ("pictures", "series") if axes == 1 else ("series", "pictures")
    raise ValueError(f"{cfg.path!r} holds {holds}, but the run was trained on {wants}; give data of its kind")


def divided(cfg: Any) -> Any:
    """The same settings, of the training part alone where samples overlap: windows of series, viewers of a picture."""
    windows = isinstance(cfg, series.Config) and cfg.window != 0
    overlap = (windows or isinstance(cfg, settings.Config)) and cfg.split == "all"
    return dataclasses.replace(cfg, split="train") if overlap else cfg


def read_image(path: Path, signal: Signal) -> Float[Tensor, "c h w"]:
    """One image file at the signal's size, cut to its centre, as `stream` gives it; pixels in [0, 1].

    Raises ValueError, naming the file, where it is missing or cannot be read.
    """
    try:
        (x,) = crops(path.read_bytes(), str(path), signal.channels, [centred(signal.size)])
    except (OSError, Unreadable) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from None
    return unit(x)


def sample(dataset: Dataset, signal: Signal, count: int) -> Shaped[Tensor, "n c ..."]:
    """The same up to `count` readable items every time, spread over the data; `unit` of them is what `stream` gives.

    8-bit items stay uint8, a quarter of the memory.
    """
    found: list[Tensor] = []
    order = torch.randperm(len(dataset), generator=Rng(0).fork("data", "sample").generator()).numpy()
    for i in range(len(order)):
        if len(found) == count:
            break
        found.extend(unaugmented.read(dataset, order[i : i + 1], signal.size).x)
    return stack(found)
