"""Defines a study: trainings repeated for every seed, the claims they test, and measurements of its own."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

from ..methods.base import Weights
from ..reporting.figures import Figure
from ..run.settings import Run

MEMORY_METRIC: Final = "memory of a step (MiB)"
HOLDS_VERDICT: Final = "holds"
Verdict = Literal["holds", "does not hold", "not told apart"]


@dataclass(frozen=True)
class Arm:
    """One training of a study: a method, its data, and the paper's figures.

    `data` is the data set's display name; `run.data.path` and `test` are paths in the folder of all data sets. Without
    a `test`, the data are generated: the path is a name, and the probes score the part that training leaves out.
    `setting` is what varies besides the method, such as the length. `paper` maps a metric to the paper's figure, in the
    same unit. `pace` is the label of another training: this one then gets as many steps as fit into the other's time.
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
        """The training's name, used for its row and its folders."""
        return " · ".join(part for part in (self.data, self.name, self.setting) if part)

    @property
    def files(self) -> tuple[str, ...]:
        """The paths that it reads in the folder of all data sets; none if its data are generated."""
        return (self.run.data.path, self.test) if self.test else ()


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
    """The values of every row by (name, metric), one per seed, in the order of the seeds.

    `published` has the paper's figures for rows that belong to no arm, in the form of `Own.paper`.
    """

    values: Mapping[tuple[str, str], Sequence[float]]
    arms: Sequence[Arm]
    published: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def paper(self) -> dict[tuple[str, str], float]:
        """The paper's figures by (name, metric)."""
        return {
            **{(arm.label, metric): figure for arm in self.arms for metric, figure in arm.paper.items()},
            **self.published,
        }

    def rows(self) -> list[Row]:
        """The table, arm by arm."""
        paper = self.paper
        return [table_row(*key, paper.get(key), values) for key, values in self.values.items()]

    def mean(self, name: str, metric: str) -> float:
        """The mean of a metric over the seeds."""
        return statistics.fmean(self.values[name, metric])

    def gain(self, first: Arm, second: Arm, metric: str) -> "Gain":
        """The difference `second` − `first`, seed by seed."""
        pairs = zip(self.values[first.label, metric], self.values[second.label, metric], strict=True)
        return Gain(tuple(b - a for a, b in pairs))


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
        """Whether the mean is further from 0 than one sample std over seeds; None for a single seed."""
        if len(self.values) < 2:
            return None
        return abs(self.mean) > statistics.stdev(self.values)

    @property
    def verdict(self) -> Verdict:
        """Whether there is a gain beyond the scatter of the seeds, in words."""
        if not self.beyond_spread:
            return "not told apart"
        return HOLDS_VERDICT if self.mean > 0 else "does not hold"

    def __str__(self) -> str:
        """The gain in percentage points, such as "+1.2 ± 0.4 points over 3 seeds"."""
        if len(self.values) < 2:
            return f"{100 * self.mean:+.1f} points (1 seed)"
        spread = statistics.stdev(self.values)
        return f"{100 * self.mean:+.1f} ± {100 * spread:.1f} points over {len(self.values)} seeds"


def table_row(name: str, metric: str, paper: float | None, values: Sequence[float]) -> Row:
    """The table's line for one metric of one row. Raises ValueError if a value is not finite."""
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{name} has a {metric} that is not finite: {list(values)}; look at its runs")
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Row(name, metric, paper, statistics.fmean(values), spread, len(values), tuple(values))


@runtime_checkable
class Sentence(Protocol):
    """A statement that a study declares as data; it turns scores into a sentence. `claims.py` implements it."""

    def sentence(self, scores: Scores) -> str:
        """The claim, whether it holds here, and the numbers, as one sentence."""


def no_conclusions(scores: Scores) -> list[str]:
    """An empty result: the study concludes nothing beyond its declared claims."""
    return []


RunMetrics = Callable[[Path], Mapping[str, float]]
"""A finished run's folder to numbers by metric."""


def no_metrics(folder: Path) -> Mapping[str, float]:
    """An empty result: the study has no numbers beyond those of the probes."""
    return {}


def no_figures(folders: Mapping[str, Path]) -> Sequence[tuple[str, Figure]]:
    """An empty result: the study has no figures beyond those of the table."""
    return ()


