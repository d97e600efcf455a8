"""What the numbers of `rjepa-recurrence` say of any rows and data, and their figures: one dot per seed."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ... import collapse
from ...core.files import slug
from ...reporting.charts import short
from ...reporting.figures import Figure
from ...reporting.study import dots, value
from ..study import Gain, Scores

CONSTANT, PERSISTENCE = "error over constant", "error over persistence"
NEXT, DIGIT, MOTION = "next frame R²", "digit accuracy", "motion R²"
PROBES: Final = (NEXT, DIGIT, MOTION)
LOWER: Final = (CONSTANT, PERSISTENCE)
RANK, RATIO, UNTRAINED = "rank", "std ratio", ", untrained"
COSTS: Final = ("ms per step", "MiB per step", "parameters")
Values = Mapping[tuple[str, str], Sequence[float]]


def rows_of(values: Values) -> dict[str, list[str]]:
    """The rows of every data set, in their order."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for name, _ in values):
        data, _, row = name.partition(" · ")
        found.setdefault(data, []).append(row)
    return found


def says(scores: Scores) -> list[str]:
    """For every data set which row is best in what, at which cost; what collapsed, and what training did."""
    found = [overall(scores.values)]
    for data, rows in rows_of(scores.values).items():
        gone = without_spread(scores.values, data, rows)
        found.append(collapsed(scores.values, data, rows, gone))
        for metric in (*LOWER, *PROBES):
            # An error over a spread that is gone is a ratio of two small numbers.
            left = [row for row in rows if metric in PROBES or row not in gone]
            if left and (f"{data} · {left[0]}", metric) in scores.values:
                found.append(best(scores.values, data, left, metric))
        found += [learnt(scores.values, data, rows), costs(scores.values, data, rows)]
    return found


def overall(values: Values) -> str:
    """How often each row has the best probe."""
    won: dict[str, list[str]] = {}
    for data, rows in rows_of(values).items():
        for row in rows:
            won.setdefault(row, [])
        for metric in (m for m in PROBES if (f"{data} · {rows[0]}", m) in values):
            first = max(rows, key=lambda row: statistics.fmean(values[f"{data} · {row}", metric]))
            won[first].append(f"{metric} of {data}")
    told = "; ".join(f"{row} in {', '.join(what) or 'nothing'}" for row, what in won.items())
    return f"By the mean of the probes, best is: {told}."


def without_spread(values: Values, data: str, rows: Sequence[str]) -> list[str]:
    """The rows that collapsed in at least one seed."""
    return [row for row in rows if min(values[f"{data} · {row}", RATIO]) < collapse.FULL]


def collapsed(values: Values, data: str, rows: Sequence[str], gone: Sequence[str]) -> str:
    """Which rows ended without spread."""
    left = ", ".join(f"{row} {short(min(values[f'{data} · {row}', RATIO]))}" for row in rows)
    told = f"{', '.join(gone)} collapsed in at least one seed" if gone else "no row collapsed"
    rest = "; their errors are not compared" if gone else ""
    return (
        f"{data}: {told}{rest}. Least spread of the states that is left in any seed, over that before training (a "
        f"collapse is below {collapse.FULL:g}): {left}."
    )


def best(values: Values, data: str, rows: Sequence[str], metric: str) -> str:
    """The best row, those that it does not beat beyond the spread of the seeds, and the cheapest of these."""
    sign = -1 if metric in LOWER else 1
    mean = {row: statistics.fmean(values[f"{data} · {row}", metric]) for row in rows}
    first = max(rows, key=lambda row: sign * mean[row])
    gains = {row: gain(values, data, row, first, metric) for row in rows if row != first}
    level = [row for row, by in gains.items() if not by.beyond_spread]
    beaten = [row for row, by in gains.items() if by.beyond_spread]
    told = ", ".join(f"{row} {scored(values, data, row, metric)}" for row in rows)
    if len(values[f"{data} · {first}", metric]) < 2:
        return f"{data}, {metric}: {told}. One seed says nothing of the spread."
    found = f"{data}, {metric}: {told}. Best is {first}" + (
        f", beyond the spread over {', '.join(beaten)}" * bool(beaten)
    )
    if not level:
        return f"{found}, {price(values, data, first)}."
    cheapest = min([first, *level], key=lambda row: statistics.fmean(values[f"{data} · {row}", COSTS[0]]))
    paid = price(values, data, cheapest)
    return f"{found}, not over {', '.join(level)}; the cheapest of these is {cheapest}, {paid}."


