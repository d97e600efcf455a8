"""Tables of steps as columns: the .csv or .parquet file beside an episode's frames."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..paths import file_ending

TABLE_ENDINGS = (".csv", ".tsv", ".parquet", ".pq")
REWARDS, ENDS = ("reward", "rewards", "next.reward"), ("terminated", "termination", "terminations", "done", "next.done")
FRAME_NAMES = ("frame", "image", "picture", "file")
# What counts or times the steps, and what only says that an episode was cut.
IGNORED = frozenset(
    {"t", "time", "timestamp", "step", "index", "frame_index", "episode", "episode_index", "task_index"}
    | {"truncated", "truncation", "truncations", ""}
)


class StepTable(NamedTuple):
    """The table of an episode: numbers by column, those of `whole` whole, and the names of frames if it has them."""

    numbers: dict[str, Float[np.ndarray, " t"]]
    whole: frozenset[str]
    frames: list[str]


def read_step_table(path: Path) -> StepTable:
    """A table with a row per step. Raises ValueError with row and column."""
    cells = _read_csv(path) if file_ending(path) in (".csv", ".tsv") else _read_parquet(path)
    frames = next((name for name in FRAME_NAMES if name in cells), "")
    numbers, whole = {}, set()
    for name, column in cells.items():
        if name == frames or name in IGNORED:
            continue
        try:
            numbers[name] = np.array([_number(cell) for cell in column], dtype=np.float64)
        except (TypeError, ValueError):
            row = next(t for t, cell in enumerate(column) if not _is_number(cell))
            raise ValueError(
                f"column {name!r} of {str(path)!r} is {column[row]!r} in row {row + 1}, not a number; write a number, "
                "or remove the column"
            ) from None
        if all(isinstance(cell, int) or (isinstance(cell, str) and cell.lstrip("-").isdecimal()) for cell in column):
            whole.add(name)
    return StepTable(numbers, frozenset(whole), [str(cell) for cell in cells.get(frames, [])])


def _number(cell: object) -> float:
    if isinstance(cell, str) and cell.lower() in ("true", "false"):
        return float(cell.lower() == "true")
    return float(cell)  # type: ignore[arg-type]


def _is_number(cell: object) -> bool:
    try:
        _number(cell)
    except (TypeError, ValueError):
        return False
    return True


def _read_csv(path: Path) -> dict[str, list[object]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as text:
            mark = max(",;\t", key=text.readline().count)
            text.seek(0)
            rows = [row for row in csv.reader(text, delimiter=mark) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {str(path)!r} as text: {error}; save it as a CSV in UTF-8") from None
    if len(rows) < 2:
        raise ValueError(f"{str(path)!r} has no rows of numbers; give a header and a row per action")
    header = [name.strip() for name in rows[0]]
    short = next((t for t, row in enumerate(rows) if len(row) != len(header)), 0)
    if short:
        raise ValueError(
            f"row {short} of {str(path)!r} has {len(rows[short])} cells, its header {len(header)}; mend it"
        )
    return {name: [row[k].strip() for row in rows[1:]] for k, name in enumerate(header)}


def _read_parquet(path: Path) -> dict[str, list[object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found: dict[str, list[object]] = pq.read_table(path).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"cannot read {str(path)!r}: {error}; write the table again") from None
    return found
