"""Encoded images: a folder, a CSV or parquet manifest, WebDataset tar shards, or parquet with an image column."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median_low
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from ...core.notes import Note
from ...types import Signal, Size, unit
from ..base import Dataset
from ..collation import Unreadable
from ..config import DataConfig, shared_last
from ..draws import spread_evenly
from ..paths import expand_pattern, first_file
from ..rows import select_part
from . import decode, masks
from .arrays import Arrays
from .augment import Augment, centre_crop
from .box import CropRequest, check_size
from .dataset import MAX_NATIVE_SIDE, USUAL_SIZE, PictureSet, fit_size
from .folder import open_folder, open_manifest, read_csv
from .report import Content
from .store import Store

MAX_HEADERS_READ = 64
MAX_SIZES_HASHED = 1024
MAX_BYTES_IN_MEMORY = 2**28


@shared_last()
@dataclass(frozen=True)
class Config(DataConfig):
    """Images on disk. `path` is a folder, a .csv, .parquet or .tar file, or a glob or brace pattern of shards.

    `size` (H, W) None: the common size of small images, else a square that scales up no more than half of them, at most
    224. `channels` None: the most common number. `image` and `label` name the columns (or the key in a shard's .json);
    empty: the usual names. `split` uses a hash of the names to hold out the fraction `held_out`. The rest is as in
    `DataConfig`.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    image: str = ""
    label: str = ""
    augment: Augment = field(default_factory=Augment, kw_only=True)

    axes: ClassVar[tuple[int, ...]] = (2,)
    holds: ClassVar[str] = "pictures"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size)
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"channels is {self.channels}; give a number of at least 1, or none for the commonest")

    def open(self) -> "Images":
        """Find the images; reads only some headers. Raises ValueError with the remedy."""
        store = open_store(self.path, self.image, self.label)
        rows = select_part(store.names, self.split, self.held_out, self.limit)
        found = survey_headers(store, rows, self.channels)
        notes = (*store.notes, *found.notes)
        return Images(store, rows, found.channels, found.native, notes, cfg=self, shorter_side=found.shorter_side)

    @classmethod
    def recognises(cls, path: str) -> str:
        """The reason to read a path as images, from its name: a folder, or a file that holds or lists images."""
        file = first_file(path)
        if file is None or file.is_dir():
            return "" if file is None else "a folder"
        holds = file.name.lower().endswith((".tar", ".parquet", ".pq", ".csv"))
        return f"{file.suffix.lower()} holds or lists images" if holds else ""

    def resolve(
        self, dataset: Dataset, needs: frozenset[str], method: str, patch: Size | None = None
    ) -> tuple["Config", list[Note]]:
        """These settings with a size chosen from the images and, if the method compares views, with views."""
        cfg, notes = super().resolve(dataset, needs, method, patch)
        resized, size_notes = fit_size(cast("Config", cfg), cast(Images, dataset), patch)
        return resized, [*size_notes, *notes]

    def with_channels(self, channels: int) -> "Config":
        """The same settings with images converted to this number of channels."""
        return replace(self, channels=channels)


