"""Defines the claims of a study as data; each writes a sentence with the claim, its verdict and its numbers.

A cell names a number of the table by row and metric; it has one value per seed. A comparison holds if the mean
difference over the seeds has the right sign and exceeds their scatter (one sample standard deviation). It does not hold
if the difference exceeds the scatter with the wrong sign. Otherwise, or with a single seed, it is undecided.
"""

import statistics
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

from .cells import (
    Cell,
    Mean,
    cell_gain,
    cell_text,
    cells_of,
    count_of,
    label_cells,
    paired_values,
    paper_figures,
    quote_commas,
    row_name,
    signed_number,
    split_names,
    values_of,
)
from .page import format_value
from .study import HOLDS_VERDICT, Scores, Verdict

NOT_MEASURED = "not measured here"


@dataclass(frozen=True)
class Statement(ABC):
    """A statement about some cells; its sentence begins with `words`."""

    words: str = field(default="", kw_only=True)

    @abstractmethod
    def describe(self, scores: Scores) -> str:
        """The sentence without its beginning and without the full stop."""

    def sentence(self, scores: Scores) -> str:
        """The sentence for the study's page; it names a missing cell if one was not measured."""
        try:
            told = self.describe(scores)
        except KeyError:
            told = f"{self.head()}: {NOT_MEASURED}"
        return f"{self.words}: {told}." if self.words else f"{told}."

    def head(self) -> str:
        """The subject of the sentence."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Claim(Statement):
    """A statement that holds here or does not."""

    @abstractmethod
    def judge(self, scores: Scores) -> Verdict:
        """Whether the claim holds here. Raises KeyError if a cell was not measured."""

    @abstractmethod
    def evidence(self, scores: Scores) -> str:
        """The numbers behind the verdict."""

    def describe(self, scores: Scores) -> str:
        """The claim, its verdict and its numbers."""
        return f"{self.head()}: {self.judge(scores)}, {self.evidence(scores)}"


@dataclass(frozen=True)
class Better(Claim):
    """The claim that one row has a better metric than another: higher, or lower if lower is better.

    `than` is the second row's metric if it differs from the first's. With `by` "ratio" the sentence gives the ratio of
    the means. With `exact` the numbers do not depend on the seed, so their order alone decides. `beside` are further
    rows whose numbers the sentence gives.
    """

    better: str | Mean
    worse: str | Mean
    metric: str
    than: str = ""
    lower: bool = False
    by: Literal["difference", "ratio"] = "difference"
    exact: bool = False
    beside: tuple[str, ...] = ()

    @property
    def ordered_cells(self) -> tuple[Cell, Cell]:
        """The two cells, the better one first."""
        return (self.better, self.metric), (self.worse, self.than or self.metric)

    def head(self) -> str:
        """The claim, such as "MNIST: bijepa has a lower decoder_mse than classic"."""
        shared, (a, b) = split_names([row_name(self.better), row_name(self.worse)])
        sense, start = "lower" if self.lower else "higher", f"{shared}: " if shared else ""
        if self.better == self.worse:
            return f"{a} has a {sense} {quote_commas(self.metric)} than {quote_commas(self.than)}"
        other = f" {quote_commas(self.than)}" if self.than else ""
        return f"{start}{a} has a {sense} {quote_commas(self.metric)} than {b}{other}"

    def judge(self, scores: Scores) -> Verdict:
        """The verdict by the mean difference relative to the scatter of the seeds."""
        first, second = self.ordered_cells
        gain = cell_gain(scores, *((second, first) if self.lower else (first, second)))
        return (HOLDS_VERDICT if gain.mean > 0 else "does not hold") if self.exact else gain.verdict

    def evidence(self, scores: Scores) -> str:
        """Both numbers, their difference or ratio, the rows beside them, and the paper's figures."""
        first, second = self.ordered_cells
        text = f"{cell_text(scores, first)} against {cell_text(scores, second)}, "
        if self.by == "ratio":
            pairs = paired_values(scores, first, second)
            (a, b), wins = map(statistics.fmean, zip(*pairs, strict=True)), sum((x < y) == self.lower for x, y in pairs)
            times = "no ratio" if not b else f"{a / b:.2f} times as much" if a > b / 100 else f"1/{b / a:,.0f} as much"
            text += f"{times}, {'lower' if self.lower else 'higher'} in {wins} of {count_of(len(pairs), 'seed')}"
        else:
            text += signed_number(cell_gain(scores, first, second), self.metric)
        for row in self.beside:
            text += f"; {row} {cell_text(scores, (row, self.metric))}"
        return text + paper_figures(scores, self.ordered_cells)


