"""Intervals around forecasts, from the errors of forecasts of what a reader was not fitted to; and whether they hold.

An error is divided by how much the known half window varies (`View.scale`), and then by the usual ratio of its channel
and step ahead. An interval is a quantile of the result over all steps of a channel, multiplied back: series swing more
at some times than at others, and one quantile has more errors to rest on than one for every step. The level of the
quantile is (1 + 1/n) times the share, for n independent forecasts, so that few of them keep the share too.
Source: split conformal prediction, Lei et al. 2018, JASA 113, 1094, with their locally weighted errors.

One part of a series is calmer or wilder than another, so errors come from all of it: from the part that is judged on,
and from parts of what readers are fitted to, each forecast by a reader that was fitted to the rest.
Source: cross-conformal prediction, Vovk 2015, Annals of Mathematics and Artificial Intelligence 74, 9.

What comes next resembles most what came last. So each series adds the errors of its own last forecasts, whose weight
halves every HALF_LIFE horizons, to all others, whose weight is that of FORMER_WEIGHT independent forecasts.
Source: conformal prediction beyond exchangeability, Barber et al. 2023, Annals of Statistics 51, 816.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float64

from .tables import Values

INTERVAL_PERCENTS: Final = (80, 90, 95)
"""Per cent of the values that the intervals are to cover."""
HALF_LIFE: Final = 8
"""After how many horizons the weight of a recent error has halved."""
FORMER_WEIGHT: Final = 10.0
"""The weight of all errors that are not recent, in independent forecasts."""
PROMISED_POINTS: Final = 4.0
"""Points by which a coverage may fall short before it is reported, if chance alone does not explain it."""
DOUBT: Final = 2.4
"""Standard errors that chance alone does not explain: one of six parts falls short by more in 5 % of all cases."""
POINTS: Final = 1000
"""By how many quantiles errors are represented that are not recent."""
LEAST: Final = 1e-150


class Errors(NamedTuple):
    """Absolute errors (N, C, H) over the units (N, C, 1) of their forecasts, and how many are `independent`."""

    ratio: Values
    independent: float


class RecentErrors(NamedTuple):
    """The same of the last forecasts of one series, with the weight of each step; 0 where the value is to come."""

    ratio: Float64[np.ndarray, "r c h"]
    weight: Float64[np.ndarray, "r h"]


@dataclass(frozen=True, eq=False)
class Intervals:
    """Half widths, in units of a forecast: quantiles of errors over the `usual` ones (C, H), times these.

    `former` (C, POINTS) are the quantiles of the errors that are not recent, `independent` the number of forecasts.
    """

    usual: Float64[np.ndarray, "c h"]
    former: Float64[np.ndarray, "c _"]
    independent: float

    def half_widths(self, recent: RecentErrors | None = None) -> Mapping[int, Float64[np.ndarray, "c h"]]:
        """By share, half the width of the interval of every channel and step, for a series with these recent errors."""
        values, weight = self.former, np.full(self.former.shape[1], FORMER_WEIGHT / self.former.shape[1])
        if recent is not None:
            relative = recent.ratio / self.usual
            values = np.concatenate([values, relative.transpose(1, 0, 2).reshape(len(values), -1)], axis=1)
            weight = np.concatenate([weight, recent.weight.ravel()])
        levels = np.minimum(1.0, np.array(INTERVAL_PERCENTS) / 100 * (1 + 1 / self.independent))
        found = zip(INTERVAL_PERCENTS, _quantiles(values, weight, levels), strict=True)
        return {share: q[:, None] * self.usual for share, q in found}

    def coverage(self, errors: Errors) -> dict[int, float]:
        """By share, the fraction of the errors within the intervals of a series without recent errors."""
        return {share: float((errors.ratio <= width).mean()) for share, width in self.half_widths().items()}


def fit_intervals(parts: Sequence[Errors]) -> Intervals:
    """Intervals from the errors of forecasts in several parts of the data."""
    ratio = np.concatenate([part.ratio for part in parts])
    weight = np.concatenate([np.full(len(part.ratio), part.independent / len(part.ratio)) for part in parts])
    usual = np.maximum(np.average(ratio, axis=0, weights=weight), LEAST)
    levels = (np.arange(POINTS) + 0.5) / POINTS
    # One channel at a time: the errors of hundreds of channels are gigabytes.
    repeated = weight.repeat(usual.shape[1])
    each = [_quantiles((ratio[:, c] / usual[c]).reshape(1, -1), repeated, levels) for c in range(len(usual))]
    return Intervals(usual, np.concatenate(each, axis=1).T, sum(part.independent for part in parts))


def _quantiles(
    values: Float64[np.ndarray, "c n"], weight: Float64[np.ndarray, " n"], levels: Float64[np.ndarray, " q"]
) -> Float64[np.ndarray, "q c"]:
    """For every level the least value of every row that, with all that are no larger, has that share of the weight."""
    order = np.argsort(values, axis=1)
    found = []
    for row, at in zip(values, order, strict=True):
        below = np.cumsum(weight[at])
        wanted = levels * below[-1] * (1 - 1e-12)
        found.append(row[at][np.searchsorted(below, wanted)])
    return np.stack(found, axis=1)


def drift_sentence(parts: Mapping[str, Errors]) -> str:
    """A sentence if intervals from the rest of the data are too narrow in one of the `parts`; else empty.

    They are if the coverage of some share falls short by more than PROMISED_POINTS, and by more than DOUBT standard
    errors over the independent forecasts.
    """
    worst, sentence = 0.0, ""
    for name, part in parts.items():
        rest = [other for key, other in parts.items() if key != name]
        if not rest:
            continue
        independent = 1 / (1 / part.independent + 1 / sum(other.independent for other in rest))
        for share, fraction in fit_intervals(rest).coverage(part).items():
            error = np.sqrt(share / 100 * (1 - share / 100) / independent)
            short = share / 100 - fraction
            if short > max(PROMISED_POINTS / 100, DOUBT * error) and short / error > worst:
                worst = short / error
                sentence = (
                    f"the series drift: {share} % intervals from the rest of the data cover only "
                    f"{100 * fraction:.0f} % of {name}, so the written ones may be as much too narrow"
                )
    return sentence
