"""The claims of `rjepa-recurrence`, further conclusions from its numbers, and its figures with one dot per seed."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ... import collapse
from ...core.files import file_slug
from ...reporting.figures import Figure
from ..cells import cells_of
from ..claims import AtLeast, Changes, Numbers, Ranking, Statement
from ..page import dot_chart
from ..study import Scores

CONSTANT, PERSISTENCE = "error over constant", "error over persistence"
NEXT, DIGIT, MOTION = "next frame R²", "digit accuracy", "motion R²"
PROBE_METRICS: Final = (NEXT, DIGIT, MOTION)
LOWER_METRICS: Final = (CONSTANT, PERSISTENCE)
RANK, RATIO, UNTRAINED = "rank", "std ratio", ", untrained"
COST_METRICS: Final = ("ms per step", "MiB per step", "parameters")
Values = Mapping[tuple[str, str], Sequence[float]]


def rows_of(values: Values) -> dict[str, list[str]]:
    """The rows of every data set, in table order."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for name, _ in values):
        data, _, row = name.partition(" · ")
        found.setdefault(data, []).append(row)
    return found


def claims(data: Sequence[str], rows: Sequence[str]) -> Iterator[Statement]:
    """Claims for every data set: which rows collapse, which has the best probes, what training adds, and step costs."""
    for source in data:
        labels = [f"{source} · {row}" for row in rows]
        probes = PROBE_METRICS if source == "moving digits" else PROBE_METRICS[:2]
        yield AtLeast(
            tuple(labels), RATIO, collapse.FULL_STD_RATIO, words="No row collapses (spread over that before training)"
        )
        for metric in probes:
            yield Ranking(cells_of(labels, metric), first=rows[-1])
        for metric in probes:
            pairs = tuple(((label, metric), (label, metric + UNTRAINED)) for label in labels)
            yield Changes(pairs, words=f"{source}, {metric}, what training adds to the first weights")
        yield Numbers(tuple(labels), COST_METRICS, words=f"{source}, a step takes")


def conclusions(scores: Scores) -> list[str]:
    """Sentences on the row with the most best probes, errors of rows without collapse, and costs of the best rows."""
    found = [best_rows(scores.values)]
    for data, rows in rows_of(scores.values).items():
        cheap = []
        for metric in (m for m in (*LOWER_METRICS, *PROBE_METRICS) if (f"{data} · {rows[0]}", m) in scores.values):
            # After a collapse, error over spread is a ratio of two tiny numbers.
            gone = collapsed_rows(scores.values, data, rows) if metric in LOWER_METRICS else []
            if left := [f"{data} · {row}" for row in rows if row not in gone]:
                ranking = Ranking(cells_of(left, metric), metric in LOWER_METRICS)
                found += [ranking.sentence(scores)] if metric in LOWER_METRICS else []
                cheap.append(f"{metric} {cheapest_row(scores, data, ranking)}")
        if len(scores.values[f"{data} · {rows[0]}", RATIO]) > 1:
            found.append(f"{data}, the best row, or the cheapest of those level with it: {'; '.join(cheap)}.")
    return found


def best_rows(values: Values) -> str:
    """How often each row has the best probe."""
    won: dict[str, list[str]] = {}
    for data, rows in rows_of(values).items():
        for row in rows:
            won.setdefault(row, [])
        for metric in (m for m in PROBE_METRICS if (f"{data} · {rows[0]}", m) in values):
            first = max(rows, key=lambda row: statistics.fmean(values[f"{data} · {row}", metric]))
            won[first].append(f"{metric} of {data}")
    each = [f"{row} in {', '.join(metrics) or 'nothing'}" for row, metrics in won.items()]
    return f"Best by the mean of the probes: {'; '.join(each)}."


def collapsed_rows(values: Values, data: str, rows: Sequence[str]) -> list[str]:
    """The rows that collapsed in at least one seed."""
    return [row for row in rows if min(values[f"{data} · {row}", RATIO]) < collapse.FULL_STD_RATIO]


def cheapest_row(scores: Scores, data: str, ranking: Ranking) -> str:
    """The cheapest row that the best one does not beat beyond the scatter, and the cost of its step."""
    level = [str(ranking.cells[k][0]) for k in (ranking.order(scores)[0], *ranking.level(scores))]
    every = [f"{data} · {name}" for name in rows_of(scores.values)[data]]
    row, first = (min(rows, key=lambda name: scores.mean(name, COST_METRICS[0])) for rows in (level, every))
    names = [name.removeprefix(f"{data} · ") for name in (row, first)]
    if row == first:
        return f"{names[0]} (the cheapest of all)"
    ms, mib, parameters = (scores.mean(row, cost) / scores.mean(first, cost) for cost in COST_METRICS)
    return (
        f"{names[0]} ({ms:.1f} times the seconds, {mib:.1f} the bytes, {parameters:.1f} the parameters of {names[1]})"
    )


def draw_figures(values: Values) -> list[tuple[str, Figure]]:
    """Errors, probes and costs of every row, one dot per seed."""
    return [figure for data, rows in rows_of(values).items() for figure in _metric_figures(values, data, rows)]


def _metric_figures(values: Values, data: str, rows: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    for metric in (*LOWER_METRICS, *PROBE_METRICS, RATIO, *COST_METRICS[:2]):
        if (f"{data} · {rows[0]}", metric) not in values:
            continue
        left_out = collapsed_rows(values, data, rows) if metric in LOWER_METRICS else []
        lines = []
        for row in (row for row in rows if row not in left_out):
            lines.append((row, values[f"{data} · {row}", metric]))
            if (before := values.get((f"{data} · {row}", metric + UNTRAINED))) is not None:
                lines.append((f"{row}{UNTRAINED}", before))
        if not lines:
            continue
        title = f"{data}: {metric}"
        rest = f" Not shown, because collapsed in at least one seed: {', '.join(left_out)}." if left_out else ""
        yield (
            file_slug(title),
            Figure(title[0].upper() + title[1:], dot_chart(lines, title), f"{EXPLANATIONS[metric]} {DOTS_NOTE}{rest}"),
        )


DOTS_NOTE: Final = "One dot per seed, a bar at their mean."
EXPLANATIONS: Final[Mapping[str, str]] = {
    CONSTANT: "1 is the mean of the last states over samples; lower is better.",
    PERSISTENCE: "1 is the current state as the prediction; lower is better.",
    NEXT: "R² of a ridge on the state for the next pixels; 0 is their mean.",
    DIGIT: "A linear probe of the digit on the last state; chance is 0.1.",
    MOTION: "R² of a ridge on the last state for the digit's last motion, which no single frame shows.",
    RATIO: "Deviation of the states between samples, over that before training; below "
    f"{collapse.FULL_STD_RATIO:g}: collapse.",
    COST_METRICS[0]: "Processor time of an optimiser step, the rows in turns; the median of each seed.",
    COST_METRICS[1]: "All tensors alive at once in forward and backward pass, besides weights and input.",
}