@dataclass(frozen=True)
class AtLeast(Claim):
    """The claim that a metric is at least `limit` in every seed of every row."""

    rows: tuple[str, ...]
    metric: str
    limit: float
    sense: ClassVar[str] = "at least"
    miss: ClassVar[str] = "below"

    def keeps(self, number: float) -> bool:
        """Whether a value is within the limit."""
        return number >= self.limit

    def head(self) -> str:
        """The claim, such as "linear accuracy is at least 95.0 %"."""
        name, _ = label_cells(cells_of(self.rows, self.metric))
        name = f"{self.rows[0]}, {name}" if len(self.rows) == 1 else name
        return f"{name} is {self.sense} {format_value(self.metric, self.limit, None)}"

    def judge(self, scores: Scores) -> Verdict:
        """The verdict: the claim holds if every seed of every row is within the limit."""
        every = [v for cell in cells_of(self.rows, self.metric) for v in values_of(scores, cell)]
        return HOLDS_VERDICT if all(map(self.keeps, every)) else "does not hold"

    def evidence(self, scores: Scores) -> str:
        """The number of every row, and the count of seeds beyond the limit, if any."""
        cells = cells_of(self.rows, self.metric)
        told = []
        for label, cell in zip(label_cells(cells)[1], cells, strict=True):
            values = values_of(scores, cell)
            beyond = sum(not self.keeps(v) for v in values)
            name = "" if len(cells) == 1 else f"{label}: "
            share = f" in {beyond} of {len(values)} seeds" if beyond < len(values) else ""
            told.append(f"{name}{cell_text(scores, cell)}" + (f" ({self.miss} it{share})" if beyond else ""))
        return ", ".join(told) + paper_figures(scores, cells)


@dataclass(frozen=True)
class AtMost(AtLeast):
    """The claim that a metric is at most `limit` in every seed of every row."""

    sense: ClassVar[str] = "at most"
    miss: ClassVar[str] = "above"

    def keeps(self, number: float) -> bool:
        """Whether a value is within the limit."""
        return number <= self.limit


@dataclass(frozen=True)
class Rises(Claim):
    """The claim that a number rises from the first of some cells to the last."""

    points: tuple[Cell, ...]
    sense: ClassVar[str] = "rises"

    def head(self) -> str:
        """The claim, such as "coupling · recurrent scale, cosine rises from 0 to 2"."""
        name, labels = label_cells(self.points)
        return f"{name} {self.sense} from {labels[0]} to {labels[-1]}"

    def judge(self, scores: Scores) -> Verdict:
        """The verdict by the mean change relative to the scatter of the seeds."""
        ends = (self.points[-1], self.points[0])
        return cell_gain(scores, *(ends if self.sense == "rises" else ends[::-1])).verdict

    def evidence(self, scores: Scores) -> str:
        """The number of every cell, and the change."""
        labels = label_cells(self.points)[1]
        told = [f"{cell_text(scores, c)} at {label}" for label, c in zip(labels, self.points, strict=True)]
        change = cell_gain(scores, self.points[-1], self.points[0])
        return f"{', '.join(told)}, {signed_number(change, self.points[0][1])}"


