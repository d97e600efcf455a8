"""How rare the scores of a step are among normal steps: one number, and the channel and component it is due to.

Let s_kc(t) be component k of channel c (channel_scores.py), and s_0(t) the error of the prediction, which all channels
share. Each becomes the upper-tail probability among the scores R of normal steps (a conformal p-value),

    p(s) = (1 + #{r in R: r >= s}) / (1 + #R),

and above a high quantile u of R, where only n_u scores remain, the tail is extrapolated by Hill's estimator. Scores are
logarithms, so their excess is exponential with the mean xi = mean(r - u) over peaks r, the largest of each stretch of
steps above u (peaks over threshold: a long event counts once):

    p(s) = (1 + n_u) / (1 + #R) exp(-(s - u) / xi).

Fisher's sum of logarithms combines the components of a channel, and Tippett's minimum the channels, so that one dead
channel among many stands out:

    y(t) = -log10 p_0(t) + max_c sum_k -log10 p_kc(t).

The components are neither independent nor few, so no formula says how rare a y is. It is ranked once more, among the y
of normal steps (as in Westfall and Young's correction), and the score of a step is -log10 of that probability: 3 means
that one normal step in a thousand is as unusual. A step is anomalous if its score exceeds -log10(1 - quantile).

A dead channel is silent in all other components, which would outvote its standstill. So where a run of equal values is
longer, l, than the longest of the n normal runs, l_max, the score is at least -log10 of the conformal p-value of a run
that exceeds all others, Bonferroni-corrected for C channels, and falling as slowly as a distribution with a mean can:

    p = C / (1 + n) l_max / l.

Errors of the prediction are ranked among those of steps that training left out, since a model is too sure of what it
has seen. The components without a model are fitted to nothing, so they are ranked among all of the run's own steps, and
so is y: there, the errors of training steps are ranked among training steps. The rate of false alarms is cross-fitted:
ranks that know only the later half of the steps left out judge the earlier half, and the other way round.

Sources: conformal p-values, Vovk, Gammerman & Shafer 2005; Hill 1975, Annals of Statistics 3(5); peaks, Davison &
Smith 1990, JRSS B 52(3); Fisher 1932 and Tippett 1931 as in Heard & Rubin-Delanchy 2018, arXiv:1707.06897; Westfall &
Young 1993, Resampling-Based Multiple Testing.
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
FLAT: Final = COMPONENTS.index("flat")
STD_PER_MAD: Final = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""
MEAN_SURPRISE: Final = float(np.log10(np.e))
"""The mean of -log10 p over normal steps: what a component that has no score counts for."""
MIN_UNSEEN: Final = 100
"""With fewer steps that training left out, the reference is what was trained on."""
DRIFT_RATIO, MIN_DRIFT_RATE = 10, 0.02
"""The data drift where false alarms exceed both this multiple of the share that is meant and this rate."""
DRIFT_ADVICE: Final = (
    "that is far more than meant, because the data drift, so `anomalous` marks many normal steps: train again on newer "
    "data; until then, go by the highest scores, or raise --quantile"
)
TAIL_STEPS, TAIL_SHARES = 100, (0.01, 0.1)
"""The tail that is extrapolated: so many steps, but neither less nor more than these shares."""
MIN_EXCESS: Final = 0.05
"""The least mean excess in the tail, for scores that hardly differ."""


class Tail:
    """The upper-tail probabilities of a score, among the scores of normal steps in the order of time.

    If no normal step has a score, no score has a probability.
    """

    def __init__(self, normal: Scores) -> None:
        normal = normal[~np.isnan(normal)]
        self.sorted = np.sort(normal)
        self.begin, self.probability, self.excess = np.inf, 1.0, MIN_EXCESS
        if not (count := len(self.sorted)):
            return
        share = np.clip(TAIL_STEPS / count, *TAIL_SHARES)
        self.begin = float(np.quantile(self.sorted, 1 - share, method="lower"))
        above = normal > self.begin
        self.probability = (1 + int(above.sum())) / (1 + count)
        self.excess = max(float(np.mean(_peaks(normal, above) - self.begin)) if above.any() else 0.0, MIN_EXCESS)

    def surprise(self, scores: Scores) -> Scores:
        """-log10 p of each score; NaN where there is none."""
        count = len(self.sorted)
        rank = (1 + count - np.searchsorted(self.sorted, scores, "left")) / (1 + count)
        excess = np.log10(np.e) * (scores - self.begin) / self.excess
        found: Scores = np.where(scores > self.begin, excess - np.log10(self.probability), 0.0 - np.log10(rank))
        return np.where(np.isnan(scores) | (count == 0), np.nan, found)


def _peaks(scores: Scores, above: Bool[np.ndarray, " t"]) -> Float64[np.ndarray, " p"]:
    """The largest score of each stretch of steps that are `above`."""
    begins = np.flatnonzero(above & ~np.concatenate([[False], above[:-1]]))
    peaks: np.ndarray = np.maximum.reduceat(np.where(above, scores, -np.inf), begins)
    return peaks


class StepScores(NamedTuple):
    """The scores of T steps as logarithms, NaN where there is none: prediction (T,), and by component and channel.

    `begins` marks where a run of equal values begins.
    """

    prediction: Scores
    channels: Float64[np.ndarray, "k c t"]
    begins: Bool[np.ndarray, "c t"]

    def part(self, rows: Bool[np.ndarray, " t"] | slice) -> "StepScores":
        """The scores of some steps."""
        return StepScores(self.prediction[rows], self.channels[:, :, rows], self.begins[:, rows])

    @classmethod
    def join(cls, parts: Sequence["StepScores"]) -> "StepScores":
        """The scores of several series as one."""
        return cls(*(np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True)))


class Rarity(NamedTuple):
    """How rare each step is (NaN: no prediction), and the channel and component that contribute most, as indices.

    The component indexes REASONS.
    """

    score: Scores
    channel: Int64[np.ndarray, " t"]
    reason: Int64[np.ndarray, " t"]


class Tails:
    """The tails of all components: those of the prediction's errors, and of each component and channel.

    `runs` and `longest` are the number of runs of equal values in each channel, and the logarithm of the longest.
    """

    def __init__(self, errors: Scores, normal: StepScores) -> None:
        self.errors = Tail(errors)
        self.channels = [[Tail(scores) for scores in component] for component in normal.channels]
        self.runs, self.longest = normal.begins.sum(1), normal.channels[FLAT].max(1)

    def combine(self, scores: StepScores, errors: Tail | None = None) -> Rarity:
        """The sum y over the components, at the channel where it is largest; `errors` ranks those instead."""
        prediction = (errors or self.errors).surprise(scores.prediction)
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
        return Rarity(prediction + own.sum(0), channel, reason)

    def standstill(self, scores: StepScores) -> Float64[np.ndarray, "c t"]:
        """-log10 p of each channel's run of equal values, if it is longer than any normal run; else 0."""
        excess = np.log10(np.e) * (scores.channels[FLAT] - self.longest[:, None])
        surprise = excess + np.log10((1 + self.runs) / len(self.runs))[:, None]
        return np.where(excess > 0, surprise, 0.0)


