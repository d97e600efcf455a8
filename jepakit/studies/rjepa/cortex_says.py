"""What the numbers of `rjepa-cortex` say, whatever they are."""

import statistics
from collections.abc import Sequence
from typing import Final

from ..study import Gain, Scores

QUARTILES = ("", ", first quartile", ", third quartile")
INTERVALS = ("", ", low", ", high", ", d", ", d low", ", d high")
ROWS: Final = ("gated", "memoryless", "untrained")
KEYS: Final = (
    "time constant, independent",
    "time constant, swap",
    "time constant, swap, all units",
    "surprise",
    "surprise, d",
    "surprise over same picture",
    "surprise over same picture, d",
    "adaptation of the change",
    "adaptation of the error",
    "adaptation of the response",
    "lifetime sparseness",
    "population sparseness",
    "kurtosis",
)
# What the claim names, by which measure, and what that is where the property is absent.
CLAIMED: Final = (
    ("integration", "time constant, swap", 0.0),
    ("surprise as a ratio", "surprise over same picture", 1.0),
    ("surprise beside its scatter", "surprise over same picture, d", 0.0),
    ("adaptation of the response", "adaptation of the response", 0.0),
    ("sparseness", "lifetime sparseness", 0.363),
)
NOT_SHOWN: Final = (
    "Not shown: that any of this is as in a brain. No recordings are compared here; steps are fixations, not "
    "milliseconds; and what a leaky integrator with random weights does, too, is no sign of learning. Responses that "
    "you recorded to the same items are held against a run by `jepa probe RUN --kind rsa --responses FILE.npy`."
)


def says(scores: Scores) -> list[str]:
    """Each property with both controls, then what training changed, what memory adds, and what is not shown."""
    seeds = len(scores.values[_label("gated"), "time constant, independent"])
    return [
        _data(scores),
        _integration(scores),
        _surprise(scores),
        _adaptation(scores),
        _sparseness(scores),
        _learned(scores, seeds),
        _differ(scores, "untrained", seeds),
        _differ(scores, "memoryless", seeds),
        NOT_SHOWN,
    ]


def _label(row: str) -> str:
    return f"fixations · {row}"


def mean(scores: Scores, row: str, metric: str) -> float:
    """The mean over the seeds."""
    return statistics.fmean(scores.values[_label(row), metric])


def beside(scores: Scores, metric: str, rows: Sequence[str] = ROWS) -> str:
    """The trained circuit's mean, and those of the controls."""
    first, *others = (f"{mean(scores, row, metric):.2f}" for row in rows)
    return f"{first} ({', '.join(f'{row} {value}' for row, value in zip(rows[1:], others, strict=True))})"


def _data(scores: Scores) -> str:
    if mean(scores, "gated", "fixations of people") == 1:
        return "Scanpaths of people, on pictures of OSIE that no training saw."
    return "Made-up scanpaths over digits, since OSIE was not at hand: these numbers say nothing about people's."


def _integration(scores: Scores) -> str:
    quarter = [mean(scores, "gated", f"time constant, independent{part}") for part in QUARTILES[1:]]
    free, swapped, whole = (
        beside(scores, f"time constant, {part}") for part in ("independent", "swap", "swap, all units")
    )
    return (
        f"Integration: the median unit's time constant is {free} fixations while they are independent, half of the "
        f"trained units between {quarter[0]:.2f} and {quarter[1]:.2f}; after a swap {swapped}, of all units together "
        f"{whole}."
    )


def _surprise(scores: Scores) -> str:
    lows = scores.values[_label("gated"), "surprise over same picture, low"]
    highs = scores.values[_label("gated"), "surprise over same picture, high"]
    above, below = sum(low > 1 for low in lows), sum(high < 1 for high in highs)
    told = f"its 95 % interval lies above 1 in {above} of {len(lows)} seeds" + (f", below in {below}" if below else "")
    return (
        f"Surprise: another picture's fixation is predicted with {beside(scores, 'surprise')} times the error of its "
        f"own, d {beside(scores, 'surprise, d')}; over another fixation of the same picture "
        f"{beside(scores, 'surprise over same picture')}, d {beside(scores, 'surprise over same picture, d')}, and "
        f"{told}. The state moves "
        f"{beside(scores, 'change where surprised')} times as far there, the gate is "
        f"{beside(scores, 'gate where surprised', ('gated', 'untrained'))} times as open."
    )


def _adaptation(scores: Scores) -> str:
    each = [f"{what} {beside(scores, f'adaptation of the {what}')}" for what in ("change", "error", "response")]
    free = [f"{what} {beside(scores, f'release of the {what}')}" for what in ("change", "error", "response")]
    return (
        f"Adaptation to one fixation repeated, (first − last) / (first + last): {', '.join(each)}. A new fixation then "
        f"evokes, over what it does without repeats: {', '.join(free)}. A response adapts where its index is above 0."
    )


def _sparseness(scores: Scores) -> str:
    each = []
    for what in ("lifetime sparseness", "population sparseness", "kurtosis"):
        each.append(f"{what} {beside(scores, what)}, features {mean(scores, 'gated', f'{what} of the features'):.2f}")
    return f"Sparseness (0.36 and kurtosis 0 are those of a normal distribution): {'; '.join(each)}."


def _gain(scores: Scores, row: str, key: str) -> Gain:
    """By how much the trained circuit exceeds a control, seed by seed."""
    pairs = zip(scores.values[_label(row), key], scores.values[_label("gated"), key], strict=True)
    return Gain(tuple(b - a for a, b in pairs))


def _scatter(seeds: int) -> str:
    return f"beyond the scatter of {seeds} seeds" if seeds > 1 else "by one seed, which has no scatter to judge by"


def _learned(scores: Scores, seeds: int) -> str:
    """Which properties the trained circuit has, and has more than the untrained one."""
    held: list[str] = []
    for words, key, absent in CLAIMED:
        gain = _gain(scores, "untrained", key)
        if mean(scores, "gated", key) > absent and gain.mean > 0 and gain.beyond_spread is not False:
            held.append(words)
    rest = [words for words, *_ in CLAIMED if words not in held]
    return (
        f"Of the claim, there and learned (more than untrained, {_scatter(seeds)}): {', '.join(held) or 'nothing'}. "
        f"Not there, or not learned: {', '.join(rest) or 'nothing'}."
    )


def _differ(scores: Scores, row: str, seeds: int) -> str:
    """Which measures are more or less than a control's by more than the seeds scatter, and which are neither."""
    groups: dict[str, list[str]] = {"more": [], "less": [], "not told apart": []}
    for key in KEYS:
        gain = _gain(scores, row, key)
        # One seed has no scatter to judge by: its sign alone is told.
        told = gain.mean != 0 and gain.beyond_spread is not False
        group = "not told apart" if not told else "more" if gain.mean > 0 else "less"
        groups[group].append(f"{key} {mean(scores, 'gated', key):.2f} ({mean(scores, row, key):.2f})")
    found = "; ".join(f"{name}: {', '.join(each) or 'nothing'}" for name, each in groups.items())
    return f"Beside the {row} circuit, whose numbers are in brackets, the trained one has, {_scatter(seeds)}: {found}."
