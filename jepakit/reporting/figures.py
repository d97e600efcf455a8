"""Draws the charts of the page: pure functions from records to SVG, each with how to read it and its limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from ..core.words import capitalize, percent
from . import charts
from .charts import Line, line_chart, short_number
from .curves import METRIC_CURVES, Curve
from .records import Array, RunRecord, nested_value

MAX_SPECTRA = 6
DRAWN_DIRECTIONS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Figure:
    """A titled picture and the sentences under it. `body` is safe HTML; `caption` is plain text.

    A figure with `more` starts folded, with the others of its section.
    """

    title: str
    body: Markup
    caption: str
    wide: bool = False
    more: bool = False


class Parts(NamedTuple):
    """The values that a row holds under `key`, with names of the method's own; drawn together if there are `least`."""

    key: str
    title: str
    caption: str
    least: int = 1
    log: bool = False


STACKED_PARTS = (
    Parts(
        "terms",
        "Loss terms",
        "The weighted terms whose sum is the loss. A term that dwarfs the others decides the training.",
        least=2,
    ),
    Parts(
        "watched", "Watched by the method", "What the method reports beside its loss; none of it is trained.", log=True
    ),
)


def curve_figures(records: Sequence[RunRecord], names: Sequence[str]) -> list[Figure]:
    """One figure per curve that at least one run has logged twice; several runs share axes, one colour each.

    What was logged only once is no curve: all such values stand in one table.
    """
    found = [(curve, lines) for curve in METRIC_CURVES if (lines := _curve_lines(curve, records, names))]
    figures = [_curve_figure(curve, lines) for curve, lines in found if any(len(line.x) > 1 for line in lines)]
    if len(records) == 1:
        figures[1:1] = [f for part in STACKED_PARTS if (f := _parts_figure(records[0], part))]
    single = [(curve, lines) for curve, lines in found if all(len(line.x) == 1 for line in lines)]
    return [*figures, _single_values(single)] if single else figures


def _curve_lines(curve: Curve, records: Sequence[RunRecord], names: Sequence[str]) -> list[Line]:
    lines, several = [], len(records) > 1
    for k, (record, name) in enumerate(zip(records, names, strict=True)):
        for j, (part, path) in enumerate(curve.columns):
            x, y = record.column(*path)
            if len(x):
                title = " ".join(word for word in (name if several else "", part) if word) or curve.title.lower()
                lines.append(Line(title, x, y, color=k if several else j, dashed=j > 0))
    return lines


def _curve_figure(curve: Curve, lines: Sequence[Line]) -> Figure:
    label = f"{curve.title} over steps. " + " ".join(describe_line(line) for line in lines)
    body = line_chart(lines, label, log_y=curve.log, marks=curve.marks)
    return Figure(curve.title, body, curve.caption, more=curve.more)


def _single_values(found: Sequence[tuple[Curve, Sequence[Line]]]) -> Figure:
    """A table of the curves that have one point each."""
    row = Markup('<tr><th scope="row">{}</th><td class="number">{}</td><td class="number">step {}</td></tr>')
    rows = []
    for curve, lines in found:
        for line in lines:
            own = line.name if line.name == curve.title.lower() else f"{curve.title}, {line.name}"
            rows.append(row.format(capitalize(own), short_number(float(line.y[0])), short_number(float(line.x[0]))))
    body = Markup('<table class="plain">{}</table>').format(Markup("").join(rows))
    return Figure("Measured once", body, "Each of these was logged at one step only, so there is no curve.", more=True)


def _parts_figure(record: RunRecord, part: Parts) -> Figure | None:
    names = sorted({name for row in record.rows for name in row.get(part.key, {})})
    lines = [Line(name, *record.column(part.key, name), color=k) for k, name in enumerate(names)]
    if len(names) < part.least or all(len(line.x) < 2 for line in lines):
        return None
    label = f"{part.title} over steps. " + " ".join(describe_line(line) for line in lines)
    return Figure(part.title, line_chart(lines, label, log_y=part.log), part.caption, more=True)


def describe_line(line: Line) -> str:
    """A description of a curve in one sentence, for readers who cannot see it."""
    good = np.isfinite(line.y)
    if not good.any():
        return f"{line.name}: no finite value."
    x, y = line.x[good], line.y[good]
    lost = f", {int((~good).sum())} values not finite" if not good.all() else ""
    first, last = (f"{short_number(y[k])} at step {short_number(x[k])}" for k in (0, -1))
    return f"{line.name}: {first}, {last}{lost}."


