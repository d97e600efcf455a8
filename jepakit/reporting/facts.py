"""Describes a run in numbers and words: the facts of the headline, and the table that compares runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..collapse import Verdict, measure_name, verdict_inputs
from ..collapse import verdict as judge
from ..core.words import capitalize, count_text, percent
from ..data.paths import short_path
from ..evals.finding import BASELINE_NAMES, finite_number, leading_result, run_finding
from ..run.write import flatten_settings
from .charts import short_number
from .records import RunRecord, nested_value

UNKNOWN = "–"
DATA_ARROW = " → "  # between the data to fit on and the data to score on, in evals/*.json
LAST_KEYS = ("normalized_loss", "std_ratio_target", "rank_target")
PANEL_KEYS = (
    "stable_rank_target",
    "std_ratio_context",
    "rank_context",
    "stable_rank_context",
    "agreement",
    "lidar_corrected",
    "energy_gap",
    "retrieval",
)
SCORE_KEYS = ("data", "name", "weights", "settings")  # keys that distinguish scores of the same kind and metric
HEADLINE_ROWS = ("Verdict", "Probes")
Key = tuple[str, ...]  # kind and metric, APART formatted by `_format_setting`, and the step of an earlier score


def run_facts(record: RunRecord) -> dict[str, str]:
    """The main facts of a run: method, data, duration and final numbers; "–" marks an unknown value."""
    last = {"Loss": record.last("loss")} | {measure_label(key): record.last("metrics", key) for key in LAST_KEYS}
    if (loss := finite_number(record.summary.get("loss"))) is not None:
        last["Loss"] = loss
    rollbacks = run_rollbacks(record)
    facts = {
        "Method": str(nested_value(record.settings, ("method", "name")) or UNKNOWN),
        "Data": str(
            nested_value(record.settings, ("data", "path"))
            or nested_value(record.settings, ("data", "name"))
            or UNKNOWN
        ),
        "Steps": f"{record.steps:,}" + (" (stopped)" if record.summary.get("stopped") else ""),
        "Time": format_duration(finite_number(record.summary.get("seconds")) or record.last("time")),
        **{label: UNKNOWN if value is None else short_number(value) for label, value in last.items()},
        "Samples / s": median_throughput(record),
    }
    return facts | ({"Rollbacks": str(len(rollbacks))} if rollbacks else {})


def probe_facts(record: RunRecord) -> dict[str, str]:
    """The score that the finding of the run is about, and its baselines; empty if there is none."""
    result = leading_result(record.evals)
    if result is None:
        return {}
    written = score_format(result)
    baselines = {name: finite_number(result.get(key)) for key, name in BASELINE_NAMES.items()}
    return {
        capitalize(probe_name(result)): written(finite_number(result.get("value"))),
        **{capitalize(name): written(value) for name, value in baselines.items() if value is not None},
    }


def run_rollbacks(record: RunRecord) -> list[Mapping[str, Any]]:
    """The rollbacks of a finished run, oldest first."""
    return list(record.summary.get("rollbacks") or ())


def median_throughput(record: RunRecord) -> str:
    """The median throughput; a mean would include rows slowed down by a checkpoint or a probe."""
    _, y = record.column("metrics", "throughput")
    return short_number(float(np.median(y))) if len(y) else UNKNOWN


def final_verdict(record: RunRecord) -> Verdict:
    """The final verdict of the run, or, without a summary, the verdict on the rows logged so far."""
    if record.summary.get("verdict"):
        return Verdict(*(str(record.summary.get(key) or "") for key in ("verdict", "reason", "advice")))  # type: ignore[arg-type]
    measured = [m for row in record.rows if "rank_target" in (m := row.get("metrics") or {})]
    return judge([verdict_inputs(row) for row in measured], record.settings or None)


def format_duration(seconds: float | None) -> str:
    """A duration in days and hours, hours and minutes, or minutes and seconds; "–" if unknown."""
    if seconds is None:
        return UNKNOWN
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours >= 48:
        return f"{hours // 24:,} d {hours % 24:02} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{seconds:.3g} s"


def compare_records(records: Sequence[RunRecord], names: Sequence[str]) -> dict[str, Any]:
    """The comparison table with one column per run: rows of facts, scores and the settings that differ."""
    told = [run_facts(r) for r in records]
    flat = [flatten_settings(r.settings) for r in records]
    keys = sorted({k for f in flat for k in f if any(g.get(k) != f.get(k) for g in flat)})
    labels = dict.fromkeys(label for t in told for label in t)
    rows = [(label, [t.get(label, UNKNOWN) for t in told]) for label in labels]
    rows = [("Verdict", [final_verdict(r).name for r in records]), ("Probes", list(map(finding_text, records))), *rows]
    rows += _score_rows(records)
    rows += _panel_rows(records)
    return {"names": names, "rows": rows, "settings": [(k, [str(f.get(k, UNKNOWN)) for f in flat]) for k in keys]}


def page_tables(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison as the page shows it: `main` rows, and under `folded` titles with further rows.

    The page leaves out what its headlines say.
    """
    panel = set(map(measure_label, PANEL_KEYS))
    rows = [_cells(*row) for row in comparison["rows"] if row[0] not in HEADLINE_ROWS]
    main, more = ([row for row in rows if (row[0] in panel) is folds] for folds in (False, True))
    settings = [_cells(*row) for row in comparison["settings"]]
    differ = f"{count_text(len(settings), 'setting')} that {'differs' if len(settings) == 1 else 'differ'}"
    folded = {count_text(len(more), "more number"): more, differ: settings}
    return {"names": comparison["names"], "main": main, "folded": {k: v for k, v in folded.items() if v}}


