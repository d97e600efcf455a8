"""Results and tables as text, for the command line."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import evals, methods, recipes
from .data import KINDS
from .masks import MASKERS
from .nn import ENCODERS


def names() -> list[tuple[str, str]]:
    """What a command may name, as rows."""
    tables: dict[str, Iterable[str]] = {
        "methods": methods.table(),
        "recipes": recipes.table(),
        "encoders": ENCODERS,
        "masks": MASKERS,
        "data": KINDS,
        "probes": evals.table(),
    }
    return [(noun, ", ".join(table)) for noun, table in tables.items()]


def describe(done: Mapping[str, Any]) -> str:
    """A finished run in a few lines: verdict, probe table, page; nothing where another process has them."""
    summary = done["summary"]
    if not summary:
        return ""
    lines = [f"{done['folder']}: {summary['steps']} steps in {summary['seconds']:.0f} s, loss {summary['loss']:.4f}"]
    lines.append(f"verdict: {summary['verdict']} ({summary['reason']}). {summary['advice']}")
    if summary["skipped"]:
        lines.append(f"skipped {len(summary['skipped'])} unreadable items, listed in summary.json")
    if done["probes"]:
        lines.append(describe_probes(done["probes"]))
    if done["page"]:
        lines.append(f"report: {done['page']}")
    return "\n".join(lines)


def describe_probes(paths: Sequence[Path]) -> str:
    """Probe results as a table: this encoder with its interval, the untrained encoder, the raw input."""
    rows = [["probe", "trained", "95 % interval", "untrained", "raw input", "test samples"]]
    warnings = []
    for path in paths:
        result = json.loads(path.read_text())
        value, low, high, fresh, raw = (
            f"{100 * result[k]:.1f} %" for k in ("value", "low", "high", "random_init", "raw")
        )
        rows.append([path.stem, value, f"{low} … {high}", fresh, raw, f"{result['n_test']:,}"])
        if "warning" in result["notes"]:
            warnings.append(f"{path.stem}: {result['notes']['warning']}")
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*table, *warnings])
