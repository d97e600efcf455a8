"""Parquet files with a column of encoded images, or with a column of image paths (a manifest).

Images up to 2 GiB are held in memory. Larger data are written once as an Arrow file in the user's cache folder and
mapped: row groups are compressed, so random reads from parquet would decompress a whole group for every row.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.files import replace_file
from ..paths import distinct_names
from ..rows import encode_labels
from .folder import IMAGE_COLUMNS, LABEL_COLUMNS, Files, column_named, open_manifest
from .store import NO_LABELS, Store
from .tar import cache_folder

BYTE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "content", "data")
MAX_BYTES_IN_MEMORY = 2 * 2**30


class RowNames(Sequence[str]):
    """`file.parquet[row]` for each row of several files."""

    def __init__(self, files: Sequence[str], rows: Sequence[int]) -> None:
        self._files = list(files)
        self._ends = np.cumsum(rows, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, i: int) -> str:  # type: ignore[override]
        file = int(np.searchsorted(self._ends, i, side="right"))
        return f"{self._files[file]}[{i - (int(self._ends[file - 1]) if file else 0)}]"


@dataclass(frozen=True, eq=False)
class Cells(Store):
    """Images in the cells of a binary Arrow column."""

    column: Any

    def read(self, i: int) -> bytes:
        """The bytes in row i. Raises OSError if the cell is empty."""
        value = self.column[i].as_py()
        if value is None:
            raise OSError("the cell is empty")
        return bytes(value)

    def length(self, i: int) -> int:
        """The number of bytes in row i."""
        buffer = self.column[i].as_buffer()
        return -1 if buffer is None else int(buffer.size)


def open_parquet(files: Sequence[Path], image: str = "", label: str = "") -> Cells | Files:
    """The images in the column `image` (bytes, or a struct of bytes and path as Hugging Face writes it) of all files.

    Empty column names mean the usual ones. Raises ValueError if a file is not parquet, if there are no rows or no
    such column, or if files differ in their columns.
    """
    schemas, counts = zip(*map(_schema_and_rows, files), strict=True)
    if not sum(counts):
        raise ValueError(f"{str(files[0])!r} has no rows; give a file with one image per row")
    first = schemas[0]
    binary = _binary_columns(first)
    usual = [name for name in BYTE_COLUMNS if name in binary] + binary
    if not usual or (image and image not in binary):
        return _open_table(files, first.names, image, label)
    name = image or usual[0]
    target = column_named(label, LABEL_COLUMNS, first.names, str(files[0]), "label", needed=bool(label))
    for file, schema in zip(files, schemas, strict=True):
        if name not in _binary_columns(schema) or (target and target not in schema.names):
            raise ValueError(
                f"{str(file)!r} has columns {', '.join(schema.names)}, unlike {files[0].name!r} with "
                f"{', '.join(first.names)}; give files of the same columns"
            )
    column = _load_column(files, name, first.field(name).type)
    names = RowNames(distinct_names(files), counts)
    said = f"images from column {name!r}"
    if target and _holds_lists(first, target):
        if label:
            raise ValueError(f"the column {label!r} holds several labels per image; name a column of one label each")
        said, target = f"{said}; {target!r} holds several labels per image, so it is left out", ""
    if not target:
        return Cells(names, NO_LABELS, (), (said,), column)
    labels, classes = encode_labels([value for file in files for value in _column_values(file, target)])
    return Cells(names, labels, classes, (f"{said}, labels from {target!r}",), column)


def _holds_lists(schema: Any, name: str) -> bool:
    """Whether each cell of the column `name` is a list."""
    import pyarrow as pa

    kind = schema.field(name).type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


@contextmanager
def _column_named(file: Path) -> Iterator[None]:
    """Turn any error in reading a file into a ValueError that names the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"cannot read {str(file)!r} as parquet: {error}; write it again") from None


def _schema_and_rows(file: Path) -> tuple[Any, int]:
    """The schema and the number of rows."""
    import pyarrow.parquet as pq

    with _column_named(file), pq.ParquetFile(file) as source:
        return source.schema_arrow, source.metadata.num_rows


def _column_values(file: Path, column: str) -> list[Any]:
    import pyarrow.parquet as pq

    with _column_named(file), pq.ParquetFile(file) as source:
        values: list[Any] = source.read([column])[column].to_pylist()
        return values


def _binary_columns(schema: Any) -> list[str]:
    """The binary columns."""
    return [field.name for field in schema if _holds_bytes(field.type)]


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _open_table(files: Sequence[Path], columns: Sequence[str], image: str, label: str) -> Files:
    """The image files that a table lists."""
    import pyarrow.parquet as pq

    column_named(image, IMAGE_COLUMNS, columns, str(files[0]), "image")
    if len(files) > 1:
        raise ValueError(f"{len(files)} parquet files list image paths; give one such table")
    with _column_named(files[0]), pq.ParquetFile(files[0]) as source:
        rows = source.read().to_pylist()
    return open_manifest(files[0], rows, image, label)


def _load_column(files: Sequence[Path], name: str, kind: Any) -> Any:
    """The chunked binary column: in memory if it fits, else mapped from the cache."""
    import pyarrow as pa

    if sum(file.stat().st_size for file in files) > MAX_BYTES_IN_MEMORY:
        return _map_column(files, name, kind)
    chunks = [chunk for file in files for chunk in _binary_chunks(file, name)]
    return pa.chunked_array(chunks, type=pa.large_binary())


def _binary_chunks(file: Path, name: str) -> Iterator[Any]:
    """The column's record batches, as large binaries."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with _column_named(file), pq.ParquetFile(file) as source:
        for batch in source.iter_batches(batch_size=4096, columns=[name]):
            column = batch.column(name)
            plain = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
            yield plain.cast(pa.large_binary())


def _map_column(files: Sequence[Path], name: str, kind: Any) -> Any:
    """The column from an Arrow file in the cache; written first if it is missing or the data have changed."""
    import pyarrow as pa

    stamp = repr([(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files] + [name, str(kind)])
    target = cache_folder() / "parquet" / f"{hashlib.blake2b(stamp.encode(), digest_size=16).hexdigest()}.arrow"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        need, free = sum(f.stat().st_size for f in files), shutil.disk_usage(target.parent).free
        if need > 0.9 * free:
            raise ValueError(
                f"{target.parent} has {free / 2**30:.0f} GiB free where an index of {need / 2**30:.0f} GiB is written; "
                "set XDG_CACHE_HOME to a folder on a larger disk, or use tar shards"
            )
        schema = pa.schema([(name, pa.large_binary())])
        with replace_file(target) as part, pa.ipc.new_file(str(part), schema) as writer:
            for source in files:
                for chunk in _binary_chunks(source, name):
                    writer.write_batch(pa.record_batch([chunk], schema=schema))
    return pa.ipc.open_file(pa.memory_map(str(target))).read_all()[name]