@dataclass(frozen=True, eq=False)
class Images(PictureSet):
    """The chosen rows of a store; `given` replaces their labels."""

    store: Store
    rows: Int64[np.ndarray, " n"]
    channels: int
    native: Size | None
    notes: tuple[str, ...]
    cfg: Any = field(default_factory=Config, kw_only=True)
    given: Int64[np.ndarray, " k"] | None = field(default=None, kw_only=True)
    shorter_side: int = field(default=USUAL_SIZE, kw_only=True)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; empty if there are no labels."""
        return self.store.classes

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:  # type: ignore[override]
        """The label of each item of the store, -1 if it has none; empty if there are no labels."""
        return self.store.labels

    def name(self, i: int) -> str:
        """The name of the file or archive member."""
        return self.store.names[int(self.rows[i])]

    def raw(self, i: int) -> Float[Tensor, "c h w"]:
        """The image at its own size. Raises Unreadable."""
        return unit(self.decode_item(i))

    def decode_item(self, i: int) -> Shaped[Tensor, "c h w"]:
        """The image at its own size, uint8 for 8-bit images. Raises Unreadable."""
        return decode.decode_picture(self.bytes(i), self.name(i), self.channels)

    def crops(self, i: int, asks: Sequence[CropRequest]) -> list[Shaped[Tensor, "c h w"]]:
        """The requested crops, from one decoding. Raises Unreadable."""
        return decode.decode_crops(self.bytes(i), self.name(i), self.channels, asks)

    def bytes(self, i: int) -> bytes:
        """The encoded image. Raises Unreadable."""
        try:
            return self.store.read(int(self.rows[i]))
        except OSError as error:
            raise Unreadable(self.name(i), str(error)) from None

    def fingerprint(self) -> str:
        """A hash of all names and of the byte lengths of up to 1,024 items, evenly spaced."""
        digest = hashlib.blake2b(digest_size=8)
        for i in range(len(self)):
            digest.update(self.name(i).encode(errors="surrogateescape") + b"\0")
        digest.update(
            repr([self.store.length(int(self.rows[i])) for i in spread_evenly(len(self), MAX_SIZES_HASHED)]).encode()
        )
        return digest.hexdigest()

    def height_and_width(self, i: int) -> tuple[int, int]:
        """The size of item i, read from its header. Raises Unreadable."""
        head = decode.read_header(self.bytes(i), self.name(i))
        return head.height, head.width

    def content(self, i: int) -> Content:
        """The encoded image, decoded once to check it, and its own channels, height and width."""
        data, name = self.bytes(i), self.name(i)
        height, width, channels = decode.read_header(data, name)
        decode.decode_picture(data, name, self.channels)
        return Content(data, channels, height, width)

    def mask(self, i: int, size: Size) -> UInt8[np.ndarray, "h w"]:
        """The class ids in the mask beside the file, cropped and resized like the image. Raises ValueError."""
        return masks.resize_mask(masks.mask_beside(self.store, int(self.rows[i])), size)

    def film(self, i: int) -> str:
        """The folder of item i. Raises ValueError if the items are not files."""
        return masks.folder_of(self.store, int(self.rows[i]))

    def in_memory(self) -> Dataset:
        """The same items as one array, if they are small 8-bit images of one size, all readable, of at most 256 MiB.

        Any other set is returned unchanged. The choice depends only on the data, so batches stay
        reproducible. An epoch of CIFAR-10 costs ten times more to decode than to crop from memory.
        """
        if self.native is None or max(self.native) > MAX_NATIVE_SIDE:
            return self
        shape = (len(self), self.channels, *self.native)
        if int(np.prod(shape)) > MAX_BYTES_IN_MEMORY:
            return self
        pixels = np.empty(shape, dtype=np.uint8)
        for i in range(len(self)):
            try:
                x = self.decode_item(i)
            except Unreadable:
                return self
            if x.dtype != torch.uint8 or tuple(x.shape) != shape[1:]:
                return self
            pixels[i] = x.numpy()
        rows = np.arange(len(self), dtype=np.int64)
        labels = np.array([self.label(i) for i in range(len(self))], dtype=np.int64)
        return Arrays(pixels, rows, labels, self.classes, self.notes, "held", cfg=self.cfg)


def open_store(path: str, image: str = "", label: str = "") -> Store:
    """The store for a folder, file or pattern. Raises ValueError."""
    files = expand_pattern(path)
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


def read_image(path: Path, signal: Signal) -> Float[Tensor, "c h w"]:
    """One image file, centre-cropped to the signal's size as a data set reads it; pixels in [0, 1].

    Raises ValueError, naming the file, if it is missing or cannot be read.
    """
    try:
        (x,) = decode.decode_crops(path.read_bytes(), str(path), signal.channels, [centre_crop(signal.size)])
    except (OSError, Unreadable) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from None
    return unit(x)


class Survey(NamedTuple):
    """Channels, the common size if there is one, the median shorter side, and notes."""

    channels: int
    native: Size | None
    shorter_side: int
    notes: tuple[str, ...]


def survey_headers(store: Store, rows: Int64[np.ndarray, " n"], channels: int | None) -> Survey:
    """What up to 64 headers say of all images.

    Raises ValueError if none of them can be read.
    """
    heads, broken = [], []
    for i in spread_evenly(len(rows), MAX_HEADERS_READ):
        row = int(rows[i])
        try:
            head = decode.read_header(store.read(row), store.names[row])
            if channels:
                decode.convert_channels(torch.empty(head.channels, 1, 1), channels, store.names[row])
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
    mix = ", ".join(f"{count} of {len(heads)} with {n}" for n, count in sorted(counts.items()))
    note = f"channels {common}: sampled images are {mix}; the others are converted"
    side = median_low(min(head.height, head.width) for head in heads)
    notes = () if set(counts) == {common} else (note,)
    return Survey(common, sizes.pop() if len(sizes) == 1 else None, side, notes)
