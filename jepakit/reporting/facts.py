"""A run in numbers and words: the facts of the headline, and the table that compares runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..collapse import Verdict, judged
from ..collapse import verdict as judge
from ..run.write import flatten
from .charts import short
from .records import Record, dig

UNKNOWN = "–"
NUMBERS = (
    ("Loss", ("loss",)),
    ("Normalised loss", ("metrics", "normalized_loss")),
    ("Std ratio", ("metrics", "std_ratio_target")),
    ("Rank", ("metrics", "rank_target")),
)
PANEL = (
    ("Stable rank", "stable_rank_target"),
    ("Std ratio, context encoder", "std_ratio_context"),
    ("Rank, context encoder", "rank_context"),
    ("Stable rank, context encoder", "stable_rank_context"),
    ("Cosine of the two encoders", "agreement"),
    ("LiDAR, corrected", "lidar_corrected"),
    ("Energy gap", "energy_gap"),
    ("Retrieval", "retrieval"),
)
BASELINES = {"random_init": "untrained encoder", "raw": "raw input"}
APART = ("data", "name", "weights", "settings")  # what tells scores of one kind and metric from one another
Key = tuple[str, ...]  # kind and metric, APART as `_said`, and the step of an earlier one


def facts(record: Record) -> dict[str, str]:
    """The run in a line: what was trained on what, how long, and where it ended; "–" where unknown."""
    last = {label: record.last(*path) for label, path in NUMBERS}
    if (loss := number(record.summary.get("loss"))) is not None:
        last["Loss"] = loss
    return {
        "Method": str(dig(record.settings, ("method", "name")) or UNKNOWN),
        "Data": str(dig(record.settings, ("data", "path")) or dig(record.settings, ("data", "name")) or UNKNOWN),
        "Steps": f"{record.steps:,}" + (" (stopped)" if record.summary.get("stopped") else ""),
        "Time": duration(number(record.summary.get("seconds")) or record.last("time")),
        **{label: UNKNOWN if value is None else short(value) for label, value in last.items()},
        "Samples / s": pace(record),
        "Rollbacks": str(len(undone(record))),
    }


def undone(record: Record) -> list[Mapping[str, Any]]:
    """The rollbacks of a run that has ended, oldest first."""
    return list(record.summary.get("rollbacks") or ())


def pace(record: Record) -> str:
    """The median throughput: single rows carry the cost of a checkpoint or a probe."""
    _, y = record.column("metrics", "throughput")
    return short(float(np.median(y))) if len(y) else UNKNOWN


def verdict(record: Record) -> Verdict:
    """The final verdict of the run; of one that left no summary, the verdict on the rows it has logged so far."""
    if record.summary.get("verdict"):
        return Verdict(*(str(record.summary.get(key) or "") for key in ("verdict", "reason", "advice")))  # type: ignore[arg-type]
    measured = [m for row in record.rows if "rank_target" in (m := row.get("metrics") or {})]
    return judge([judged(row) for row in measured], record.settings or None)


def duration(seconds: float | None) -> str:
    """Seconds in days and hours, hours and minutes, or minutes and seconds; "–" where unknown."""
    if seconds is None:
        return UNKNOWN
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours >= 48:
        return f"{hours // 24:,} d {hours % 24:02} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{seconds:.3g} s"


def comparison(records: Sequence[Record], names: Sequence[str]) -> dict[str, Any]:
    """One column per run: rows of facts and scores, and of the settings that differ."""
    told = [facts(r) for r in records]
    flat = [flatten(r.settings) for r in records]
    keys = sorted({k for f in flat for k in f if any(g.get(k) != f.get(k) for g in flat)})
    rows = [(label, [t[label] for t in told]) for label in told[0]]
    rows = [("Verdict", [verdict(r).name for r in records]), *rows, *_panel(records), *_scores(records)]
    return {"names": names, "rows": rows, "settings": [(k, [str(f.get(k, UNKNOWN)) for f in flat]) for k in keys]}


def _panel(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """The rows of PANEL that any run has, each as it was last measured."""
    rows = [(label, [_measured(r, key) for r in records]) for label, key in PANEL]
    return [
        (label, [UNKNOWN if v is None else short(v) for v in values])
        for label, values in rows
        if any(v is not None for v in values)
    ]


def _measured(record: Record, key: str) -> float | None:
    last = number(dig(record.summary, ("panel", key)))
    return record.last("metrics", key) if last is None else last


def _scores(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """Every score of every run with its interval, and below it the baselines'; one row for what can be compared."""
    found = [_keyed(r.evals) for r in records]
    keys = sorted({key for scores in found for key in scores})
    rows = []
    for key, label in zip(keys, _labels(keys), strict=True):
        entries = [scores.get(key, {}) for scores in found]
        rows.append((label, [between(e) for e in entries]))
        for name, baseline in BASELINES.items():
            if any(number(e.get(name)) is not None for e in entries):
                rows.append((f"{label}, {baseline}", [told(e)(number(e.get(name))) for e in entries]))
    return rows


def _keyed(evals: Sequence[Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """A run's scores by what they can be compared with; of several steps the latest has no step in its key."""
    found: dict[Key, Mapping[str, Any]] = {}
    for entry in sorted(evals, key=lambda e: number(e.get("step")) or 0, reverse=True):
        key = (probe_name(entry), *(said for part in APART for said in _said(entry.get(part))))
        found[(*key, f"step {entry.get('step')}") if key in found else key] = entry
    return found


def _said(part: Any) -> list[str]:
    """A part of a key as a label says it; settings one by one, as k=5."""
    if isinstance(part, Mapping):
        return [f"{key}={value}" for key, value in part.items()]
    return [str(part)] if part else []


def _labels(keys: Sequence[Key]) -> list[str]:
    """Names of rows: kind and metric, and of the rest what not all keys of that name share."""
    shared = {key[0]: set.intersection(*(set(k) for k in keys if k[0] == key[0])) for key in keys}
    return [" · ".join([key[0], *(said for said in key[1:] if said not in shared[key[0]])]) for key in keys]


def between(entry: Mapping[str, Any]) -> str:
    """A score with its interval, as 52.6% (51.0% … 54.2%); "–" where there is none."""
    written = told(entry)
    value, low, high = (number(entry.get(k)) for k in ("value", "low", "high"))
    return written(value) if low is None or high is None else f"{written(value)} ({written(low)} … {written(high)})"


def probe_name(entry: Mapping[str, Any]) -> str:
    """What was measured how, such as "knn accuracy"."""
    return " ".join(str(entry[k]) for k in ("kind", "metric") if entry.get(k)) or "probe"


def number(value: Any) -> float | None:
    """A number from JSON, None for anything else."""
    return float(value) if isinstance(value, (int, float)) else None


def told(entry: Mapping[str, Any]) -> Callable[[float | None], str]:
    """How the scores of one evals/*.json are written."""
    return plain if entry.get("lower_is_better") or entry.get("plain") else share


def share(value: float | None) -> str:
    """A score: as a percentage where it lies in [0, 1]."""
    if value is None:
        return UNKNOWN
    return f"{value:.1%}" if 0 <= value <= 1 else short(value)


def plain(value: float | None) -> str:
    """An error or a correlation: as it is."""
    return UNKNOWN if value is None else short(value)
