"""Study: which of the panel's label-free numbers correlates with the accuracy of a linear probe?

The study computes Spearman's rank correlation, over many trainings, between every number in the panel's last row and
the accuracy of a linear probe on held-out pictures. Both differ between data sets, so ranks are taken within each data
set, or, in the analysis within methods, within each data set and method. The trainings are those of the study
`calibration` and others with a different length or learning rate. It takes about ten minutes on one idle core.

Sources of similar comparisons: RankMe, arXiv:2210.02885; LiDAR, arXiv:2312.04000. They compare runs of one method.
"""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ...evals.metrics.ranks import tied_ranks
from ...run import checkpoint
from ...types import Rng
from ..study import Arm, Scores, Study
from . import calibration, tiny
from .truth import held_out, pooled_tokens, probe_accuracy

METHOD_NAMES: Final = ("I-JEPA", "C-JEPA", "VICReg", "LeJEPA", "SimCLR", "MAE")
LONGER_STEPS: Final = 300
MIN_TRAININGS: Final = 20  # the least number of trainings in which a number was measured
NUM_RESAMPLES: Final = 400
LABEL_METRIC: Final = "linear accuracy"
PANEL_PREFIX: Final = "panel: "


class Runs(NamedTuple):
    """One number of the panel over trainings: its values, the accuracies, and the group in which each is ranked."""

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    group: Int[np.ndarray, " n"]

    def at(self, rows: Int[np.ndarray, " k"]) -> "Runs":
        """The same data for some trainings, which may repeat."""
        return Runs(self.x[rows], self.y[rows], self.group[rows])


class Correlation(NamedTuple):
    """A correlation with its 95 % interval, the number of trainings, and its bootstrap resamples."""

    value: float
    low: float
    high: float
    n: int
    resampled: Float[np.ndarray, " r"]

    def __str__(self) -> str:
        return f"{self.value:+.2f} ({self.low:+.2f} to {self.high:+.2f}, {self.n} runs)"


def arms() -> tuple[Arm, ...]:
    """Every training of `calibration`, and trainings of twice the length or a tenth of the learning rate."""
    both = (calibration.FITTED_HALF, calibration.SCORED_HALF)
    known = [arm for half in both for arm in (*half.healthy, *half.forced_arms)]
    data = "Fashion-MNIST"
    longer = [
        Arm(
            data,
            name,
            tiny.training_run(tiny.small_method(name, data), data, LONGER_STEPS, seed=200),
            tiny.DATA_SETS[data][1],
            "longer",
        )
        for name in METHOD_NAMES
    ]
    slow = [
        calibration.make_arm(name, data, "learning rate x 0.1", 201, optim=calibration.scale_rate(0.1))
        for name in METHOD_NAMES
    ]
    return (*known, *longer, *slow)


def measure_run(run: Path) -> Mapping[str, float]:
    """The last row of the panel, and the accuracy of a linear probe on held-out pictures."""
    loaded = checkpoint.load_run(run)
    x, y = held_out(loaded)
    row = json.loads((run / "summary.json").read_text())["panel"]
    numbers = {
        f"{PANEL_PREFIX}{key}": float(v) for key, v in row.items() if isinstance(v, (int, float)) and isfinite(v)
    }
    return {LABEL_METRIC: probe_accuracy(pooled_tokens(run, loaded.step, loaded.method, x), y), **numbers}


def rank_correlation(runs: Runs) -> float:
    """Pearson's correlation of the ranks within groups, minus each group's mean rank; 0 if all values are equal.

    With one group it is Spearman's correlation. A large group counts more, because its ranks spread further.
    """
    x, y = np.zeros(len(runs.x)), np.zeros(len(runs.x))
    for group in np.unique(runs.group):
        rows = runs.group == group
        for centred, values in ((x, runs.x), (y, runs.y)):
            own = tied_ranks(values[rows])
            centred[rows] = own - own.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else 0.0


