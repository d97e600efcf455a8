"""Draws line charts and heat maps as SVG text in the page's colours, readable in light and in dark mode."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ..core.words import percent
from .records import Array

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 10, 30
MAX_POINTS = 300
NUM_COLORS = 8


@dataclass(frozen=True, eq=False)
class Line:
    """One curve with points `x`, `y` (K,). `color` indexes the page's palette, `fade` in (0, 1] is the opacity."""

    name: str
    x: Array
    y: Array
    color: int = 0
    dashed: bool = False
    fade: float = 1.0


@dataclass(frozen=True)
class Axis:
    """An axis: the data range that it shows, and whether it is logarithmic."""

    low: float
    high: float
    log: bool = False

    def place(self, values: Array) -> Array:
        """The positions of values along the axis, in [0, 1]."""
        values, low, high = (np.log10(v) if self.log else np.asarray(v) for v in (values, self.low, self.high))
        return np.asarray((values - low) / (high - low))

    def tick_values(self) -> list[float]:
        """About five round values inside the range."""
        marks = self._power_ticks() if self.log else []
        if len(marks) > 1:
            return marks
        # Also applies if a logarithmic axis is too short for two powers.
        step = nice_step((self.high - self.low) / 4.5)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _power_ticks(self) -> list[float]:
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        every = max(1, (high - low) // 5)
        marks = [10.0**k * m for k in range(low, high + 1, every) for m in ((1, 2, 5) if high - low < 3 else (1,))]
        return [t for t in marks if self.low * (1 - 1e-9) <= t <= self.high * (1 + 1e-9)]


def nice_step(step: float) -> float:
    """The round number (1, 2 or 5 times a power of ten) nearest to `step` by ratio."""
    base = 10.0 ** math.floor(math.log10(step))
    return float(min((base * m for m in (1, 2, 5, 10)), key=lambda round_: abs(math.log(round_ / step))))


def short_number(value: float) -> str:
    """A number as text of at most about six characters: 12000 → 12k, 0.00031 → 3.1e-4."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(power)}"
    if size >= 1e4:
        return f"{value / 1000:.4g}k"
    return f"{value:.4g}"


def thin_points(x: Array, y: Array, points: int = MAX_POINTS) -> tuple[Array, Array]:
    """At most `points` points: means over equal stretches of the rows; the last row is kept unchanged."""
    if len(x) <= points:
        return x, y
    edges = np.linspace(0, len(x) - 1, points).astype(int)
    count = np.diff(edges)
    means = [np.add.reduceat(v[:-1], edges[:-1]) / count for v in (x, y)]
    return np.append(means[0], x[-1]), np.append(means[1], y[-1])


def fit_axis(values: Sequence[Array], log: bool, include: Sequence[float] = (), margin: float = 0.05) -> Axis:
    """An axis over all finite values (positive ones if `log`), with a `margin` at both ends, a share of its length."""
    joined = np.concatenate([np.asarray(v, float) for v in (*values, np.array(include, float))] or [np.zeros(0)])
    joined = joined[np.isfinite(joined) & ((joined > 0) | (not log))]
    if not len(joined):
        return Axis(0.1, 1.0, log)
    low, high = float(joined.min()), float(joined.max())
    if log:
        ratio = max(high / low, 2.0) ** margin
        return Axis(low / ratio, high * (ratio if high > low else 2.0), True)
    if high == low:
        # A single value goes in the middle.
        return Axis(min(0.0, 2 * low), max(0.0, 2 * low) or 1.0, False)
    gap = high - low
    return Axis(low - margin * gap if low else 0.0, high + margin * gap, False)


def svg_drawing(kind: str, box: tuple[object, ...], label: str, parts: Iterable[Markup]) -> Markup:
    """An SVG element of class `kind` with the view box (x, y, width, height); `label` is the alt text."""
    head = Markup('<svg class="{}" viewBox="{} {} {} {}" role="img" aria-label="{}">').format(kind, *box, label)
    return head + Markup("").join(parts) + Markup("</svg>")


def line_chart(
    lines: Sequence[Line],
    label: str,
    *,
    x_label: str = "step",
    log_x: bool = False,
    log_y: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> Markup:
    """An SVG line chart, with a legend if there is more than one line; `marks` are labelled horizontal lines.

    `label` is the alt text. Values that are not finite break the curve; the x-axis ends where the drawn values do.
    """
    thinned = [(line, *thin_points(line.x, line.y)) for line in lines]
    drawn = [x[np.isfinite(y) & ((y > 0) | (not log_y))] for _, x, y in thinned]
    x_axis = fit_axis(drawn if any(map(len, drawn)) else [x for _, x, _ in thinned], log_x, margin=0.0)
    y_axis = fit_axis([y for _, _, y in thinned], log_y, [value for value, _ in marks])
    scale = f"{x_axis.low:.9g} {x_axis.high:.9g} {int(log_x)} {y_axis.low:.9g} {y_axis.high:.9g} {int(log_y)}"
    parts = [
        _grid_lines(x_axis, y_axis, x_label),
        *[_marked_line(y_axis, value, text) for value, text in marks],
        *[_line_path(line, x, y, x_axis, y_axis) for line, x, y in thinned],
    ]
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}" data-scale="{}" data-box="{}">')
    return Markup("").join(
        [
            head.format(WIDTH, HEIGHT, label, scale, f"{LEFT} {WIDTH - RIGHT} {TOP} {HEIGHT - BOTTOM}"),
            *parts,
            Markup('<line class="cursor"/></svg>'),
            line_legend(lines),
        ]
    )


def _svg_y(axis: Axis, value: float) -> float:
    """The y coordinate of a value in the SVG; larger values are higher up."""
    return HEIGHT - BOTTOM - float(axis.place(np.array([value]))[0]) * (HEIGHT - TOP - BOTTOM)


def _grid_lines(x_axis: Axis, y_axis: Axis, x_label: str) -> Markup:
    rule = Markup(
        '<line class="rule" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text x="{}" y="{:.1f}" class="end">{}</text>'
    )
    number = Markup('<text x="{:.1f}" y="{}" class="mid">{}</text>')
    parts = []
    for tick in y_axis.tick_values():
        y = _svg_y(y_axis, tick)
        parts.append(rule.format(LEFT, WIDTH - RIGHT, y, y, LEFT - 6, y + 3.5, short_number(tick)))
    for tick in x_axis.tick_values():
        x = LEFT + float(x_axis.place(np.array([tick]))[0]) * (WIDTH - LEFT - RIGHT)
        parts.append(number.format(x, HEIGHT - BOTTOM + 14, short_number(tick)))
    name = Markup('<text x="{}" y="{}" class="mid soft">{}</text>')
    parts.append(name.format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, x_label))
    return Markup("").join(parts)


def _marked_line(y_axis: Axis, value: float, text: str) -> Markup:
    y = _svg_y(y_axis, value)
    line = Markup('<line class="mark" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
    # The text goes above its line, unless the line is at the very top.
    words = Markup('<text class="end soft" x="{}" y="{:.1f}">{}</text>')
    return line + words.format(WIDTH - RIGHT - 2, y - 4 if y > 24 else y + 12, text)


def _line_path(line: Line, x: Array, y: Array, x_axis: Axis, y_axis: Axis) -> Markup:
    good = np.isfinite(x) & np.isfinite(y) & ((x > 0) | (not x_axis.log)) & ((y > 0) | (not y_axis.log))
    runs = [r for r in np.split(np.arange(len(x)), np.flatnonzero(np.diff(good)) + 1) if len(r) and good[r[0]]]
    parts = []
    for run in runs:
        px = LEFT + x_axis.place(x[run]) * (WIDTH - LEFT - RIGHT)
        py = HEIGHT - BOTTOM - y_axis.place(y[run]) * (HEIGHT - TOP - BOTTOM)
        pairs = [f"{a:.2f},{b:.2f}" for a, b in zip(px, py, strict=True)]
        if len(run) == 1:
            # A point between two gaps, or a single point, would be invisible as a line.
            dot = Markup('<circle class="f{}" style="opacity:{:.2f}" cx="{:.2f}" cy="{:.2f}" r="3"/>')
            parts.append(dot.format(line.color % NUM_COLORS, line.fade, float(px[0]), float(py[0])))
        shape = '<polyline class="c{}{}" style="opacity:{:.2f}" data-name="{}" points="{}"/>'
        dash = " dash" if line.dashed else ""
        parts.append(Markup(shape).format(line.color % NUM_COLORS, dash, line.fade, line.name, " ".join(pairs)))
    return Markup("").join(parts)


def line_legend(lines: Sequence[Line]) -> Markup:
    """The legend: names beside samples of their lines; empty for a single line."""
    if len(lines) < 2:
        return Markup("")
    item = (
        '<li><svg viewBox="0 0 22 8" aria-hidden="true"><polyline class="c{}{}" style="opacity:{:.2f}" '
        'points="1,4 21,4"/></svg>{}</li>'
    )
    items = [Markup(item).format(n.color % NUM_COLORS, " dash" if n.dashed else "", n.fade, n.name) for n in lines]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def heat_map(values: Array, label: str) -> Markup:
    """An SVG heat map of values (h, w): the largest has the strongest colour, zero has none; cells have tooltips."""
    h, w = values.shape
    top = float(values.max()) or 1.0
    cells = [
        f'<rect x="{j}" y="{i}" width="1" height="1" fill-opacity="{values[i, j] / top:.3f}">'
        f"<title>row {i}, column {j}: {percent(values[i, j], 1)}</title></rect>"
        for i in range(h)
        for j in range(w)
    ]
    return svg_drawing("heat", (0, 0, w, h), label, map(Markup, cells))


def interval_bar(value: float, low: float, high: float, references: Sequence[float | None], label: str) -> Markup:
    """An SVG of a value and its confidence interval on a 0 to 1 scale; `references` are ticks, coloured in order."""
    shapes = [
        Markup('<rect class="span" x="{:.1f}" y="1" width="{:.1f}" height="12"/>').format(low * 200, (high - low) * 200)
    ]
    for k, reference in enumerate(references, 1):
        if reference is not None:
            tick = '<rect class="f{}" x="{:.1f}" y="1" width="2" height="12"/>'
            shapes.append(Markup(tick).format(k, reference * 200 - 1))
    shapes.append(Markup('<circle class="f0" cx="{:.1f}" cy="7" r="3"/>').format(value * 200))
    axis = Markup('<line class="rule" x2="200" y1="7" y2="7"/>')
    return svg_drawing("interval", (-5, 0, 210, 14), label, [axis, *shapes])
