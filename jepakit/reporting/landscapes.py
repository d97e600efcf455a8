"""Draws the energy that a planner descends: over the floor of a world, and over two numbers of a plan."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from ..core.words import capitalize, percent
from .charts import short_number, svg_drawing
from .figures import Figure
from .pictures import data_uri
from .records import Array

SIDE: Final = 300
"""The side of a map, in units of its drawing."""
LEFT, BOTTOM, MARGIN = 38, 20, 4
BANDS: Final = 16
PIXELS: Final = 8
"""Pixels of a picture for each place, per axis."""
LINE_STARTS: Final = 5
"""Ways down are drawn from so many places per axis."""
COLOURS: Final = ((253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84))
"""From the lowest energy to the highest: viridis, whose lightness is even."""

Place = tuple[float, float]

HOW_TO_READ: Final = "Bright is low. Every band holds the same number of {}: colours tell order, not size. "


@dataclass(frozen=True, eq=False)
class Grid:
    """The axes of maps: names, values, and whether y grows downward, as in pictures."""

    names: Sequence[str]
    x: Array
    y: Array
    downward: bool

    def place(self, column: float, row: float) -> Place:
        """Where a place lies in the drawing, by its column and row, which may be fractions."""
        across, down = ((v + 0.5) / len(line) for v, line in ((column, self.x), (row, self.y)))
        return SIDE * across, SIDE * (down if self.downward else 1 - down)

    def number(self, number: int) -> Place:
        """Where the place with this number lies; places are numbered row by row."""
        return self.place(float(number % len(self.x)), float(number // len(self.x)))

    def value(self, x: float, y: float) -> Place:
        """Where a point lies by its values."""
        ends = ((self.x, x), (self.y, y))
        return self.place(*(float((v - line[0]) / (line[1] - line[0])) for line, v in ends))


def landscape_figures(result: Mapping[str, Any], file: Path) -> list[Figure]:
    """The figures of one result of planning, from the arrays beside it; none if there are none."""
    facts = result.get("landscapes") or {}
    if not facts or not file.is_file():
        return []
    with np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    draw: dict[str, Callable[[Mapping[str, Any], Mapping[str, Array]], Figure]] = {
        "floor": floor_figure,
        "actions": action_figure,
    }
    return [figure(facts, arrays) for key, figure in draw.items() if key in facts]


def floor_figure(facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> Figure:
    """The energy over the floor, in a row of maps per episode, with the ways down to the goal if there is one."""
    own = facts["floor"]
    grid = Grid(own["axes"], arrays["floor_x"], arrays["floor_y"], bool(facts.get("downward")))
    rows = []
    for e, energies in enumerate(arrays["floor_energy"]):
        cells = []
        for m, (name, energy) in enumerate(zip(own["maps"], energies, strict=True)):
            marks = list(_ways_down(grid, arrays, e, m)) if "floor_downhill" in arrays else []
            drawing = draw_map(grid, energy, marks, _alt(name, own), walls=True)
            cells.append(_panel(drawing, name, _scores(name, own)))
        rows.append(_panel_row(facts["episodes"][e] if "correlation" in own else "", cells))
    return Figure("Energy over the floor", Markup("").join(rows), _floor_caption(own), wide=True)


def _floor_caption(own: Mapping[str, Any]) -> str:
    if "correlation" not in own:
        return HOW_TO_READ.format("states") + (
            "What the energy says of every state, beside the true reward of a step from there without an action. A "
            "model's reward is that of the step which led there, so its picture may be a little turned."
        )
    return HOW_TO_READ.format("places") + (
        "How far each place is from the goal (ring), for an episode from its start (square). Lines go down the "
        "steepest slope from place to place, never through walls; one that ends in a dot is caught. An energy that "
        "knows walls falls toward the door from the far room; a raw latent distance falls toward the wall. "
        "Correlations are of ranks, with the true way to go. They and the shares of places that lead to the goal are "
        f"means over {own['goals']} goals. The straight line has {_scores('straight line', own)}."
    )


def _alt(name: str, own: Mapping[str, Any]) -> str:
    return f"{capitalize(name)} over {' and '.join(own['axes'])}. {_scores(name, own)}".strip()


def _scores(name: str, own: Mapping[str, Any]) -> str:
    found = []
    if (correlation := own.get("correlation", {}).get(name)) is not None:
        found.append(f"rank correlation {correlation:.2f}")
    if (share := own.get("arrives", {}).get(name)) is not None:
        found.append(f"leads to the goal from {percent(share)} of places")
    return ", ".join(found)


def _ways_down(grid: Grid, arrays: Mapping[str, Array], e: int, m: int) -> Iterator[Markup]:
    """Lines of steepest descent from a few places, dots where one is caught, start and goal."""
    leads, arrives = arrays["floor_downhill"][e, m].ravel(), arrays["floor_arrives"][e, m].ravel()
    free = np.isfinite(arrays["floor_energy"][e, m]).ravel()
    dead_ends = set[int]()
    for number in spread_places(len(grid.x), len(grid.y)):
        if not free[number]:
            continue
        path = [number]
        while leads[path[-1]] != path[-1]:
            path.append(int(leads[path[-1]]))
        if not arrives[number]:
            dead_ends.add(path[-1])
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(grid.number, path))
        yield Markup('<polyline class="way under" points="{0}"/><polyline class="way" points="{0}"/>').format(points)
    for number in sorted(dead_ends):
        x, y = grid.number(number)
        yield Markup('<circle class="caught" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(x, y)
    start, goal = arrays["floor_ends"][e]
    x, y = grid.number(int(start))
    yield Markup('<rect class="start" x="{:.1f}" y="{:.1f}" width="11" height="11"/>').format(x - 5.5, y - 5.5)
    x, y = grid.number(int(goal))
    yield Markup('<circle class="goal under" cx="{0:.1f}" cy="{1:.1f}" r="8"/>').format(x, y)
    yield Markup('<circle class="goal" cx="{0:.1f}" cy="{1:.1f}" r="8"/>').format(x, y)


def spread_places(width: int, height: int) -> list[int]:
    """The numbers of places on an even lattice."""
    columns, rows = (((np.arange(LINE_STARTS) + 0.5) * side / LINE_STARTS).astype(int) for side in (width, height))
    return [int(row) * width + int(column) for row in rows for column in columns]


def action_figure(facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> Figure:
    """The energy over two numbers of the first plan, in a row of maps per episode, with what the planner chose."""
    own = facts["actions"]
    grid = Grid(own["axes"], arrays["action_x"], arrays["action_y"], bool(facts.get("downward")))
    rows = []
    for e, energies in enumerate(arrays["action_energy"]):
        x, y = grid.value(*arrays["action_choice"][e].tolist())
        cells = []
        for name, energy in zip(own["maps"], energies, strict=True):
            low_x, low_y = grid.number(int(np.where(np.isfinite(energy), energy, np.inf).argmin()))
            circle = Markup('<circle class="lowest" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(low_x, low_y)
            lowest = circle if np.isfinite(energy).any() else Markup("")
            d = f"M{x - 9:.1f} {y:.1f}h18M{x:.1f} {y - 9:.1f}v18"
            choice = Markup('<path class="choice under" d="{0}"/><path class="choice" d="{0}"/>').format(d)
            alt = f"Energy over {' and '.join(own['axes'])}, {name}"
            cells.append(_panel(draw_map(grid, energy, [lowest, choice], alt), name, ""))
        rows.append(_panel_row(facts["episodes"][e], cells))
    caption = (
        f"{HOW_TO_READ.format('actions')}The energy of the first plan when these two numbers change and all "
        "else stays: the cross is what the planner chose, the dot the lowest energy. A cross off the dot says that the "
        "search is too small. On the true dynamics the energy is the same function, so a dot elsewhere says that the "
        "model is wrong."
    )
    return Figure("Energy over the first action", Markup("").join(rows), caption, wide=True)


# --- parts


def draw_map(grid: Grid, energy: Array, marks: Sequence[Markup], label: str, walls: bool = False) -> Markup:
    """One map with its axes; `label` is the alt text. Unknown energies are blank, or grey if they are `walls`."""
    pixels = band_picture(energy if grid.downward else energy[::-1])
    image = Markup('<image width="{0}" height="{0}" href="{1}"/>').format(SIDE, data_uri(pixels))
    below = Markup('<rect class="blocked" width="{0}" height="{0}"/>').format(SIDE) if walls else Markup("")
    x_ends, y_ends = ([short_number(round(float(v), 2)) for v in (line[0], line[-1])] for line in (grid.x, grid.y))
    top, low = y_ends if grid.downward else y_ends[::-1]
    text = Markup('<text class="{}" x="{}" y="{}">{}</text>')
    words = [
        text.format("soft", 0, SIDE + 14, x_ends[0]),
        text.format("soft mid", SIDE / 2, SIDE + 14, grid.names[0]),
        text.format("soft end", SIDE, SIDE + 14, x_ends[1]),
        text.format("soft end", -5, 10, top),
        text.format("soft end", -5, SIDE, low),
        Markup('<text class="soft mid" transform="translate(-9 {}) rotate(-90)">{}</text>').format(
            SIDE / 2, grid.names[1]
        ),
    ]
    box = (-LEFT, -MARGIN, SIDE + LEFT + MARGIN, SIDE + BOTTOM + MARGIN)
    return svg_drawing("landscape", box, label, [below, image, *marks, *words])


def band_picture(energy: Array) -> Array:
    """The colours (H, W, 4) of an energy (Y, X) in bands that hold equal shares of the places; NaN is transparent."""
    values = enlarge(energy, PIXELS)
    known = np.isfinite(values)
    if not known.any():  # a model that diverged
        return np.zeros((*values.shape, 4), np.uint8)
    edges = np.quantile(energy[np.isfinite(energy)], np.linspace(0, 1, BANDS + 1)[1:-1])
    share = np.searchsorted(edges, np.where(known, values, 0)) / (BANDS - 1)
    at, stops = share * (len(COLOURS) - 1), np.array(COLOURS, float)
    below = np.minimum(at.astype(int), len(COLOURS) - 2)
    mixed = stops[below] + (at - below)[..., None] * (stops[below + 1] - stops[below])
    return np.concatenate([mixed.round(), 255.0 * known[..., None]], 2).astype(np.uint8)


def enlarge(values: Array, factor: int) -> Array:
    """Values (Y, X) with `factor` points per place and axis, linear between the known neighbours; NaN stays NaN."""
    known = np.isfinite(values)
    weight = _interpolate(known.astype(float), factor)
    mean = _interpolate(np.where(known, values, 0.0), factor) / np.maximum(weight, 1e-9)
    return np.where(known.repeat(factor, 0).repeat(factor, 1), mean, np.nan)


def _interpolate(values: Array, factor: int) -> Array:
    for axis in (0, 1):
        at = (np.arange(values.shape[axis] * factor) + 0.5) / factor - 0.5
        low = np.clip(np.floor(at).astype(int), 0, values.shape[axis] - 1)
        high = np.clip(np.floor(at).astype(int) + 1, 0, values.shape[axis] - 1)
        part = (at - np.floor(at)).reshape((-1, 1) if axis == 0 else (1, -1))
        values = values.take(low, axis) * (1 - part) + values.take(high, axis) * part
    return values


def _panel(drawing: Markup, name: str, scores: str) -> Markup:
    cell = '<figure class="half">{}<figcaption><b>{}</b> {}</figcaption></figure>'
    return Markup(cell).format(drawing, capitalize(name), scores)


def _panel_row(label: str, cells: Sequence[Markup]) -> Markup:
    title = Markup('<p class="read">Episode: {}.</p>').format(label) if label else Markup("")
    return title + Markup('<div class="panels">{}</div>').format(Markup("").join(cells))
