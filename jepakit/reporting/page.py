"""Renders the report: a pure function from the data read from runs to one self-contained HTML text."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from ..core.words import capitalize
from ..evals.finding import Finding, run_finding
from ..training.rollback import rollback_summary
from .facts import compare_records, final_verdict, page_tables, probe_facts, run_facts, run_rollbacks, short_data
from .figures import Figure
from .records import RunRecord, unique_names
from .samples import Look
from .section import Block, Entry, Part, View
from .templates import fill_template

VERDICT_TONES = {
    "healthy": "good",
    "drifting": "warn",
    "idle": "warn",
    "slow": "bad",
    "passive": "bad",
    "dimensional": "bad",
    "full": "bad",
    "exploding": "bad",
}
FINDING_TONES = {"better": "good", "unclear": "warn", "worse": "bad"}
TONES = ("good", "none", "warn", "bad")  # from the best to the gravest
UNFINISHED_NOTE = "the run left no summary.json: it has not finished, or was stopped"


def render_page(
    records: Sequence[RunRecord],
    looks: Sequence[Look],
    version: str,
    sections: Mapping[str, Entry],
    problems: Sequence[str] = (),
    note: Callable[[str], None] = lambda sentence: None,
) -> str:
    """The whole page as HTML; escapes everything that comes from the runs.

    `sections` maps names to the registered sections; `problems` has a sentence for each section that cannot be used.
    `note` gets a sentence for each section that fails.
    """
    names = unique_names(records)
    views = [View(*parts) for parts in zip(records, names, looks, strict=True)]
    return fill_template(
        "template.html.j2",
        title=names[0] if len(names) == 1 else f"{len(names)} runs",
        heads=[run_headline(view) for view in views],
        comparison=page_tables(compare_records(records, names)) if len(records) > 1 else None,
        sections=[
            replace(block, open=sections[block.id].section.is_open(len(views)))
            for block in fill_sections(views, sections, note)
        ],
        problems=problems,
        version=version,
    )


def fill_sections(
    views: Sequence[View], sections: Mapping[str, Entry], note: Callable[[str], None] = lambda sentence: None
) -> list[Block]:
    """All sections that have something to show on this page, in display order.

    In the place of a section that fails stands a sentence that says why; `note` gets the same sentence.
    """
    blocks = []
    for name, (section, show) in sorted(sections.items(), key=lambda item: (item[1].section.order, item[0])):
        try:
            part = check_part(show(views))
        except Exception as error:  # whatever a section raises, the others are still worth reading
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            sentence = f"the report section {name!r} failed and is left out ({' '.join(reason.split())})"
            note(sentence)
            part = Part(notes=(f"{sentence[0].upper()}{sentence[1:]}.",))
        if part is not None:
            blocks.append(Block(name, section.title, section.intro, part.figures, part.notes, part.body))
    return blocks


def check_part(part: object) -> Part | None:
    """The content that a section returned. Raises TypeError where it is none."""
    if part is None:
        return None
    if not isinstance(part, Part) or not all(isinstance(figure, Figure) for figure in part.figures):
        raise TypeError(f"show returned a {type(part).__name__}; return a Part of figures and texts, or None")
    return part


def run_headline(view: View) -> dict[str, Any]:
    """The headline of one run: the verdict and what the probes found, with advice, and the run's main facts."""
    record = view.record
    found, finding = final_verdict(record), run_finding(record.evals)
    advice = [text and f"To do: {text}" for text in (found.advice, finding.advice if finding else "")]
    texts = [found.reason, rollback_summary(run_rollbacks(record)), advice[0], str(finding or ""), advice[1]]
    texts.append("" if record.summary else UNFINISHED_NOTE)
    sentences = [capitalize(text.rstrip(".")) + "." for text in texts if text]
    return {
        "name": view.name,
        "verdict": found.name if finding is None else f"{found.name} · {finding.kind} {finding.words}",
        "tone": badge_tone(found.name, finding),
        "advice": mark_flags(" ".join(sentences)),
        "facts": (facts := probe_facts(record) | run_facts(record)),
        "data": short_data(facts["Data"]),
    }


def badge_tone(verdict: str, finding: Finding | None) -> str:
    """The graver tone of the verdict and of what the probes found.

    A run that learnt nothing is not green, nor one to which a part of its world is unknown.
    """
    tones = [VERDICT_TONES.get(verdict, "none")]
    if finding is not None:
        tones += [FINDING_TONES[finding.outcome], *["warn"] * bool(finding.also_worse or finding.unknown)]
    return max(tones, key=TONES.index)


def mark_flags(text: str) -> Markup:
    """The text as HTML, with every --flag set as code that does not break across lines."""
    parts = re.split(r"(--[\w.]+\w)", text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if p.startswith("--") else p for p in parts)
