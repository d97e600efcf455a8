"""Builds the rows of the probe table: every score beside those of the untrained encoder and of the raw input."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from markupsafe import Markup

from ..core.words import capitalize
from ..evals.finding import BASELINE_NAMES, Outcome, finite_number, probe_finding
from .charts import interval_bar
from .facts import UNKNOWN, format_number, format_percent, probe_name, score_format, short_data
from .records import nested_value

FACT_NAMES: Final = {
    "data": "data",
    "weights": "weights",
    "step": "step",
    "n_train": "training samples",
    "n_test": "test samples",
}
OUTCOME_TONES: Final[Mapping[Outcome, str]] = {"better": "good", "unclear": "warn", "worse": "bad"}


def probe_row(entry: Mapping[str, Any], run: str) -> dict[str, Any]:
    """The template's values for one evals/*.json; `tone` colours the gain by what the probe found."""
    value, low, high = (finite_number(entry.get(k)) for k in ("value", "low", "high"))
    references = {k: finite_number(entry.get(k)) for k in BASELINE_NAMES}
    error = bool(entry.get("lower_is_better"))
    known = [r for r in references.values() if r is not None]
    best = (min if error else max)(known, default=None)
    recall = entry.get("per_class")
    written = score_format(entry)
    return {
        "run": run,
        "name": probe_name(entry),
        "value": written(value),
        "interval": _format_range(low, high, written),
        "picture": _scale_note(entry) or _interval_picture(value, low, high, references),
        "baselines": [
            (
                capitalize(BASELINE_NAMES[k]),
                written(r),
                _format_range(
                    finite_number(nested_value(entry, ("baselines", k, "low"))),
                    finite_number(nested_value(entry, ("baselines", k, "high"))),
                    written,
                ),
            )
            for k, r in references.items()
        ],
        "gain": _format_gain(value, best, error, written is format_number),
        "tone": OUTCOME_TONES[found.outcome] if (found := probe_finding(entry)) else "",
        "data": str(entry.get("data") or ""),
        "facts": [_format_fact(k, entry[k]) for k in FACT_NAMES if entry.get(k) is not None],
        "warning": nested_value(entry, ("notes", "warning")) or "",
        "recall": _recall_rows(recall) if isinstance(recall, Mapping) else [],
    }


def _format_fact(key: str, value: Any) -> str:
    return f"{FACT_NAMES[key]} {short_data(value) if key == 'data' else value}"


def _format_range(low: float | None, high: float | None, told: Callable[[float | None], str] = format_percent) -> str:
    return "" if low is None or high is None else f"{told(low)} – {told(high)}"


def _scale_note(entry: Mapping[str, Any]) -> Markup:
    """The text that replaces the bar of a score without a scale from 0 to 1; empty for scores with one."""
    if entry.get("lower_is_better"):
        return Markup("an error: lower is better")
    if scale := nested_value(entry, ("notes", "scale")):
        return Markup("{}").format(scale)
    low, high = (finite_number(nested_value(entry, ("notes", f"ceiling_{end}"))) for end in ("low", "high"))
    ceiling = (
        f"; noise ceiling {_format_range(low, high, format_number)}" if low is not None and high is not None else ""
    )
    return Markup(f"a correlation{ceiling}") if entry.get("plain") else Markup("")


def _format_gain(value: float | None, best: float | None, error: bool, bare: bool) -> str:
    """The gain over the better baseline: in points, as a difference for plain numbers, as a percentage for errors."""
    if value is None or best is None or (error and not best):
        return UNKNOWN
    if error:
        return f"{100 * (value / best - 1):+.0f} %"
    return f"{value - best:+.3f}" if bare else f"{(value - best) * 100:+.1f}"


def _interval_picture(
    value: float | None, low: float | None, high: float | None, references: Mapping[str, float | None]
) -> Markup:
    if value is None or low is None or high is None or not 0 <= low <= value <= high <= 1:
        return Markup("")
    label = f"{format_percent(value)}, interval {_format_range(low, high)}"
    return interval_bar(value, low, high, list(references.values()), label)


def _recall_rows(recall: Mapping[Any, Any]) -> list[tuple[str, float, str]]:
    """Classes with their recall as a share and as text, worst first."""
    known = [(str(name), r) for name, value in recall.items() if (r := finite_number(value)) is not None]
    return [(name, r, format_percent(r)) for name, r in sorted(known, key=lambda item: item[1])]
