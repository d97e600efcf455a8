"""Chooses how often a run measures and saves if settings leave it open: the panel takes under 3 % of the run."""

import math
from typing import Any

CHEAP_SHARE = 0.02  # of the run's time, for the panel's numbers of one encoding …
VIEWS_SHARE = 0.008  # … and for those of several views and of pairs
VIEWS_PRICE = 1100  # encodings that a measurement of several views and of pairs costs
MAX_SAVE_EVERY = 1000

STREAM_EVERY = 5000  # steps between two checkpoints, and two measurements, of a run on a stream
STREAM_VIEWS_EVERY = 50_000


def save_every(steps: int) -> tuple[int, str]:
    """Steps between two checkpoints, and why."""
    every = max(1, min(MAX_SAVE_EVERY, math.ceil(steps / 10)))
    return every, f"a tenth of the run, at most {MAX_SAVE_EVERY} steps"


def panel_schedule(every: int | None, size: int | None, steps: int, price: float) -> dict[str, tuple[int, str]]:
    """Size and intervals of the panel for less than 3 % of the run, where a step costs as much as `price` encodings.

    `every` and `size` are what the user has set. The panel encodes its samples twice, 25 to 50 times in the run. A
    measurement of views costs about VIEWS_PRICE encodings. More is spent where less would tell nothing: at least 64
    samples, and at least one measurement of views, the last.
    """
    wanted = every or steps / 25
    size = size or 32 * min(max(int(CHEAP_SHARE * wanted * price / 2 / 32), 2), 16)
    every = every or max(math.ceil(steps / 50), math.ceil(2 * size / price / CHEAP_SHARE))
    times = max(1, min(int(VIEWS_SHARE * steps * price / VIEWS_PRICE), steps // every))
    return {
        "panel_size": (size, "64 to 512 samples, what 2 % of the run's time allows"),
        "panel_every": (every, "at most 50 times in the run, and 2 % of its time"),
        "views_every": (math.ceil(steps / times), "what 0.8 % of the run's time allows, but once"),
    }


def stream_schedule(samples: int) -> dict[str, tuple[Any, str]]:
    """Size and intervals for steps that are many and small, the last of which nobody knows."""
    early = "and 100, 200, 400 … before that"
    return {
        "save_every": (STREAM_EVERY, early),
        "panel_every": (STREAM_EVERY, early),
        "views_every": (STREAM_VIEWS_EVERY, "ten times as rare"),
        "panel_size": (samples, "windows of the first frames"),
    }


def encodings_per_sample(device: str, amp: bool) -> float:
    """What training on a sample costs, in encodings of it in fp32, as the panel does them; measured, and low."""
    if not amp:
        return 1.8
    return 0.5 if device.startswith("cuda") else 1.4