def gain(values: Values, data: str, row: str, other: str, metric: str) -> Gain:
    """By how much `other` exceeds `row`, seed by seed."""
    pairs = zip(values[f"{data} · {row}", metric], values[f"{data} · {other}", metric], strict=True)
    return Gain(tuple(b - a for a, b in pairs))


def scored(values: Values, data: str, row: str, metric: str) -> str:
    """A mean with its spread over the seeds."""
    found = values[f"{data} · {row}", metric]
    return value(metric, statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None)


def price(values: Values, data: str, row: str) -> str:
    """What a step of a row takes over one of the cheapest row."""
    cheapest = min(rows_of(values)[data], key=lambda r: statistics.fmean(values[f"{data} · {r}", COSTS[0]]))
    if row == cheapest:
        return "the cheapest of all"
    times = [
        statistics.fmean(values[f"{data} · {row}", cost]) / statistics.fmean(values[f"{data} · {cheapest}", cost])
        for cost in COSTS
    ]
    return (
        f"at {times[0]:.1f} times the seconds, {times[1]:.1f} the bytes and {times[2]:.1f} the parameters of {cheapest}"
    )


def learnt(values: Values, data: str, rows: Sequence[str]) -> str:
    """The probes after training beside those of the first weights."""
    found = []
    for metric in (m for m in PROBES if (f"{data} · {rows[0]}", m) in values):
        each = []
        for row in rows:
            by = Gain(
                tuple(
                    after - before
                    for before, after in zip(
                        values[f"{data} · {row}", metric + UNTRAINED], values[f"{data} · {row}", metric], strict=True
                    )
                )
            )
            unsure = "" if by.beyond_spread else " (within the spread)"
            each.append(f"{row} {100 * by.mean:+.1f}{unsure}")
        found.append(f"{metric} {', '.join(each)}")
    return f"{data}, what training adds to the first weights, in points of 100: {'; '.join(found)}."


def costs(values: Values, data: str, rows: Sequence[str]) -> str:
    """What a step of every row takes."""
    each = []
    for row in rows:
        ms, mib, parameters = (statistics.fmean(values[f"{data} · {row}", cost]) for cost in COSTS)
        each.append(f"{row} {short(ms)} ms, {short(mib)} MiB, {parameters:,.0f} parameters")
    return f"{data}, a step takes: {'; '.join(each)}."


def figures(values: Values) -> list[tuple[str, Figure]]:
    """Errors, probes and costs of every row, one dot per seed."""
    return [drawn for data, rows in rows_of(values).items() for drawn in _figures(values, data, rows)]


def _figures(values: Values, data: str, rows: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    for metric in (*LOWER, *PROBES, RATIO, *COSTS[:2]):
        if (f"{data} · {rows[0]}", metric) not in values:
            continue
        left_out = without_spread(values, data, rows) if metric in LOWER else []
        lines = []
        for row in (row for row in rows if row not in left_out):
            lines.append((row, values[f"{data} · {row}", metric]))
            if (before := values.get((f"{data} · {row}", metric + UNTRAINED))) is not None:
                lines.append((f"{row}{UNTRAINED}", before))
        if not lines:
            continue
        title = f"{data}: {metric}"
        rest = f" Not shown, because collapsed in at least one seed: {', '.join(left_out)}." if left_out else ""
        yield slug(title), Figure(title[0].upper() + title[1:], dots(lines, title), f"{TOLD[metric]} {DOTS}{rest}")


DOTS: Final = "One dot per seed, a bar at their mean."
TOLD: Final[Mapping[str, str]] = {
    CONSTANT: "1 is the mean of the last states over samples; lower is better.",
    PERSISTENCE: "1 is the state that is there already; lower is better.",
    NEXT: "What a ridge on the state reads of the pixels that come next; 0 is their mean.",
    DIGIT: "A linear probe of the digit on the last state; chance is 0.1.",
    MOTION: "What a ridge on the last state reads of how the digit has just moved; no single frame shows it.",
    RATIO: f"Deviation of the states between samples, over that before training; below {collapse.FULL:g}: collapse.",
    COSTS[0]: "Processor time of an optimiser step, the rows in turns; the median of each seed.",
    COSTS[1]: "All tensors alive at once in forward and backward pass, besides weights and input.",
}
