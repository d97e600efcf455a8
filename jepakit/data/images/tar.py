"""WebDataset tar shards with random access: each shard is scanned once and its member offsets are cached.

The index is in the user's cache folder (`$XDG_CACHE_HOME` or ~/.cache, in jepakit/), never beside the data. It is
valid only while the shard keeps its length and modification time; it is written to a temporary file and renamed.
"""

import hashlib
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from ...core.files import replace_file
from ..paths import distinct_names
from ..rows import Names, encode_labels
from .decode import EXTENSIONS
from .store import Store

INDEX_FORMAT = 2
JSON_KEYS = ("label", "cls", "class", "target", "fine")


@dataclass(frozen=True, eq=False)
class Index:
    """The regular members of one shard: names and byte spans. `why` is the reason a scan ended early."""

    names: Names
    spans: Int64[np.ndarray, "n 2"]
    why: str = ""


@dataclass(frozen=True, eq=False)
class Tars(Store):
    """Images in tar shards; row i of `spans` is (shard, offset, length)."""

    shards: tuple[str, ...]
    spans: Int64[np.ndarray, "n 3"]

    def read(self, i: int) -> bytes:
        """The bytes of image i. Raises OSError."""
        shard, offset, length = self.spans[i].tolist()
        return read_span(self.shards[shard], offset, length)

    def length(self, i: int) -> int:
        """The number of bytes of image i."""
        return int(self.spans[i, 2])


def open_tar(shards: Sequence[Path], label: str = "") -> Tars:
    """All images in the shards, in the order of shards and members; KEY.jpg, KEY.cls and KEY.json belong together.

    Labels come from KEY.cls, or from KEY.json under `label` (empty: the usual keys). Raises ValueError if a shard
    is not a plain tar file, if there is no image, or if no image has the named label.
    """
    names: list[str] = []
    spans: list[tuple[int, int, int]] = []
    asides: list[tuple[int, int, int, str] | None] = []
    notes: list[str] = []
    for s, (shard, shown) in enumerate(zip(shards, distinct_names(shards), strict=True)):
        index = load_index(shard)
        if index.why:
            notes.append(f"shard {shown} ends early ({index.why}); its first {len(index.names)} members are used")
        for image, aside in _image_pairs(index, label):
            names.append(f"{shown}/{index.names[image]}")
            spans.append((s, int(index.spans[image, 0]), int(index.spans[image, 1])))
            kind = os.path.splitext(index.names[aside])[1] if aside >= 0 else ""
            asides.append((s, int(index.spans[aside, 0]), int(index.spans[aside, 1]), kind) if aside >= 0 else None)
    if not names:
        raise ValueError(
            f"no images in {str(shards[0])!r}; its members must be named like 000.jpg, with 000.cls beside it"
        )
    paths = tuple(str(shard) for shard in shards)
    values = [None if a is None else _label_value(read_span(paths[a[0]], a[1], a[2]), a[3], label) for a in asides]
    if label and all(value is None for value in values):
        raise ValueError(f"none of {len(values)} images has {label!r} in a .json member; check data.label")
    labels, classes = encode_labels(values)
    if classes:
        notes.append(f"classes: {len(classes)}, from the .cls or .json members")
    return Tars(Names(names), labels, classes, tuple(notes), paths, np.array(spans, dtype=np.int64))


def read_span(path: str, offset: int, length: int) -> bytes:
    """`length` bytes of a file from `offset` on. Raises OSError if they are missing."""
    handle = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(handle, length, offset)
    finally:
        os.close(handle)
    if len(data) < length:
        raise OSError(f"{path} ends {length - len(data)} bytes early")
    return data


def _image_pairs(index: Index, label: str) -> Iterator[tuple[int, int]]:
    """Each image with the member that holds its label, -1 for none."""
    asides: dict[str, dict[str, int]] = {}
    images: list[tuple[str, str, int]] = []
    for i, name in enumerate(index.names):
        folder, base = os.path.split(name)
        if base.startswith("."):
            continue
        full, extension = os.path.splitext(name)
        if extension in (".cls", ".json"):
            asides.setdefault(full, {})[extension[1:]] = i
        elif extension.lower() in EXTENSIONS:
            # KEY.seg.png belongs to KEY.cls, as webdataset has it; im.v1.png belongs to im.v1.cls if that is there.
            images.append((full, os.path.join(folder, base.partition(".")[0]), i))
    for full, key, i in images:
        found = asides.get(full) or asides.get(key, {})
        yield i, found.get("json", -1) if label else found.get("cls", found.get("json", -1))


def _label_value(data: bytes, kind: str, label: str) -> str | int | None:
    """The label in a .cls or .json member."""
    text = data.decode("utf-8", errors="replace").strip()
    if kind == ".cls":
        return text
    try:
        record = json.loads(text)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    found = (record[key] for key in ((label,) if label else JSON_KEYS) if key in record)
    value = next(found, None)
    return value if isinstance(value, str | int) else None


def load_index(shard: Path) -> Index:
    """The index of a shard: from the cache while it is valid, else from a scan. Raises ValueError."""
    stat = shard.stat()
    stamp = np.array([INDEX_FORMAT, stat.st_size, stat.st_mtime_ns], dtype=np.int64)
    name = hashlib.blake2b(os.fsencode(shard.resolve()), digest_size=16).hexdigest()
    cached = cache_folder() / "tar" / f"{name}.npz"
    index = _cached_index(cached, stamp)
    if index is None:
        index = scan_shard(shard)
        _cache_index(cached, stamp, index)
    return index


def scan_shard(shard: Path) -> Index:
    """The index of a shard, from the headers of all members. Raises ValueError if it is not a plain tar file."""
    names: list[str] = []
    spans: list[tuple[int, int]] = []
    why, end = "", shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isreg() and member.offset_data + member.size <= end:
                    names.append(member.name)
                    spans.append((member.offset_data, member.size))
            if not _has_end_block(shard, tar.offset):
                why = "it has no end-of-archive block"
    except (tarfile.TarError, OSError) as error:
        why = str(error)
    if why and not names:
        raise ValueError(f"cannot read {str(shard)!r} as a tar file ({why}); give uncompressed .tar shards")
    return Index(Names(names), np.array(spans, dtype=np.int64).reshape(-1, 2), why)


def _has_end_block(shard: Path, offset: int) -> bool:
    """Whether a block of zeros follows the last member, as it does unless the file was cut there."""
    with open(shard, "rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def cache_folder() -> Path:
    """The folder that keeps indexes between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "jepakit"


def _cached_index(path: Path, stamp: Shaped[np.ndarray, " 3"]) -> Index | None:
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            if not np.array_equal(file["stamp"], stamp):
                return None
            names = file["names"].tobytes().decode("utf-8", errors="surrogateescape")
            return Index(Names(names.split("\0")[:-1]), file["spans"], str(file["why"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # no index yet, or an incomplete one


def _cache_index(path: Path, stamp: Shaped[np.ndarray, " 3"], index: Index) -> None:
    names = "".join(f"{name}\0" for name in index.names).encode("utf-8", errors="surrogateescape")
    blob, why = np.frombuffer(names, np.uint8), np.array(index.why)
    try:
        with replace_file(path) as part, part.open("wb") as file:
            np.savez(file, names=blob, spans=index.spans, why=why, stamp=stamp)
    except OSError:
        return  # a full or read-only home only costs another scan next time
