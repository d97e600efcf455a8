"""Rows with ids, as .parquet, .npy or .csv, a few megabytes in memory at a time."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..core.files import check_writable, replacing
from .embed_resume import Rows, part_of

Name = Callable[[int], str]
Writer = Callable[[Rows, Name, Path], None]

CHUNK = 2**20
"""Values converted at a time (4 MiB); the size of a parquet row group."""


def check_out(out: Path, overwrite: bool = False) -> Writer:
    """The writer for the ending of `out`. Raises ValueError where there is none, or where `out` may not be replaced."""
    check_writable(out, overwrite, WRITERS)
    # An interruption between the two files of .npy leaves the ids and OUT.part.
    if out.suffix == ".npy" and not part_of(out).exists():
        check_writable(ids_beside(out), overwrite)
    return WRITERS[out.suffix]


def ids_beside(out: Path) -> Path:
    """Where the ids of a .npy file stand."""
    return out.with_suffix(".ids.csv")


def _chunks(rows: Rows) -> Iterator[tuple[int, Rows]]:
    """The rows a few megabytes at a time, each part with the number of its first row."""
    step = max(1, CHUNK // int(np.prod(rows.shape[1:])))
    for start in range(0, len(rows), step):
        yield start, np.array(rows[start : start + step])


def empty_rows(rows: Rows) -> list[int]:
    """The rows that are NaN throughout."""
    return [
        start + int(i)
        for start, part in _chunks(rows)
        for i in np.flatnonzero(np.isnan(part).reshape(len(part), -1).all(1))
    ]


def _text(name: str) -> str:
    """A name as text: bytes that are no UTF-8, which file names may hold, are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _write_npy(rows: Rows, name: Name, out: Path) -> None:
    with replacing(ids_beside(out)) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id"])
        table.writerows([_text(name(i))] for i in range(len(rows)))
    part_of(out).replace(out)


def _write_csv(rows: Rows, name: Name, out: Path) -> None:
    dim, by_token = rows.shape[-1], rows.ndim == 3
    with replacing(out) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", *["token"] * by_token, *(f"f{i}" for i in range(dim))])
        for start, chunk in _chunks(rows):
            for i, row in enumerate(chunk, start):
                for t, vector in enumerate(row.reshape(-1, dim).tolist()):
                    table.writerow([_text(name(i)), *[t] * by_token, *(f"{v:.9g}" for v in vector)])


def _write_parquet(rows: Rows, name: Name, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.float32()
    for length in reversed(rows.shape[1:]):
        kind = pa.list_(kind, length)
    schema = pa.schema([("id", pa.string()), ("embedding", kind)])
    with replacing(out) as part, pq.ParquetWriter(part, schema) as file:
        for start, chunk in _chunks(rows):
            column = pa.array(chunk.reshape(-1))
            for length in reversed(rows.shape[1:]):
                column = pa.FixedSizeListArray.from_arrays(column, length)
            ids = pa.array([_text(name(i)) for i in range(start, start + len(chunk))])
            file.write_table(pa.Table.from_arrays([ids, column], schema=schema))


WRITERS = {".parquet": _write_parquet, ".npy": _write_npy, ".csv": _write_csv}
