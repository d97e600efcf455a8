"""Images in one array: .npz, .npy (memory-mapped) or idx (optionally gzipped), with optional labels."""

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ...core.notes import Note
from ...types import Ids, Rng, Samples, Size, unit
from ..base import Dataset
from ..config import DataConfig, shared_last
from ..draws import spread_evenly
from ..paths import existing_path, file_ending, file_name, split_key
from ..rows import encode_labels, select_part
from .augment import Augment, centre_box
from .box import Box, CropRequest, check_size
from .dataset import Picture, PictureSet, UniformDraws, fit_size
from .decode import DECODING_ERRORS, cut_all, cut_box, scale_values

Layout = Literal["auto", "NHW", "NHWC", "NCHW"]
IMAGE_KEYS = ("x", "X", "images", "image", "data", "x_train", "X_train", "train_images", "arr_0")
LABEL_KEYS = ("y", "Y", "label", "labels", "target", "targets", "y_train", "train_labels", "arr_1")
_IDX_TYPES = {8: np.uint8, 9: np.int8, 11: np.int16, 12: np.int32, 13: np.float32, 14: np.float64}


@shared_last()
@dataclass(frozen=True)
class Config(DataConfig):
    """Images in a .npz, .npy or idx file. uint8 and uint16 are scaled to [0, 1]; floats keep their units.

    `layout` auto: the shortest axis is the channels. `image` and `label` name the arrays in a .npz (empty: the usual
    names); for .npy and idx, labels come from the file with the matching name. The rest is as in `images.Config`.
    """

    size: tuple[int, int] | None = None
    layout: Layout = "auto"
    image: str = ""
    label: str = ""
    augment: Augment = field(default_factory=Augment, kw_only=True)

    axes: ClassVar[tuple[int, ...]] = (2,)
    holds: ClassVar[str] = "pictures"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size)

    @classmethod
    def recognises(cls, path: str) -> str:
        """The reason to read an array file, from its name; the kind `series` first claims the arrays of series."""
        name = file_name(path)
        arrays = name.endswith((".npz", ".npy")) or "ubyte" in name or ".idx" in name or "-idx" in name
        return f"{Path(name).suffix or name} holds arrays" if arrays else ""

    def claims(self, kind: str, path: str) -> bool:
        """A run on images reads an array as images even if it may hold series."""
        return kind == "series" and file_ending(Path(split_key(path)[0])) in (".npy", ".npz")

    def resolve(
        self, dataset: Dataset, needs: frozenset[str], method: str, patch: Size | None = None
    ) -> tuple["Config", list[Note]]:
        """These settings with views if the method compares views; a note says where pictures are scaled up."""
        cfg, notes = super().resolve(dataset, needs, method, patch)
        resized, size_notes = fit_size(cast("Config", cfg), cast(Arrays, dataset), patch)
        return resized, [*size_notes, *notes]

    def open(self) -> "Arrays":
        """Read or map the array. Raises ValueError with the remedy."""
        path = existing_path(self.path)
        x, y, notes = _read_arrays(path, self.image, self.label)
        data, said = _channels_first(x, self.layout, self.path)
        labels, classes = encode_labels([None] * len(data) if y is None else y.reshape(-1).tolist())
        if len(labels) != len(data):
            raise ValueError(f"{self.path!r} has {len(data)} pictures but {len(labels)} labels; name the right arrays")
        rows = select_part([str(i) for i in range(len(data))], self.split, self.held_out, self.limit)
        return Arrays(data, rows, labels, classes, (*notes, *said), path.name, cfg=self)


