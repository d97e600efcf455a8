"""Intervals around forecasts, from the errors of forecasts of what was never seen; and whether the series drift.

An error is divided by how much the known half window varies (`View.scale`), and then by the usual ratio of its channel
and step ahead. An interval is a quantile of the result over all steps of a channel, multiplied back: series swing more
at some times than at others, and one quantile has more errors to rest on than one for every step. The level of the
quantile is (1 + 1/n) times the share, for n independent forecasts, so that few of them keep the share too.
Source: split conformal prediction, Lei et al. 2018, JASA 113, 1094, with their locally weighted errors.

The part that is judged on is short, and may be calmer or wilder than usual. The last value needs no fitting, so its
errors are honest on all of the data: usual errors and quantiles are scaled by those of the last value there, over those
of the last value on the part that is judged on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from .tables import Values

INTERVAL_PERCENTS: Final = (80, 90, 95)
"""Per cent of the values that the intervals are to cover."""
PROMISED_POINTS: Final = 4.0
"""Points by which a coverage may be off before drift is reported, if chance alone does not explain it."""
LEAST: Final = float(np.finfo(np.float64).tiny)

Quantiles = Mapping[int, Float64[np.ndarray, " c"]]


class Errors(NamedTuple):
    """Absolute errors (N, C, H) over the units (N, C, 1) of their forecasts, and how many are `independent`."""

    ratio: Values
    independent: float

    def where(self, rows: Bool[np.ndarray, " n"]) -> "Errors":
        """The forecasts where `rows` is true."""
        return Errors(self.ratio[rows], max(1.0, self.independent * float(rows.mean())))


@dataclass(frozen=True, eq=False)
class Intervals:
    """Half widths, in units of a forecast: for every share `quantile` (C,) times the `usual` error (C, H)."""

    quantile: Quantiles
    usual: Float64[np.ndarray, "c h"]

    def half_widths(self, unit: Float64[np.ndarray, "n c 1"]) -> dict[int, Values]:
        """By share, half the width of the interval of every forecast (N, C, H)."""
        return {share: q[:, None] * self.usual * unit for share, q in self.quantile.items()}

    def coverage(self, errors: Errors) -> dict[int, float]:
        """By share, the fraction of the errors within the intervals."""
        return {share: float((errors.ratio <= q[:, None] * self.usual).mean()) for share, q in self.quantile.items()}


def fit_intervals(errors: Errors, last_value: Errors, trained: Errors | None) -> Intervals:
    """Intervals from the `errors` of forecasts.

    `last_value` are those of the last value from the same places, `trained` those where readers were fitted, if any.
    """
    usual = _usual_ratio(errors)
    quantiles = _quantiles(errors, usual)
    if trained is not None:
        everywhere = Errors(
            np.concatenate([trained.ratio, last_value.ratio]), trained.independent + last_value.independent
        )
        typical, here = _usual_ratio(everywhere), _usual_ratio(last_value)
        tails, tails_here = _quantiles(everywhere, typical), _quantiles(last_value, here)
        usual = usual * _ratio(typical, here)
        quantiles = {share: q * _ratio(tails[share], tails_here[share]) for share, q in quantiles.items()}
    rising = np.maximum.accumulate(np.stack([quantiles[share] for share in INTERVAL_PERCENTS]))
    return Intervals(dict(zip(INTERVAL_PERCENTS, rising, strict=True)), usual)


def _ratio(a: Float64[np.ndarray, "*n"], b: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """a / b; 1 where either is 0: where the last value is never wrong, its errors say nothing of other forecasts."""
    found: np.ndarray = np.divide(a, b, out=np.ones_like(a), where=(a > LEAST) & (b > LEAST))
    return found


def _usual_ratio(errors: Errors) -> Float64[np.ndarray, "c h"]:
    """The mean of the errors of every channel and step; LEAST where it is 0."""
    found: np.ndarray = np.maximum(errors.ratio.mean(0), LEAST)
    return found


def _quantiles(errors: Errors, usual: Float64[np.ndarray, "c h"]) -> Quantiles:
    """By share, the quantile (C,) of the errors over their usual ones, at a level raised for few of them."""
    relative = errors.ratio / usual
    levels = {share: min(1.0, share / 100 * (1 + 1 / errors.independent)) for share in INTERVAL_PERCENTS}
    return {share: np.quantile(relative, level, axis=(0, 2)) for share, level in levels.items()}


def drift_sentence(
    errors: Errors, last_value: Errors, trained: Errors | None, late: Bool[np.ndarray, " n"], part: str
) -> str:
    """A sentence if intervals from the first half of the `part` do not hold on its second half; else empty.

    They do not if the coverage of some share is off by more than PROMISED_POINTS and by more than twice its standard
    error over the independent forecasts of one half.
    """
    if late.all() or not late.any():
        return ""
    covered = fit_intervals(errors.where(~late), last_value.where(~late), trained).coverage(errors.where(late))
    half = errors.independent / 2
    off = {}
    for share, fraction in covered.items():
        # Both halves are samples: the one that gives the interval, and the one that it is tried on.
        error = 100 * np.sqrt(2 * share / 100 * (1 - share / 100) / half)
        points = 100 * fraction - share
        if abs(points) > max(PROMISED_POINTS, 2 * error):
            off[share] = points
    if not off:
        return ""
    share = max(off, key=lambda key: abs(off[key]))
    covers = f"cover {'only ' if off[share] < 0 else ''}{share + off[share]:.0f} %"
    return f"the series drift: {share} % intervals from the first half of {part} {covers} of its second half"
