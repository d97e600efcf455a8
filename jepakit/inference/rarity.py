"""How rare the scores of a step are among normal steps: one number, and the channel and component it is due to.

Let s_kc(t) be component k of channel c (channel_scores.py), and s_0(t) the error of the prediction, which all channels
share. Each becomes the upper-tail probability among the scores R of normal steps (a conformal p-value),

    p(s) = (1 + #{r in R: r >= s}) / (1 + #R),

and above a high quantile u of R, where only n_u scores remain, the tail is extrapolated by Hill's estimator. Scores are
logarithms, so their excess is exponential with the mean xi = mean(r - u | r > u):

    p(s) = (1 + n_u) / (1 + #R) exp(-(s - u) / xi).

Fisher's sum of logarithms combines the components of a channel, and Tippett's minimum the channels, so that one dead
channel among many stands out:

    y(t) = -log10 p_0(t) + max_c sum_k -log10 p_kc(t).

The components are neither independent nor few, so no table says how rare a y is. It is ranked once more, among the y of
normal steps (as in Westfall and Young's correction), and the score of a step is -log10 of that probability: 3 means
that one normal step in a thousand is as unusual. A step is anomalous if its score exceeds -log10(1 - quantile).

Normal steps are those that training left out. The components without a model have not been fitted to anything, so they
are ranked among training steps as well. The rate of false alarms is cross-fitted: a reference that knows only the later
half of the steps left out judges the earlier half, and one that knows the earlier judges the later.

Sources: conformal p-values, Vovk, Gammerman & Shafer 2005; Hill 1975, Annals of Statistics 3(5); Fisher 1932 and
Tippett 1931 as in Heard & Rubin-Delanchy 2018, arXiv:1707.06897; Westfall & Young 1993, Resampling-Based Multiple
Testing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from .channel_scores import COMPONENTS
from .windows import Scores

PREDICTION: Final = "prediction"
REASONS: Final = (PREDICTION, *COMPONENTS)
STD_PER_MAD: Final = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""
MEAN_SURPRISE: Final = float(np.log10(np.e))
"""The mean of -log10 p over normal steps: what a component that has no score counts for."""
MIN_UNSEEN: Final = 100
"""With fewer steps that training left out, the reference is what was trained on."""
TAIL_STEPS, TAIL_SHARES = 100, (0.01, 0.1)
"""The tail that is extrapolated: so many steps, but neither less nor more than these shares."""
MIN_EXCESS: Final = 0.05
"""The least mean excess in the tail, for scores that hardly differ."""


class Tail:
    """The upper-tail probabilities of a score, among the scores of normal steps."""

    def __init__(self, normal: Scores) -> None:
        """Raises ValueError if no step has a score."""
        self.sorted = np.sort(normal[~np.isnan(normal)])
        if not (count := len(self.sorted)):
            raise ValueError("no step of the run's own data has a score to compare with; give --stride 1")
        share = np.clip(TAIL_STEPS / count, *TAIL_SHARES)
        self.begin = float(np.quantile(self.sorted, 1 - share, method="lower"))
        beyond = self.sorted[self.sorted > self.begin]
        self.probability = (1 + len(beyond)) / (1 + count)
        self.excess = max(float((beyond - self.begin).mean()) if len(beyond) else 0.0, MIN_EXCESS)

    def surprise(self, scores: Scores) -> Scores:
        """-log10 p of each score; NaN where there is none."""
        count = len(self.sorted)
        rank = (1 + count - np.searchsorted(self.sorted, scores, "left")) / (1 + count)
        excess = np.log10(np.e) * (scores - self.begin) / self.excess
        found: Scores = np.where(scores > self.begin, excess - np.log10(self.probability), -np.log10(rank))
        return np.where(np.isnan(scores), np.nan, found)


class StepScores(NamedTuple):
    """The scores of T steps as logarithms, NaN where there is none: prediction (T,), and by component and channel."""

    prediction: Scores
    channels: Float64[np.ndarray, "k c t"]

    def part(self, rows: Bool[np.ndarray, " t"] | slice) -> "StepScores":
        """The scores of some steps."""
        return StepScores(self.prediction[rows], self.channels[:, :, rows])

    @classmethod
    def joined(cls, parts: Sequence["StepScores"]) -> "StepScores":
        """The scores of several series as one."""
        prediction, channels = zip(*parts, strict=True)
        return cls(np.concatenate(prediction), np.concatenate(channels, axis=2))


class Combined(NamedTuple):
    """For each step, y (NaN: no prediction), and the channel and the component that contribute most, as indices.

    The component indexes REASONS.
    """

    y: Scores
    channel: Int64[np.ndarray, " t"]
    reason: Int64[np.ndarray, " t"]


class Tails:
    """The tails of all components."""

    def __init__(self, prediction: Scores, channels: Float64[np.ndarray, "k c n"]) -> None:
        self.prediction = Tail(prediction)
        self.channels = [[Tail(scores) for scores in component] for component in channels]

    def combine(self, scores: StepScores) -> Combined:
        """Fisher's sum over the components, and the channel where it is largest."""
        prediction = self.prediction.surprise(scores.prediction)
        each = np.stack(
            [
                [tail.surprise(s) for tail, s in zip(tails, component, strict=True)]
                for tails, component in zip(self.channels, scores.channels, strict=True)
            ]
        )
        each = np.where(np.isnan(each), MEAN_SURPRISE, each)
        channel = each.sum(0).argmax(0)
        own = np.take_along_axis(each, channel[None, None], 1)[:, 0]
        reason = np.concatenate([np.nan_to_num(prediction)[None], own]).argmax(0)
        return Combined(prediction + own.sum(0), channel, reason)


