"""The page of a study: its claim, what its numbers say, the table beside the paper's figures, and one dot per seed."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ..checkpoint import write_text
from .charts import fit, short
from .facts import UNKNOWN
from .figures import Figure
from .page import Section, template

WIDTH, ROW, NAMES, MARGIN, FOOT = 460, 22, 190, 14, 26


def write_study(found: Mapping[str, Any], groups: Mapping[str, str], out: Path) -> Path:
    """Write `out`/report.html and `out`/figures/*.svg of a study; where the page is.

    `found` is the content of its table.json, `groups` tells the data set of every row's name.
    """
    pictures = dict(figures(found["rows"], groups))
    for name, (figure, svg) in pictures.items():
        write_text(out / "figures" / f"{name}.svg", _standalone(svg, figure.title))
    sections = [
        Section("claim", "Claim", found["source"], body=Markup("<p>{}</p>").format(found["claim"])),
        Section("says", "What was found", body=_list(found["says"])),
        Section("table", "Table", _intro(found["rows"]), body=table(found["rows"])),
        Section("figures", "Figures", "One dot per seed, a bar at their mean.", tuple(f for f, _ in pictures.values())),
    ]
    html = template(
        "template.html.j2",
        title=found["title"],
        heads=[],
        comparison=None,
        sections=sections,
        version=version("jepakit"),
    )
    write_text(out / "report.html", html)
    return out / "report.html"


def table(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Every metric of every training: mean ± sample standard deviation over the seeds, beside the paper's figure."""
    head = "<tr>" + "".join(f'<th scope="col">{c}</th>' for c in ("Training", "Metric", "Here", "Paper", "Seeds"))
    cell = Markup('<tr><th scope="row">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>')
    body = Markup("").join(
        cell.format(
            row["name"],
            row["metric"],
            value(row["metric"], row["mean"], row["std"]),
            UNKNOWN if row["paper"] is None else value(row["metric"], row["paper"], None),
            row["seeds"],
        )
        for row in rows
    )
    start = Markup('<div class="scroll"><table class="plain compare"><thead>') + Markup(head) + Markup("</tr></thead>")
    return start + Markup("<tbody>") + body + Markup("</tbody></table></div>")


def value(metric: str, mean: float, std: float | None) -> str:
    """A mean with its spread: accuracies in per cent, anything else as it is."""
    if "accuracy" not in metric:
        return short(mean) + ("" if std is None else f" ± {short(std)}")
    return f"{100 * mean:.1f}" + ("" if std is None else f" ± {100 * std:.1f}") + " %"


def figures(
    rows: Sequence[Mapping[str, Any]], groups: Mapping[str, str]
) -> Iterator[tuple[str, tuple[Figure, Markup]]]:
    """For each data set and metric a name, the figure and its drawing."""
    for group in dict.fromkeys(groups.values()):
        for metric in dict.fromkeys(row["metric"] for row in rows):
            chosen = [row for row in rows if row["metric"] == metric and groups[row["name"]] == group]
            title = f"{group}: {metric}"
            svg = dots([(row["name"].removeprefix(f"{group} · "), row["values"]) for row in chosen], title)
            name = "-".join(f"{group} {metric}".lower().split())
            yield name, (Figure(title, svg, "Seeds differ in weights, order, augmentation and masks."), svg)


def dots(rows: Sequence[tuple[str, Sequence[float]]], label: str) -> Markup:
    """An SVG with a line per row: its name, a dot per value and a bar at their mean."""
    axis = fit([np.array(values) for _, values in rows], log=False, margin=0.15)
    bottom = MARGIN + ROW * len(rows)

    def across(x: float) -> float:
        return NAMES + (x - axis.low) / (axis.high - axis.low) * (WIDTH - NAMES - MARGIN)

    parts = [
        Markup('<line class="rule" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(across(t), MARGIN, bottom)
        + Markup('<text class="mid" x="{:.1f}" y="{}">{}</text>').format(across(t), bottom + 14, short(t))
        for t in axis.ticks()
    ]
    for k, (name, values) in enumerate(rows):
        y = MARGIN + ROW * k + ROW / 2
        mean = across(sum(values) / len(values))
        parts.append(Markup('<text class="end" x="{}" y="{:.1f}">{}</text>').format(NAMES - 8, y + 3.5, name))
        parts.append(Markup('<rect class="f1" x="{:.1f}" y="{:.1f}" width="2" height="14"/>').format(mean - 1, y - 7))
        dot = Markup('<circle class="f0" cx="{:.1f}" cy="{:.1f}" r="3.5" fill-opacity="0.6"/>')
        parts += [dot.format(across(v), y) for v in values]
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">')
    return head.format(WIDTH, bottom + FOOT, label) + Markup("").join(parts) + Markup("</svg>")


def _standalone(svg: Markup, title: str) -> str:
    """The drawing as a file of its own: the page's colours do not reach there."""
    style = (
        "<style>text{font:11px sans-serif;fill:#333}.end{text-anchor:end}.mid{text-anchor:middle}"
        ".rule{stroke:#ddd}.f0{fill:#2563eb}.f1{fill:#d97706}</style>"
    )
    named = f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" '
    return str(svg).replace("<svg ", named, 1).replace(">", f"><title>{Markup.escape(title)}</title>{style}", 1)


def _intro(rows: Sequence[Mapping[str, Any]]) -> str:
    seeds = max(row["seeds"] for row in rows)
    spread = "± is the standard deviation over seeds." if seeds > 1 else "One seed: nothing is known of the spread."
    return f"Scores on the test set. {spread} The paper's figures are of its own data and scale."


def _list(sentences: Sequence[str]) -> Markup:
    items = Markup("").join(Markup("<li>{}</li>").format(s) for s in sentences)
    return Markup("<ul>{}</ul>").format(items)
