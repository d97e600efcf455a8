"""Reads cells of a study's table (values by seed, differences) and formats them for sentences."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from .page import format_value
from .study import Gain, Scores


@dataclass(frozen=True)
class Mean:
    """A group of rows that counts as one row: its number is their mean, seed by seed."""

    name: str
    rows: tuple[str, ...]


Cell = tuple[str | Mean, str]


def cells_of(rows: Sequence[str | Mean], metric: str) -> tuple[Cell, ...]:
    """The cells of one metric in several rows."""
    return tuple((row, metric) for row in rows)


def values_of(scores: Scores, cell: Cell) -> tuple[float, ...]:
    """The values of a cell, one per seed. Raises KeyError if the cell was not measured."""
    row, metric = cell
    if isinstance(row, str):
        return tuple(map(float, scores.values[row, metric]))
    return tuple(
        statistics.fmean(seed) for seed in zip(*(scores.values[name, metric] for name in row.rows), strict=True)
    )


def paired_values(scores: Scores, cell: Cell, other: Cell) -> list[tuple[float, float]]:
    """The values of two cells, paired by seed; a value measured only once counts for every seed."""
    a, b = values_of(scores, cell), values_of(scores, other)
    a, b = a * len(b) if len(a) == 1 else a, b * len(a) if len(b) == 1 else b
    return list(zip(a, b, strict=True))


def cell_gain(scores: Scores, cell: Cell, base: Cell) -> Gain:
    """The difference between a cell and `base`, seed by seed."""
    return Gain(tuple(a - b for a, b in paired_values(scores, cell, base)))


def cell_text(scores: Scores, cell: Cell) -> str:
    """A cell's mean ± sample standard deviation over seeds, and the first seed's interval if the table has one."""
    values, (row, metric) = values_of(scores, cell), cell
    text = format_value(metric, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
    if isinstance(row, str) and (row, f"{metric}, low") in scores.values:
        low, high = (format_value(metric, scores.values[row, f"{metric}, {end}"][0], None) for end in ("low", "high"))
        return f"{text} ({low} to {high})"
    return text


def signed_number(gain: Gain, metric: str) -> str:
    """A difference with its sign and spread: accuracies in percentage points, other metrics in their own unit."""
    if "accuracy" in metric:
        return str(gain)
    spread = f" ± {statistics.stdev(gain.values):.2g}" if len(gain.values) > 1 else ""
    return f"{gain.mean:+.3g}{spread} over {count_of(len(gain.values), 'seed')}"


def count_of(n: int, noun: str) -> str:
    """A number with its noun in the right form, such as "1 seed" and "3 seeds"."""
    return f"{n} {noun}" + ("" if n == 1 else "s")


def row_name(row: str | Mean) -> str:
    """The name of a row, as sentences use it."""
    return row if isinstance(row, str) else row.name


def split_names(names: Sequence[str]) -> tuple[str, list[str]]:
    """The common part of all names and the rest of each: "A · x 1" and "A · x 2" give "A · x", then "1" and "2"."""
    if len(set(names)) < 2:
        return "", list(names)
    parts, shared = [name.split(" · ") for name in names], []
    if len({len(part) for part in parts}) == 1:
        varying = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
        shared = [part for part, varies in zip(parts[0], varying, strict=True) if not varies]
        names = [" · ".join(p for p, varies in zip(part, varying, strict=True) if varies) for part in parts]
    words = [name.split(" ") for name in names]
    first = min(count_shared(zip(*words, strict=False)), min(map(len, words)) - 1)
    if any("," in word for each in words for word in each[first:-1]):
        first = 0  # so that "r 0.9, v 1" keeps its first word
    pieces = [" ".join(each[first:]).split(", ") for each in words]
    last = min(count_shared(zip(*map(reversed, pieces), strict=False)), min(map(len, pieces)) - 1)
    shared += [" ".join(words[0][:first]).rstrip(" ,·"), ", ".join(pieces[0][len(pieces[0]) - last :])]
    rest = [", ".join(each[: len(each) - last]) for each in pieces]
    return " · ".join(filter(None, shared)), rest


def count_shared(columns: Iterable[Sequence[str]]) -> int:
    """The number of leading columns that hold a single value."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def label_cells(cells: Sequence[Cell]) -> tuple[str, list[str]]:
    """The common part of the cells' names, as "row, metric", and the distinguishing part of each."""
    rows, metrics = [row_name(row) for row, _ in cells], [metric for _, metric in cells]
    (row, row_labels), (metric, metric_labels) = split_names(rows), split_names(metrics)
    if len(set(metrics)) == 1:
        return ", ".join(filter(None, (row, metrics[0]))), row_labels
    if len(set(rows)) == 1:
        return ", ".join(filter(None, (rows[0], metric))), metric_labels
    labels = [f"{m} of {r}" for r, m in zip(row_labels, metric_labels, strict=True)]
    return ", ".join(filter(None, (row, metric))), labels


def quote_commas(name: str) -> str:
    """A name for use in a sentence, in quotes if it contains a comma."""
    return f'"{name}"' if "," in name else name


def paper_figures(scores: Scores, cells: Sequence[Cell]) -> str:
    """A text with the paper's figures for some cells; empty if the paper has none."""
    known = [(row_name(row), m, scores.paper.get((row_name(row), m))) for row, m in cells]
    _, labels = split_names([row for row, _, _ in known])
    told = [
        f"{label} {format_value(metric, figure, None)}"
        for label, (_, metric, figure) in zip(labels, known, strict=True)
        if figure is not None
    ]
    return f" (paper: {', '.join(told)})" if told else ""
