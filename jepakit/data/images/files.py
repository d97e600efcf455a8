"""Encoded images: a folder, a CSV or parquet manifest, WebDataset tar shards, or parquet with an image column."""

import glob
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ...types import Size, unit
from ..base import Corrupt, Split, Unreadable, check_part, existing, select, spread
from . import decode
from .augment import Augment
from .box import Ask
from .folder import open_folder, open_manifest, read_csv
from .store import Store

HEADERS = 64
SIZES = 1024


@dataclass(frozen=True)
class Config:
    """Images on disk. `path` is a folder, a .csv, .parquet or .tar file, or a glob or brace pattern of shards.

    `size` (H, W) None: 224 x 224, or their own size for small images of one size. `channels` None: the commonest.
    `image` and `label` name the columns (or the key in a shard's .json), empty meaning the usual names. `split` cuts
    off the part `held_out` by a hash of the names; `limit` keeps that many (0: all). `corrupt`: an image that cannot be
    read is skipped for the next one, or fails the run. `contrast` is the std of the normalised pixels, for training and
    whatever follows: 0.1 makes a set of low variance of any set.
    """

    path: str = ""
    size: tuple[int, int] | None = None
    channels: int | None = None
    image: str = ""
    label: str = ""
    split: Split = "all"
    held_out: float = 0.1
    limit: int = 0
    corrupt: Corrupt = "skip"
    augment: Augment = field(default_factory=Augment)
    contrast: float = 1.0

    def __post_init__(self) -> None:
        check_part(self.size, self.held_out, self.limit, self.contrast)
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"channels is {self.channels}; give a number of at least 1, or none for the commonest")

    def open(self) -> "Images":
        """Find the images; only some headers are read. Raises ValueError, saying what to do."""
        store = open_store(self.path, self.image, self.label)
        rows = select(store.names, self.split, self.held_out, self.limit)
        channels, native, notes = survey(store, rows, self.channels)
        return Images(store, rows, channels, native, (*store.notes, *notes))


@dataclass(frozen=True, eq=False)
class Images:
    """The chosen rows of a store, as a `Dataset`."""

    store: Store
    rows: Int64[np.ndarray, " n"]
    channels: int
    native: Size | None
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; empty where there are no labels."""
        return self.store.classes

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, i: int) -> str:
        """The file's or member's name."""
        return self.store.names[int(self.rows[i])]

    def label(self, i: int) -> int:
        """The index into `classes`, -1 where there is none."""
        return int(self.store.labels[self.rows[i]]) if len(self.store.labels) else -1

    def raw(self, i: int) -> Float[Tensor, "c h w"]:
        """The picture at its own size. Raises Unreadable."""
        return unit(self.pixels(i))

    def pixels(self, i: int) -> Shaped[Tensor, "c h w"]:
        """The same, uint8 for 8-bit images. Raises Unreadable."""
        return decode.raw(self.bytes(i), self.name(i), self.channels)

    def crops(self, i: int, asks: Sequence[Ask]) -> list[Shaped[Tensor, "c h w"]]:
        """The pictures asked for, from one decoding. Raises Unreadable."""
        return decode.crops(self.bytes(i), self.name(i), self.channels, asks)

    def bytes(self, i: int) -> bytes:
        """The encoded picture. Raises Unreadable."""
        try:
            return self.store.read(int(self.rows[i]))
        except OSError as error:
            raise Unreadable(self.name(i), str(error)) from None

    def fingerprint(self) -> str:
        """A hash of all names and of the byte lengths of up to 1,024 items, evenly spread."""
        digest = hashlib.blake2b(digest_size=8)
        for i in range(len(self)):
            digest.update(self.name(i).encode(errors="surrogateescape") + b"\0")
        digest.update(repr([self.store.length(int(self.rows[i])) for i in spread(len(self), SIZES)]).encode())
        return digest.hexdigest()


def open_store(path: str, image: str = "", label: str = "") -> Store:
    """The store behind a folder, file or pattern. Raises ValueError."""
    files = expand(path)
    suffix = files[0].suffix.lower()
    if len(files) == 1 and files[0].is_dir():
        return open_folder(files[0])
    if suffix == ".tar":
        from .tar import open_tar

        return open_tar(files, label)
    if suffix in (".parquet", ".pq"):
        from .parquet import open_parquet

        return open_parquet(files, image, label)
    if suffix == ".csv" and len(files) == 1:
        return open_manifest(files[0], read_csv(files[0]), image, label)
    raise ValueError(f"cannot read images from {path!r}; give a folder, one .csv, or .tar or .parquet files")


def expand(path: str) -> list[Path]:
    """The files a path, glob or brace pattern means, sorted within each pattern. Raises ValueError."""
    if not any(mark in path for mark in "*?[{") or Path(path).expanduser().exists():
        return [existing(path)]
    from braceexpand import braceexpand

    parts = [str(Path(part).expanduser()) for part in braceexpand(path)]
    found = [Path(name) for part in parts for name in sorted(glob.glob(part, recursive=True))]
    if not found:
        raise ValueError(f"no file matches {path!r}; check the pattern (it is read relative to {Path.cwd()})")
    missing = [part for part in parts if not glob.glob(part, recursive=True)]
    if missing:
        raise ValueError(f"{path!r} names {missing[0]!r}, which is not there; narrow the braces to the shards you have")
    return list(dict.fromkeys(found))


def survey(
    store: Store, rows: Int64[np.ndarray, " n"], channels: int | None
) -> tuple[int, Size | None, tuple[str, ...]]:
    """Channels, the common size if there is one, and what to say about them, from up to 64 headers.

    Raises ValueError where none of them can be read.
    """
    heads, broken = [], []
    for i in spread(len(rows), HEADERS):
        row = int(rows[i])
        try:
            head = decode.header(store.read(row), store.names[row])
            if channels:
                decode.convert(torch.empty(head.channels, 1, 1), channels, store.names[row])
            heads.append(head)
        except Unreadable as error:
            broken.append(str(error))
        except OSError as error:
            broken.append(f"{store.names[row]}: {error}")
    if not heads:
        raise ValueError(f"none of {len(broken)} images tried can be read, e.g. {broken[0]}; give images that can be")
    counts = Counter(head.channels for head in heads)
    common = channels or counts.most_common(1)[0][0]
    sizes = {(head.height, head.width) for head in heads}
    notes = [] if set(counts) == {common} else [_mix_note(counts, common, len(heads))]
    return common, sizes.pop() if len(sizes) == 1 else None, tuple(notes)


def _mix_note(counts: Counter[int], common: int, total: int) -> str:
    mix = ", ".join(f"{count} of {total} with {channels}" for channels, count in sorted(counts.items()))
    return f"channels {common}: sampled images are {mix}; the others are converted"