@dataclass(frozen=True)
class Falls(Rises):
    """The claim that a number falls from the first of some cells to the last."""

    sense: ClassVar[str] = "falls"


@dataclass(frozen=True)
class Equal(Claim):
    """The claim that the cells of every pair are equal up to the share `within`; `name` says what they are.

    Pairs that were not measured do not count.
    """

    name: str
    pairs: tuple[tuple[Cell, Cell], ...]
    within: float

    def head(self) -> str:
        """The claim, such as "final losses are equal within 0.1 %"."""
        return f"{self.name} are equal within {100 * self.within:.2g} %"

    def seed_ratios(self, scores: Scores) -> dict[str, tuple[float, ...]]:
        """The ratio of the first number to the second, seed by seed, for every measured pair."""
        cells, rows = [cell for cell, _ in self.pairs], [row_name(row) for (row, _), _ in self.pairs]
        labels = rows if len(set(rows)) == len(rows) else label_cells(cells)[1]
        found = {}
        for label, (cell, other) in zip(labels, self.pairs, strict=True):
            if all(isinstance(c[0], Mean) or c in scores.values for c in (cell, other)):
                found[label] = tuple(a / b if b else float(a != b) + 1 for a, b in paired_values(scores, cell, other))
        if not found:
            raise KeyError(self.name)
        return found

    def distant_ratios(self, scores: Scores) -> dict[str, float]:
        """The mean ratios of the pairs that differ by more than `within`."""
        means = {label: statistics.fmean(each) for label, each in self.seed_ratios(scores).items()}
        return {label: mean for label, mean in means.items() if abs(mean - 1) > self.within}

    def judge(self, scores: Scores) -> Verdict:
        """The verdict: the claim holds if no pair differs by more than `within`."""
        return "does not hold" if self.distant_ratios(scores) else HOLDS_VERDICT

    def evidence(self, scores: Scores) -> str:
        """The range and median of the ratios, the deviation of the worst seed, and the pairs that differ too much."""
        each = self.seed_ratios(scores)
        means = [statistics.fmean(ratios) for ratios in each.values()]
        worst = max(abs(ratio - 1) for ratios in each.values() for ratio in ratios)
        text = (
            f"{min(means):.2f} to {max(means):.2f} times as much, median {statistics.median(means):.2f}, over "
            f"{count_of(len(means), 'pair')}; the furthest seed is off by {100 * worst:.2g} %"
        )
        far = "; ".join(f"{label} ({mean:.2f})" for label, mean in self.distant_ratios(scores).items())
        return f"{text}; further apart: {far}" if far else text


@dataclass(frozen=True)
class Every(Claim):
    """A claim of several parts: it holds if all parts hold and fails if one fails; `name` words the whole claim."""

    name: str
    parts: tuple[Claim, ...]

    def head(self) -> str:
        """The whole claim in words."""
        return self.name

    def judge(self, scores: Scores) -> Verdict:
        """The worst of the parts' verdicts."""
        verdicts = {part.judge(scores) for part in self.parts}
        order: tuple[Verdict, ...] = ("does not hold", "not told apart", HOLDS_VERDICT)
        return next(verdict for verdict in order if verdict in verdicts)

    def evidence(self, scores: Scores) -> str:
        """The sentences of the parts."""
        heads = [part.head().removeprefix(f"{self.words}, ") for part in self.parts]
        told = zip(heads, self.parts, strict=True)
        return "; ".join(f"{head}: {part.judge(scores)} ({part.evidence(scores)})" for head, part in told)


