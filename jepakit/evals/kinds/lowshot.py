"""Linear classification with few labels: how good a representation is when hardly anything is annotated.

In every class, a fraction of the training samples, at least one, keeps its label; the rest is not used. The hash of the
samples' ids fixes each draw, and a smaller fraction is a subset of a larger one. All draws are scored on the same test
samples; `value` is the mean over the draws and `std` their spread. There is one result per fraction, e.g. lowshot-1pct.

The classifier is that of `linear`. Its `l2` is chosen on a fifth of the draw, since there are no other labels; a draw
in which no class has two samples uses the strongest. Source: 1 % of ImageNet as in I-JEPA, arXiv:2301.08243.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..features import Features, Pool, count_classes
from ..heldout import held_out
from ..metrics.result import Value, mean_results
from . import linear
from .linear import Solver


@dataclass(frozen=True)
class Config:
    """`draws` random draws for each of `fractions` of the labels; the other settings are those of `linear`."""

    fractions: tuple[float, ...] = (0.01, 0.1)
    draws: int = 5
    solver: Solver = "auto"
    l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    iterations: int = 60
    pool: Pool = "mean"

    def __post_init__(self) -> None:
        if not self.fractions or not all(0 < f < 1 for f in self.fractions) or self.draws < 1:
            raise ValueError(
                f"fractions={self.fractions} must lie between 0 and 1 and draws={self.draws} be 1 or more, "
                "e.g. fractions=(0.01, 0.1), draws=5"
            )
        linear.Config(self.solver, self.l2, self.iterations, self.pool)


def evaluate(train: Features, test: Features, cfg: Config) -> Iterator[tuple[str, Value]]:
    """Yield, per fraction, the mean accuracy on `test`, the number of `labels`, and `each` draw's accuracy and `l2`."""
    classes = count_classes(train.y, test.y)
    for fraction in cfg.fractions:
        preds, strengths, labels = [], [], 0
        for draw in range(cfg.draws):
            few = few_labelled(train, fraction, draw)
            solver, _ = linear.choose_solver(cfg.solver, len(few), classes)
            own = linear.Config(solver, cfg.l2, cfg.iterations, cfg.pool)
            lone = np.bincount(few.y).max() < 2
            strengths.append(max(cfg.l2) if lone else linear.choose_l2(few, solver, own, classes))
            (model,) = linear.fit_classifiers(few, solver, (strengths[-1],), cfg.iterations, classes)
            preds.append(model.predict(test.x))
            labels = len(few)
        percent = f"{100 * fraction:g}"
        yield "name", f"{percent}pct"
        yield from mean_results(preds, test.y, classes, f"accuracy with {percent} % of the labels")
        yield "labels", float(labels)
        yield "l2", [*strengths]


def few_labelled(train: Features, fraction: float, draw: int) -> Features:
    """The samples that keep their label: in each class the `fraction` whose hashed ids are lowest, at least one."""
    kept = held_out(train.id.tolist(), train.y, fraction, salt=f"low-shot {draw}")
    lone = np.bincount(train.y)[train.y] == 1
    return train.where(kept | lone)
