"""Draws the figures of `bijepa-sine` and `bijepa-lorenz`: losses, norms, forecasts, paths, maps of growing norms."""

from collections.abc import Callable, Mapping, Sequence
from math import cos, log10, radians, sin
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from ...reporting.charts import Line, line_chart
from ...reporting.figures import Figure
from ..maps import Map, draw_map_grid
from .series_forms import FORMS, OUR_FORM
from .series_map import LEARNING_RATES, WEIGHT_DECAYS

NamedFigures = list[tuple[str, Figure]]
FORMS_SHOWN: Final = ("classic", "bijepa", "unconstrained", "sphere")
NUM_WINDOWS: Final = 3  # test windows drawn one by one, as in the paper
FORM_COLORS: Final = {name: k for k, name in enumerate((*FORMS, OUR_FORM))}
PATH_STEPS: Final = 280  # points of a path; a chart would average more of them
SQUARE_SCALES: Final = {  # of the map: the title, and the powers of ten of no colour and of the strongest
    "rise": ("rise of the norm", 0.0, 2.0),
    "growth": ("growth of the norm", 0.0, 1.0),
    "late": ("still rising", 0.0, 0.1),
    "spread": ("spread", -2.0, 2.0),
    "forward": ("forward loss", -4.0, 0.0),
}
TRUTH_COLOR: Final = 7  # the colour of the true values


def draw_figures(
    seeds: Sequence[Mapping[str, Any]], phase: Callable[[Mapping[str, Any]], NamedFigures] | None = None
) -> NamedFigures:
    """All figures by name; forecasts, paths and the map show the first seed."""
    first = seeds[0]
    found = [
        _curve_figure(seeds, "forward", "Forward loss", True),
        _curve_figure(seeds, "norm", "Length of representations", False),
    ]
    found += [_batch_figure(first), *(_trajectory_figure(first, k) for k in range(NUM_WINDOWS))]
    found += phase(first) if phase else []
    return found + (_map_figures(first["map"]) if first["map"] else [])


def _curve_figure(seeds: Sequence[Mapping[str, Any]], key: str, title: str, log: bool) -> tuple[str, Figure]:
    lines = []
    for name in (*FORMS, OUR_FORM):
        every = np.array([one["curves"][name][key] for one in seeds], float)
        lines.append(Line(name, np.array(seeds[0]["curves"][name]["step"]), every.mean(0), color=FORM_COLORS[name]))
    caption = "The mean over the seeds of what the forward direction costs on the batch of the step, before its weight."
    if key == "norm":
        caption = (
            "The mean length of the representations of both halves by the encoder that is trained, over the seeds."
        )
    return key, Figure(title, line_chart(lines, f"{title} over steps", log_y=log), caption)


def _batch_figure(first: Mapping[str, Any]) -> tuple[str, Figure]:
    """A figure of twenty test windows, with the next value of the first channel in rising order."""
    truth = np.array(first["shown"][FORMS_SHOWN[0]]["future"])[:, 0, 0]
    order, x = np.argsort(truth), np.arange(1, len(truth) + 1)
    lines = [Line("what came", x, truth[order], color=TRUTH_COLOR)]
    for name in FORMS_SHOWN:
        read = np.array(first["shown"][name]["read"])[:, 0, 0]
        lines.append(Line(name, x, read[order], color=FORM_COLORS[name], dashed=True))
    caption = (
        "The next value of 20 test windows, in rising order, and what a ridge reads of it from each prediction. First "
        "channel, at the model's normalisation, first seed."
    )
    body = line_chart(lines, "Next values of 20 test windows and their forecasts", x_label="test window")
    return "batch", Figure("Forecasts of 20 windows", body, caption)


