"""The rows of the probe table: every score beside the untrained encoder's and the raw pixels'."""

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from .charts import interval
from .facts import BASELINES, UNKNOWN, number, plain, probe_name, share, told
from .records import dig

FACTS = ("data", "weights", "step", "n_train", "n_test")


def row(entry: Mapping[str, Any], run: str) -> dict[str, Any]:
    """What the template shows of one evals/*.json; the encoder `wins` where its interval lies above both baselines."""
    value, low, high = (number(entry.get(k)) for k in ("value", "low", "high"))
    references = {k: number(entry.get(k)) for k in BASELINES}
    error = bool(entry.get("lower_is_better"))
    known = [r for r in references.values() if r is not None]
    best = (min if error else max)(known, default=None)
    recall = entry.get("per_class")
    written = told(entry)
    return {
        "run": run,
        "name": probe_name(entry),
        "value": written(value),
        "interval": _range(low, high, written),
        "picture": _beside(entry) or _picture(value, low, high, references),
        "baselines": [
            (
                written(r),
                _range(
                    number(dig(entry, ("baselines", k, "low"))), number(dig(entry, ("baselines", k, "high"))), written
                ),
            )
            for k, r in references.items()
        ],
        "gain": _gain(value, best, error, written is plain),
        "wins": _wins(value, high if error else low, best, error),
        "facts": {k: entry[k] for k in FACTS if entry.get(k) is not None},
        "warning": dig(entry, ("notes", "warning")) or "",
        "recall": _recall(recall) if isinstance(recall, Mapping) else [],
    }


def _range(low: float | None, high: float | None, told: Callable[[float | None], str] = share) -> str:
    return "" if low is None or high is None else f"{told(low)} – {told(high)}"


def _beside(entry: Mapping[str, Any]) -> Markup:
    """What stands in place of a picture where the score has no scale from 0 to 1; empty where it has one."""
    if entry.get("lower_is_better"):
        return Markup("an error: lower is better")
    low, high = (number(dig(entry, ("notes", f"ceiling_{end}"))) for end in ("low", "high"))
    ceiling = f"; noise ceiling {_range(low, high, plain)}" if low is not None and high is not None else ""
    return Markup(f"a correlation{ceiling}") if entry.get("plain") else Markup("")


def _gain(value: float | None, best: float | None, error: bool, bare: bool) -> str:
    """Points over the better baseline; of a plain number the difference, of an error that as a share."""
    if value is None or best is None or (error and not best):
        return UNKNOWN
    if error:
        return f"{value / best - 1:+.0%}"
    return f"{value - best:+.3f}" if bare else f"{(value - best) * 100:+.1f}"


def _wins(value: float | None, end: float | None, best: float | None, error: bool) -> bool:
    """Whether the whole interval, whose nearer end is `end`, lies on the right side of the better baseline."""
    if value is None or best is None:
        return False
    nearer = end if end is not None else value
    return nearer < best if error else nearer > best


def _picture(
    value: float | None, low: float | None, high: float | None, references: Mapping[str, float | None]
) -> Markup:
    if value is None or low is None or high is None or not 0 <= low <= value <= high <= 1:
        return Markup("")
    label = f"{share(value)}, interval {_range(low, high)}"
    return interval(value, low, high, list(references.values()), label)


def _recall(recall: Mapping[Any, Any]) -> list[tuple[str, float]]:
    """Classes with their recall, worst first."""
    known = [(str(name), r) for name, value in recall.items() if (r := number(value)) is not None]
    return sorted(known, key=lambda item: item[1])
