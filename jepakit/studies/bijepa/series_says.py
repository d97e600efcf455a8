"""What the numbers of `bijepa-sine` and `bijepa-lorenz` say of the paper's claims."""

import statistics
from collections.abc import Mapping
from typing import Final

from ...collapse.judge import EXPLODING, FULL
from ...reporting.charts import short
from ..study import Gain, Scores
from .series_forms import FORMS, LINEAR, OURS, UNTRAINED
from .series_map import GROWTH, LATE, LEAST, LOSS, MOST, ROW, SPREAD

RISING: Final = 1.02  # of the norm's mean over a tenth of the training to that over the next: more than batches scatter


def mean(scores: Scores, name: str, metric: str) -> float:
    """The mean over the seeds."""
    return statistics.fmean(scores.values[name, metric])


def told(scores: Scores, name: str, metric: str) -> str:
    """Mean and spread, such as ".0112 ± .0033"."""
    values = scores.values[name, metric]
    spread = f" ± {short(float(f'{statistics.stdev(values):.2g}'))}" if len(values) > 1 else ""
    return f"{short(float(f'{statistics.fmean(values):.3g}'))}{spread}"


def factor(scores: Scores, name: str, metric: str, other: str = "classic") -> str:
    """How a row compares with another: the ratio of the means, and in how many seeds it is lower."""
    a, b = scores.values[name, metric], scores.values[other, metric]
    lower, ratio = sum(x < y for x, y in zip(a, b, strict=True)), statistics.fmean(a) / statistics.fmean(b)
    return f"{ratio:.2f} times that of {other}, {told(scores, other, metric)}; lower in {lower} of {len(a)} seeds"


def says(scores: Scores) -> list[str]:
    """Which of the paper's claims hold, by its own probe and by one that is converged, and against fair controls."""
    adam = " and ".join(f"{told(scores, n, 'B_adam')} ({n})" for n in ("bijepa", "classic"))
    found = [
        f"By the paper's probe, reading predictions (B_adam): {adam}. BiJEPA's is "
        f"{factor(scores, 'bijepa', 'B_adam')}.",
        f"By a converged probe on new windows (B_ridge): BiJEPA's {told(scores, 'bijepa', 'B_ridge')} is "
        f"{factor(scores, 'bijepa', 'B_ridge')}.",
        f"From f(past) alone (A_ridge): BiJEPA's {told(scores, 'bijepa', 'A_ridge')} is "
        f"{factor(scores, 'bijepa', 'A_ridge')}.",
        undertrained(scores),
    ]
    for name in ("classic, doubled steps", "classic, swapped pairs"):
        found.append(f"Fair control: BiJEPA's B_ridge is {factor(scores, 'bijepa', 'B_ridge', name)}.")
    found.append(sphere(scores))
    found.append(
        "Unconstrained: from a tenth of the training on, the norm grows "
        f"{mean(scores, 'unconstrained', 'growth of norm'):.2f}-fold (BiJEPA: "
        f"{mean(scores, 'bijepa', 'growth of norm'):.2f}), to "
        f"{mean(scores, 'unconstrained', 'norm'):.1f} ({mean(scores, 'bijepa', 'norm'):.1f}); B_ridge "
        f"{told(scores, 'unconstrained', 'B_ridge')}."
    )
    found += [
        f"Our own settings ({metric}): {told(scores, OURS, metric)} is {factor(scores, OURS, metric, other)}."
        for metric, other in (("B_ridge", "bijepa"), ("B_ridge", "unconstrained"), ("B_adam", "bijepa"))
    ]
    found.append(
        f"Without any encoder: linear autoregression {told(scores, LINEAR, 'A_ridge')}, the last value held "
        f"{told(scores, 'last value', 'A_ridge')}, the untrained encoder {told(scores, UNTRAINED, 'A_ridge')}."
    )
    return [*found, *elsewhere(scores), *explosion(scores)]


def undertrained(scores: Scores) -> str:
    """How far the Adam probe is from its optimum: a train error that exceeds a test error."""
    worst = max((n for n in FORMS), key=lambda n: mean(scores, n, "B_adam") / mean(scores, n, "B_ridge"))
    ratio = mean(scores, worst, "B_adam") / mean(scores, worst, "B_ridge")
    above = sum(mean(scores, n, "B_adam") > mean(scores, n, "B_ridge") for n in FORMS)
    return (
        "The paper's probe is under-trained: its error on the windows it was fitted to exceeds the ridge's on new ones "
        f"in {above} of {len(FORMS)} forms, {ratio:.1f} times for {worst}. So it measures the scale of a "
        "representation as well as what stands in it."
    )


def sphere(scores: Scores) -> str:
    """Whether the sphere hurts, by the short probe and by the converged one, seed by seed."""
    pairs = {m: (told(scores, "sphere", m), told(scores, "bijepa", m)) for m in ("B_adam", "B_ridge")}
    adam, ridge = (mean(scores, "sphere", m) / mean(scores, "bijepa", m) for m in pairs)
    text = "; ".join(f"{m} {a} beside BiJEPA's {b}" for m, (a, b) in pairs.items())
    return f"Sphere: {text}. {adam:.1f} and {ridge:.1f} times as much: {hurt(scores, ridge)}."