def bootstrap_correlation(runs: Runs, rng: Rng) -> Correlation:
    """The correlation, with the 2.5 and 97.5 % points of NUM_RESAMPLES draws of as many trainings with replacement."""
    n, generator = len(runs.x), np.random.default_rng(rng.generator().initial_seed())
    draws = [rank_correlation(runs.at(generator.integers(n, size=n))) for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return Correlation(rank_correlation(runs), float(low), float(high), n, np.array(draws))


def gather_runs(scores: Scores, number: str, by_method: bool) -> Runs:
    """A number of the panel and the accuracy, over every training that has both."""
    rows = []
    for one in scores.arms:
        values, accuracies = (scores.values.get((one.label, key), ()) for key in (number, LABEL_METRIC))
        group = (one.data, one.name if by_method else "")
        # If a seed lacks the number, the values cannot be assigned to seeds: leave the training out.
        rows += [(x, y, group) for x, y in zip(values, accuracies, strict=False) if len(values) == len(accuracies)]
    index = {group: k for k, group in enumerate(dict.fromkeys(group for _, _, group in rows))}
    return Runs(
        np.array([x for x, _, _ in rows], dtype=np.float64),
        np.array([y for _, y, _ in rows], dtype=np.float64),
        np.array([index[group] for _, _, group in rows], dtype=np.int64),
    )


def panel_correlations(scores: Scores, by_method: bool) -> dict[str, Correlation]:
    """The correlation of every number that enough trainings have, in falling order."""
    numbers = dict.fromkeys(metric for _, metric in scores.values if metric.startswith(PANEL_PREFIX))
    over = {number.removeprefix(PANEL_PREFIX): gather_runs(scores, number, by_method) for number in numbers}
    found = {
        name: bootstrap_correlation(runs, Rng(0).fork("study", "label-free"))
        for name, runs in over.items()
        if len(runs.x) >= MIN_TRAININGS
    }
    return dict(sorted(found.items(), key=lambda item: -abs(item[1].value)))


def conclusions(scores: Scores) -> list[str]:
    """Sentences on the best number with its certainty, then on every number."""
    overall, inside = panel_correlations(scores, by_method=False), panel_correlations(scores, by_method=True)
    if not overall:
        return [f"No number of the panel was taken in {MIN_TRAININGS} trainings."]
    told = [best_number(overall, "over all methods"), best_number(inside, "within methods")]
    return [*told, *(f"{name}: {found}; within methods {inside[name]}." for name, found in overall.items())]


def best_number(found: Mapping[str, Correlation], where: str) -> str:
    """A sentence on the number with the largest correlation, and on how many resamples agree."""
    most = max(one.n for one in found.values())
    # Resamples are comparable only between numbers from the same trainings.
    whole = {name: one for name, one in found.items() if one.n == most}
    names, draws = list(whole), np.abs([one.resampled for one in whole.values()])
    wins = np.bincount(draws.argmax(0), minlength=len(names)) / draws.shape[1]
    first = names[0]
    rival = names[int(np.argsort(-wins)[0 if names[int(wins.argmax())] != first else 1])] if len(names) > 1 else ""
    against = f", {rival} in {100 * wins[names.index(rival)]:.0f} %" if rival else ""
    return (
        f"Best {where}, of the {len(names)} numbers that all {most} runs have: {first} {whole[first]}. "
        f"It is the largest in {100 * wins[0]:.0f} % of {draws.shape[1]} resamples{against}."
    )


STUDY = Study(
    title="Label-free numbers beside the probe",
    source="RankMe, arXiv:2210.02885, and LiDAR, arXiv:2312.04000, claim that feature rank correlates with the probe",
    claim="Some number of the panel predicts, without labels, which of two trainings a linear probe will prefer.",
    arms=arms(),
    conclusions=conclusions,
    kinds=(),
    run_metrics=measure_run,
)