def spectrum_figure(record: RunRecord, side: str) -> Figure | None:
    """The eigenvalues of the feature covariance of `side` ("target" or "context") at up to MAX_SPECTRA steps."""
    found = _logged_spectra(record, side)
    if not found:
        return None
    chosen = [found[k] for k in sorted(set(np.linspace(0, len(found) - 1, MAX_SPECTRA).astype(int)))]
    top = max(float(v.max()) for _, v in chosen)
    lines = [
        Line(
            f"step {step}",
            np.arange(1, len(v) + 1),
            np.where(v > top * 1e-9, v, np.nan),
            fade=0.25 + 0.75 * (k + 1) / len(chosen),
        )
        for k, (step, v) in enumerate(chosen)
    ]
    caption = (
        "Variance along each principal direction, largest first, both axes logarithmic; the stronger the line, "
        "the later. A healthy spectrum falls gently and keeps its tail; a cliff means that the features live in "
        "the directions before it. It shows how many directions are used, not whether they are useful."
    )
    label = f"Eigenvalues of the {side} features at {len(chosen)} steps. " + _variance_sentence(*chosen[-1])
    body = line_chart(lines, label, x_label="direction", log_x=True, log_y=True)
    return Figure(f"Eigenspectrum, {side} encoder", body, caption, more=side != "target")


def eigenvalue_figure(record: RunRecord, side: str) -> Figure | None:
    """The eigenvalues of a few directions over training; None if there are fewer than two rows."""
    rows = _logged_spectra(record, side)
    if len(rows) < 2:
        return None
    steps, values = np.array([step for step, _ in rows], float), np.array([v for _, v in rows])
    floor = np.nanmax(values) * 1e-12
    directions = [k for k in DRAWN_DIRECTIONS if k <= values.shape[1]]
    lines = [
        Line(f"direction {k}", steps, np.where(values[:, k - 1] > floor, values[:, k - 1], np.nan), color=c)
        for c, k in enumerate(directions)
    ]
    caption = (
        "The same variances, followed through training. All falling together is full collapse, those below the first "
        "falling away from it is dimensional collapse; a line ends where nothing is left."
    )
    label = f"Eigenvalues of the {side} features over steps. " + " ".join(describe_line(line) for line in lines)
    body = line_chart(lines, label, log_y=True)
    return Figure(f"Eigenvalues over steps, {side} encoder", body, caption, more=side != "target")


def _logged_spectra(record: RunRecord, side: str) -> list[tuple[int, Array]]:
    """The steps at which eigenvalues were logged, and these, the largest first."""
    found = [(row.get("step", 0), nested_value(row, ("metrics", "spectrum", side))) for row in record.rows]
    return [(step, np.sort(np.array(values, float))[::-1]) for step, values in found if values]


def _variance_sentence(step: int, values: Array) -> str:
    share = np.cumsum(values) / max(float(values.sum()), 1e-30)
    return (
        f"At step {step}, {int(np.searchsorted(share, 0.9)) + 1} of {len(values)} directions hold 90 % of the variance."
    )


def coverage_figure(context: Array, target: Array, title: str, drawn: int) -> Figure:
    """A figure of how often each cell (h, w) is context and target: shares in [0, 1] of `drawn` masks."""
    halves = []
    for name, share in (("context", context), ("target", target)):
        facts = f"least {percent(share.min())}, mean {percent(share.mean())}, most {percent(share.max())}"
        picture = charts.heat_map(share, f"Share of masks in which each cell is {name}: {facts}")
        cell = '<figure class="half {}">{}<figcaption><b>{}</b> {}</figcaption></figure>'
        halves.append(Markup(cell).format(name, picture, name, facts))
    caption = (
        f"Over {drawn} drawn masks: the stronger the colour, the more often the cell is used (blank: never; each "
        "panel has its own scale). A cell that is never a target is never predicted, one that is never context is "
        "never read. Rectangular targets gather in the middle, since they cannot cross the border."
    )
    return Figure(title, Markup('<div class="halves">{}</div>').format(Markup("").join(halves)), caption)
