"""Draws the figures of `rjepa-collapse`: eigenvalues and structure over training, paths of states, single modes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from ...core.files import file_slug
from ...reporting.charts import Line, line_chart
from ...reporting.figures import Figure, describe_line
from ...reporting.paths import state_paths
from . import rjepa_modes as modes

NamedFigures = list[tuple[str, Figure]]
ARMS_SHOWN: Final = ("as it is", "weight decay 10", "no stop-gradient")
DATA_SHOWN: Final = "Lorenz"
DIRECTIONS_SHOWN: Final = (1, 2, 3, 4, 6, 8)


def draw_figures(seeds: Sequence[Mapping[str, Any]]) -> NamedFigures:
    """All figures by name; eigenvalues and paths show the first seed."""
    first = seeds[0]["runs"]
    found: NamedFigures = []
    for name in ARMS_SHOWN:
        found.append(
            (f"eigenvalues-{file_slug(name)}", eigenvalue_figure(name, first[f"{DATA_SHOWN} · {name}"]["rows"]))
        )
        if kept := first[f"{DATA_SHOWN} · {name}"].get("paths"):
            found += [(f"paths-{file_slug(name)}", figure) for figure in _path_figures(name, np.array(kept))]
    found += [(f"order-{what}", order_figure(seeds, what)) for what in ("rank", "spread")]
    return found + [(f"survival-{file_slug(name)}", survival_figure(seeds, name)) for name in seeds[0]["modes"]]


def eigenvalue_figure(name: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The largest eigenvalues of the covariance of the states, over training."""
    steps = np.array([row["step"] for row in rows], float)
    values = np.array([row["eigenvalues"] for row in rows], float)
    top = values.max()
    lines = [
        Line(f"direction {k}", steps, np.where(values[:, k - 1] > 1e-14 * top, values[:, k - 1], np.nan), color=i)
        for i, k in enumerate(DIRECTIONS_SHOWN)
    ]
    title = f"Variance of the states: {name}"
    caption = (
        f"Eigenvalues of the covariance of h(t) over held-out samples and times, {DATA_SHOWN}, first seed. All falling "
        "together is a loss of spread; the lower ones falling away from the first is a loss of rank."
    )
    return Figure(title, line_chart(lines, f"{title}. {describe_line(lines[0])}", log_y=True), caption)


def _path_figures(name: str, states: np.ndarray) -> list[Figure]:
    title = f"Paths of states at the end: {name}"
    drawn = state_paths(states, [f"path {k + 1}" for k in range(len(states))], states, title)
    return [
        replace(f, caption=f"{DATA_SHOWN}, first seed. {f.caption} Note that the axes differ by run.") for f in drawn
    ]


def order_figure(seeds: Sequence[Mapping[str, Any]], what: str) -> Figure:
    """The remaining rank or spread and the remaining structure over training, as means over seeds."""
    key, lines = {"rank": "rank_target", "spread": "std_ratio_target"}[what], []
    for k, name in enumerate((*ARMS_SHOWN, "correlated units 0.9")):
        runs = [one["runs"][f"{DATA_SHOWN} · {name}"]["rows"] for one in seeds]
        steps = np.array([row["step"] for row in runs[0]], float)
        left = np.array([[row[key] / rows[0][key] for row in rows] for rows in runs]).mean(0)
        kept = np.array([[1 - row["input/off_diagonal"] for row in rows] for rows in runs]).mean(0)
        lines.append(Line(f"{name}: {what}", steps, left, color=k))
        lines.append(Line(f"{name}: structure", steps, kept, color=k, dashed=True))
    title = f"Structure and {what}"
    caption = (
        f"Solid: {what} of the states over that at step 0. Dashed: the share of the squares of W Wᵀ on its diagonal, "
        f"about 0.5 for random weights. {DATA_SHOWN}, mean over the seeds."
    )
    return Figure(title, line_chart(lines, f"{title} over training", log_y=what == "spread"), caption)


def survival_figure(seeds: Sequence[Mapping[str, Any]], name: str) -> Figure:
    """The remaining size of single modes over weight decay, measured and predicted."""
    lines, decays = [], np.array(modes.WEIGHT_DECAYS)
    fine = np.geomspace(decays[0], decays[-1], 200)
    for k, (r, v) in enumerate(modes.MODES):
        told = f"r {r:g}, v {v:g}"
        if name == "AdamW":
            theory = [modes.adam_fixed_point(r, float(d), modes.BATCH) for d in fine]
        else:
            theory = [modes.fixed_points(r, v, float(d)).stable for d in fine]
        left = np.array([one["modes"][name][k] for one in seeds]).mean(0)
        lines.append(Line(f"{told}, theory", fine, np.array(theory), color=k))
        # Single points between gaps are drawn as dots.
        gap = np.full(len(decays), np.nan)
        at, kept = (np.stack([column, gap], 1).ravel() for column in (decays, left))
        lines.append(Line(f"{told}, trained", at, kept, color=k))
    caption = (
        "The weight at which one mode settles, starting from 0.6; r is the correlation of neighbouring inputs, v their "
        "variance. Lines are theory, dots trainings, the mean over the seeds; no constant was fitted. "
    )
    caption += (
        "Modes with equal r coincide, whatever v. At decays above 1 a mode shrinks faster than AdamW forgets "
        "earlier gradients, which theory leaves out."
        if name == "AdamW"
        else "Beyond r² v / 4, nothing remains."
    )
    body = line_chart(lines, f"Single modes after {name}", x_label="weight decay", log_x=True)
    return Figure(f"One mode and weight decay: {name}", body, caption)
