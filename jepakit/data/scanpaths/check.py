"""Look at scanpaths before training: how many and how long, what does not fit the pictures, which cannot be read."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..base import Unreadable
from ..series.record import Trouble
from .settings import Config, Looked, build, look

LISTED = 1000
SHOWN = 10


@dataclass(frozen=True)
class GazeReport:
    """What `check` found in scanpaths; one problem per scanpath and kind of mistake, and one per unreadable picture.

    `fixations` and `per_picture` are the smallest, middle and largest count; `duration` and `saccade` middle values, in
    the file's unit of time and in sides of a crop. `samples` says what training would read, or why nothing.
    """

    path: str
    kind: str
    pictures: int
    unreadable: int
    scanpaths: int
    subjects: int
    fixations: tuple[int, int, int]
    per_picture: tuple[int, int, int]
    duration: float
    saccade: float
    samples: str
    notes: tuple[str, ...]
    problems: tuple[Trouble, ...]

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) lines for printing; the last name the first problems."""
        more = len(self.problems) - SHOWN
        return [
            ("read as", self.kind),
            ("pictures looked at", str(self.pictures)),
            ("unreadable pictures", str(self.unreadable)),
            ("scanpaths", str(self.scanpaths)),
            ("subjects", str(self.subjects)),
            ("fixations min / median / max", " / ".join(map(str, self.fixations))),
            ("scanpaths per picture", " / ".join(map(str, self.per_picture))),
            ("median duration", "unknown" if np.isnan(self.duration) else f"{self.duration:g}"),
            ("median saccade, crop sides", f"{self.saccade:.2f}"),
            ("scanpaths with mistakes", str(sum(p.problem != "unreadable" for p in self.problems))),
            ("training would read", self.samples),
            *(("note", note) for note in self.notes),
            *((p.name, f"{p.problem}: {p.detail}; {p.fix}") for p in self.problems[:SHOWN]),
            *([("…", f"and {more} more (--csv FILE lists up to {LISTED:,})")] if more > 0 else []),
        ]

    def dict(self) -> dict[str, object]:
        """Everything, as plain values for JSON."""
        return asdict(self)


def check(cfg: Config, why: str, progress: Callable[[int, int], None] | None = None) -> GazeReport:
    """Read all fixations and every picture that was looked at. Raises ValueError where there is nothing to read."""
    looked = look(cfg)
    broken = _unreadable(looked, progress)
    tracks = [] if looked.found is None else looked.found.tracks
    per = np.unique(looked.image, return_counts=True)[1] if looked.image else np.zeros(0)
    made = len(looked.source) * cfg.viewers if looked.found is None else len(tracks)
    lengths = [len(track.xy) for track in tracks] or [cfg.count]
    times = np.concatenate([track.duration for track in tracks]) if tracks else np.full(1, np.nan)
    samples, saccade, notes = _samples(cfg, looked)
    return GazeReport(
        path=cfg.path,
        kind=f"scanpaths ({why})",
        pictures=len(looked.source) if looked.found is None else len(per),
        unreadable=len(broken),
        scanpaths=made,
        subjects=cfg.viewers if looked.found is None else len({track.subject for track in tracks}),
        fixations=_range(lengths),
        per_picture=_range([int(n) for n in per] or [cfg.viewers]),
        duration=float(np.nanmedian(times)) if np.isfinite(times).any() else float("nan"),
        saccade=saccade,
        samples=samples,
        notes=notes,
        problems=(*looked.troubles, *broken)[:LISTED],
    )


def _unreadable(looked: Looked, progress: Callable[[int, int], None] | None) -> list[Trouble]:
    """The pictures, of those looked at, that cannot be decoded."""
    used = sorted(set(looked.image)) if looked.found is not None else range(len(looked.source))
    found = []
    for k, i in enumerate(used, 1):
        try:
            looked.source.raw(i)
        except Unreadable as error:
            found.append(Trouble(error.name, "unreadable", error.why or "unknown", "remove or replace it"))
        if progress:
            progress(k, len(used))
    return found


def _samples(cfg: Config, looked: Looked) -> tuple[str, float, tuple[str, ...]]:
    """What training would read, the middle length of a saccade, and what was decided."""
    if looked.troubles:
        return f"nothing: {looked.troubles[0]}", float("nan"), looked.found.notes if looked.found else ()
    try:
        data = build(cfg, looked)
        some = [data.clip(int(i), data.native).action for i in np.linspace(0, len(data) - 1, min(len(data), 256))]
    except (ValueError, Unreadable) as error:
        return f"nothing: {error}", float("nan"), looked.source.notes
    lengths = np.concatenate([action.norm(dim=1).numpy() for action in some])
    height, width = data.view.size
    kind = f"up to {data.steps} crops of {data.channels} x {height} x {width}"
    return f"{len(data)} samples: {kind}", float(np.median(lengths)), data.notes


def _range(counts: Sequence[int]) -> tuple[int, int, int]:
    return int(min(counts)), int(np.median(counts)), int(max(counts))
