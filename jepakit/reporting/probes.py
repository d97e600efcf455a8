"""The rows of the probe table: every score beside the untrained encoder's and the raw pixels'."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from .charts import interval
from .facts import UNKNOWN, number, probe_name, share
from .records import dig

BASELINES = ("random_init", "raw")
FACTS = ("data", "weights", "step", "n_train", "n_test")


def row(entry: Mapping[str, Any], run: str) -> dict[str, Any]:
    """What the template shows of one evals/*.json; the encoder `wins` where its interval lies above both baselines."""
    value, low, high = (number(entry.get(k)) for k in ("value", "low", "high"))
    references = {k: number(entry.get(k)) for k in BASELINES}
    best = max((r for r in references.values() if r is not None), default=None)
    recall = entry.get("per_class")
    return {
        "run": run,
        "name": probe_name(entry),
        "value": share(value),
        "interval": _range(low, high),
        "picture": _picture(value, low, high, references),
        "baselines": [
            (share(r), _range(*(number(dig(entry, ("baselines", k, end))) for end in ("low", "high"))))
            for k, r in references.items()
        ],
        "gain": UNKNOWN if value is None or best is None else f"{(value - best) * 100:+.1f}",
        "wins": None not in (value, best) and (low or value or 0.0) > (best or 0.0),
        "facts": {k: entry[k] for k in FACTS if entry.get(k) is not None},
        "warning": dig(entry, ("notes", "warning")) or "",
        "recall": _recall(recall) if isinstance(recall, Mapping) else [],
    }


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{share(low)} – {share(high)}"


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
