"""Chooses how often a run measures and saves, unless the settings say so; the panel takes under 3 % of the run."""

import math
from typing import Any

CHEAP_SHARE = 0.02  # of the run's time, for the panel's measures that need one encoding …
VIEWS_SHARE = 0.008  # … and for those that need several views or pairs
VIEWS_PRICE = 1100  # cost of a measurement of several views and of pairs, in encodings
MAX_SAVE_EVERY = 1000

STREAM_EVERY = 5000  # steps between two checkpoints, and between two measurements, of a run on a stream
STREAM_VIEWS_EVERY = 50_000


def save_every(steps: int) -> tuple[int, str]:
    """Steps between two checkpoints, and the reason."""
    every = max(1, min(MAX_SAVE_EVERY, math.ceil(steps / 10)))
    return every, f"a tenth of the run, at most {MAX_SAVE_EVERY} steps"


def panel_schedule(every: int | None, size: int | None, steps: int, price: float) -> dict[str, tuple[int, str]]:
    """Size and intervals of the panel for under 3 % of the run's time. A step costs as much as `price` encodings.

    `every` and `size` are the user's settings. The panel encodes its samples twice, 25 to 50 times per run. A
    measurement of views costs about VIEWS_PRICE encodings. The budget is exceeded for the least that is informative: 64
    samples, and one measurement of views at the last step.
    """
    wanted = every or steps / 25
    size = size or 32 * min(max(int(CHEAP_SHARE * wanted * price / 2 / 32), 2), 16)
    every = every or max(math.ceil(steps / 50), math.ceil(2 * size / price / CHEAP_SHARE))
    times = max(1, min(int(VIEWS_SHARE * steps * price / VIEWS_PRICE), steps // every))
    return {
        "panel_size": (size, "64 to 512 samples, within 2 % of the run's time"),
        "panel_every": (every, "at most 50 times per run, within 2 % of its time"),
        "views_every": (math.ceil(steps / times), "within 0.8 % of the run's time, but at least once"),
    }


def stream_schedule(samples: int) -> dict[str, tuple[Any, str]]:
    """Size and intervals for a run of many small steps whose end is unknown."""
    early = "and 100, 200, 400 … before that"
    return {
        "save_every": (STREAM_EVERY, early),
        "panel_every": (STREAM_EVERY, early),
        "views_every": (STREAM_VIEWS_EVERY, "ten times less often"),
        "panel_size": (samples, "windows from the first frames"),
    }


def encodings_per_sample(device: str, amp: bool) -> float:
    """Cost of training on a sample, in fp32 encodings of it as the panel computes them; measured, rounded down."""
    if not amp:
        return 1.8
    return 0.5 if device.startswith("cuda") else 1.4
