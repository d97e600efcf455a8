"""The rows of an unfinished embedding on disk: what they are rows of, and where to go on."""

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
Progress = Callable[[int, int], None]


def part_of(out: Path) -> Path:
    """Where the rows of `out` grow."""
    return out.with_name(f"{out.name}.part")


@dataclass(frozen=True)
class Part:
    """The rows so far: a .npy file whose header states all of them, and `about`, what they are rows of.

    `about` holds at least `batch` and `total`, in rows.
    """

    out: Path
    about: dict[str, Any]

    @property
    def path(self) -> Path:
        """Where the rows grow."""
        return part_of(self.out)

    @property
    def side(self) -> Path:
        """Where `about` and the shape of a row stand."""
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def batch(self) -> int:
        """Rows per batch."""
        return int(self.about["batch"])

    @property
    def total(self) -> int:
        """Rows in the end."""
        return int(self.about["total"])

    def header(self, shape: Shape) -> bytes:
        """The first bytes of the file."""
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": "<f4", "fortran_order": False, "shape": (self.total, *shape)}
        )
        return head.getvalue()

    def found(self) -> tuple[int, Shape]:
        """How many rows of these data and settings are there, in whole batches, and the shape of each; 0 where none."""
        if not (self.path.exists() and self.side.exists()):
            return 0, ()
        said = json.loads(self.side.read_text())
        shape = tuple(said.pop("shape"))
        if said != self.about:
            return 0, ()
        rows = (self.path.stat().st_size - len(self.header(shape))) // _row_bytes(shape)
        return rows if rows == self.total else max(0, rows // self.batch * self.batch), shape

    def rows(self, start: int, stop: int, shape: Shape) -> Rows:
        """A copy of some of the rows."""
        at = len(self.header(shape)) + start * _row_bytes(shape)
        flat = np.fromfile(self.path, "<f4", (stop - start) * _row_bytes(shape) // 4, offset=at)
        return flat.reshape(stop - start, *shape)

    def create(self, shape: Shape) -> None:
        """An empty file. The old rows go first, so that what `side` says is always true of `path`."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        write_json(self.side, {**self.about, "shape": shape})
        self.path.write_bytes(self.header(shape))

    def append(self, blocks: Iterable[Rows], done: int, shape: Shape, progress: Progress) -> None:
        """Write `blocks` after the first `done` rows; what stood there, such as half a batch, is cut off."""
        with self.path.open("r+b") as file:
            file.truncate(len(self.header(shape)) + done * _row_bytes(shape))
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
        self.side.unlink(missing_ok=True)


def _row_bytes(shape: Shape) -> int:
    return 4 * int(np.prod(shape))