@dataclass(frozen=True)
class Ranks:
    """Ranks steps among normal ones: by their components, and by the combination of these."""

    tails: Tails
    combined: Tail

    @classmethod
    def fit(cls, own: StepScores, unseen: Bool[np.ndarray, " t"], trained: Bool[np.ndarray, " t"]) -> "Ranks":
        """Ranks among the steps `unseen` and, except for errors of the prediction, those that were `trained` on."""
        tails = Tails(own.prediction[unseen], own.part(unseen | trained))
        y = tails.combine(own.part(unseen)).score
        if (trained & ~np.isnan(own.prediction)).any():
            of_training = Tail(own.prediction[trained])
            y = np.concatenate([tails.combine(own.part(trained), of_training).score, y])
        return cls(tails, Tail(y))

    def rarity(self, steps: StepScores) -> Rarity:
        """How rare each step is."""
        found, standstill = self.tails.combine(steps), self.tails.standstill(steps)
        rank, alone = self.combined.surprise(found.score), standstill.max(0)
        # A comparison with NaN is false: a step without a prediction stays without a score.
        is_alone = alone > rank
        return Rarity(
            np.where(is_alone, alone, rank),
            np.where(is_alone, standstill.argmax(0), found.channel),
            np.where(is_alone, REASONS.index("flat"), found.reason),
        )


@dataclass(frozen=True)
class Reference:
    """What normal steps look like, the threshold, and how often normal steps exceed it.

    `median` and `mad` are those of the scores of normal steps. `false_alarms` is the share of `steps` normal steps
    above the threshold, cross-fitted; `seen` says that training saw these steps, because it left out too few.
    """

    ranks: Ranks
    median: float
    mad: float
    threshold: float
    false_alarms: float
    steps: int
    seen: bool

    def z_scores(self, scores: Scores) -> Scores:
        """How many standard deviations scores lie above the median."""
        return (scores - self.median) / max(STD_PER_MAD * self.mad, np.finfo(np.float64).tiny)

    def false_alarm_text(self) -> str:
        """One sentence on the threshold and the rate of false alarms; a second one, with advice, if that is far off."""
        where = "steps of the run's own data, seen in training," if self.seen else "steps that training left out"
        rate = (
            f"threshold: score {self.threshold:.3g}, meant for {10**-self.threshold:.2g} of normal steps; "
            f"of {self.steps} {where} {100 * self.false_alarms:.2g} % are above it"
        )
        return f"{rate}\n{DRIFT_ADVICE}" if self.drifts else rate

    @property
    def drifts(self) -> bool:
        """Whether false alarms are so many more than meant that normal steps must have changed over time."""
        return self.false_alarms > max(DRIFT_RATIO * 10**-self.threshold, MIN_DRIFT_RATE)


def fit_reference(
    own: StepScores, unseen: Bool[np.ndarray, " t"], later: Bool[np.ndarray, " t"], quantile: float
) -> Reference:
    """The reference of a run's own data.

    `unseen` marks steps that training left out, and `later` those in the later half of a series' unseen steps, or of
    its training steps. Raises ValueError if no step has a score.
    """
    scored = ~np.isnan(own.prediction)
    if not scored.any():
        raise ValueError("no step of the run's own data has a score to compare with; give --stride 1")
    seen = int((unseen & scored).sum()) < MIN_UNSEEN
    judged = scored if seen else unseen & scored
    trained = np.zeros_like(judged) if seen else ~unseen
    threshold, above = float(-np.log10(1 - quantile)), 0
    for half in (judged & later, judged & ~later):
        if half.any() and (judged & ~half).any():
            ranks = Ranks.fit(own, judged & ~half, trained)
            above += int((ranks.rarity(own.part(half)).score > threshold).sum())
    ranks = Ranks.fit(own, judged, trained)
    scores, steps = ranks.rarity(own.part(judged)).score, int(judged.sum())
    median = float(np.median(scores))
    mad = float(np.median(np.abs(scores - median)))
    return Reference(ranks, median, mad, threshold, above / steps, steps, seen)
