"""The class whose mean feature is nearest."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jepakit.evals.features import Features, Pool
from jepakit.evals.metrics.result import Value, accuracy_results


@dataclass(frozen=True)
class Config:
    """`pool` says how tokens become one vector."""

    pool: Pool = "mean"


def evaluate(train: Features, test: Features, cfg: Config) -> Iterator[tuple[str, Value]]:
    """The accuracy on `test`."""
    classes = int(max(train.y.max(), test.y.max())) + 1
    centres = np.full((classes, train.x.shape[1]), np.inf, np.float32)
    for label in np.unique(train.y):
        centres[label] = train.x[train.y == label].mean(0)
    pred = np.square(test.x[:, None] - centres).sum(-1).argmin(1)
    yield from accuracy_results(pred, test.y, classes)
