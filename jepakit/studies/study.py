"""What a study is: trainings that are repeated for every seed, and what their scores say."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..reporting.figures import Figure
from ..run.settings import Run

MEMORY: Final = "memory of a step (MiB)"


@dataclass(frozen=True)
class Arm:
    """One training of a study: what is trained on which data, and the figures the paper has for it.

    `data` names the set for a reader; `run.data.path` and `test` are paths in the folder of all data sets. `setting` is
    what varies beside the method, such as the length. `paper` maps a metric to the paper's figure, in the same unit.
    `pace` is the label of another training: this one then gets as many steps as fit into the time of that one's.
    """

    data: str
    name: str
    run: Run
    test: str
    setting: str = ""
    paper: Mapping[str, float] = field(default_factory=dict)
    pace: str = ""

    @property
    def label(self) -> str:
        """The training in words, as it heads its row and names its folders."""
        return " · ".join(part for part in (self.data, self.name, self.setting) if part)


class Row(NamedTuple):
    """One line of a study's table: a metric of one arm over the seeds; `std` is None for a single seed."""

    name: str
    metric: str
    paper: float | None
    mean: float
    std: float | None
    seeds: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class Scores:
    """Every arm's values by metric, one per seed and in the order of the seeds.

    `published` has the paper's figures for rows that are of no arm, as `Own.paper` does.
    """

    values: Mapping[tuple[str, str], Sequence[float]]
    arms: Sequence[Arm]
    published: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        """The table, arm by arm."""
        arms = {(arm.label, metric): figure for arm in self.arms for metric, figure in arm.paper.items()}
        paper = {**arms, **self.published}
        return [row(*key, paper.get(key), found) for key, found in self.values.items()]

    def each(self, of: Callable[[Sequence[float]], float]) -> "Each":
        """A statistic of every row, such as the mean, by (name, metric)."""
        return Each(self, of)

    def gain(self, first: Arm, second: Arm, metric: str) -> "Gain":
        """By how much `second` exceeds `first`, seed by seed."""
        pairs = zip(self.values[first.label, metric], self.values[second.label, metric], strict=True)
        return Gain(tuple(b - a for a, b in pairs))


@dataclass(frozen=True)
class Each:
    """A statistic of every row, taken when it is asked for."""

    scores: Scores
    of: Callable[[Sequence[float]], float]

    def __getitem__(self, row: tuple[str, str]) -> float:
        return self.of(self.scores.values[row])


@dataclass(frozen=True)
class Gain:
    """Differences of a score, one per seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean difference."""
        return statistics.fmean(self.values)

    @property
    def beyond_spread(self) -> bool | None:
        """Whether the mean lies further from 0 than the seeds scatter (one sample std); None for a single seed."""
        if len(self.values) < 2:
            return None
        return abs(self.mean) > statistics.stdev(self.values)

    @property
    def verdict(self) -> str:
        """What becomes of the claim that there is a gain."""
        if self.beyond_spread is None:
            return "not shown, as one seed tells no scatter"
        if not self.beyond_spread:
            return "not shown, within the seeds' scatter"
        return f"{'holds' if self.mean > 0 else 'does not hold'}, beyond the seeds' scatter"

    def __str__(self) -> str:
        """In points of 100, such as "+1.2 ± 0.4 points over 3 seeds"."""
        if len(self.values) < 2:
            return f"{100 * self.mean:+.1f} points (1 seed)"
        spread = statistics.stdev(self.values)
        return f"{100 * self.mean:+.1f} ± {100 * spread:.1f} points over {len(self.values)} seeds"


def row(name: str, metric: str, paper: float | None, values: Sequence[float]) -> Row:
    """The line for one metric of one arm. Raises ValueError where a value is not finite."""
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{name} has a {metric} that is not finite: {list(values)}; look at its runs")
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Row(name, metric, paper, statistics.fmean(values), spread, len(values), tuple(values))


def nothing(folder: Path) -> Mapping[str, float]:
    """No further numbers."""
    return {}


def no_figures(folders: Mapping[str, Path]) -> Sequence[tuple[str, Figure]]:
    """None."""
    return ()


def as_they_are(data: Path, out: Path) -> Path:
    """The data sets themselves."""
    return data


@dataclass(frozen=True)
class Own:
    """Numbers that a study takes by itself, where its trainings are no Runs.

    `take` yields those of one seed after another, as JSON may hold them, with trainings of so many steps where it is
    told how many; it may train the seeds together, and read the folder of all data sets. `table` turns those of all
    seeds into the values of its rows, by (name, metric), and `figures` draws them, by name. `paper` has the paper's
    figures for such rows. `version` rises with every change of what `take` yields: older numbers are taken again.
    """

    take: Callable[[Sequence[int], int | None, Path], Iterator[Any]]
    table: Callable[[Sequence[Any]], Mapping[tuple[str, str], Sequence[float]]]
    figures: Callable[[Sequence[Any]], Sequence[tuple[str, Figure]]]
    paper: Mapping[tuple[str, str], float] = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True)
class Study:
    """One published table or figure: what it claims, the trainings that test it, and what their scores say.

    `kinds` are the probes, `options` their settings, dotted, as {"knn.k": 5}; `says` turns the scores into sentences
    that tell where the claim holds at our scale and where it does not. `extra` reads further numbers, by metric, from
    the folder of a finished run. `draws` turns the folders of the first seed's runs, by the label of their arm, into
    figures, by name. `own` are numbers that the study takes beside its arms, or in place of any. `seeds` is how many
    there are where nobody says. `prepare` turns the folder of all data sets into the one that the arms' paths are in,
    within the study's own folder, where the sets cannot be read as they are. With `alone` it finds others where the
    folder of all data sets is not there. With `baselines` the first arm of each data set is probed beside its untrained
    encoder and the raw input, which get rows of their own.
    """

    title: str
    source: str
    claim: str
    arms: tuple[Arm, ...]
    says: Callable[[Scores], list[str]]
    kinds: tuple[str, ...] = ("knn", "linear")
    extra: Callable[[Path], Mapping[str, float]] = nothing
    options: Mapping[str, Any] = field(default_factory=dict)
    own: Own | None = None
    draws: Callable[[Mapping[str, Path]], Sequence[tuple[str, Figure]]] = no_figures
    seeds: int = 3
    prepare: Callable[[Path, Path], Path] = as_they_are
    alone: bool = False
    baselines: bool = False

    @property
    def firsts(self) -> dict[str, Arm]:
        """The first arm of each data set, by the set's name."""
        return {arm.data: arm for arm in reversed(self.arms)}

    def __post_init__(self) -> None:
        labels = [arm.label for arm in self.arms]
        if doubled := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two trainings of a study are called {doubled[0]!r}; give one another setting")
        free = {arm.label for arm in self.arms if not arm.pace}
        if lost := [arm for arm in self.arms if arm.pace and arm.pace not in free]:
            raise ValueError(
                f"{lost[0].label!r} takes the time of {lost[0].pace!r}, which is no training of the study that has a "
                "length of its own; give the label of one that has"
            )