def _trajectory_figure(first: Mapping[str, Any], k: int) -> tuple[str, Figure]:
    """A figure of the k-th test window: past, future, and every form's forecast."""
    one = first["shown"][FORMS_SHOWN[0]]
    past, future = np.array(one["past"])[k, 0], np.array(one["future"])[k, 0]
    x = np.arange(1, len(past) + len(future) + 1)
    lines = [Line("what came", x, np.concatenate([past, future]), color=TRUTH_COLOR)]
    for name in FORMS_SHOWN:
        read = np.array(first["shown"][name]["read"])[k, 0]
        lines.append(Line(name, x[len(past) :], read, color=FORM_COLORS[name], dashed=True))
    caption = (
        f"The first {len(past)} steps are seen, the others are read by a ridge from each form's prediction. First "
        f"channel of test window {k + 1}, first seed."
    )
    title = f"Trajectory {k + 1} of {NUM_WINDOWS}"
    return f"trajectory-{k + 1}", Figure(title, line_chart(lines, f"Test window {k + 1} and its forecasts"), caption)


def draw_phase(first: Mapping[str, Any]) -> NamedFigures:
    """A drawing of the true path and the unrolled paths from the same start, seen from one corner of the axes."""
    found = []
    truth = np.array(first["shown"][FORMS_SHOWN[0]]["truth"])
    for name in FORMS_SHOWN[:2]:
        path = np.array(first["shown"][name]["unrolled"])
        lines = [
            Line("the system", *_project_path(truth), color=TRUTH_COLOR, fade=0.6),
            Line(f"{name}, unrolled", *_project_path(path), color=FORM_COLORS[name]),
        ]
        caption = (
            f"The first {PATH_STEPS} steps from one start. The unrolled path sees no value after the first "
            "half window: each prediction is the start of the next. Seen from one corner: to the right x and y, "
            "upwards mostly z, at the model's normalisation. First seed."
        )
        body = line_chart(
            lines, f"Phase portrait of the Lorenz system and of {name}", x_label="x and y, seen from a corner"
        )
        found.append((f"phase-{name}", Figure(f"Phase portrait: {name}", body, caption)))
    return found


def _project_path(path: np.ndarray, turn: float = 35.0, tilt: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """A path (3, T) projected on a plane, its first PATH_STEPS steps."""
    x, y, z = path[:, :PATH_STEPS]
    across = x * cos(radians(turn)) + y * sin(radians(turn))
    depth = -x * sin(radians(turn)) + y * cos(radians(turn))
    return across, z * cos(radians(tilt)) + depth * sin(radians(tilt))


def _map_figures(found: Mapping[str, Any]) -> NamedFigures:
    """The maps without LayerNorms: norms, forward loss and spread; a low loss without spread is a collapse."""
    maps = [Map(name, _log_shades(found[key], *ends), (), ()) for key, (name, *ends) in SQUARE_SCALES.items()]
    axes = ("learning rate", "weight decay")
    svg: Markup = draw_map_grid(
        maps, WEIGHT_DECAYS, LEARNING_RATES, "Norms, spread and loss over weight decay and learning rate", axes
    )
    ends = {key: _value_range(found[key]) for key in SQUARE_SCALES}
    caption = (
        f"Without LayerNorms, {found['steps']:,} steps each, first seed. Rise: the norm at the end over that of the "
        f"first batch, here {ends['rise']}; no colour is 1 or less, the strongest 100 or more. Growth: over that after "
        f"a tenth of the training, here {ends['growth']}; the strongest is 10 or more. Still rising: the norm of the "
        f"last tenth over that of the tenth before, here {ends['late']}; the strongest is 1.26 or more. Spread of "
        f"f(past) over new windows, relative to before training, here {ends['spread']}: no colour is a hundredth, the "
        f"strongest 100 or more; where it is gone, a low loss is collapse. Forward loss at the end, here "
        f"{ends['forward']}: no colour is 1e-4 or less, the strongest 1 or more."
    )
    return [("explosion", Figure("Where norms grow", svg, caption, wide=True))]


def _log_shades(values: Sequence[Sequence[float]], low: float, high: float) -> list[list[float]]:
    """Shades from 0 at 10^low or less to 1 at 10^high or more."""
    return [[min(1.0, max(0.0, (log10(max(v, 1e-6)) - low) / (high - low))) for v in row] for row in values]


def _value_range(values: Sequence[Sequence[float]]) -> str:
    every = [v for row in values for v in row]
    return f"{min(every):.3g} to {max(every):.3g}"
