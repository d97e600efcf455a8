"""Chooses how often a run measures and saves if settings leave it open: the panel takes under 3 % of a long run."""

import math
from typing import Any

from ..collapse.judge import PATIENCE_ROWS
from ..core.words import count_text, percent

JUDGED_ROWS = 2 * PATIENCE_ROWS  # panel rows with a loss, from which every verdict can be told
SHORT_SHARE = 0.125  # of the time of a short run, for that many rows
MIN_SIZE, SHORT_SIZE = 64, 32  # samples of the panel: at least, and where more would make a run too short to judge
CHEAP_SHARE = 0.02  # of the run's time, for the panel's numbers of one encoding …
VIEWS_SHARE = 0.008  # … and for those of several views and of pairs
VIEWS_PRICE = 1100  # encodings that a measurement of several views and of pairs costs
MAX_SAVE_EVERY = 1000

STREAM_EVERY = 5000  # steps between two checkpoints, and between two measurements, of a run on a stream
STREAM_VIEWS_EVERY = 50_000


def save_every(steps: int) -> tuple[int, str]:
    """Steps between two checkpoints, and the reason."""
    every = max(1, min(MAX_SAVE_EVERY, math.ceil(steps / 10)))
    return every, f"a tenth of the run, at most {MAX_SAVE_EVERY} steps"


def panel_schedule(every: int | None, size: int | None, steps: int, price: float) -> dict[str, tuple[int, str]]:
    """Size and intervals of the panel for under 3 % of the run's time. A step costs as much as `price` encodings.

    `every` and `size` are what the user has set. The panel encodes its samples twice, 25 to 50 times in the run. A
    measurement of views costs about VIEWS_PRICE encodings. More is spent where less would tell nothing: at least 64
    samples, at least one measurement of views, the last, and up to SHORT_SHARE of a short run for the JUDGED_ROWS rows
    that a verdict needs, of 32 samples if need be.
    """
    affordable = int(CHEAP_SHARE * (every or steps / 25) * price / 2 / 32)
    sizes = [size] if size else [32 * min(max(affordable, MIN_SIZE // 32), 16), SHORT_SIZE]
    short = next((n for n in sizes if _short_share(n, steps, price) <= SHORT_SHARE), None)
    why_size, why_every = "64 to 512 samples, what 2 % of the run's time allows", "at most 50 times in the run"
    rare = max(math.ceil(steps / 50), math.ceil(2 * sizes[0] / price / CHEAP_SHARE))
    if every is not None or steps // rare >= JUDGED_ROWS:
        size, every, why_every = sizes[0], every or rare, f"{why_every}, and 2 % of its time"
    elif short is not None:
        size, every = short, steps // JUDGED_ROWS
        why_size = "what a short run's time allows"
        spent = _short_share(size, steps, price)
        why_every = f"the {JUDGED_ROWS} rows that a verdict needs, {percent(spent)} of this short run's time"
    else:
        size, every = sizes[0], rare
        why_every = f"too short a run for the {JUDGED_ROWS} rows that a verdict needs"
    times = max(1, min(int(VIEWS_SHARE * steps * price / VIEWS_PRICE), steps // every))
    why_views = "what 0.8 % of the run's time allows"
    if times * VIEWS_PRICE > VIEWS_SHARE * steps * price:
        in_steps = count_text(math.ceil(VIEWS_PRICE / price), "step")
        why_views = f"once, after the last step; that takes as long as about {in_steps}"
    return {
        "panel_size": (size, why_size),
        "panel_every": (every, why_every),
        "views_every": (math.ceil(steps / times), why_views),
    }


def _short_share(size: int, steps: int, price: float) -> float:
    """The share of the run's time that JUDGED_ROWS rows take; infinite for fewer steps than rows."""
    return JUDGED_ROWS * 2 * size / (steps * price) if steps >= JUDGED_ROWS else math.inf


def is_too_short(steps: int, panel_every: int) -> bool:
    """Whether a run of `steps` (0: unknown) ends before the panel has the rows from which every verdict can be told."""
    return 0 < math.ceil(steps / panel_every) < JUDGED_ROWS


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
