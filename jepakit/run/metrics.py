"""Writes a run's records during training (metrics.jsonl, TensorBoard, environment.json) and reads rows back."""

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..core import files
from ..core.version import VERSION

Row = dict[str, Any]


def read_rows(run: Path) -> Iterator[Row | None]:
    """One row per line of RUN/metrics.jsonl, None for a line that is not a JSON object. Empty if there is no file.

    A killed process may leave a truncated row as the last line. Blank lines are skipped.
    """
    path = run / "metrics.jsonl"
    text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        if line.strip():
            yield _parse_row(line)


def _parse_row(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


class Journal:
    """Appends one row per logged step to metrics.jsonl and TensorBoard.

    On resume, rows after step `start` are removed, as is everything after the first unreadable line.
    """

    def __init__(self, run: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A killed process leaves a broken last line: any rows after it do not continue the same history.
        whole = takewhile(lambda row: row is not None, read_rows(run))
        kept = [row for row in whole if row and row["step"] <= start]
        files.write_text(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        self.file = (run / "metrics.jsonl").open("a")
        self.events = SummaryWriter(str(run), purge_step=start + 1 if start else None)

    def write(self, row: Row) -> None:
        """Append one row, flushed to the operating system on return."""
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        single = {"loss": row["loss"], "lr": row["lr"]}
        for name, value in (single | row["terms"] | row["watched"] | row["metrics"]).items():
            if isinstance(value, (int, float)):
                self.events.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Flush and close both files."""
        self.file.close()
        self.events.close()


def describe_environment() -> Mapping[str, Any]:
    """Versions, machine and command of this process, in the form of environment.json."""
    import numpy
    import torch

    return {
        "jepakit": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": sys.argv[1:],
    }
