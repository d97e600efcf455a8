"""The claims of `bijepa-sine` and `bijepa-lorenz`, and further conclusions from their numbers."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ...collapse.judge import EXPLODING_RATIO, FULL_STD_RATIO
from ...reporting.charts import short_number
from ..cells import cells_of
from ..claims import AtLeast, AtMost, Better, Numbers, Ranking, Statement
from ..study import Gain, Scores
from .series_forms import FORMS, LINEAR, OUR_FORM, UNTRAINED
from .series_map import (
    LARGEST_GROWTH,
    LARGEST_LOSS,
    LARGEST_RISE,
    LATE_GROWTH,
    LEARNING_RATES,
    LEAST_RISE,
    LEAST_SPREAD,
    ROW_PREFIX,
)

MAX_LATE_GROWTH: Final = (
    1.02  # growth of the mean norm from one tenth of the training to the next that exceeds the scatter between batches
)
MAP_ROWS: Final = tuple(f"{ROW_PREFIX}{short_number(rate)}" for rate in LEARNING_RATES)
LOWER_RATIO: Final[Mapping[str, Any]] = {"lower": True, "by": "ratio"}


def series_claims(shifts: Mapping[str, Any]) -> tuple[Statement, ...]:
    """The paper's claims by its own probe and by a converged one, fair controls, other windows, and the map."""
    by_probe = {
        "B_adam": "By the paper's probe, which reads predictions",
        "B_ridge": "By a converged probe on new windows",
        "A_ridge": "From f(past) alone",
    }
    return (
        *(Better("bijepa", "classic", metric, **LOWER_RATIO, words=words) for metric, words in by_probe.items()),
        *(
            Better("bijepa", f"classic, {control}", "B_ridge", **LOWER_RATIO, words="Fair control")
            for control in ("doubled steps", "swapped pairs")
        ),
        *(
            Better("bijepa", "sphere", metric, **LOWER_RATIO, words="The sphere hurts")
            for metric in ("B_adam", "B_ridge")
        ),
        *(Better("bijepa", "unconstrained", m, **LOWER_RATIO, words="Norms") for m in ("growth of norm", "norm")),
        Ranking(cells_of([*FORMS], "B_ridge"), True, "unconstrained"),
        Better(OUR_FORM, "bijepa", "B_ridge", **LOWER_RATIO, words="Our own settings"),
        Better(OUR_FORM, "unconstrained", "B_ridge", **LOWER_RATIO, words="Our own settings"),
        Better(OUR_FORM, "bijepa", "B_adam", **LOWER_RATIO, words="Our own settings"),
        Numbers((LINEAR, "last value", UNTRAINED), ("A_ridge",), words="Without a trained encoder"),
        *_shifted_claims(shifts),
        AtMost(
            MAP_ROWS,
            LARGEST_RISE,
            EXPLODING_RATIO,
            words="On the map without LayerNorms, first seed, norms do not explode",
        ),
        Numbers(MAP_ROWS, (LEAST_RISE, LARGEST_GROWTH, LARGEST_LOSS), words="On the map, by learning rate"),
        AtMost(
            MAP_ROWS,
            LATE_GROWTH,
            MAX_LATE_GROWTH,
            words="On the map, norms have settled by the last tenth of the training",
        ),
        AtLeast(MAP_ROWS, LEAST_SPREAD, FULL_STD_RATIO, words="No low loss of the map is collapse"),
    )


def _shifted_claims(shifts: Mapping[str, Any]) -> Iterator[Better]:
    """Claims on the gain that remains on windows of another kind than those of training."""
    for metric, source, beside in (("A_ridge", "f(past)", (LINEAR,)), ("B_ridge", "predictions", ())):
        for kind in shifts:
            words = f"On windows of another kind, read from {source}"
            yield Better("bijepa", "classic", f"{metric}, {kind}", **LOWER_RATIO, beside=beside, words=words)


def conclusions(scores: Scores) -> list[str]:
    """Sentences on the reliability of the paper's probe, and on the effect of weight decay on the map."""
    return [_probe_gap(scores), _sphere_verdict(scores), *_decay_effect(scores)]


def _probe_gap(scores: Scores) -> str:
    """A sentence on the Adam probe's distance from its optimum: its train error exceeds the ridge's test error."""
    ratios = {name: scores.mean(name, "B_adam") / scores.mean(name, "B_ridge") for name in FORMS}
    worst = max(ratios, key=ratios.__getitem__)
    return (
        "The paper's probe is under-trained: its error on the windows it was fitted to exceeds the ridge's error on "
        f"new ones in {sum(ratio > 1 for ratio in ratios.values())} of {len(FORMS)} forms, {ratios[worst]:.1f} times "
        f"for {worst}. So it measures the scale of a representation as well as its content."
    )


def _sphere_verdict(scores: Scores) -> str:
    """Whether the sphere hurts by the short probe and by the converged one, seed by seed."""
    probes = [
        list(zip(scores.values["sphere", m], scores.values["bijepa", m], strict=True)) for m in ("B_adam", "B_ridge")
    ]
    short_probe, ridge = (Gain(tuple(a - b for a, b in pairs)).verdict == "holds" for pairs in probes)
    excess = Gain(tuple(a / b - c / d for (a, b), (c, d) in zip(*probes, strict=True)))
    if excess.beyond_spread is None:
        return "Sphere: one seed has no scatter to judge by."
    if short_probe and not ridge:
        return (
            "Sphere: the short probe cannot make up for the scale of its representations; what they hold is no worse."
        )
    if short_probe and excess.verdict == "holds":
        times = scores.mean("sphere", "B_ridge") / scores.mean("bijepa", "B_ridge")
        return f"Sphere: the short probe exaggerates, but {times:.1f} times the error remain by the converged one."
    only_ridge = ridge and not short_probe
    only_ridge = ridge and not short_probe
    return f"Sphere: {'only the converged probe shows that it hurts' if only_ridge else 'both probes agree'}."


def _decay_effect(scores: Scores) -> list[str]:
    """The largest effect of weight decay on the rise of the norm, where there is a map."""
    ratios = {
        rate: scores.mean(rate, LARGEST_RISE) / scores.mean(rate, LEAST_RISE)
        for rate in MAP_ROWS
        if (rate, LARGEST_RISE) in scores.values
    }
    if not ratios:
        return []
    most = max(ratios, key=ratios.__getitem__)
    rate = most.removeprefix(ROW_PREFIX)
    return [f"On the map, weight decay changes the rise of the norm by {ratios[most]:.2f} times at most, at {rate}."]
