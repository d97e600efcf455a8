"""A run in numbers and words: the facts of the headline, and the table that compares runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..collapse import Verdict, judged
from ..collapse import verdict as judge
from ..config import flatten
from .charts import short
from .records import Record, dig

UNKNOWN = "–"
NUMBERS = (
    ("Loss", ("loss",)),
    ("Normalised loss", ("metrics", "normalized_loss")),
    ("Std ratio", ("metrics", "std_ratio_target")),
    ("Rank", ("metrics", "rank_target")),
)


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
        "Rollbacks": str(len(record.summary.get("rollbacks") or ())),
    }


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
    """Seconds in hours, minutes and seconds; "–" where unknown."""
    if seconds is None:
        return UNKNOWN
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{seconds:.3g} s"


def comparison(records: Sequence[Record], names: Sequence[str]) -> dict[str, Any]:
    """One column per run: rows of facts and scores, and of the settings that differ."""
    told = [facts(r) for r in records]
    flat = [flatten(r.settings) for r in records]
    keys = sorted({k for f in flat for k in f if any(g.get(k) != f.get(k) for g in flat)})
    rows = [(label, [t[label] for t in told]) for label in told[0]]
    rows = [("Verdict", [verdict(r).name for r in records]), *rows, *_scores(records)]
    return {"names": names, "rows": rows, "settings": [(k, [str(f.get(k, UNKNOWN)) for f in flat]) for k in keys]}


def _scores(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    # Of several results of one kind the latest step's counts: it comes last.
    ordered = [sorted(r.evals, key=lambda e: number(e.get("step")) or 0) for r in records]
    found = [{probe_name(e): told(e)(number(e.get("value"))) for e in evals} for evals in ordered]
    return [(label, [f.get(label, UNKNOWN) for f in found]) for label in sorted({k for f in found for k in f})]


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