@dataclass(frozen=True, eq=False)
class Arrays(PictureSet):
    """The chosen rows of an array (N, C, H, W), cropped in whole batches. `given` replaces their labels."""

    data: Shaped[np.ndarray, "n c h w"]
    rows: Int64[np.ndarray, " k"]
    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    source: str
    cfg: Any = field(default_factory=Config, kw_only=True)
    given: Int64[np.ndarray, " k"] | None = field(default=None, kw_only=True)

    @property
    def channels(self) -> int:
        """The number of channels of each image."""
        return int(self.data.shape[1])

    @property
    def native(self) -> Size:
        """The (H, W) of every image."""
        return (int(self.data.shape[2]), int(self.data.shape[3]))

    def name(self, i: int) -> str:
        """The file and the row in it."""
        return f"{self.source}[{int(self.rows[i])}]"

    @property
    def keeps_size(self) -> bool:
        """Always: without a configured size, images of an array stay as they are."""
        return True

    def raw(self, i: int) -> Float[Tensor, "c h w"]:
        """The image as float32."""
        return unit(self._rows(self.rows[i : i + 1])[0])

    def crops(self, i: int, asks: Sequence[CropRequest]) -> list[Shaped[Tensor, "c h w"]]:
        """The requested crops."""
        return cut_all(self._rows(self.rows[i : i + 1])[0], asks)

    def read(self, ids: Ids, size: Size) -> Samples:
        """Items `ids`, resized and centre-cropped."""
        height, width = self.native
        boxes = np.tile(np.array(centre_box(height, width, size), dtype=np.int64), (len(ids), 1))
        return Samples(self.crop_batch(ids, size, boxes), torch.from_numpy(ids), {}, self.labels_of(ids))

    def cut(
        self, ids: Ids, placed: Sequence[UniformDraws], pictures: Sequence[Picture], rng: Rng
    ) -> tuple[list[Shaped[Tensor, "b c _ _"]], Int64[np.ndarray, " b"], dict[str, str]]:
        """One batch per requested image; every item of an array is readable."""
        parts, (height, width) = [], self.native
        for picture, draws in zip(pictures, placed, strict=True):
            boxes = [self.training_box(u, height, width, picture) for u in draws.tolist()]
            parts.append(self.crop_batch(ids, picture.size, np.array(boxes, dtype=np.int64)))
        return parts, ids.copy(), {}

    def crop_batch(self, ids: Ids, size: Size, boxes: Int64[np.ndarray, "b 5"]) -> Shaped[Tensor, "b c _ _"]:
        """Box b of item ids[b], resized to `size`."""
        x = self._rows(self.rows[ids])
        height, width = self.native
        # Each row's way depends on its own box alone: a batch can be split over ranks without a change of any value.
        whole = (boxes == (0, 0, width, height, 0)).all(1) & (tuple(size) == self.native)
        if whole.all():
            return x
        larger = ~whole & (boxes[:, 2] <= size[1]) & (boxes[:, 3] <= size[0])
        if larger.all():
            return _enlarge_boxes(x, size, boxes)
        out = torch.empty(*x.shape[:2], *size, dtype=x.dtype)
        if larger.any():
            out[torch.from_numpy(larger)] = _enlarge_boxes(x[torch.from_numpy(larger)], size, boxes[larger])
        for b in np.flatnonzero(~larger).tolist():
            out[b] = cut_box(x[b], Box(*boxes[b].tolist()), size)
        return out

    def fingerprint(self) -> str:
        """A hash of the shape, the dtype, the chosen rows and the values of up to 1,024 of them."""
        digest = hashlib.blake2b(repr((self.data.shape, str(self.data.dtype))).encode(), digest_size=8)
        digest.update(self.rows.tobytes())
        digest.update(np.ascontiguousarray(self.data[self.rows[spread_evenly(len(self), 1024)]]).tobytes())
        return digest.hexdigest()

    def _rows(self, rows: Int64[np.ndarray, " b"]) -> Shaped[Tensor, "b c h w"]:
        return torch.from_numpy(scale_values(np.ascontiguousarray(self.data[rows])))


def _enlarge_boxes(
    x: Shaped[Tensor, "b c h w"], size: Size, boxes: Int64[np.ndarray, "b 5"]
) -> Shaped[Tensor, "b c _ _"]:
    """Boxes no larger than `size`, resized bilinearly in one call; values outside a box never leak in."""
    height, width = x.shape[-2:]
    box = torch.from_numpy(boxes).to(torch.float32)
    across = _sample_places(box[:, 0], box[:, 2], size[1])
    across = torch.where(box[:, 4:] > 0, across.flip(-1), across)
    down = _sample_places(box[:, 1], box[:, 3], size[0])
    grid = torch.stack(
        [
            (2 * across[:, None, :] + 1).div(width).sub(1).expand(-1, size[0], -1),
            (2 * down[:, :, None] + 1).div(height).sub(1).expand(-1, -1, size[1]),
        ],
        dim=-1,
    )
    out = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return out.round_().clamp_(0, 255).to(torch.uint8) if x.dtype == torch.uint8 else out


