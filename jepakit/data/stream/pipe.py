"""Frames on standard input: lines of numbers, or .npy arrays one after the other, whichever comes first."""

import os
import select
import time
from collections.abc import Iterator

import numpy as np

from ..base import Unreadable
from .folder import POLL, Stop
from .frames import Read, numbered, rows

MAGIC = b"\x93NUMPY"
CHUNK = 2**16
INPUT = "standard input"


class Stopped(Exception):  # noqa: N818 - a request, not a fault
    """Nothing more is wanted."""


class Pipe:
    """The bytes of a file descriptor as they come; ends `wait` seconds after the last (0: at its end)."""

    def __init__(self, handle: int, wait: float, stop: Stop) -> None:
        self.handle, self.wait, self.stop = handle, wait, stop
        self.buffer = bytearray()
        self.ended = False

    def more(self) -> bool:
        """Wait for further bytes; False at the end. Raises Stopped."""
        since = time.monotonic()
        while not self.ended and not select.select([self.handle], [], [], POLL)[0]:
            if self.stop():
                raise Stopped
            self.ended = 0 < self.wait <= time.monotonic() - since
        found = b"" if self.ended else os.read(self.handle, CHUNK)
        self.ended = not found
        self.buffer += found
        return bool(found)

    def read(self, size: int = CHUNK, /) -> bytes:
        """Up to `size` bytes, at least one before the end."""
        while not self.buffer and self.more():
            pass
        found = bytes(self.buffer[:size])
        del self.buffer[:size]
        return found

    def lines(self) -> Iterator[str]:
        """The lines, the last one too where it has no end."""
        while True:
            *whole, rest = bytes(self.buffer).split(b"\n")
            self.buffer[:] = rest
            yield from (line.decode("utf-8", "replace") for line in whole)
            if not self.more():
                break
        if self.buffer:
            yield bytes(self.buffer).decode("utf-8", "replace")


def frames(handle: int, wait: float, stop: Stop, size: tuple[int, int] | None) -> Iterator[tuple[str, Read]]:
    """The frames on a file descriptor, each with what it is part of: the lines, or one of the arrays."""
    pipe = Pipe(handle, wait, stop)
    try:
        while len(pipe.buffer) < len(MAGIC) and pipe.more():
            pass
        if not pipe.buffer.startswith(MAGIC):
            yield from ((INPUT, found) for found in rows(pipe.lines(), INPUT))
            return
        yield from arrays(pipe, size)
    except Stopped:
        return


def arrays(pipe: Pipe, size: tuple[int, int] | None) -> Iterator[tuple[str, Read]]:
    """The frames of arrays; after one that cannot be read nothing tells where the next begins."""
    k = 0
    while pipe.buffer or pipe.more():
        name = f"{INPUT} array {k}"
        try:
            array = np.lib.format.read_array(pipe, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            yield name, Unreadable(name, f"{error}; what follows it cannot be told apart and is not read")
            return
        try:
            yield from ((name, found) for found in numbered(name, array, 0, 0, size))
        except Unreadable as error:
            yield name, error
        k += 1
