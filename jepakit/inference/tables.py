"""Writes embeddings, scores and forecasts as tables or arrays, a few megabytes in memory at a time.

A file appears under its name when it is complete, never half-written. Two .csv dialects stand side by side: forecasts
are written by Arrow (text in quotes, shortest float32), all others by Python (9 digits, quotes only where needed).
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from ..core.files import check_writable, replace_file
from ..data.series import clock
from .embed_resume import Rows, part_path

if TYPE_CHECKING:
    import pyarrow as pa

Name = Callable[[int], str]
Label = Callable[[int], int]
AppendRows = Callable[[Iterable[Sequence[object]]], None]
AppendColumns = Callable[[Sequence["pa.Array"]], None]

VALUES_PER_CHUNK = 2**20
"""Values of embeddings that are converted at a time (4 MiB); the size of a parquet row group."""


@contextmanager
def csv_table(path: Path, columns: Sequence[str]) -> Iterator[AppendRows]:
    """Create a .csv file with a header; yields a function that appends rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        yield table.writerows


@contextmanager
def parquet_table(path: Path, columns: Mapping[str, "pa.DataType"]) -> Iterator[AppendColumns]:
    """Create a .parquet file; yields a function that appends a row group, given one Arrow array per column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(list(columns.items()))
    with pq.ParquetWriter(path, schema) as file:
        yield lambda arrays: file.write_table(pa.Table.from_arrays(list(arrays), schema=schema))


# --- embeddings: one row per item, or per token


class Items(NamedTuple):
    """The name and the label of every item: an index into `classes`, or -1; without classes there are no labels."""

    name: Name
    label: Label = lambda i: -1
    classes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns that stand before the features."""
        return ["id", *["label"] * bool(self.classes)]

    def cells(self, i: int) -> list[str]:
        """The cells of item i in these columns: its name and its class, "" without one."""
        label = self.label(i) if self.classes else -1
        return [_printable_name(self.name(i)), *[self.classes[label] if label >= 0 else ""] * bool(self.classes)]


def check_embedding_file(out: Path, overwrite: bool = False) -> "EmbeddingWriter":
    """The writer for the ending of `out`. Raises ValueError if there is none, or if `out` may not be replaced."""
    check_writable(out, overwrite, EMBEDDING_WRITERS)
    # An interruption between the two files leaves the ids and OUT.part.
    if out.suffix in ENDINGS_WITH_IDS and not part_path(out).exists():
        check_writable(ids_path(out), overwrite, main=out)
    return EMBEDDING_WRITERS[out.suffix]


def ids_path(out: Path) -> Path:
    """The file of ids, and labels if there are any, beside a .npy or .safetensors file."""
    return out.with_suffix(".ids.csv")


