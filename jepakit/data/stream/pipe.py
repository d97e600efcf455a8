"""Read frames from standard input: lines of numbers, or a sequence of .npy arrays; the first bytes decide which."""

import os
import select
import time
from collections.abc import Iterator

import numpy as np

from ..collation import Unreadable
from .folder import POLL_SECONDS, StopQuestion
from .frames import Read, numbered_frames, table_frames

NPY_MAGIC = b"\x93NUMPY"
CHUNK_BYTES = 2**16
INPUT_NAME = "standard input"


class StopReading(Exception):  # noqa: N818 - a request, not a fault
    """Raised when the reader is told to stop."""


class Pipe:
    """The bytes of a file descriptor as they arrive; ends `wait` seconds after the last (0: at end of file)."""

    def __init__(self, handle: int, wait: float, stop: StopQuestion) -> None:
        self.handle, self.wait, self.stop = handle, wait, stop
        self.buffer = bytearray()
        self.ended = False

    def wait_for_bytes(self) -> bool:
        """Wait for more bytes; False at the end. Raises StopReading."""
        since = time.monotonic()
        while not self.ended and not select.select([self.handle], [], [], POLL_SECONDS)[0]:
            if self.stop():
                raise StopReading
            self.ended = 0 < self.wait <= time.monotonic() - since
        found = b"" if self.ended else os.read(self.handle, CHUNK_BYTES)
        self.ended = not found
        self.buffer += found
        return bool(found)

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        """Up to `size` bytes, at least one unless the input has ended."""
        while not self.buffer and self.wait_for_bytes():
            pass
        found = bytes(self.buffer[:size])
        del self.buffer[:size]
        return found

    def read_lines(self) -> Iterator[str]:
        """The lines, including a last one without a newline."""
        while True:
            *whole, rest = bytes(self.buffer).split(b"\n")
            self.buffer[:] = rest
            yield from (line.decode("utf-8", "replace") for line in whole)
            if not self.wait_for_bytes():
                break
        if self.buffer:
            yield bytes(self.buffer).decode("utf-8", "replace")


def pipe_frames(
    handle: int, wait: float, stop: StopQuestion, size: tuple[int, int] | None
) -> Iterator[tuple[str, Read]]:
    """The frames on a file descriptor, each with its source: the lines, or one of the arrays."""
    pipe = Pipe(handle, wait, stop)
    try:
        while len(pipe.buffer) < len(NPY_MAGIC) and pipe.wait_for_bytes():
            pass
        if not pipe.buffer.startswith(NPY_MAGIC):
            yield from ((INPUT_NAME, found) for found in table_frames(pipe.read_lines(), INPUT_NAME))
            return
        yield from piped_arrays(pipe, size)
    except StopReading:
        return


def piped_arrays(pipe: Pipe, size: tuple[int, int] | None) -> Iterator[tuple[str, Read]]:
    """The frames of the arrays; stops after an unreadable one, because the start of the next is unknown."""
    k = 0
    while pipe.buffer or pipe.wait_for_bytes():
        name = f"{INPUT_NAME} array {k}"
        try:
            array = np.lib.format.read_array(pipe, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            yield name, Unreadable(name, f"{error}; the data after it cannot be separated and are not read")
            return
        try:
            yield from ((name, found) for found in numbered_frames(name, array, 0, 0, size))
        except Unreadable as error:
            yield name, error
        k += 1
