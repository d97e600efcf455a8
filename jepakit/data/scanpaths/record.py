"""Read fixation files (JSON or CSV): their scanpaths, and every mistake with its place in the file."""

import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from ...core.registry import did_you_mean
from ..images.dataset import PictureSet
from ..images.decode import DECODING_ERRORS
from ..images.folder import IMAGE_COLUMNS
from ..paths import existing_path
from ..report import Problem

Timing = Literal["auto", "duration", "onset"]
DURATION_COLUMNS = ("duration", "dur", "fixation_duration")
ONSET_COLUMNS = ("onset", "start", "t", "time", "timestamp")
SUBJECT_COLUMNS = ("subject", "viewer", "participant", "observer")


class ColumnRequest(NamedTuple):
    """The named columns (empty: the usual names), and what times mean."""

    subject: str = ""
    time: str = ""
    timing: Timing = "auto"


class Track(NamedTuple):
    """One scanpath as its file states it: T places in pixels, and durations (NaN: unknown).

    `rows` is the place of each fixation in the file, `size` the (width, height) that the file states for the image.
    """

    image: str
    subject: str
    xy: Float[np.ndarray, "t 2"]
    duration: Float[np.ndarray, " t"]
    rows: Sequence[str]
    size: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """The content of a file: tracks, mistakes in file order, entries without an image, and decisions made."""

    tracks: list[Track]
    problems: list[Problem] = field(default_factory=list)
    without: int = 0
    notes: tuple[str, ...] = ()


class Looked(NamedTuple):
    """The images, the content of the fixation file if any, the image of each track, and every mistake."""

    source: PictureSet
    found: Found | None
    image: list[int]
    problems: list[Problem]


def read_fixations(file: str, asked: ColumnRequest) -> Found:
    """All scanpaths of a .csv, .json or .json.gz file, in file order.

    Raises ValueError if the file is none of these, or lacks a column.
    """
    path = existing_path(file)
    name = path.name.lower()
    if name.endswith(".csv"):
        return _read_csv(path, asked)
    if name.endswith((".json", ".json.gz")):
        return _read_json(path, asked)
    raise ValueError(f"cannot read fixations from {file!r}; give a .csv, .json or .json.gz file")


def _read_json(path: Path, asked: ColumnRequest) -> Found:
    try:
        with gzip.open(path, "rt") if path.suffix.lower() == ".gz" else open(path) as text:
            entries = json.load(text)
    except DECODING_ERRORS as error:
        raise ValueError(f"cannot read {str(path)!r} as JSON: {error}; write it again") from None
    if not _is_list_of_objects(entries) or not all(
        _is_list_of_objects(entry.get("scanpaths", [])) for entry in entries
    ):
        raise ValueError(f"{path.name} must hold a list of {{image, scanpaths: [{{subject, x, y, duration}}]}}")
    kept = [(k, entry) for k, entry in enumerate(entries, 1) if _names_picture(entry)]
    groups = [
        (f"{path.name}, entry {k} ({entry['image']})", entry, track)
        for k, entry in kept
        for track in entry.get("scanpaths", [entry])
    ]
    keys = list(groups[0][2]) if groups else ["x", "y"]
    columns = _choose_columns(asked, keys, path.name)
    found = Found([], [], len(entries) - len(kept), _timing_note(columns))
    for n, (place, entry, track) in enumerate(groups):
        who = f"{place}, " + (f"subject {track[columns.subject]}" if columns.subject in track else f"scanpath {n + 1}")
        missing = [key for key in ("x", "y", columns.time) if key and key not in track]
        if missing:
            raise ValueError(f"{who} has no {missing[0]!r}, only {', '.join(map(str, track))}; give x, y and a time")
        cells = [track["x"], track["y"], *([track[columns.time]] if columns.time else [])]
        if not all(isinstance(cell, list) for cell in cells) or len({len(cell) for cell in cells}) > 1:
            detail = "x, y and times are not lists of equal length"
            found.problems.append(Problem(who, "no list", detail, "give one number per fixation in each list"))
            continue
        rows = [f"{who}, fixation {t}" for t in range(1, len(cells[0]) + 1)]
        stated = _stated_size(entry.get("size"))
        if stated and not np.isfinite(stated).all():
            detail, fix = f"size is {entry['size']}, not a width and a height", "write two numbers, or remove it"
            found.problems.append(Problem(place, "size", detail, fix))
            continue
        subject = str(track.get(columns.subject, ""))
        _add_track(found, columns, str(entry["image"]), subject, cells, rows, stated)
    return found


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _names_picture(entry: Mapping[str, Any]) -> bool:
    """Whether an entry names an image; 0 is a name."""
    return entry.get("image") not in (None, "") and entry.get("has_image") is not False


def _stated_size(size: Any) -> tuple[float, float] | None:
    """Width and height as a file states them, NaN if not a number; None if the file states none."""
    return (_to_float(size[0]), _to_float(size[1])) if isinstance(size, list) and len(size) == 2 else None


