"""What a run writes while it trains: metrics.jsonl, TensorBoard events, summary.json, environment.json."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy
import torch

from .. import __version__
from ..core import files
from .rows import Row, read_rows


class Journal:
    """Appends one row per logged step to metrics.jsonl and TensorBoard.

    On resume, rows after step `start` are cut off, and so is whatever follows the first line that cannot be read.
    """

    def __init__(self, run: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A broken line is the last that a killed process wrote: what follows belongs to no continuous history.
        whole = takewhile(lambda row: row is not None, read_rows(run))
        kept = [row for row in whole if row and row["step"] <= start]
        files.write_text(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        self.file = (run / "metrics.jsonl").open("a")
        self.events = SummaryWriter(str(run), purge_step=start + 1 if start else None)

    def write(self, row: Row) -> None:
        """Append one row; it is in the operating system's hands when this returns."""
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


def environment() -> Mapping[str, Any]:
    """What the run ran on."""
    return {
        "jepakit": __version__,
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