def short_data(data: str) -> str:
    """The data of a score, or a data path, without folders: "train → test" of "/data/train → /data/test"."""
    return DATA_ARROW.join(map(short_path, data.split(DATA_ARROW)))


def short_names(texts: Iterable[str]) -> dict[str, str]:
    """Each of several data with its short name; those that would share one keep their paths."""
    short = {text: short_data(text) for text in texts}
    return {text: name if list(short.values()).count(name) == 1 else text for text, name in short.items()}


def short_cells(label: str, values: Sequence[str]) -> list[str]:
    """The cells of a row of a comparison as they are shown: data without folders, the rest as it is."""
    if label != "Data" and not label.endswith("data.path"):
        return list(values)
    short = short_names(values)
    return [short[value] for value in values]


def measure_label(key: str) -> str:
    """A column of the panel as the label of a fact or a row, such as "Std ratio"."""
    return capitalize(measure_name(key))


def _cells(label: str, values: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """A row whose cells are the text that is shown and, if that is shortened, the whole text."""
    shown = short_cells(label, values)
    return label, [(text, "" if text == whole else whole) for text, whole in zip(shown, values, strict=True)]


def finding_text(record: RunRecord) -> str:
    """What the run's probes found, in words; "–" if nothing was found."""
    return str(run_finding(record.evals) or UNKNOWN)


def _panel_rows(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """The rows of PANEL_KEYS that at least one run has, with the last measured values."""

    def last_value(record: RunRecord, key: str) -> float | None:
        last = finite_number(nested_value(record.summary, ("panel", key)))
        return record.last("metrics", key) if last is None else last

    rows = [(measure_label(key), [last_value(r, key) for r in records]) for key in PANEL_KEYS]
    return [
        (label, [UNKNOWN if v is None else short_number(v) for v in values])
        for label, values in rows
        if any(v is not None for v in values)
    ]


def _score_rows(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Every score of every run with its interval, baselines below; comparable scores share a row."""
    found = [_by_score_key(r.evals) for r in records]
    keys = sorted({key for scores in found for key in scores})
    rows = []
    for key, label in zip(keys, _score_labels(keys), strict=True):
        entries = [scores.get(key, {}) for scores in found]
        rows.append((label, [interval_text(e) for e in entries]))
        for name, baseline in BASELINE_NAMES.items():
            if any(finite_number(e.get(name)) is not None for e in entries):
                rows.append((f"{label}, {baseline}", [score_format(e)(finite_number(e.get(name))) for e in entries]))
    return rows


def _by_score_key(evals: Sequence[Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """A run's scores by comparison key; if a score exists at several steps, the latest has no step in its key."""
    found: dict[Key, Mapping[str, Any]] = {}
    for entry in sorted(evals, key=lambda e: finite_number(e.get("step")) or 0, reverse=True):
        key = (probe_name(entry), *(said for part in SCORE_KEYS for said in _format_setting(entry.get(part))))
        found[(*key, f"step {entry.get('step')}") if key in found else key] = entry
    return found


def _format_setting(part: Any) -> list[str]:
    """A part of a key as label text; settings are listed one by one, such as k=5."""
    if isinstance(part, Mapping):
        return [f"{key}={value}" for key, value in part.items()]
    return [str(part)] if part else []


def _score_labels(keys: Sequence[Key]) -> list[str]:
    """Row names: kind and metric, plus the parts in which keys of the same kind and metric differ."""
    shared = {key[0]: set.intersection(*(set(k) for k in keys if k[0] == key[0])) for key in keys}
    short = short_names({said for key in keys for said in key[1:] if "=" not in said})
    return [
        " · ".join([key[0], *(short.get(said, said) for said in key[1:] if said not in shared[key[0]])]) for key in keys
    ]


def interval_text(entry: Mapping[str, Any]) -> str:
    """A score with its interval, such as 52.6 % (51.0 % … 54.2 %); "–" if there is no score."""
    written = score_format(entry)
    value, low, high = (finite_number(entry.get(k)) for k in ("value", "low", "high"))
    return written(value) if low is None or high is None else f"{written(value)} ({written(low)} … {written(high)})"


def probe_name(entry: Mapping[str, Any]) -> str:
    """The name of a score: probe and metric, such as "knn accuracy"."""
    return " ".join(str(entry[k]) for k in ("kind", "metric") if entry.get(k)) or "probe"


def score_format(entry: Mapping[str, Any]) -> Callable[[float | None], str]:
    """The function that formats the scores of one evals/*.json."""
    return format_number if entry.get("lower_is_better") or entry.get("plain") else format_percent


def format_percent(value: float | None) -> str:
    """A score as text: a percentage if it lies in [0, 1]."""
    if value is None:
        return UNKNOWN
    return percent(value, 1) if 0 <= value <= 1 else short_number(value)


def format_number(value: float | None) -> str:
    """An error or a correlation as plain text, never as a percentage."""
    return UNKNOWN if value is None else short_number(value)
