"""Cells of a study's table: their values by seed, their differences, and how a sentence writes and names them."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from ..reporting.study import format_value
from .study import Gain, Scores


@dataclass(frozen=True)
class Mean:
    """Several rows that count as one: the mean of their numbers, seed by seed."""

    name: str
    rows: tuple[str, ...]


Cell = tuple[str | Mean, str]


def cells_of(rows: Sequence[str | Mean], metric: str) -> tuple[Cell, ...]:
    """The cells of one metric in several rows."""
    return tuple((row, metric) for row in rows)


def values_of(scores: Scores, cell: Cell) -> tuple[float, ...]:
    """The values of a cell, one per seed. Raises KeyError where it was not measured."""
    row, metric = cell
    if isinstance(row, str):
        return tuple(map(float, scores.values[row, metric]))
    return tuple(
        statistics.fmean(seed) for seed in zip(*(scores.values[name, metric] for name in row.rows), strict=True)
    )


def paired_values(scores: Scores, cell: Cell, other: Cell) -> list[tuple[float, float]]:
    """The values of two cells, seed by seed; what was measured once counts for every seed."""
    a, b = values_of(scores, cell), values_of(scores, other)
    a, b = a * len(b) if len(a) == 1 else a, b * len(a) if len(b) == 1 else b
    return list(zip(a, b, strict=True))


def cell_gain(scores: Scores, cell: Cell, base: Cell) -> Gain:
    """By how much a cell exceeds another, seed by seed."""
    return Gain(tuple(a - b for a, b in paired_values(scores, cell, base)))


def cell_text(scores: Scores, cell: Cell) -> str:
    """A cell's mean ± sample standard deviation over seeds, and the first seed's interval where the table has one."""
    values, (row, metric) = values_of(scores, cell), cell
    text = format_value(metric, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
    if isinstance(row, str) and (row, f"{metric}, low") in scores.values:
        low, high = (format_value(metric, scores.values[row, f"{metric}, {end}"][0], None) for end in ("low", "high"))
        return f"{text} ({low} to {high})"
    return text


def signed_number(gain: Gain, metric: str) -> str:
    """A difference with its sign and spread: accuracies in points of 100, anything else in the metric's own unit."""
    if "accuracy" in metric:
        return str(gain)
    spread = f" ± {statistics.stdev(gain.values):.2g}" if len(gain.values) > 1 else ""
    return f"{gain.mean:+.3g}{spread} over {count_of(len(gain.values), 'seed')}"


def count_of(n: int, noun: str) -> str:
    """A number of things, such as "1 seed" and "3 seeds"."""
    return f"{n} {noun}" + ("" if n == 1 else "s")


def row_name(row: str | Mean) -> str:
    """How a sentence calls a row."""
    return row if isinstance(row, str) else row.name


def split_names(names: Sequence[str]) -> tuple[str, list[str]]:
    """What all names have in common, and the rest of each: "A · x 1" and "A · x 2" are "A · x", then "1" and "2"."""
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
        first = 0  # "r 0.9, v 1" keeps its first word
    pieces = [" ".join(each[first:]).split(", ") for each in words]
    last = min(count_shared(zip(*map(reversed, pieces), strict=False)), min(map(len, pieces)) - 1)
    shared += [" ".join(words[0][:first]).rstrip(" ,·"), ", ".join(pieces[0][len(pieces[0]) - last :])]
    rest = [", ".join(each[: len(each) - last]) for each in pieces]
    return " · ".join(filter(None, shared)), rest


def count_shared(columns: Iterable[Sequence[str]]) -> int:
    """How many of the first columns hold a single value."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def label_cells(cells: Sequence[Cell]) -> tuple[str, list[str]]:
    """What cells have in common, as "row, metric", and what tells each from the others."""
    rows, metrics = [row_name(row) for row, _ in cells], [metric for _, metric in cells]
    (row, row_labels), (metric, metric_labels) = split_names(rows), split_names(metrics)
    if len(set(metrics)) == 1:
        return ", ".join(filter(None, (row, metrics[0]))), row_labels
    if len(set(rows)) == 1:
        return ", ".join(filter(None, (rows[0], metric))), metric_labels
    labels = [f"{m} of {r}" for r, m in zip(row_labels, metric_labels, strict=True)]
    return ", ".join(filter(None, (row, metric))), labels


def quote_commas(name: str) -> str:
    """A name within a sentence: in quotes where it has a comma."""
    return f'"{name}"' if "," in name else name


def paper_figures(scores: Scores, cells: Sequence[Cell]) -> str:
    """What the paper has for some cells; empty where it has nothing."""
    known = [(row_name(row), m, scores.paper.get((row_name(row), m))) for row, m in cells]
    _, labels = split_names([row for row, _, _ in known])
    told = [
        f"{label} {format_value(metric, figure, None)}"
        for label, (_, metric, figure) in zip(labels, known, strict=True)
        if figure is not None
    ]
    return f" (paper: {', '.join(told)})" if told else ""
