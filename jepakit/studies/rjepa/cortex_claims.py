"""The claims of `rjepa-cortex`, and further conclusions from its numbers."""

from typing import Final

from ..claims import AtLeast, Better, Changes, Every, Numbers, Statement
from ..study import Scores

QUARTILE_SUFFIXES = ("", ", first quartile", ", third quartile")
INTERVAL_SUFFIXES = ("", ", low", ", high", ", d", ", d low", ", d high")
GATED, MEMORYLESS, UNTRAINED = ROWS = tuple(f"fixations · {row}" for row in ("gated", "memoryless", "untrained"))
RESPONSES: Final = ("change", "error", "response")
SPARSENESS_METRICS: Final = ("lifetime sparseness", "population sparseness", "kurtosis")
SURPRISE_METRICS: Final = ("surprise", "surprise, d", "surprise over same picture", "surprise over same picture, d")
TIME_CONSTANTS: Final = tuple(f"time constant, {how}" for how in ("independent", "swap", "swap, all units"))
METRIC_KEYS: Final = (
    *TIME_CONSTANTS,
    *SURPRISE_METRICS,
    *(f"adaptation of the {what}" for what in RESPONSES),
    *SPARSENESS_METRICS,
)
# Each property in the claim, its measure, and the value of the measure if the property is absent.
CLAIMED_PROPERTIES: Final = (
    ("integration", "time constant, swap", 0.0),
    ("surprise as a ratio", "surprise over same picture", 1.0),
    ("surprise beside its scatter", "surprise over same picture, d", 0.0),
    ("adaptation of the response", "adaptation of the response", 0.0),
    ("sparseness", "lifetime sparseness", 0.363),
)
NOT_SHOWN: Final = (
    "Not shown: that a brain does any of this. No recordings are compared here; steps are fixations, not "
    "milliseconds; and a property that a leaky integrator with random weights also has is no sign of learning. "
    "`jepa probe RUN --kind rsa --responses FILE.npy` compares a run with responses that were recorded for these items."
)
NUMBERS: Final = {
    "Integration, the median unit's time constant in fixations": TIME_CONSTANTS,
    "Surprise, the error at another picture's fixation over that at its own": SURPRISE_METRICS,
    "At a surprising fixation, relative to an unsurprising one": ("change where surprised", "gate where surprised"),
    "Adaptation to one fixation repeated, (first - last) / (first + last); a response adapts above 0": tuple(
        f"adaptation of the {what}" for what in RESPONSES
    ),
    "The response to the next fixation, relative to its response without repeats": tuple(
        f"release of the {what}" for what in RESPONSES
    ),
    "Sparseness (a normal distribution has 0.36, and a kurtosis of 0)": tuple(
        f"{what}{of}" for what in SPARSENESS_METRICS for of in ("", " of the features")
    ),
}


def claims() -> tuple[Statement, ...]:
    """Claims that each property is present and learned, its numbers beside the controls, and effects of training."""
    return (
        *(
            Every(
                f"{words} is there and learned",
                (AtLeast((GATED,), key, absent), Better(GATED, UNTRAINED, key)),
            )
            for words, key, absent in CLAIMED_PROPERTIES
        ),
        *(Numbers(ROWS, metrics, words=words) for words, metrics in NUMBERS.items()),
        Numbers(
            (GATED,),
            tuple(f"{TIME_CONSTANTS[0]}{part}" for part in QUARTILE_SUFFIXES[1:]),
            words="Half of the units lie between",
        ),
        AtLeast(
            (GATED,), "surprise over same picture, low", 1.0, words="The 95 % interval of the surprise lies above 1"
        ),
        *(
            Changes(
                tuple(((GATED, key), (control, key)) for key in METRIC_KEYS),
                words=f"The trained circuit beside {control}",
            )
            for control in (UNTRAINED, MEMORYLESS)
        ),
    )


def conclusions(scores: Scores) -> list[str]:
    """Sentences on the source of the scanpaths, and on what the study does not show."""
    if scores.mean(GATED, "fixations of people") == 1:
        return ["Human scanpaths, on pictures of OSIE that no training saw.", NOT_SHOWN]
    return [
        "Generated scanpaths over digits, because OSIE is missing: these numbers say nothing about human scanpaths.",
        NOT_SHOWN,
    ]
