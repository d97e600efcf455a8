"""Evaluates the states of an R-JEPA after k frames: errors relative to trivial predictions, and probes."""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

RIDGE_ALPHAS: Final = tuple(10.0**k for k in range(1, 6))


class SequenceStates(NamedTuple):
    """A trained circuit's states on sequences of at most T steps, (T, N, …); `length` counts each one's real steps."""

    h: Float[np.ndarray, "t n w"]
    pred: Float[np.ndarray, "t1 n w"]
    y: Float[np.ndarray, "t n d"]
    gate: Float[np.ndarray, " t"]
    length: Int64[np.ndarray, " n"]
    label: Int64[np.ndarray, " n"]
    subject: Int64[np.ndarray, " n"]


def prediction_errors(found: SequenceStates, k: int) -> dict[str, float]:
    """The two error ratios, the gate and the change after k frames. The best constant is fitted to the same step."""
    real = found.length > k
    h, target, pred = found.h[k - 1, real], found.h[k, real], found.pred[k - 1, real]
    size = float(np.square(target - target.mean(0)).mean())
    error = float(np.square(pred - target).mean())
    moved = float(np.square(h - target).mean())
    return {
        f"error over constant, {k}": error / size,
        f"error over persistence, {k}": error / max(moved, 1e-12),
        f"gate, {k}": float(found.gate[k]),
        f"change, {k}": (moved / float(np.square(target).mean())) ** 0.5,
    }


def next_feature(
    train: SequenceStates, test: SequenceStates, k: int, kin: Int64[np.ndarray, " n"] | None = None
) -> dict[str, float]:
    """R² for the next feature of a ridge on h_k, and of one on the present feature; `kin` as in `ridge_score`."""
    rows, held = train.length > k, test.length > k
    scaler = StandardScaler().fit(train.y[k, rows])
    goal, truth = scaler.transform(train.y[k, rows]), scaler.transform(test.y[k, held])

    def r2(name: str) -> float:
        past, now = (getattr(part, name)[k - 1, which] for part, which in ((train, rows), (test, held)))
        return ridge_score(past, goal, now, truth, None if kin is None else kin[rows])

    return {f"next feature R² from the state, {k}": r2("h"), f"next feature R² from the present, {k}": r2("y")}


def ridge_score(
    past: Float[np.ndarray, "n d"],
    goal: Float[np.ndarray, "n q"],
    now: Float[np.ndarray, "m d"],
    truth: Float[np.ndarray, "m q"],
    kin: Int64[np.ndarray, " n"] | None = None,
) -> float:
    """R² on (now, truth) of a ridge fitted from `past` to `goal`, over all outputs; the mean of `goal` scores 0.

    The ridge strength is chosen on the training part by leave-one-out, or, if `kin` groups rows, such as those of one
    picture, by leaving out a fifth of the groups.
    """
    scale = StandardScaler().fit(past)
    x = scale.transform(past)
    folds = None if kin is None else list(GroupKFold(5).split(x, goal, kin))
    read = RidgeCV(alphas=RIDGE_ALPHAS, cv=folds).fit(x, goal).predict(scale.transform(now))
    return 1 - float(np.square(truth - read).sum() / np.square(truth - goal.mean(0)).sum())


def class_accuracy(train: SequenceStates, test: SequenceStates, k: int) -> float:
    """The accuracy of a linear classifier that predicts the label from the state after k frames."""
    scale = StandardScaler().fit(train.h[k - 1])
    model = LogisticRegression(max_iter=300, C=0.1).fit(scale.transform(train.h[k - 1]), train.label)
    return float(model.score(scale.transform(test.h[k - 1]), test.label))
