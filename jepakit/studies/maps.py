"""Draws maps side by side: a number over two settings on logarithmic axes, with boundaries drawn on top."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..reporting.charts import short_number, svg_drawing

COLUMNS, SIDE, LEFT, TOP, GAP, FOOT = 3, 118.0, 54, 20, 40, 44
Point = tuple[float, float | None]


@dataclass(frozen=True)
class Map:
    """A map: `cells[j][i]` is the shade at the j-th y and the i-th x, from 0 (no colour) to 1 (the strongest, a cap).

    `line` and `dots` are points (x, y); y is None if there is no point at x.
    """

    title: str
    cells: Sequence[Sequence[float]]
    line: Sequence[Point]
    dots: Sequence[Point]


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis of a given length: rising, evenly spaced `values`, each in the middle of its cell."""

    values: Sequence[float]
    length: float

    @property
    def cell(self) -> float:
        """The length of one cell."""
        return self.length / len(self.values)

    def place(self, value: float) -> float:
        """The distance of a value from the start of the axis."""
        ratio = math.log(self.values[-1] / self.values[0]) / (len(self.values) - 1)
        return (math.log(value / self.values[0]) / ratio + 0.5) * self.cell


def draw_map_grid(
    maps: Sequence[Map], y: Sequence[float], x: Sequence[float], label: str, names: tuple[str, str]
) -> Markup:
    """An SVG with three maps in a row; `names` are the axis names, x first, and `label` is the alt text."""
    rows = math.ceil(len(maps) / COLUMNS)
    width, height = LEFT + COLUMNS * (SIDE + GAP), rows * (SIDE + TOP + GAP) + FOOT - GAP
    parts = [
        Markup('<g transform="translate({},{})">{}</g>').format(
            LEFT + k % COLUMNS * (SIDE + GAP), TOP + k // COLUMNS * (SIDE + TOP + GAP), _map_panel(one, y, x)
        )
        for k, one in enumerate(maps)
    ]
    word = Markup('<text class="mid soft" x="{}" y="{}"{}>{}</text>')
    parts.append(word.format(width / 2, height - 4, "", names[0]))
    turned = Markup(' transform="rotate(-90 9 {0})"').format(height / 2)
    parts.append(word.format(9, height / 2, turned, names[1]))
    return svg_drawing("chart", (0, 0, width, height), label, parts)


def _map_panel(one: Map, y: Sequence[float], x: Sequence[float]) -> Markup:
    across, up = Scale(x, SIDE), Scale(y, SIDE)
    parts = [Markup('<text class="mid" x="{}" y="-5">{}</text>').format(SIDE / 2, one.title)]
    cell = (
        '<rect class="f0" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" fill-opacity="{:.3f}">'
        "<title>{}</title></rect>"
    )
    for j, row in enumerate(one.cells):
        for i, value in enumerate(row):
            hint = f"x {short_number(x[i])}, y {short_number(y[j])}: {short_number(value)}"
            corner = (i * across.cell, SIDE - (j + 1) * up.cell, across.cell, up.cell)
            parts.append(Markup(cell).format(*corner, 0.9 * min(value, 1.0), hint))
    parts.append(Markup('<rect class="rule" fill="none" width="{0}" height="{0}"/>').format(SIDE))
    tick = Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>')
    parts += [tick.format("mid", across.place(v), SIDE + 13, short_number(v)) for v in x[::2]]
    parts += [tick.format("end", -5, SIDE - up.place(v) + 3.5, _round_tick(v)) for v in y[::2]]
    points = " ".join(f"{a:.2f},{b:.2f}" for a, b in _place_points(one.line, across, up))
    parts.append(Markup('<polyline class="c1" fill="none" stroke-width="2" points="{}"/>').format(points))
    dot = Markup('<circle class="f1" cx="{:.2f}" cy="{:.2f}" r="3"/>')
    parts += [dot.format(a, b) for a, b in _place_points(one.dots, across, up)]
    return Markup("").join(parts)


def _place_points(points: Iterable[Point], across: Scale, up: Scale) -> Iterator[tuple[float, float]]:
    return ((across.place(x), SIDE - up.place(y)) for x, y in points if y is not None)


def _round_tick(value: float) -> str:
    return f"{value:.2g}".replace("e-0", "e-")
