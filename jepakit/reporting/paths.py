"""Draws the figures of a method that unfolds in time: errors per step, paths of states, gates, scanpaths."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from ..core.words import percent
from .charts import Line, line_chart
from .figures import Figure, describe_line
from .pictures import img_tag
from .records import Array
from .time import MAX_PATHS, TimeMeasures

MIN_SPREAD = 1e-12


def time_figures(measures: TimeMeasures) -> tuple[Figure, ...]:
    """All figures of one run: errors per step, paths of states, gates and scanpaths, as far as the run has them."""
    found = [error_figure(measures), *state_paths(measures.states[:MAX_PATHS], measures.names, measures.states)]
    if measures.gate is not None:
        found.append(gate_figure(measures.gate))
    if measures.pictures:
        found.append(scanpath_figure(measures.pictures, measures.names))
    return tuple(found)


def error_figure(measures: TimeMeasures) -> Figure:
    """The prediction error at every step, beside the errors of the best constant and of the previous state."""
    x = np.arange(2, len(measures.error) + 2, dtype=float)
    sides = (
        ("prediction", measures.error, False),
        ("best constant", measures.constant, True),
        ("state before", measures.still, True),
    )
    lines = [Line(name, x, y, color=k, dashed=dashed) for k, (name, y, dashed) in enumerate(sides)]
    caption = (
        f"The mean squared error of what is predicted of each step, over {len(measures.states)} samples, from the "
        "steps before. Below both dashed lines the predictor knows more than the mean state of that step (best "
        "constant) and than that nothing changes (state before). All three fall when states shrink."
    )
    label = "Prediction error per step. " + " ".join(describe_line(line) for line in lines)
    return Figure("Error per step", line_chart(lines, label, x_label="step that is predicted", log_y=True), caption)


def state_paths(states: Array, names: Sequence[str], over: Array, title: str = "Paths of states") -> list[Figure]:
    """States (k, T, D) as paths in the two directions in which the states `over` (n, T, D) vary most.

    Returns no figure if the states do not vary at all.
    """
    rows = over.reshape(-1, over.shape[-1])
    rows = rows[np.isfinite(rows).all(1)].astype(float)
    spread = rows.std(0).max() if len(rows) else 0.0
    if len(rows) < 3 or rows.shape[1] < 2 or not spread > MIN_SPREAD:
        return []
    axes, share = principal_directions(rows)
    flat = (states - rows.mean(0)) @ axes.T
    lines = [Line(name, p[:, 0], p[:, 1], color=k) for k, (name, p) in enumerate(zip(names, flat, strict=False))]
    gap = np.full((len(flat), 1), np.nan)
    right, up = (np.concatenate([flat[:, :1, k], gap], 1).ravel() for k in (0, 1))
    lines.append(Line("where each begins", right, up, color=len(lines)))
    caption = (
        f"The states of {len(flat)} samples over time, along the two directions in which all states differ most: to "
        f"the right {percent(share[0])} of the variance, upwards {percent(share[1])}. Paths that end apart tell "
        "samples apart; in a collapse all end in one place, or on one line. Other directions are not seen."
    )
    label = f"{title}: {len(flat)} paths in two principal directions with {percent(share.sum())} of the variance."
    return [Figure(title, line_chart(lines, label, x_label="first direction, upwards the second"), caption)]


def principal_directions(rows: Array) -> tuple[Array, Array]:
    """The first two principal directions (2, D) of rows, and their shares of the variance."""
    centred = rows - rows.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return vectors[:, ::-1][:, :2].T, values[::-1][:2] / max(float(values.sum()), 1e-30)


def gate_figure(gate: Array) -> Figure:
    """The mean and quartiles over units of `gate` (T, W) at every step, on an axis that spans a gate's full range."""
    x, gate = np.arange(1, len(gate) + 1, dtype=float), gate.astype(float)
    low, high = np.quantile(gate, (0.25, 0.75), axis=1)
    lines = [
        Line("mean of all units", x, gate.mean(1)),
        Line("upper quartile", x, high, color=1, dashed=True),
        Line("lower quartile", x, low, color=2, dashed=True),
    ]
    caption = (
        f"How open {gate.shape[1]} units are to their input, the mean over samples: half of the units lie between the "
        "quartiles. A unit at 0.1 remembers about ten steps. It does not show what is kept."
    )
    label = f"Gates of {gate.shape[1]} units. " + " ".join(describe_line(line) for line in lines)
    return Figure(
        "Gates", line_chart(lines, label, marks=((1.0, "the input passes"), (0.0, "the past is kept"))), caption
    )


def scanpath_figure(pictures: Sequence[Array], names: Sequence[str]) -> Figure:
    """A figure of pictures with their scanpaths drawn over them."""
    cell = '<figure class="half">{}<figcaption>{}</figcaption></figure>'
    cells = [
        Markup(cell).format(img_tag(p, f"{name} with the places that were looked at"), name)
        for p, name in zip(pictures, names, strict=False)
    ]
    caption = "Where each sample looks, from yellow to red, numbered from 1. A dot that would hide another is moved."
    body = Markup('<div class="halves">{}</div>').format(Markup("").join(cells))
    return Figure("Scanpaths", body, caption, wide=True)