def _sample_places(start: Float[Tensor, " b"], length: Float[Tensor, " b"], count: int) -> Float[Tensor, "b {count}"]:
    """The positions of `count` output pixel centres between `start` and `start + length`, in input pixels."""
    centres = (torch.arange(count) + 0.5) / count
    inside = start[:, None] + length[:, None] * centres - 0.5
    return inside.clamp(start[:, None], (start + length - 1)[:, None])


def _read_arrays(path: Path, image: str, label: str) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """The images, their labels if any, and notes."""
    try:
        if path.suffix == ".npz":
            return _read_npz(path, image, label)
        x = np.load(path, mmap_mode="r", allow_pickle=False) if path.suffix == ".npy" else read_idx(path)
        beside = _label_file(path)
        if beside is None:
            return x, None, ()
        y = np.load(beside, allow_pickle=False) if beside.suffix == ".npy" else read_idx(beside)
    except DECODING_ERRORS as error:
        raise ValueError(f"cannot read arrays from {str(path)!r}: {error}") from None
    return x, y, (f"labels from {beside.name}",)


def _read_npz(path: Path, image: str, label: str) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    # Opened here because numpy would leave a broken file open.
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        x = next((key for key in ((image,) if image else IMAGE_KEYS) if key in file), None)
        if x is None:
            raise ValueError(
                f"no array {image or 'x'!r}; it holds {', '.join(file.files)}: set --data.image to one of them "
                "(of check-data: --image)"
            )
        y = next((key for key in ((label,) if label else LABEL_KEYS) if key in file), None)
        if label and y is None:
            raise ValueError(f"no array {label!r}; it holds {', '.join(file.files)}: set --data.label to one")
        said = f"pictures from array {x!r}" + (f", labels from {y!r}" if y else ", no labels")
        return file[x], file[y] if y else None, (said,)


def _label_file(path: Path) -> Path | None:
    """The label file that belongs to an image file; None if there is none."""
    swaps = (
        ("images-idx3", "labels-idx1"),
        ("images.idx3", "labels.idx1"),
        ("images", "labels"),
        ("x", "y"),
        ("X", "y"),
    )
    for old, new in swaps:
        other = path.with_name(path.name.replace(old, new)) if old in path.name else path
        if old in ("x", "X") and path.name[:1] == old:
            other = path.with_name(new + path.name[1:])
        for candidate in (
            other,
            other.with_suffix("") if other.suffix == ".gz" else other.with_name(other.name + ".gz"),
        ):
            if candidate.name != path.name and other != path and candidate.exists():
                return candidate
    return None


def read_idx(path: Path) -> Shaped[np.ndarray, "..."]:
    """The array in an idx file, gzipped or not. Raises ValueError.

    The format: two zero bytes, type, number of axes, big-endian lengths, big-endian values.
    """
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        data = file.read()
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES:
        raise ValueError("it is not an idx file; give a .npz, .npy, or idx(.gz) file")
    shape = tuple(np.frombuffer(data, ">u4", count=data[3], offset=4).tolist())
    kind = np.dtype(_IDX_TYPES[data[2]]).newbyteorder(">")
    offset = 4 + 4 * data[3]
    if len(data) != offset + int(np.prod(shape)) * kind.itemsize:
        raise ValueError(f"it is cut short: {len(data)} bytes for shape {shape}; copy it again")
    values = np.frombuffer(data, kind, offset=offset).reshape(shape)
    return values.astype(kind.newbyteorder("="))


def _channels_first(x: np.ndarray, layout: Layout, path: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """A (N, C, H, W) view, and notes on what was guessed. Raises ValueError."""
    if x.ndim not in (3, 4) or x.dtype.kind not in "uifb" or not len(x):
        raise ValueError(
            f"{path!r} holds an array of shape {x.shape} and type {x.dtype}; "
            "pictures are numbers of shape (N, H, W), (N, H, W, C) or (N, C, H, W)"
        )
    if layout == "auto":
        layout = "NHW" if x.ndim == 3 else "NHWC" if x.shape[3] < x.shape[1] else "NCHW"
    if (layout == "NHW") != (x.ndim == 3):
        raise ValueError(f"layout {layout} does not fit an array of shape {x.shape}; use layout=auto")
    first = x[:, None] if layout == "NHW" else x.transpose(0, 3, 1, 2) if layout == "NHWC" else x
    n, c, h, w = first.shape
    return first, (f"array {x.shape} {x.dtype} read as {layout}: {n} pictures, {c} channels, {h} x {w}",)
