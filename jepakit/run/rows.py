"""The rows of a run's metrics.jsonl, read without torch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(run: Path) -> Iterator[Row | None]:
    """One row per line of RUN/metrics.jsonl, None for a line that is no JSON object; nothing where there is no file.

    A kill leaves such a line at the end, where it cut a row short. Blank lines are passed over.
    """
    path = run / "metrics.jsonl"
    text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        if line.strip():
            yield _row(line)


def _row(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None
