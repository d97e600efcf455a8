"""Which number of a training predicts a score? Rank correlations over many trainings, with intervals."""

from collections.abc import Mapping
from math import isfinite
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..evals.metrics.ranks import tied_ranks
from ..types import Rng
from .study import Scores

NUM_RESAMPLES: Final = 400


class Runs(NamedTuple):
    """A number over trainings: its values, the scores that it may predict, and the group in which each is ranked."""

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


def gather_runs(scores: Scores, number: str, score: str, by_method: bool = False) -> Runs:
    """A number and a score, over every training that has both; ranked within data sets, or within their methods.

    Values that are not finite, as of a training that diverged, are left out: they have no rank.
    """
    rows = []
    for one in scores.arms:
        values, judged = (scores.values.get((one.label, key), ()) for key in (number, score))
        group = (one.data, one.name if by_method else "")
        # If a seed lacks the number, the values cannot be assigned to seeds: leave the training out.
        if len(values) == len(judged):
            rows += [(x, y, group) for x, y in zip(values, judged, strict=True) if isfinite(x) and isfinite(y)]
    index = {group: k for k, group in enumerate(dict.fromkeys(group for _, _, group in rows))}
    return Runs(
        np.array([x for x, _, _ in rows], dtype=np.float64),
        np.array([y for _, y, _ in rows], dtype=np.float64),
        np.array([index[group] for _, _, group in rows], dtype=np.int64),
    )


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