def original_data(data: Path, out: Path) -> Path:
    """The folder of all data sets, unchanged: the study reads the sets as they are."""
    return data


def require_data(study: str, data: Path, file: str) -> Path:
    """The path of a data set's file. Raises ValueError if the folder of all data sets does not contain it."""
    if not (data / file).exists():
        raise ValueError(f"study {study} reads {file}, which is not in {data}; give --data the folder that contains it")
    return data / file


@dataclass(frozen=True)
class Own:
    """Numbers that a study measures itself, because its trainings are not Runs.

    `measure` yields JSON-compatible numbers, one seed after another. Its arguments are the seeds, the length of the
    trainings in steps (None for their own length) and the folder of all data sets; it may train all seeds together.
    `table` turns the numbers of all seeds into values of rows by (name, metric), and `figures` turns them into figures
    by name. `paper` has the paper's figures for these rows. Increase `version` with every change of what `measure`
    yields: numbers of an older version are measured again.
    """

    measure: Callable[[Sequence[int], int | None, Path], Iterator[Any]]
    table: Callable[[Sequence[Any]], Mapping[tuple[str, str], Sequence[float]]]
    figures: Callable[[Sequence[Any]], Sequence[tuple[str, Figure]]]
    paper: Mapping[tuple[str, str], float] = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True)
class Study:
    """One published table or figure: its claim, the trainings that test it, and conclusions from their scores.

    - `claim`: the paper's claim in words; `claims`: the claim as data, from which the engine writes sentences
    - `conclusions`: a function of the scores that writes more sentences, for findings that no kind of claim expresses
    - `kinds`: the probes; `options`: their settings, dotted, such as {"knn.k": 5}
    - `encoders`: the encoders that the probes judge; metrics of all but the first end in the encoder's name
    - `run_metrics`: a function of a finished run's folder that returns further numbers by metric
    - `parts`: functions of the same kind, each for a row of its own, by the end of its name
    - `figures`: a function that returns figures by name; it gets the folders of the first seed's runs by arm label
    - `own`: numbers that the study measures in addition to its arms, or instead of arms
    - `seeds`: the default number of seeds
    - `prepare`: a function for data sets that cannot be read as they are; it gets the folder of all data sets and the
      study's own folder and returns the folder that the arms' paths are relative to
    - `has_standin`: whether the study runs on generated data if the real data set is missing
    - `baselines`: whether the probes of each data set's first arm include its untrained encoder and the raw input, each
      in a row of its own
    """

    title: str
    source: str
    claim: str
    arms: tuple[Arm, ...]
    claims: tuple[Sentence, ...] = ()
    conclusions: Callable[[Scores], list[str]] = no_conclusions
    kinds: tuple[str, ...] = ("knn", "linear")
    encoders: tuple[Weights, ...] = ("target",)
    run_metrics: RunMetrics = no_metrics
    parts: Mapping[str, RunMetrics] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    own: Own | None = None
    figures: Callable[[Mapping[str, Path]], Sequence[tuple[str, Figure]]] = no_figures
    seeds: int = 3
    prepare: Callable[[Path, Path], Path] = original_data
    has_standin: bool = False
    baselines: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """The paths that the trainings read in the folder of all data sets."""
        return tuple(path for arm in self.arms for path in arm.files)

    @property
    def first_arms(self) -> dict[str, Arm]:
        """The first arm of each data set, by the set's name."""
        return {arm.data: arm for arm in reversed(self.arms)}

    def sentences(self, scores: Scores) -> list[str]:
        """A sentence for every claim with its verdict and numbers, then the conclusions."""
        return [*(claim.sentence(scores) for claim in self.claims), *self.conclusions(scores)]

    def __post_init__(self) -> None:
        labels = [arm.label for arm in self.arms]
        if doubled := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two trainings of a study are called {doubled[0]!r}; give one of them another setting")
        free = {arm.label for arm in self.arms if not arm.pace}
        if lost := [arm for arm in self.arms if arm.pace and arm.pace not in free]:
            raise ValueError(
                f"{lost[0].label!r} takes the time of {lost[0].pace!r}, which is not a training of the study with "
                "its own length; give the label of one"
            )
