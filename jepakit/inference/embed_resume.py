"""Keeps the rows of an unfinished embedding on disk, with what they are rows of, so that embedding can resume."""

import io
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ..core.files import write_json

Shape = tuple[int, ...]
Rows = Float32[np.ndarray, "n *shape"]
ProgressCallback = Callable[[int, int], None]


def part_path(out: Path) -> Path:
    """The file in which the rows of `out` grow."""
    return out.with_name(f"{out.name}.part")


@dataclass(frozen=True)
class UnfinishedRows:
    """The rows so far: a .npy file whose header states the final shape, and `about`, what they are rows of.

    `about` holds at least `batch` and `total`, in rows.
    """

    out: Path
    about: dict[str, Any]

    @property
    def path(self) -> Path:
        """The file in which the rows grow."""
        return part_path(self.out)

    @property
    def about_path(self) -> Path:
        """The file that holds `about` and the shape of a row."""
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def batch(self) -> int:
        """Rows per batch."""
        return int(self.about["batch"])

    @property
    def total(self) -> int:
        """Rows of the finished file."""
        return int(self.about["total"])

    def header(self, shape: Shape) -> bytes:
        """The header of the .npy file, for rows of that shape."""
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": "<f4", "fortran_order": False, "shape": (self.total, *shape)}
        )
        return head.getvalue()

    def resume_point(self) -> tuple[int, Shape]:
        """How many rows are on disk, in whole batches, and the shape of a row; 0 if they are of something else."""
        if not (self.path.exists() and self.about_path.exists()):
            return 0, ()
        stored = json.loads(self.about_path.read_text())
        shape = tuple(stored.pop("shape"))
        if stored != self.about:
            return 0, ()
        rows = (self.path.stat().st_size - len(self.header(shape))) // _bytes_per_row(shape)
        return rows if rows == self.total else max(0, rows // self.batch * self.batch), shape

    def read_rows(self, start: int, stop: int, shape: Shape) -> Rows:
        """A copy of rows `start` … `stop` - 1."""
        begin = len(self.header(shape)) + start * _bytes_per_row(shape)
        flat = np.fromfile(self.path, "<f4", (stop - start) * _bytes_per_row(shape) // 4, offset=begin)
        return flat.reshape(stop - start, *shape)

    def create_file(self, shape: Shape) -> None:
        """Start an empty file. The old rows are deleted first, so that `about_path` never describes other rows."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        write_json(self.about_path, {**self.about, "shape": shape})
        self.path.write_bytes(self.header(shape))

    def append(self, blocks: Iterable[Rows], done: int, shape: Shape, progress: ProgressCallback) -> None:
        """Write `blocks` after the first `done` rows; whatever stands there, such as half a batch, is cut off."""
        with self.path.open("r+b") as file:
            file.truncate(len(self.header(shape)) + done * _bytes_per_row(shape))
            file.seek(0, os.SEEK_END)
            for block in blocks:
                file.write(block.tobytes())
                file.flush()
                done += len(block)
                progress(done, self.total)
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Delete both files."""
        self.path.unlink(missing_ok=True)
        self.about_path.unlink(missing_ok=True)


def _bytes_per_row(shape: Shape) -> int:
    return 4 * int(np.prod(shape))
