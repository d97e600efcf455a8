"""The numbers that every classification probe reports: accuracy, its confidence interval, and recall per class."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Int64

from ...core.statistics import wilson_interval
from ...types import Rng

Value = str | float | list[float | None] | dict[str, list[float]] | dict[str, float]


def score_results(
    metric: str, value: float, interval: tuple[float, float], per_class: Sequence[float | None] = ()
) -> Iterator[tuple[str, Value]]:
    """Yield what every result holds: `metric`, `value`, the ends `low` and `high` of its interval, and `per_class`."""
    yield "metric", metric
    yield "value", value
    yield from zip(("low", "high"), interval, strict=True)
    yield "per_class", [*per_class]


def accuracy_results(
    pred: Int[np.ndarray, " n"], y: Int[np.ndarray, " n"], classes: int
) -> Iterator[tuple[str, Value]]:
    """Yield `metric`, `value`, `low`, `high` (95 %, Wilson) and `per_class`, the recall of each class.

    All numbers are fractions in [0, 1]; the recall of a class without a test sample is None.
    """
    hit = pred == y
    total = np.bincount(y, minlength=classes)
    found = np.bincount(y[hit], minlength=classes)
    recall = [float(f / t) if t else None for f, t in zip(found, total, strict=True)]
    yield from score_results("accuracy", float(hit.mean()), wilson_interval(int(hit.sum()), len(y)), recall)


def mean_results(
    preds: Sequence[Int[np.ndarray, " n"]], y: Int[np.ndarray, " n"], classes: int, metric: str = "accuracy"
) -> Iterator[tuple[str, Value]]:
    """Like `accuracy_results`, averaged over several classifiers; also `each` accuracy and, of several, their `std`.

    The interval is that of one classifier with the mean accuracy: it covers the draw of test samples, while `std` (with
    n - 1) covers the rest.
    """
    every = [dict(accuracy_results(pred, y, classes)) for pred in preds]
    each = [float((pred == y).mean()) for pred in preds]
    interval = wilson_interval(round(float(np.mean(each)) * len(y)), len(y))
    recall = np.array([[np.nan if r is None else r for r in one["per_class"]] for one in every]).mean(0)  # type: ignore[union-attr]
    known = [None if np.isnan(r) else float(r) for r in recall]
    yield from score_results(metric, float(np.mean(each)), interval, known)
    yield "each", [*each]
    if len(each) > 1:
        yield "std", float(np.std(each, ddof=1))


NUM_RESAMPLES = 1000


def bootstrap_counts(n: int) -> Int64[np.ndarray, "r n"]:
    """How often each of `n` units is drawn in each resample of a bootstrap; (NUM_RESAMPLES, n)."""
    draws = torch.randint(n, (NUM_RESAMPLES, n), generator=Rng(0).fork("bootstrap").generator())
    counts = torch.zeros(NUM_RESAMPLES, n, dtype=torch.int64).scatter_add_(1, draws, torch.ones_like(draws))
    return counts.numpy()


def bootstrap_interval(value: float, values: Float[np.ndarray, " r"]) -> tuple[float, float]:
    """The middle 95 % of resampled `values`, widened if necessary to contain `value` itself."""
    low, high = np.nanquantile(values, [0.025, 0.975])
    return min(float(low), value), max(float(high), value)
