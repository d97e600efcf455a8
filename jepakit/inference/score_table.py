"""Scores as a table, a row per step: .csv or .parquet, written series by series."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from ..core.files import replacing
from ..data.series import clock

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
def writing(out: Path, kind: np.dtype, offset: str = "") -> Iterator[Write]:
    """A function that appends the rows of a series to `out`, which appears when the block ends well.

    `kind` is the type of times, `offset` that of their clock.
    """
    with replacing(out) as part, WRITERS[out.suffix](part, kind, offset) as write:
        yield write


@contextmanager
def _csv(path: Path, kind: np.dtype, offset: str) -> Iterator[Write]:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEAD)

        def write(rows: Rows) -> None:
            numbers = ([f"{v:.9g}" for v in column] for column in (rows.score.tolist(), rows.z.tolist()))
            times, empty = clock.texts(rows.time, offset), np.isnan(rows.score)
            for time, none, score, z, anomalous in zip(times, empty, *numbers, rows.anomalous.tolist(), strict=True):
                table.writerow([rows.entity, time, *(("", "", "") if none else (score, z, int(anomalous)))])

        yield write


@contextmanager
def _parquet(path: Path, kind: np.dtype, offset: str) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    times = clock.arrow(np.empty(0, kind), offset).type
    kinds: tuple[Any, ...] = (pa.string(), times, pa.float64(), pa.float64(), pa.bool_())
    schema = pa.schema(list(zip(HEAD, kinds, strict=True)))
    with pq.ParquetWriter(path, schema) as file:

        def write(rows: Rows) -> None:
            empty = np.isnan(rows.score)
            columns = [pa.array([rows.entity] * len(empty), pa.string()), clock.arrow(rows.time, offset)]
            columns += [pa.array(values, mask=empty) for values in rows[2:]]
            file.write_table(pa.Table.from_arrays(columns, schema=schema))

        yield write


WRITERS = {".csv": _csv, ".parquet": _parquet}
