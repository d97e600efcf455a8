"""The shapes of schedules, as functions of a run's progress; run/optim.py has the learning rate and weight decay."""

from math import cos, pi


def run_progress(step: int, steps: int) -> float:
    """How far `step` (from 0) is in a run of `steps`: 0 at the first step, 1 at the last and later; 1 if steps is 1."""
    return min(step / (steps - 1), 1.0) if steps > 1 else 1.0


def linear_schedule(progress: float, start: float, end: float) -> float:
    """A straight line from `start` at progress 0 to `end` at 1 and beyond; the schedule of the EMA decay."""
    p = min(max(progress, 0.0), 1.0)
    return start * (1 - p) + end * p


def cosine_schedule(progress: float, start: float, end: float) -> float:
    """Half a cosine from `start` at progress 0 to `end` at 1 and beyond."""
    # Weights that add up to 1, not end + (start − end)·w: this one is exact at both ends.
    w = (1 + cos(pi * min(max(progress, 0.0), 1.0))) / 2
    return start * w + end * (1 - w)
