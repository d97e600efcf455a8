"""Writes the page of a study: its claim and verdict, a table beside the paper's figures, and one dot per seed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ..core.files import file_slug, write_text
from ..core.version import VERSION
from ..reporting.charts import fit_axis, short_number, svg_drawing
from ..reporting.facts import UNKNOWN
from ..reporting.figures import Figure
from ..reporting.section import Block
from ..reporting.templates import fill_template

WIDTH, ROW, NAMES, MARGIN, FOOT = 460, 22, 190, 14, 26
DOTS_NOTE = "One dot per seed, a bar at their mean."
COMPARISON_NOTE = (
    "A comparison holds if its mean difference exceeds the scatter of the seeds (one standard deviation). Rows within "
    "the scatter, or with a single seed, are not told apart. Between neighbours of a ranking, > and < mark differences "
    "beyond the scatter, and ≈ a difference within it."
)


def write_study(
    found: Mapping[str, Any], groups: Mapping[str, str], out: Path, drawn: Iterable[tuple[str, Figure]] = ()
) -> Path:
    """Write `out`/report.html of a study and every drawing as `out`/figures/NAME.svg; returns the path of the page.

    `found` is the content of the study's table.json; `groups` maps row names to data sets, for rows that have one.
    `drawn` maps names to the study's own figures: an SVG also gets a file, pictures appear on the page only.
    """
    pictures = {name: (figure, figure.body) for name, figure in drawn} | dict(score_figures(found["rows"], groups))
    for name, (figure, body) in pictures.items():
        if body.startswith("<svg"):
            write_text(out / "figures" / f"{name}.svg", _standalone_svg(body, figure.title))
    sections = [
        Block("claim", "Claim", found["source"], body=Markup("<p>{}</p>").format(found["claim"])),
        Block("says", "What was found", COMPARISON_NOTE, body=_bullet_list(found["says"])),
        Block("table", "Table", _table_intro(found["rows"], bool(groups)), body=score_table(found["rows"], groups)),
        Block("figures", "Figures", DOTS_NOTE if groups else "", tuple(f for f, _ in pictures.values())),
    ]
    html = fill_template(
        "template.html.j2",
        title=found["title"],
        heads=[],
        comparison=None,
        sections=sections,
        problems=(),
        version=VERSION,
    )
    write_text(out / "report.html", html)
    return out / "report.html"


def score_table(rows: Sequence[Mapping[str, Any]], groups: Mapping[str, str]) -> Markup:
    """One line per training, grouped by data set, one column per metric: mean ± sample standard deviation over seeds.

    The columns follow the order of `rows`. A column with the paper's figures for a metric comes after that metric.
    """
    known = {row["metric"] for row in rows if row["paper"] is not None}
    metrics = dict.fromkeys(row["metric"] for row in rows)
    columns = [(metric, paper) for metric in metrics for paper in (False, True) if not paper or metric in known]
    heads = [f"{metric}, paper" if paper else metric for metric, paper in columns]
    parts = [_cell_row("th", ["Training", *heads, "Seeds"], "thead")]
    for group in dict.fromkeys(groups.get(row["name"], "") for row in rows):
        here = {(row["name"], row["metric"]): row for row in rows if groups.get(row["name"], "") == group}
        body = [_table_row(name, group, here, columns) for name in dict.fromkeys(name for name, _ in here)]
        span = Markup('<tr><th scope="rowgroup" colspan="{}" class="group">{}</th></tr>').format(len(heads) + 2, group)
        parts.append(Markup("<tbody>") + (span if group else "") + Markup("").join(body) + Markup("</tbody>"))
    return Markup('<div class="scroll"><table class="probes">') + Markup("").join(parts) + Markup("</table></div>")


def _table_row(
    name: str, group: str, rows: Mapping[tuple[str, str], Mapping[str, Any]], columns: Sequence[tuple[str, bool]]
) -> Markup:
    """The line of one training; a dash marks a missing number."""
    cells = []
    for metric, paper in columns:
        row = rows.get((name, metric))
        if row is None or (paper and row["paper"] is None):
            cells.append(UNKNOWN)
        else:
            cells.append(
                format_value(metric, row["paper"], None) if paper else format_value(metric, row["mean"], row["std"])
            )
    seeds = max(row["seeds"] for (owner, _), row in rows.items() if owner == name)
    head = Markup('<th scope="row">{}</th>').format(_without_breaks(name.removeprefix(f"{group} · ")))
    return Markup("<tr>") + head + _cell_row("td", [*map(_without_breaks, cells), str(seeds)]) + Markup("</tr>")


def _cell_row(tag: str, texts: Sequence[str], within: str = "") -> Markup:
    """A row of table cells; `within` may make it a complete table head."""
    scope = Markup(' scope="col"') if tag == "th" else ""
    cells = Markup("").join(Markup("<{0}{1}>{2}</{0}>").format(tag, scope, text) for text in texts)
    return Markup("<{0}><tr>{1}</tr></{0}>").format(within, cells) if within else cells


def _without_breaks(text: str) -> str:
    """The text with its spaces replaced by non-breaking spaces."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def format_value(metric: str, mean: float, std: float | None) -> str:
    """A mean with its spread: accuracies in per cent, other metrics unchanged, the spread to two digits."""
    if "accuracy" not in metric:
        return short_number(mean) + ("" if not std else f" ± {short_number(float(f'{std:.2g}'))}")
    return f"{100 * mean:.1f}" + ("" if std is None else f" ± {100 * std:.1f}") + " %"


