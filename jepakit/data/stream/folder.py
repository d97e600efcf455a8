"""List the files of a folder in name order, and wait for the files still to come."""

import heapq
import os
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from .frames import FRAME_ENDINGS, Place

StopQuestion = Callable[[], bool]
"""Asked about ten times a second while no data arrive: whether to stop waiting."""

POLL_SECONDS = 0.1
MAX_NAMES = 1024
UNFINISHED_ENDINGS = (".part", ".tmp", ".crdownload")
PATIENCE_SECONDS = 10.0


class Name(NamedTuple):
    """A file to read, and the number of names in the folder up to and including it."""

    file: str
    passed: int


class Listing(NamedTuple):
    """The next names, at most MAX_NAMES; the count of names up to `last`; files that are not frames, for a note."""

    names: list[str]
    passed: int
    foreign: list[str]


def next_names(folder: Path, last: str) -> Listing:
    """The files of a folder whose names sort after `last`."""
    passed, foreign, after = 0, dict[str, str](), list[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            ending = os.path.splitext(name)[1].lower()
            if name.startswith(".") or ending in UNFINISHED_ENDINGS:
                continue
            if ending not in FRAME_ENDINGS or entry.is_dir():
                foreign.setdefault("folder" if entry.is_dir() else ending, name)
            elif name > last:
                after.append(name)
                # Kept short, so that a folder of any size takes the memory of a few names.
                after = heapq.nsmallest(MAX_NAMES, after) if len(after) > 8 * MAX_NAMES else after
            else:
                passed += 1
    return Listing(heapq.nsmallest(MAX_NAMES, after), passed, list(foreign.values()))


def following_files(folder: Path, place: Place, wait: float, settle: float, stop: StopQuestion) -> Iterator[Name | str]:
    """The files after `place`, and note sentences; ends `wait` seconds after the last file, or when told to stop."""
    last, known, told = place.file, place.passed, set[str]()
    since = time.monotonic()
    while True:
        found = next_names(folder, last)
        if last and 0 <= known < found.passed:
            yield late_sentence(folder, last, found.passed - known)
        known = found.passed
        if found.foreign and "foreign" not in told:
            told.add("foreign")
            yield f"{', '.join(found.foreign[:3])} in {folder} are not frames; they and similar files are left out"
        for name in found.names:
            written = yield from wait_until_settled(folder / name, settle, stop)
            if written is None:
                return
            last, known, since = name, known + 1, time.monotonic()
            yield Name(name, known) if written else f"{folder / name} disappeared before it was read"
        if not found.names:
            if time.monotonic() - since >= wait or stop():
                return
            if "waiting" not in told:
                told.add("waiting")
                yield f"waiting for files in {folder} after {last or 'the first'}; the run ends after {wait:g} s"
            time.sleep(POLL_SECONDS)


def late_sentence(folder: Path, last: str, count: int) -> str:
    """The sentence on files that arrived too late for their position in name order."""
    before = [e for e in os.scandir(folder) if e.name <= last and e.name.lower().endswith(FRAME_ENDINGS)]
    newest = max(before, key=lambda e: e.stat().st_ctime).name if before else ""
    return (
        f"{count} files arrived too late and are left out, among them {newest}: their names sort before {last}, which "
        "has already been read; give new files names that sort after the old ones"
    )


def wait_until_settled(path: Path, seconds: float, stop: StopQuestion) -> Generator[str, None, bool | None]:
    """Wait until a file stops changing; returns True, False if it disappears, None if told to stop."""
    begun = since = time.monotonic()
    seen, told = None, False
    while True:
        try:
            found = path.stat()
        except FileNotFoundError:
            return False
        now = time.monotonic()
        if seen != (seen := (found.st_size, found.st_mtime_ns)):
            since = now
        # Uses its modification time or, if another machine's clock wrote that, how long we have watched.
        if time.time() - found.st_mtime >= seconds or now - since >= seconds:
            return True
        if stop():
            return None
        if now - begun > PATIENCE_SECONDS and not told:
            told = True
            yield f"waiting for {path}, which is still being written"
        time.sleep(min(POLL_SECONDS, seconds))
