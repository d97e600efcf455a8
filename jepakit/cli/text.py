"""Formats results and tables as text for the command line."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..inference.forecast import Forecast
    from ..inference.plan import PlanReport

from ..core.words import count_text, percent
from ..evals.finding import Finding, probe_finding


def print_table(rows: Sequence[tuple[str, Any]]) -> None:
    """Print names in one column and their values in another."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}".rstrip())


def describe_run(done: Mapping[str, Any]) -> str:
    """A finished run in a few lines: probe table, page, verdict last; nothing where another process has them."""
    summary = done["summary"]
    if not summary:
        return ""
    taken = f"{count_text(summary['steps'], 'step')} in {summary['seconds']:.0f} s"
    lines = [f"{done['folder']}: {taken}, loss {summary['loss']:.4f}"]
    if best := summary.get("best"):
        lines.append(f"best checkpoint by kNN while training: step {best['step']} ({percent(best['knn'], 1)})")
    if summary["skipped"]:
        lines.append(f"skipped {len(summary['skipped'])} unreadable items, listed in summary.json")
    if done["probes"]:
        lines.append(describe_probes(done["probes"]))
    if done["page"]:
        lines.append(f"report: {done['page']}")
    for name, head in done.get("heads", {}).items():
        taken = f"{count_text(head['steps'], 'step')} in {head['seconds']:.0f} s"
        lines.append(f"{done['folder']}/heads/{name}: {taken}, loss {head['loss']:.4f}, verdict: {head['verdict']}")
    return "\n".join([*lines, describe_outcome(summary, done.get("finding"))])


def describe_outcome(summary: Mapping[str, Any], finding: Finding | None) -> str:
    """The verdict on the training beside what the probes found, each with what to do about it, in one line."""
    from ..training import rollback

    spent = f", {rollback.rollback_summary(summary['rollbacks'])}" if summary["rollbacks"] else ""
    parts = [f"verdict: {summary['verdict']} ({summary['reason']}){spent}", summary["advice"]]
    if finding is not None:
        parts += [f"but {finding}" if finding.outcome == "worse" else str(finding), finding.advice]
    return "; ".join(part for part in parts if part)


def describe_probes(paths: Sequence[Path]) -> str:
    """Probe results as a table: this encoder with its interval, the untrained encoder, the raw input."""
    rows = [["probe", "trained", "95 % interval", "untrained", "raw input", "test samples"]]
    warnings = []
    for path in paths:
        result = json.loads(path.read_text())
        error = result.get("lower_is_better", False)
        value, low, high, fresh, raw = (
            f"{result[k]:.4g}" if error or result.get("plain") else percent(result[k], 1)
            for k in ("value", "low", "high", "random_init", "raw")
        )
        seen = " (seen in training)" if result.get("seen") else ""
        name = result_name(path)
        rows.append([name, value, f"{low} … {high}", fresh, raw, f"{result['n_test']:,}{seen}"])
        warnings += [f"{name}: {result['notes'][key]}" for key in ("length", "warning") if key in result["notes"]]
        found = probe_finding(result)
        if found is not None and found.outcome != "better":
            against = " and ".join(f"the {name}" for name in found.baselines)
            warnings.append(f"{name}: {found.words} than {against}; {found.advice}")
    beside = [str(path) for path in paths if path.stem != result_name(path)]
    written = [f"written beside earlier results: {', '.join(beside)}"] if beside else []
    return "\n".join([*_align_columns(rows), *warnings, *written])


def result_name(path: Path) -> str:
    """The name of a result as a table shows it: that of its file, without the step and hash of a later result."""
    return re.sub(r"-step-\d{8}(-[0-9a-f]{8})?$", "", path.stem)


def describe_forecast(done: "Forecast") -> str:
    """What was written, the error of every reader as a table, and the notes."""
    where = "the last fifth of the data, seen in training" if done.seen else "data never seen in training"
    horizon = count_text(done.horizon, "step")
    season = f"; a season has {count_text(done.season, 'step')}" if done.season else ""
    rows = [["reader", f"mean squared error over {horizon}"]]
    rows += [[name, f"{error:.4g}{'  ← written' * (name == done.reader)}"] for name, error in done.errors.items()]
    return "\n".join(
        [
            f"{done.out}: {horizon} of {done.series} series, by {done.reader} (details: {done.details})",
            f"on {where}{season}:",
            *_align_columns(rows),
            *done.notes,
        ]
    )


def describe_comparison(found: Mapping[str, Any]) -> str:
    """Runs as columns: numbers and probes first, then the settings that differ."""
    from ..reporting.facts import short_cells

    settings = found["settings"] or [("no setting differs", [""] * len(found["names"]))]
    rows = [[what, *short_cells(what, values)] for what, values in (*found["rows"], *settings)]
    rows.insert(0, ["", *found["names"]])
    return "\n".join(_align_columns(rows))


def describe_study(rows: Sequence[Mapping[str, Any]]) -> str:
    """A study's table: mean and spread over the seeds, beside the paper's figure."""
    from ..studies.page import format_value

    table = [["training", "metric", "here", "paper", "seeds"]]
    for row in rows:
        paper = "–" if row["paper"] is None else format_value(row["metric"], row["paper"], None)
        here = format_value(row["metric"], row["mean"], row["std"])
        table.append([row["name"], row["metric"], here, paper, str(row["seeds"])])
    return "\n".join(_align_columns(table))


def _align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def describe_plans(done: "PlanReport") -> str:
    """What planning came to: the protocol, every agent's score on the same starts, and what the model knows."""
    from ..planning.protocol import Protocol

    result = done.result
    goal = result["success_end"] is not None
    rows = [["agent", "success at the end" if goal else "return", "95 % interval", "seconds per action"]]
    scale = "{:.0%}" if goal else "{:.1f}"
    for name, agent in result["agents"].items():
        score, low, high = (scale.format(agent[key]).replace("%", " %") for key in ("score", "low", "high"))
        rows.append([name, score, f"{low} … {high}", f"{agent['seconds_per_action']:.4f}"])
    lines = [*Protocol(**result["protocol"]).lines(), f"energy: {result['energy']}", *_align_columns(rows)]
    for name, errors in result.get("model", {}).get("factors", {}).items():
        seen, last, spread = errors["seen"], errors["imagined"][-1], errors["spread"]
        steps = len(errors["imagined"])
        lines.append(
            f"{name}: read with an error of {seen:.2f}, {last:.2f} after {steps} imagined steps (spread {spread:.2f})"
        )
    lines += describe_floor(result.get("landscapes", {}).get("floor", {}))
    if ghosting := result.get("model", {}).get("ghosting"):
        last = next((k for k in reversed(range(len(ghosting["share"]))) if ghosting["share"][k] is not None), None)
        if last is not None:
            share, count = ghosting["share"][last], ghosting["pushes"][last]
            lines.append(f"walls: the model lets {100 * share:.0f} % of {count} pushes through after {last + 1} steps")
    if result["failed"]:
        number, reason = next(iter(result["failed"].items()))
        lines.append(f"{len(result['failed'])} episodes failed, e.g. {number}: {reason}")
    lines += [f"results: {done.path}"] + ([f"film: {done.film}"] if done.film else [])
    return "\n".join(lines)


def describe_floor(floor: Mapping[str, Any]) -> list[str]:
    """How well energies follow the true way to go over the floor; nothing without a floor and goals."""
    return [
        f"over the floor, {name}: rank correlation {correlation:.2f} with the true way to go, leads to the goal from "
        f"{percent(floor['arrives'][name])} of places"
        for name, correlation in floor.get("correlation", {}).items()
    ]