def _read_csv(path: Path, asked: ColumnRequest) -> Found:
    try:
        with open(path, newline="", encoding="utf-8-sig") as text:
            mark = max(",;\t", key=text.readline().count)
            text.seek(0)
            reader = csv.reader(text, delimiter=mark)
            header = [name.strip() for name in next(reader, [])]
            # A short row has empty cells at its end.
            lines = ((reader.line_num, map(str.strip, cells)) for cells in reader if cells)
            table = [(n, dict.fromkeys(header, "") | dict(zip(header, cells, strict=False))) for n, cells in lines]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {str(path)!r} as text: {error}; save it as a CSV in UTF-8") from None
    image = next((name for name in IMAGE_COLUMNS if name in header), "")
    missing = ["image"] * (not image) + [name for name in ("x", "y") if name not in header]
    if missing:
        near = did_you_mean(missing[0], header)
        raise ValueError(
            f"{path.name} has no column {missing[0]!r}, only {', '.join(header) or 'none'}.{near} It needs a header "
            "and a row per fixation: image, subject, x, y and duration or onset"
        )
    columns = _choose_columns(asked, header, path.name)
    found = Found([], [], sum(not row[image] for _, row in table), _timing_note(columns))
    groups: dict[tuple[str, str], list[tuple[int, dict[str, str]]]] = {}
    for number, row in table:
        if row[image]:
            groups.setdefault((row[image], row.get(columns.subject, "")), []).append((number, row))
    names = ["x", "y", *([columns.time] if columns.time else [])]
    for (picture, subject), rows in groups.items():
        cells = [[row[name] for _, row in rows] for name in names]
        _add_track(found, columns, picture, subject, cells, [f"{path.name}, row {number}" for number, _ in rows], None)
    return found


class _Columns(NamedTuple):
    subject: str
    time: str
    timing: str


def _choose_columns(asked: ColumnRequest, names: Sequence[str], file: str) -> _Columns:
    """The named columns, or the usual ones. Raises ValueError if a named column is missing."""
    for key, name in (("subject", asked.subject), ("time", asked.time)):
        if name and name not in names:
            raise ValueError(f"{file} has no column {name!r}, only {', '.join(names)}; set data.{key} to one of these")
    subject = asked.subject or next((name for name in SUBJECT_COLUMNS if name in names), "")
    time = asked.time or next((name for name in (*DURATION_COLUMNS, *ONSET_COLUMNS) if name in names), "")
    timing = asked.timing if asked.timing != "auto" else "duration" if time in DURATION_COLUMNS else "onset"
    return _Columns(subject, time, timing if time else "")


def _timing_note(columns: _Columns) -> tuple[str, ...]:
    if not columns.time:
        return ("fixations have no times: they are read in file order",)
    return (f"times: column {columns.time!r} is the {columns.timing} of each fixation (data.timing)",)


def _add_track(
    found: Found,
    columns: _Columns,
    image: str,
    subject: str,
    cells: Sequence[Sequence[Any]],
    rows: list[str],
    size: tuple[float, float] | None,
) -> None:
    """Add one scanpath from its columns x, y and optional times, or the problems with it."""
    numbers = np.stack([_to_floats(cell) for cell in cells]) if rows else np.zeros((len(cells), 0))
    times = numbers[2] if columns.time else np.full(len(rows), np.nan)
    for problem in _number_problems(numbers, times, columns, cells, rows):
        found.problems.append(problem)
        return
    duration = np.append(np.diff(times), np.nan)[: len(times)] if columns.timing == "onset" else times
    found.tracks.append(Track(image, subject, numbers[:2].T.copy(), duration, rows, size))


def _number_problems(
    numbers: Float[np.ndarray, "k t"],
    times: Float[np.ndarray, " t"],
    columns: _Columns,
    cells: Sequence[Sequence[Any]],
    rows: Sequence[str],
) -> Iterator[Problem]:
    """The problems with the numbers of one scanpath, the first of each kind."""
    if (bad := np.argwhere(~np.isfinite(numbers))).size:
        k, t = bad[0].tolist()
        name = ("x", "y", columns.time)[k]
        yield Problem(rows[t], "no number", f"{name} is {cells[k][t]!r}, not a number", "write a number, or remove it")
    if columns.timing == "onset" and (late := np.flatnonzero(np.diff(times) <= 0)).size:
        t = int(late[0]) + 1
        detail = f"onset {times[t]:g} does not follow {times[t - 1]:g}"
        fix = f"give increasing onsets or, if column {columns.time!r} holds durations, data.timing=duration"
        yield Problem(rows[t], "onset", detail, fix)
    if columns.timing == "duration" and (low := np.flatnonzero(times < 0)).size:
        t = int(low[0])
        yield Problem(
            rows[t], "duration", f"duration {times[t]:g} is below 0", "give the time for which the place was looked at"
        )


def _to_floats(cells: Sequence[Any]) -> Float[np.ndarray, " t"]:
    """The cells as numbers, NaN if a cell is not a number."""
    try:
        return np.array(cells, dtype=np.float64)
    except (TypeError, ValueError):
        return np.array([_to_float(cell) for cell in cells])


def _to_float(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def placement_problems(track: Track, height: int, width: int, picture: str) -> Iterator[Problem]:
    """The conflicts between a scanpath and its image: a different size, or a place outside it."""
    if track.size is not None and track.size != (width, height):
        stated = f"{track.size[0]:g} x {track.size[1]:g}"
        detail = f"the file says {track.image} has {stated} px but it has {width} x {height}"
        # The entry's place in the file, without the fixation.
        entry = track.rows[0].rpartition(", fixation")[0] or track.rows[0] if track.rows else track.image
        yield Problem(entry, "size", detail, "give the original pictures, or scale x and y to these")
        return
    x, y = track.xy.T
    out = np.flatnonzero((x < 0) | (y < 0) | (x > width) | (y > height))
    if out.size:
        t = int(out[0])
        more = f", and {len(out) - 1} more of this scanpath" if len(out) > 1 else ""
        detail = f"({x[t]:g}, {y[t]:g}) is outside {picture}, which has {width} x {height} px{more}"
        yield Problem(track.rows[t], "outside", detail, "remove it, or give x and y in pixels from the top left corner")
