"""Scores as a table, a row per step: .csv or .parquet, written series by series."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from ..checkpoint import replacing

HEAD = ("entity", "time", "score", "z", "anomalous")


class Rows(NamedTuple):
    """The rows of one series: its name, the time of each step, its score (NaN: none), z, and whether it stands out."""

    entity: str
    time: Shaped[np.ndarray, " t"]
    score: Float64[np.ndarray, " t"]
    z: Float64[np.ndarray, " t"]
    anomalous: Bool[np.ndarray, " t"]


Write = Callable[[Rows], None]


@contextmanager
def writing(out: Path, clock: np.dtype) -> Iterator[Write]:
    """A function that appends the rows of a series to `out`, which appears when the block ends well.

    `clock` is the type of times.
    """
    with replacing(out) as part, WRITERS[out.suffix](part, clock) as write:
        yield write


@contextmanager
def _csv(path: Path, clock: np.dtype) -> Iterator[Write]:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEAD)

        def write(rows: Rows) -> None:
            numbers = ([f"{v:.9g}" for v in column] for column in (rows.score.tolist(), rows.z.tolist()))
            cells = zip(_texts(rows.time), np.isnan(rows.score), *numbers, rows.anomalous.tolist(), strict=True)
            for time, empty, score, z, anomalous in cells:
                table.writerow([rows.entity, time, *(("", "", "") if empty else (score, z, int(anomalous)))])

        yield write


def _texts(time: Shaped[np.ndarray, " t"]) -> list[str]:
    """Times as 2024-01-31 12:00:00, as pandas writes them; numbers as they are."""
    if time.dtype.kind == "M":
        return [text.replace("T", " ") for text in np.datetime_as_string(time).tolist()]
    return [f"{value:.15g}" for value in time.tolist()]


@contextmanager
def _parquet(path: Path, clock: np.dtype) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds: tuple[Any, ...] = (pa.string(), pa.from_numpy_dtype(clock), pa.float64(), pa.float64(), pa.bool_())
    schema = pa.schema(list(zip(HEAD, kinds, strict=True)))
    with pq.ParquetWriter(path, schema) as file:

        def write(rows: Rows) -> None:
            empty = np.isnan(rows.score)
            columns = [pa.array([rows.entity] * len(empty), pa.string()), pa.array(rows.time)]
            columns += [pa.array(values, mask=empty) for values in rows[2:]]
            file.write_table(pa.Table.from_arrays(columns, schema=schema))

        yield write


WRITERS = {".csv": _csv, ".parquet": _parquet}