@dataclass(frozen=True)
class Ranking(Statement):
    """A ranking of cells from best to worst; `first` is the row that is claimed to be best, if any.

    Between neighbours, > marks a difference beyond the scatter of the seeds and ≈ a difference within it.
    """

    cells: tuple[Cell, ...]
    lower: bool = False
    first: str = ""

    def head(self) -> str:
        """The quantity that is ranked."""
        name, _ = label_cells(self.cells)
        return f"{name}, {'lowest' if self.lower else 'highest'} first"

    def order(self, scores: Scores) -> list[int]:
        """The indices of the cells, the best first."""
        sign = 1 if self.lower else -1
        return sorted(range(len(self.cells)), key=lambda k: sign * statistics.fmean(values_of(scores, self.cells[k])))

    def level(self, scores: Scores) -> list[int]:
        """The indices of the cells that the best one does not beat by more than the scatter of the seeds."""
        first, *others = self.order(scores)
        return [k for k in others if cell_gain(scores, self.cells[first], self.cells[k]).beyond_spread is False]

    def describe(self, scores: Scores) -> str:
        """All cells with their numbers, the cells level with the best, and whether the claimed row is best."""
        _, labels = label_cells(self.cells)
        order, level = self.order(scores), [labels[k] for k in self.level(scores)]
        signs = {None: ", ", True: " < " if self.lower else " > ", False: " ≈ "}
        text = f"{self.head()}: {labels[order[0]]} {cell_text(scores, self.cells[order[0]])}"
        for a, b in pairwise(order):
            sign = signs[cell_gain(scores, self.cells[a], self.cells[b]).beyond_spread]
            text += f"{sign}{labels[b]} {cell_text(scores, self.cells[b])}"
        text += f"; level with the first: {', '.join(level)}" if level else ""
        if self.first:
            best = labels[order[0]]
            alone = "holds" if best == self.first and not level else "not told apart"
            text += f"; {self.first} is best: {alone if self.first in (best, *level) else 'does not hold'}"
        seeds = len(values_of(scores, self.cells[order[0]]))
        return text if seeds > 1 else f"{text}; one seed has no scatter to judge by"


@dataclass(frozen=True)
class Numbers(Statement):
    """Numbers that the reader needs in addition to the claims: every metric of every row."""

    rows: tuple[str, ...]
    metrics: tuple[str, ...]

    def head(self) -> str:
        """The name of the numbers."""
        return ", ".join(self.metrics)

    def describe(self, scores: Scores) -> str:
        """The number of every row, metric by metric."""
        shared, names = split_names(self.rows)
        names = [""] if len(self.rows) == 1 and self.words else names
        told = []
        for metric in self.metrics:
            cells = cells_of(self.rows, metric)
            each = ", ".join(f"{n} {cell_text(scores, c)}".strip() for n, c in zip(names, cells, strict=True))
            told.append(f"{metric}: {each}{paper_figures(scores, cells)}")
        return (f"{shared}, " if shared and not self.words else "") + "; ".join(told)


@dataclass(frozen=True)
class Changes(Statement):
    """A list of the cells that are above their reference, below it, or not distinguishable from it."""

    pairs: tuple[tuple[Cell, Cell], ...]

    def describe(self, scores: Scores) -> str:
        """The three groups, each cell with its difference; with a single seed the sign alone decides."""
        groups: dict[str, list[str]] = {"more": [], "less": [], "not told apart": []}
        _, labels = label_cells([cell for cell, _ in self.pairs])
        for label, (cell, base) in zip(labels, self.pairs, strict=True):
            gain = cell_gain(scores, cell, base)
            apart = gain.mean != 0 and gain.beyond_spread is not False
            group = "not told apart" if not apart else "more" if gain.mean > 0 else "less"
            signed = signed_number(gain, cell[1]).partition(" over ")[0].partition(" (")[0]
            groups[group].append(f"{label} {cell_text(scores, cell)} ({signed})")
        seeds = len(paired_values(scores, *self.pairs[0]))
        scatter = f"beyond the scatter of {seeds} seeds" if seeds > 1 else "by one seed, which has no scatter"
        return f"{scatter}, " + "; ".join(f"{group}: {', '.join(each) or 'nothing'}" for group, each in groups.items())