def row_chunks(rows: Rows) -> Iterator[tuple[int, Rows]]:
    """The rows a few megabytes at a time, each chunk with the number of its first row."""
    step = max(1, VALUES_PER_CHUNK // int(np.prod(rows.shape[1:])))
    for start in range(0, len(rows), step):
        yield start, np.array(rows[start : start + step])


def empty_rows(rows: Rows) -> list[int]:
    """The numbers of the rows that are NaN throughout."""
    return [
        start + int(i)
        for start, chunk in row_chunks(rows)
        for i in np.flatnonzero(np.isnan(chunk).reshape(len(chunk), -1).all(1))
    ]


def _printable_name(name: str) -> str:
    """A name as text: bytes that are not UTF-8, which file names may hold, become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _write_ids(rows: Rows, items: Items, out: Path) -> None:
    with replace_file(ids_path(out)) as path, csv_table(path, items.columns) as append:
        append(items.cells(i) for i in range(len(rows)))


def _write_npy(rows: Rows, items: Items, out: Path) -> None:
    _write_ids(rows, items, out)
    part_path(out).replace(out)


def _write_safetensors(rows: Rows, items: Items, out: Path) -> None:
    """`embedding`, and `label` with the names of the classes in the metadata (format: huggingface/safetensors)."""
    _write_ids(rows, items, out)
    labels = np.array([items.label(i) for i in range(len(rows))] if items.classes else [], dtype="<i8")
    size = 4 * rows.size
    header: dict[str, object] = {"embedding": {"dtype": "F32", "shape": rows.shape, "data_offsets": [0, size]}}
    if items.classes:
        header["label"] = {"dtype": "I64", "shape": labels.shape, "data_offsets": [size, size + labels.nbytes]}
        header["__metadata__"] = {"classes": json.dumps(items.classes)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replace_file(out) as path, path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, chunk in row_chunks(rows):
            file.write(chunk.astype("<f4").tobytes())
        file.write(labels.tobytes())


def _write_csv(rows: Rows, items: Items, out: Path) -> None:
    dim, by_token = rows.shape[-1], rows.ndim == 3
    columns = [*items.columns, *["token"] * by_token, *(f"f{i}" for i in range(dim))]
    with replace_file(out) as path, csv_table(path, columns) as append:
        for start, chunk in row_chunks(rows):
            append(
                [*items.cells(i), *[t] * by_token, *(f"{v:.9g}" for v in vector)]
                for i, row in enumerate(chunk, start)
                for t, vector in enumerate(row.reshape(-1, dim).tolist())
            )


def _write_parquet(rows: Rows, items: Items, out: Path) -> None:
    import pyarrow as pa

    kind = pa.float32()
    for length in reversed(rows.shape[1:]):
        kind = pa.list_(kind, length)
    columns = {**dict.fromkeys(items.columns, pa.string()), "embedding": kind}
    with replace_file(out) as path, parquet_table(path, columns) as append:
        for start, chunk in row_chunks(rows):
            column = pa.array(chunk.reshape(-1))
            for length in reversed(rows.shape[1:]):
                column = pa.FixedSizeListArray.from_arrays(column, length)
            names, *labels = zip(*(items.cells(i) for i in range(start, start + len(chunk))), strict=True)
            append(
                [pa.array(names), *(pa.array([name or None for name in one], pa.string()) for one in labels), column]
            )


EmbeddingWriter = Callable[[Rows, Items, Path], None]
EMBEDDING_WRITERS: Final = {
    ".parquet": _write_parquet,
    ".npy": _write_npy,
    ".csv": _write_csv,
    ".safetensors": _write_safetensors,
}
ENDINGS_WITH_IDS: Final = (".npy", ".safetensors")  # formats whose ids stand in a file beside


def check_step_outputs(out: Path, plot: Path | None, overwrite: bool) -> None:
    """Raises ValueError unless a table of steps can be written to `out`, and a picture to `plot` if it is given."""
    check_writable(out, overwrite, STEP_TABLE_ENDINGS)
    if plot is not None:
        check_writable(plot, overwrite, (".png",))


# --- scores: one row per step, appended series by series

STEP_TABLE_ENDINGS: Final = (".csv", ".parquet")
"""The formats of scores and forecasts."""
SCORE_COLUMNS: Final = ("entity", "time", "score", "z", "anomalous", "channel", "reason")


class SeriesScores(NamedTuple):
    """The rows of one series: its name and, per step, time, score (NaN: none), z, and whether the step stands out.

    `channel` (empty: all of them) and `reason` say what contributes most to the score.
    """

    entity: str
    time: Shaped[np.ndarray, " t"]
    score: Float64[np.ndarray, " t"]
    z: Float64[np.ndarray, " t"]
    anomalous: Bool[np.ndarray, " t"]
    channel: Shaped[np.ndarray, " t"]
    reason: Shaped[np.ndarray, " t"]


@contextmanager
def score_table(out: Path, time: np.dtype, offset: str = "") -> Iterator[Callable[[SeriesScores], None]]:
    """Create `out`, a table of scores; yields a function that appends the rows of a series.

    `time` is the type of the times and `offset` that of their clock from UTC. A step without a score has empty cells.
    """
    with replace_file(out) as path:
        if out.suffix == ".csv":
            with csv_table(path, SCORE_COLUMNS) as append_rows:
                yield lambda rows: append_rows(_score_cells(rows, offset))
            return
        import pyarrow as pa

        text, number = pa.string(), pa.float64()
        kinds = (text, clock.arrow_times(np.empty(0, time), offset).type, number, number, pa.bool_(), text, text)
        with parquet_table(path, dict(zip(SCORE_COLUMNS, kinds, strict=True))) as append_columns:
            yield lambda rows: append_columns(_score_arrays(rows, offset))


def _score_cells(rows: SeriesScores, offset: str) -> Iterator[Sequence[object]]:
    numbers = ([f"{v:.9g}" for v in column] for column in (rows.score.tolist(), rows.z.tolist()))
    times, empty = clock.time_texts(rows.time, offset), np.isnan(rows.score)
    flags = rows.anomalous.astype(int).tolist()
    for time, none, *cells in zip(times, empty, *numbers, flags, rows.channel, rows.reason, strict=True):
        yield [rows.entity, time, *([""] * len(cells) if none else cells)]


def _score_arrays(rows: SeriesScores, offset: str) -> list["pa.Array"]:
    import pyarrow as pa

    empty = np.isnan(rows.score)
    columns = [pa.array([rows.entity] * len(empty), pa.string()), clock.arrow_times(rows.time, offset)]
    return columns + [pa.array(values, mask=empty) for values in rows[2:]]


# --- forecasts: one row per series and step, written at once

Values = Float64[np.ndarray, "n c h"]


class Forecasts(NamedTuple):
    """The forecast of every series: the values and, by share in per cent, the two ends of the interval, (N, C, H).

    `entity` names the series and `columns` the channels. `time` holds the times of the steps where they are regular,
    on a clock that is `offset` from UTC.
    """

    entity: Sequence[str]
    columns: Sequence[str]
    mean: Values
    bands: Mapping[int, tuple[Values, Values]]
    time: Shaped[np.ndarray, "n h"] | None
    offset: str = ""


def write_forecasts(out: Path, forecasts: Forecasts) -> None:
    """Write entity, step (from 1), time where there are times, and the value and band ends of every channel.

    A channel whose name is one of those first columns gets `_value` appended to it.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    n, _, h = forecasts.mean.shape
    columns: dict[str, object] = {
        "entity": np.repeat(np.array(forecasts.entity, dtype=object), h),
        "step": np.tile(np.arange(1, h + 1), n),
    }
    if forecasts.time is not None:
        as_written = clock.arrow_times if out.suffix == ".parquet" else clock.time_texts
        columns["time"] = as_written(forecasts.time.reshape(-1), forecasts.offset)
    for k, channel in enumerate(forecasts.columns):
        name = channel + ("_value" if channel in ("entity", "step", "time") else "")
        columns[name] = _flat_channel(forecasts.mean, k)
        for share, (low, high) in forecasts.bands.items():
            columns |= {f"{name}_low{share}": _flat_channel(low, k), f"{name}_high{share}": _flat_channel(high, k)}
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    with replace_file(out) as path:
        if out.suffix == ".parquet":
            parquet.write_table(table, path)
            return
        with path.open("wb") as file:
            # Arrow's own header has every name in quotes.
            cells = ('"' + c.replace('"', '""') + '"' if set(c) & set(',"\n') else c for c in columns)
            file.write((",".join(cells) + "\n").encode())
            csv.write_csv(table, file, csv.WriteOptions(include_header=False))


def _flat_channel(values: Values, channel: int) -> np.ndarray:
    flat: np.ndarray = values[:, channel].astype(np.float32).reshape(-1)
    return flat