def score_figures(
    rows: Sequence[Mapping[str, Any]], groups: Mapping[str, str]
) -> Iterator[tuple[str, tuple[Figure, Markup]]]:
    """A name, a figure and its SVG for each data set and metric."""
    for group in dict.fromkeys(groups.values()):
        for metric in dict.fromkeys(row["metric"] for row in rows):
            chosen = [row for row in rows if row["metric"] == metric and groups[row["name"]] == group]
            title = f"{group}: {metric}"
            svg = dot_chart([(row["name"].removeprefix(f"{group} · "), row["values"]) for row in chosen], title)
            yield file_slug(title), (Figure(title, svg, "Seeds differ in weights, order, augmentation and masks."), svg)


def dot_chart(rows: Sequence[tuple[str, Sequence[float]]], label: str) -> Markup:
    """An SVG with a line per row: its name, a dot per value and a bar at their mean."""
    axis = fit_axis([np.array(values) for _, values in rows], log=False, margin=0.15)
    bottom = MARGIN + ROW * len(rows)

    def across(x: float) -> float:
        return NAMES + (x - axis.low) / (axis.high - axis.low) * (WIDTH - NAMES - MARGIN)

    parts = [
        Markup('<line class="rule" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(across(t), MARGIN, bottom)
        + Markup('<text class="mid" x="{:.1f}" y="{}">{}</text>').format(across(t), bottom + 14, short_number(t))
        for t in axis.tick_values()
    ]
    for k, (name, values) in enumerate(rows):
        y = MARGIN + ROW * k + ROW / 2
        mean = across(sum(values) / len(values))
        parts.append(Markup('<text class="end" x="{}" y="{:.1f}">{}</text>').format(NAMES - 8, y + 3.5, name))
        parts.append(Markup('<rect class="f1" x="{:.1f}" y="{:.1f}" width="2" height="14"/>').format(mean - 1, y - 7))
        dot = Markup('<circle class="f0" cx="{:.1f}" cy="{:.1f}" r="3.5" fill-opacity="0.6"/>')
        parts += [dot.format(across(v), y) for v in values]
    return svg_drawing("chart", (0, 0, WIDTH, bottom + FOOT), label, parts)


def _standalone_svg(svg: Markup, title: str) -> str:
    """The drawing as a standalone SVG with its own colours, because the page's style sheet does not apply to it."""
    style = (
        "<style>text{font:11px sans-serif;fill:#333}.end{text-anchor:end}.mid{text-anchor:middle}"
        ".rule{stroke:#ddd}.c1{stroke:#d97706}.f0{fill:#2563eb}.f1{fill:#d97706}</style>"
    )
    named = f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" '
    return str(svg).replace("<svg ", named, 1).replace(">", f"><title>{Markup.escape(title)}</title>{style}", 1)


def _table_intro(rows: Sequence[Mapping[str, Any]], scores: bool) -> str:
    seeds = max((row["seeds"] for row in rows), default=0)
    spread = "± is the standard deviation over seeds." if seeds > 1 else "One seed: the spread is unknown."
    return (
        f"Scores on the test set. {spread} The paper's figures refer to its own data and scale." if scores else spread
    )


def _bullet_list(sentences: Sequence[str]) -> Markup:
    items = Markup("").join(Markup("<li>{}</li>").format(s) for s in sentences)
    return Markup("<ul>{}</ul>").format(items)
