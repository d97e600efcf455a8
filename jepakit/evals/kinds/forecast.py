"""Forecasts from representations: a linear map from a representation of the past to a value in the future.

    A    from f(past), the representation of the past half of a window
    B    from the method's own prediction of the future half's representation; for BiJEPA, P_fwd(f(past))

Both use the context encoder, because the predictor reads it. The error is the mean square over windows and channels,
`horizons` steps after the cut, of values as the model normalises them (by mean and deviation of its training data). The
map is a ridge regression whose strength is chosen on the last fifth of the windows to fit on. On the raw input, the
same solver is linear autoregression. `notes` have the mean error over all steps up to the horizon (`path`), the error
of repeating the last value, that of a linear model of every channel's change since it (`linear_change`), and that of
BiJEPA's own probe (arXiv:2603.00049), on the windows it was fitted to.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64

from ...types import Rng
from ..metrics.readers import L2_STRENGTHS, adam_train_error, check_strengths, choose_reader, fit_linear_changes
from ..metrics.result import Value, bootstrap_counts, bootstrap_interval, score_results
from ..windows import Windows

READS = "windows"
LOWER_IS_BETTER = True
PROTOCOLS = ("A", "B")


@dataclass(frozen=True)
class Config:
    """`horizons` are steps after the cut (empty: the first, the middle and the last step of the future half).

    `l2` lists the candidates for the ridge; BiJEPA's own probe takes `adam` steps with learning rate `lr`.
    """

    horizons: tuple[int, ...] = ()
    l2: tuple[float, ...] = L2_STRENGTHS
    adam: int = 100
    lr: float = 1e-2

    def __post_init__(self) -> None:
        check_strengths(self.l2)
        if self.horizons and min(self.horizons) < 1:
            raise ValueError(f"horizons={self.horizons} holds a value below 1, the first step after the cut")
        if self.adam < 1 or self.lr <= 0:
            raise ValueError(f"adam={self.adam} and lr={self.lr:g} must be positive; the paper's are 100 and 0.01")


def evaluate(train: Windows, test: Windows, cfg: Config) -> Iterator[tuple[str, Value]]:
    """Yield, for each protocol and horizon, the error on `test`, with a bootstrap interval over its windows."""
    train.check_values()
    wanted = choose_horizons(cfg, train.future.shape[2])
    still, linear = last_value_errors(test), linear_change_errors(train, test, cfg)
    for protocol in PROTOCOLS:
        x, new = (part.s if protocol == "A" else part.pred for part in (train, test))
        reader, l2 = choose_reader(x, train.future, train.held, cfg.l2)
        errors = squared_errors(reader(new), test)
        for h in wanted:
            each = errors[:, h - 1]
            interval = bootstrap_interval(float(each.mean()), bootstrap_counts(len(each)) @ each / len(each))
            yield "name", f"{protocol}-{h}"
            ahead = f"{protocol} MSE, {h} {'step' if h == 1 else 'steps'} ahead"
            yield from score_results(ahead, float(each.mean()), interval)
            yield "l2", float(l2[h - 1])
            yield "path", float(errors[:, :h].mean())
            yield "last_value", float(still[:, h - 1].mean())
            yield "linear_change", float(linear[:, h - 1].mean())
            y = torch.from_numpy(train.future[..., h - 1])
            yield "adam_train_mse", adam_train_error(torch.from_numpy(x), y, Rng(0).fork("probe"), cfg.adam, cfg.lr)


def choose_horizons(cfg: Config, future: int) -> tuple[int, ...]:
    """The horizons to evaluate. Raises ValueError if one lies beyond the window."""
    if cfg.horizons and max(cfg.horizons) > future:
        raise ValueError(
            f"horizons={cfg.horizons} goes beyond the {future} steps after the cut; give at most {future}, "
            "or train on longer windows"
        )
    return cfg.horizons or tuple(sorted({1, (future + 1) // 2, future}))


def squared_errors(read: Float64[np.ndarray, "n k"], windows: Windows) -> Float64[np.ndarray, "n h"]:
    """The squared error of every window and step, averaged over channels."""
    error: np.ndarray = ((read.reshape(windows.future.shape) - windows.future) ** 2).mean(1)
    return error


def last_value_errors(windows: Windows) -> Float64[np.ndarray, "n h"]:
    """The squared error of every window and step if the last seen value is repeated."""
    still: np.ndarray = ((windows.past[..., -1:].astype(np.float64) - windows.future) ** 2).mean(1)
    return still


def linear_change_errors(train: Windows, test: Windows, cfg: Config) -> Float64[np.ndarray, "n h"]:
    """The squared error of every window and step of a linear model of each channel's change, shared by all channels."""
    model = fit_linear_changes(train.past, train.future, train.held, l2=cfg.l2)
    return squared_errors(model(test.past).reshape(len(test), -1), test)
