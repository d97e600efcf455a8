"""Draws the figures of `rjepa-cortex` from the curves of each run."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from markupsafe import Markup

from ...reporting.charts import Line, line_chart
from ...reporting.figures import Figure, describe_line
from . import cortex
from .cortex_trials import AT, REPEATS, TRIAL_PARTS

Curves = Mapping[str, np.ndarray]
NUM_BINS = 24
REPETITION_CAPTIONS: Final = {
    "change": "How far the state moves, ‖h_t − h_{t−1}‖.",
    "error": "The prediction error, over the variance of the states after as many fixations.",
    "response": "|h − mean| over the deviation; a typical state has 0.8.",
}
SCANPATH_TITLE: Final = "Scanpaths on held-out pictures, first seed."


def draw_curves(runs: Mapping[str, Curves]) -> list[tuple[str, Figure]]:
    """All figures by name; `runs` maps run names to curves."""
    fit = "Dashed: the mean of the exponentials that fit each unit. Held-out pictures, first seed."
    kept = f"The autocorrelation of units, their mean, while fixations are drawn independently. {fit}"
    left = f"The remaining |h − h'| after fixation {AT} came from another picture, mean over units. {fit}"
    found = [
        ("autocorrelation", Figure("What units keep", decay_chart(runs, "kept"), kept)),
        ("swap", Figure("What a swap leaves", decay_chart(runs, "left"), left)),
    ]
    found += [(f"surprise-{name}", surprise_figure(name, curves)) for name, curves in runs.items()]
    found += [(f"adaptation-{what}", repeat_figure(runs, what)) for what in REPETITION_CAPTIONS]
    return [*found, ("sparseness", sparseness_figure(runs))]


def decay_chart(runs: Mapping[str, Curves], what: str) -> Markup:
    """A chart of a curve that begins at 1, averaged over units, and of its fit."""
    lines = []
    for k, (name, curves) in enumerate(runs.items()):
        curve = curves[what][:, np.isfinite(curves[what]).all(0)]
        lags = np.arange(len(curve), dtype=float)
        fit = cortex.exponential_decay(cortex.time_constant(curve), len(curve) - 1)
        # If no unit varies, there is nothing to draw.
        y, fitted = (each.mean(1) if curve.shape[1] else np.full(len(lags), np.nan) for each in (curve, fit))
        lines += [Line(name, lags, y, color=k), Line(f"{name}, fit", lags, fitted, color=k, dashed=True)]
    return line_chart(lines, f"{what} over fixations. {describe_line(lines[0])}", x_label="fixations later")


def surprise_figure(name: str, curves: Curves) -> Figure:
    """The prediction error at every fixation, for each part."""
    lines = []
    for k, part in enumerate(TRIAL_PARTS):
        y = curves[f"error, {part}"]
        lines.append(Line(part, np.arange(2, len(y) + 2, dtype=float), y, color=k))
    caption = (
        f"The prediction error over the variance of the states, if fixation {AT} is the original, another one in the "
        f"same picture, or one in another picture; all other fixations are unchanged. {SCANPATH_TITLE}"
    )
    body = line_chart(lines, f"Surprise, {name}. {describe_line(lines[-1])}", x_label="fixation")
    return Figure(f"Surprise: {name}", body, caption)


def repeat_figure(runs: Mapping[str, Curves], what: str) -> Figure:
    """The response to each repeat, and to the next fixation."""
    lines = []
    for k, (name, curves) in enumerate(runs.items()):
        y = curves[f"repeats, {what}"]
        lines.append(Line(name, np.arange(1, len(y) + 1, dtype=float), y, color=k))
    caption = (
        f"{REPETITION_CAPTIONS[what]} One fixation {REPEATS} times, then the next one of the scanpath. {SCANPATH_TITLE}"
    )
    body = line_chart(lines, f"{what} over repeats. {describe_line(lines[0])}", x_label="presentation")
    return Figure(f"Adaptation of the {what}", body, caption)


def sparseness_figure(runs: Mapping[str, Curves]) -> Figure:
    """The distribution of lifetime sparseness over units, and over the encoder's features."""
    sets = {name: curves["lifetime"] for name, curves in runs.items()}
    sets["features"] = next(iter(runs.values()))["lifetime of the features"]
    edges = np.linspace(min(v.min() for v in sets.values()), max(v.max() for v in sets.values()) + 1e-6, NUM_BINS + 1)
    lines = []
    for k, (name, values) in enumerate(sets.items()):
        share = np.histogram(values, edges)[0] / len(values)
        # Two points per bin draw its top.
        x, y = edges.repeat(2), np.concatenate([[0], share.repeat(2), [0]])
        lines.append(Line(name, x, y, color=k))
    caption = (
        "The share of units by their lifetime sparseness (Treves and Rolls) over fixations, of |h − mean|; 0.36 is a "
        f"normal distribution, 0 two levels, 1 an answer to one fixation only. {SCANPATH_TITLE}"
    )
    return Figure(
        "Sparseness", line_chart(lines, "Lifetime sparseness of units", x_label="lifetime sparseness"), caption
    )
