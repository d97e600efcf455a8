"""Linear classification with few labels: what the representation gives when hardly anything is annotated.

Of every class a fraction of the training samples keeps its label, at least one; the rest is not used. A draw is fixed
by the hash of the samples' ids, and a smaller fraction is a part of a larger one. Each draw is judged on the same test
samples; `value` is the mean over the draws and `std` their spread. One result per fraction, such as lowshot-1pct.

The classifier is that of `linear`. Its `l2` is chosen within the draw, on a fifth of it, for nobody has more labels; a
draw in which no class has two samples takes the strongest. Source: 1 % of ImageNet as in I-JEPA, arXiv:2301.08243.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..features import Features, Pool, count_classes
from ..heldout import held_out
from ..metrics.result import Value, averaged
from . import linear
from .linear import Solver


@dataclass(frozen=True)
class Config:
    """`draws` times each of `fractions` of the labels; the rest is as in `linear`."""

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
    """For each fraction the mean accuracy on `test`; also the `labels` used and, of `each` draw, accuracy and `l2`."""
    classes = count_classes(train.y, test.y)
    for fraction in cfg.fractions:
        preds, strengths, labels = [], [], 0
        for draw in range(cfg.draws):
            few = drawn(train, fraction, draw)
            solver, _ = linear.choose_solver(cfg.solver, len(few), classes)
            strengths.append(_strength(few, solver, cfg, classes))
            (model,) = linear.fit(few, solver, (strengths[-1],), cfg.iterations, classes)
            preds.append(model.predict(test.x))
            labels = len(few)
        percent = f"{100 * fraction:g}"
        yield "name", f"{percent}pct"
        yield from averaged(preds, test.y, classes, f"accuracy with {percent} % of the labels")
        yield "labels", float(labels)
        yield "l2", [*strengths]


def drawn(train: Features, fraction: float, draw: int) -> Features:
    """The samples that keep their label: in each class the `fraction` whose hashed id is lowest, at least one."""
    kept = held_out(train.id.tolist(), train.y, fraction, salt=f"low-shot {draw}")
    lone = np.bincount(train.y)[train.y] == 1
    return train.where(kept | lone)


def _strength(few: Features, solver: linear.Chosen, cfg: Config, classes: int) -> float:
    if np.bincount(few.y).max() < 2:
        return max(cfg.l2)
    return linear.choose_l2(few, solver, linear.Config(solver, cfg.l2, cfg.iterations, cfg.pool), classes)