def hurt(scores: Scores, ridge: float) -> str:
    """What both probes say of the sphere, `ridge` times as bad by the converged one; within the scatter is no worse."""
    probes = [
        list(zip(scores.values["sphere", m], scores.values["bijepa", m], strict=True)) for m in ("B_adam", "B_ridge")
    ]
    gains = [Gain(tuple(a - b for a, b in pairs)) for pairs in probes]
    by = Gain(tuple(a / b - c / d for (a, b), (c, d) in zip(*probes, strict=True)))
    if by.beyond_spread is None:
        return "one seed tells no spread"
    worse = tuple(_above(gain) for gain in gains)
    if worse == (True, False):
        return "it is the scale of its representations that the short probe cannot make up for, not what stands in them"
    if worse == (True, True) and _above(by):
        return f"the short probe exaggerates, but {ridge:.1f} times remain when read to the end"
    return "only the converged probe shows that it hurts" if worse == (False, True) else "both probes agree"


def _above(gain: Gain) -> bool:
    return gain.mean > 0 and bool(gain.beyond_spread)


def elsewhere(scores: Scores) -> list[str]:
    """What remains on windows of another kind than those of training: one sentence for f(past), one for predictions."""
    kinds = [m.removeprefix("A_ridge, ") for n, m in scores.values if n == LINEAR and m.startswith("A_ridge, ")]
    sources = {"A_ridge": "f(past)", "B_ridge": "predictions"} if kinds else {}
    return [
        f"On windows of another kind, read from {what} ({metric}), "
        f"{'; '.join(shifted(scores, f'{metric}, {kind}', kind) for kind in kinds)}."
        for metric, what in sources.items()
    ]


def shifted(scores: Scores, metric: str, kind: str) -> str:
    """BiJEPA beside the classic on one kind of windows, and beside no encoder where that has such a row."""
    line = f" (linear autoregression {told(scores, LINEAR, metric)})" if (LINEAR, metric) in scores.values else ""
    return f"{kind}: BiJEPA's {told(scores, 'bijepa', metric)} is {factor(scores, 'bijepa', metric)}{line}"


def explosion(scores: Scores) -> list[str]:
    """Where, on the map of learning rates and weight decays, norms rise beyond what a verdict calls exploding."""
    rates = [name.removeprefix(ROW) for name, metric in scores.values if metric == MOST]
    if not rates:
        return []
    most, least, growth, loss, late, spread = (
        {rate: scores.values[f"{ROW}{rate}", metric][0] for rate in rates}
        for metric in (MOST, LEAST, GROWTH, LOSS, LATE, SPREAD)
    )
    top, apart = max(rates, key=most.__getitem__), max(rates, key=lambda rate: most[rate] / least[rate])
    wild = [rate for rate in rates if most[rate] > EXPLODING]
    each = ", ".join(f"{least[rate]:.3g} to {most[rate]:.3g} at {rate}" for rate in rates)
    where = f"explode at the learning rate {' and '.join(wild)}" if wild else "explode nowhere"
    return [
        f"Map over learning rate and weight decay, without LayerNorms, first seed: norms {where} (beyond "
        f"{EXPLODING:.0f} times those of the first batch). They rise most at {top}; by learning rate, over all weight "
        f"decays: {each} times. After a tenth of the training they grow {max(growth.values()):.3g}-fold at most, the "
        f"forward loss ends at {max(loss.values()):.2g} at most, and weight decay makes a difference of "
        f"{most[apart] / least[apart]:.3g} times at most, at {apart}.",
        rising(late),
        collapsed(spread),
    ]


def rising(late: Mapping[str, float]) -> str:
    """Where on the map the norms have not settled, from their largest growth by learning rate."""
    still = [f"{rate} ({late[rate]:.3g} times)" for rate in late if late[rate] > RISING]
    if not still:
        return "Over the last tenth of these trainings the norms rise nowhere."
    return (
        f"Over the last tenth of these trainings the norms still rise at the learning rate {', '.join(still)}: what "
        "they would come to is not known."
    )


def collapsed(spread: Mapping[str, float]) -> str:
    """Where on the map a low loss is that of a constant, from the least spread by learning rate."""
    least = min(spread, key=spread.__getitem__)
    if gone := [f"{rate} ({spread[rate]:.2g})" for rate in spread if spread[rate] < FULL]:
        return (
            "The spread of f(past) ends below a tenth of that before training at the learning rate "
            f"{', '.join(gone)}: a low loss there is collapse."
        )
    return (
        f"No low loss of the map is collapse: the spread of f(past) ends at {spread[least]:.2g} times that before "
        f"training or more, least at {least}."
    )
