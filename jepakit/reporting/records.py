"""Reads a run folder without importing torch: metrics, summary, settings, environment, probes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ..run.metrics import Row, read_rows

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class RunRecord:
    """The contents of one run folder; a missing file leaves an empty field, `notes` has a sentence per broken file.

    `evals` are the results of probes, `plans` those of planning, by the name of their file.
    """

    folder: Path
    name: str
    config: str
    settings: Row
    rows: tuple[Row, ...]
    summary: Row
    environment: Row
    evals: tuple[Row, ...]
    plans: Mapping[str, Row] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """The number of optimiser steps that the run has completed."""
        return int(self.summary.get("steps") or (self.rows[-1].get("step", 0) if self.rows else 0))

    def last(self, *path: str) -> float | None:
        """The last finite value of a column, or None if it has none."""
        _, y = self.column(*path)
        y = y[np.isfinite(y)]
        return float(y[-1]) if len(y) else None

    def column(self, *path: str) -> tuple[Array, Array]:
        """Steps and values (both (K,) float64) of the rows that carry `path`, such as ("metrics", "rank_target")."""
        pairs = [(row.get("step", 0), nested_value(row, path)) for row in self.rows]
        kept = [(step, value) for step, value in pairs if isinstance(value, (int, float))]
        return np.array([s for s, _ in kept], float), np.array([v for _, v in kept], float)


def nested_value(tree: Any, path: Sequence[str]) -> Any:
    """The value at `path` in nested mappings, or None if a key on the way is missing."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def read_record(run: Path) -> RunRecord:
    """The record of one run folder.

    Raises ValueError if `run` is not a run folder, which means it holds neither config.yaml nor metrics.jsonl.
    """
    run = Path(run)
    if not any((run / name).is_file() for name in ("config.yaml", "metrics.jsonl")):
        what = "holds neither config.yaml nor metrics.jsonl" if run.is_dir() else "is not a folder"
        raise ValueError(f"{run} is not a run: it {what}; give the folder that `jepa train --out` wrote")
    notes: list[str] = []
    config = _read_text(run / "config.yaml")
    settings, lines = _read_settings(config, notes), list(read_rows(run))
    # A process that is killed leaves its last line incomplete.
    if bad := lines.count(None):
        notes.append(f"{bad} of {len(lines)} lines of metrics.jsonl could not be read and were left out.")
    rows = [row for row in lines if row is not None]
    results = {p.stem: found for p in sorted((run / "evals").glob("*.json")) if (found := _read_object(p, notes))}
    return RunRecord(
        folder=run,
        name=run.resolve().name,
        config=config,
        settings=settings,
        rows=(*(_row_of_step_0(run) if rows and rows[0].get("step") else ()), *rows),
        summary=_read_object(run / "summary.json", notes),
        environment=_read_object(run / "environment.json", notes),
        evals=tuple(result for result in results.values() if result.get("kind") != "plan"),
        plans={name: result for name, result in results.items() if result.get("kind") == "plan"},
        notes=tuple(notes),
    )


def _row_of_step_0(run: Path) -> tuple[Row, ...]:
    """The panel of the untrained encoder, which a checkpoint stores and metrics.jsonl, which begins later, does not."""
    measured = nested_value(_read_object(run / "checkpoints" / "last" / "state.json", []), ("panel", "rows"))
    return ({"step": 0, "metrics": measured[0]},) if measured else ()


def _read_text(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def _read_settings(text: str, notes: list[str]) -> Row:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        notes.append("config.yaml is not valid YAML, so it is only shown as text.")
        return {}
    return tree if isinstance(tree, dict) else {}


def _read_object(path: Path, notes: list[str]) -> Row:
    if not path.is_file():
        return {}
    try:
        tree = json.loads(_read_text(path))
    except json.JSONDecodeError:
        tree = None
    if isinstance(tree, dict):
        return tree
    notes.append(f"{path.name} is not a valid JSON object and was left out.")
    return {}


def unique_names(records: Sequence[RunRecord]) -> list[str]:
    """One name per record: the folder name, prefixed with the parent folder if two runs share a name."""
    names = [r.name for r in records]
    return [f"{r.folder.resolve().parent.name}/{r.name}" if names.count(r.name) > 1 else r.name for r in records]
