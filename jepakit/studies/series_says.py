"""What the numbers of `bijepa-sine` and `bijepa-lorenz` say of the paper's claims."""

import statistics

from ..collapse.judge import EXPLODING
from ..reporting.charts import short
from .series_forms import FORMS, UNTRAINED
from .series_map import GROWTH, LEAST, LOSS, MOST, ROW
from .study import Scores


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
    line = "linear autoregression"
    found.append(
        f"Without any encoder: linear autoregression {told(scores, line, 'A_ridge')}, the last value held "
        f"{told(scores, 'last value', 'A_ridge')}, the untrained encoder {told(scores, UNTRAINED, 'A_ridge')}."
    )
    return [*found, *explosion(scores)]


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
    """Whether the sphere hurts, by the short probe and by the converged one."""
    pairs = {m: (told(scores, "sphere", m), told(scores, "bijepa", m)) for m in ("B_adam", "B_ridge")}
    adam, ridge = (mean(scores, "sphere", m) / mean(scores, "bijepa", m) for m in pairs)
    verdict = (
        "it is the scale of its representations that the short probe cannot make up for, not what stands in them"
        if ridge < (1 + adam) / 2
        else "both probes agree"
    )
    text = "; ".join(f"{m} {a} beside BiJEPA's {b}" for m, (a, b) in pairs.items())
    return f"Sphere: {text}. {adam:.1f} and {ridge:.1f} times as much: {verdict}."


def explosion(scores: Scores) -> list[str]:
    """Where, on the map of learning rates and weight decays, norms rise beyond what a verdict calls exploding."""
    rates = [name.removeprefix(ROW) for name, metric in scores.values if metric == MOST]
    if not rates:
        return []
    most, least, growth, loss = (
        {rate: scores.values[f"{ROW}{rate}", metric][0] for rate in rates} for metric in (MOST, LEAST, GROWTH, LOSS)
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
        f"{most[apart] / least[apart]:.3g} times at most, at {apart}."
    ]