@dataclass(frozen=True)
class Reference:
    """What normal steps look like, the threshold, and how often normal steps exceed it.

    `median` and `mad` are those of the scores of normal steps. `false_alarms` is the share of `steps` normal steps
    above the threshold, cross-fitted; `seen` says that training saw these steps, because it left out too few.
    """

    tails: Tails
    combined: Tail
    median: float
    mad: float
    threshold: float
    false_alarms: float
    steps: int
    seen: bool

    def scores(self, steps: StepScores) -> tuple[Scores, Combined]:
        """How rare each step is, and what is due to which channel and component."""
        found = self.tails.combine(steps)
        return self.combined.surprise(found.y), found

    def z_scores(self, scores: Scores) -> Scores:
        """How many standard deviations scores lie above the median."""
        return (scores - self.median) / max(STD_PER_MAD * self.mad, np.finfo(np.float64).tiny)

    def false_alarm_text(self) -> str:
        """One sentence on the threshold and the rate of false alarms."""
        where = "steps of the training data, seen in training," if self.seen else "steps that training left out"
        return (
            f"threshold: score {self.threshold:.3g}, for {10**-self.threshold:.2g} of normal steps; "
            f"of {self.steps} {where} {100 * self.false_alarms:.2g} % are above it"
        )


def fit_reference(
    own: StepScores, unseen: Bool[np.ndarray, " t"], later: Bool[np.ndarray, " t"], quantile: float
) -> Reference:
    """The reference of a run's own data.

    `unseen` marks steps that training left out, and `later` those in the later half of a series' unseen steps, or of
    its training steps. Raises ValueError if no step has a score.
    """
    scored = ~np.isnan(own.prediction)
    seen = int((unseen & scored).sum()) < MIN_UNSEEN
    normal = scored if seen else unseen & scored
    trained = np.zeros_like(normal) if seen else ~unseen
    threshold = float(-np.log10(1 - quantile))
    above = 0
    for judged in (later, ~later):
        rows = normal & judged
        if rows.any() and (normal & ~judged).any():
            tails, combined = _fit(own, normal & ~judged, trained)
            above += int((combined.surprise(tails.combine(own.part(rows)).y) > threshold).sum())
    tails, combined = _fit(own, normal, trained)
    scores = combined.surprise(tails.combine(own.part(normal)).y)
    median, steps = float(np.median(scores)), int(normal.sum())
    mad = float(np.median(np.abs(scores - median)))
    return Reference(tails, combined, median, mad, threshold, above / steps, steps, seen)


def _fit(own: StepScores, normal: Bool[np.ndarray, " t"], trained: Bool[np.ndarray, " t"]) -> tuple[Tails, Tail]:
    """The tails of the components, and that of their combination among the normal steps."""
    tails = Tails(own.prediction[normal], own.channels[:, :, normal | trained])
    return tails, Tail(tails.combine(own.part(normal)).y)
