"""The page: a pure function from records and what was seen of their data to one self-contained HTML text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..run.write import flatten
from ..training.rollback import rollback_summary
from . import figures, probes
from .facts import UNKNOWN, comparison, facts, undone, verdict
from .figures import Figure
from .records import Record, unique_names

TONES = {
    "healthy": "good",
    "drifting": "warn",
    "idle": "warn",
    "dimensional": "bad",
    "full": "bad",
    "exploding": "bad",
}
UNFINISHED = "the run left no summary.json: it has not finished, or was stopped"
NOTHING = Markup("")
TIME = ("time", "Through time", "What the method knows after each step of a sample that it was trained on.")
PICTURES = (
    ("masks", "Masks", "What the encoder sees and what the predictor must tell."),
    ("patches", "Patch maps", "What the encoder makes of each patch of a few images that it was trained on."),
    ("attention", "Attention", "Where the encoder takes its information from."),
    ("neighbours", "Nearest neighbours", "Which images the encoder finds alike, among those that it was trained on."),
    ("map", "Embedding map", "All of them at once."),
)


@dataclass(frozen=True)
class Section:
    """One part of the page with its entry in the index; `notes` are sentences for what could not be shown."""

    id: str
    title: str
    intro: str = ""
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    body: Markup = NOTHING


@dataclass(frozen=True)
class Gallery:
    """The pictures of one run, by section id, and the sentences for those that are missing."""

    figures: Mapping[str, tuple[Figure, ...]]
    notes: Mapping[str, str]


def render(records: Sequence[Record], galleries: Sequence[Gallery], version: str) -> str:
    """The whole page as HTML; everything that comes from the runs is escaped."""
    names = unique_names(records)
    sections = [
        _probes(records, names),
        _curves(records, names),
        _spectra(records, names),
        *_rollbacks(records, names),
        *[_pictures(*entry, galleries, names) for entry in shown(galleries)],
        _settings(records, names),
        _environment(records, names),
        _skipped(records, names),
    ]
    return template(
        "template.html.j2",
        title=names[0] if len(names) == 1 else f"{len(names)} runs",
        heads=[_head(record, name) for record, name in zip(records, names, strict=True)],
        comparison=comparison(records, names) if len(records) > 1 else None,
        sections=sections,
        version=version,
    )


def shown(galleries: Sequence[Gallery]) -> tuple[tuple[str, str, str], ...]:
    """The sections with pictures: that on time for methods that unfold in time."""
    unfolds = any("time" in gallery.figures or "time" in gallery.notes for gallery in galleries)
    return (*([TIME] if unfolds else []), *PICTURES)


def template(name: str, **values: Any) -> str:
    """A template of this folder, filled in; what it is given is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    engine = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return engine.get_template(name).render(**values)


def _head(record: Record, name: str) -> dict[str, Any]:
    """The headline of one run: the verdict with its reason and advice, and the facts beside it."""
    found = verdict(record)
    advice = found.advice and f"To do: {found.advice}"
    said = [found.reason, rollback_summary(undone(record)), advice, "" if record.summary else UNFINISHED]
    sentences = [text[0].upper() + text[1:].rstrip(".") + "." for text in said if text]
    return {
        "name": name,
        "verdict": found.name,
        "tone": TONES.get(found.name, "none"),
        "advice": _flags(" ".join(sentences)),
        "facts": facts(record),
    }


def _flags(text: str) -> Markup:
    """Text whose --flags stay in one piece."""
    parts = re.split(r"(--[\w.]+\w)", text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if p.startswith("--") else p for p in parts)


def _probes(records: Sequence[Record], names: Sequence[str]) -> Section:
    rows = [probes.row(e, name) for record, name in zip(records, names, strict=True) for e in record.evals]
    if not rows:
        return Section("probes", "Probes", notes=("No probe was run; with labelled data: jepa probe RUN --kind knn",))
    intro = (
        "Does the encoder know more than it did before training, and more than the pixels themselves? A score counts "
        "only beside both."
    )
    table = Markup(template("probes.html.j2", probes=rows, several=len(records) > 1))
    return Section("probes", "Probes", intro, body=table)


def _curves(records: Sequence[Record], names: Sequence[str]) -> Section:
    found = tuple(figures.curves(records, names))
    if not found:
        return Section(
            "curves", "Curves", notes=("The run has no metrics.jsonl with rows, so there is nothing to draw.",)
        )
    intro = "What was logged along the way. Long curves are averaged over equal stretches; point at one for its values."
    return Section("curves", "Curves", intro, found)


def _spectra(records: Sequence[Record], names: Sequence[str]) -> Section:
    found = [
        _named(f, name, len(names))
        for record, name in zip(records, names, strict=True)
        for side in ("target", "context")
        for f in (figures.spectrum(record, side), figures.eigenvalues(record, side))
        if f
    ]
    if not found:
        return Section("spectrum", "Eigenspectrum", notes=("The run logged no eigenspectrum.",))
    intro = "How many directions the representation uses, over time."
    return Section("spectrum", "Eigenspectrum", intro, tuple(found))


def _rollbacks(records: Sequence[Record], names: Sequence[str]) -> list[Section]:
    """The section on what was undone, where something was."""
    rows = [(name, event) for record, name in zip(records, names, strict=True) for event in undone(record)]
    if not rows:
        return []
    table = Markup(template("rollbacks.html.j2", rows=rows, several=len(records) > 1))
    intro = "Collapses that were undone: training went back to a checkpoint from before, at half the learning rate."
    return [Section("rollbacks", "Rollbacks", intro, body=table)]


def _named(figure: Figure, name: str, runs: int) -> Figure:
    return replace(figure, title=f"{figure.title} · {name}") if runs > 1 else figure


def _pictures(key: str, title: str, intro: str, galleries: Sequence[Gallery], names: Sequence[str]) -> Section:
    pairs = list(zip(galleries, names, strict=True))
    found = [_named(f, name, len(names)) for g, name in pairs for f in g.figures.get(key, ())]
    notes = [f"{name}: {g.notes[key]}" if len(names) > 1 else g.notes[key] for g, name in pairs if key in g.notes]
    return Section(key, title, intro, tuple(found), tuple(notes))


def _settings(records: Sequence[Record], names: Sequence[str]) -> Section:
    texts = {name: record.config for name, record in zip(names, records, strict=True) if record.config}
    if not texts:
        return Section("settings", "Settings", notes=("No config.yaml was found.",))
    intro = "The run's config.yaml: jepa train with this file repeats it."
    return Section("settings", "Settings", intro, body=_texts(texts))


def _environment(records: Sequence[Record], names: Sequence[str]) -> Section:
    flat = [flatten(r.environment) if r.environment else {} for r in records]
    keys = list(dict.fromkeys(k for f in flat for k in f))
    if not keys:
        return Section("environment", "Environment", notes=("No environment.json was found.",))
    rows = [(key, [UNKNOWN if f.get(key) is None else f[key] for f in flat]) for key in keys]
    table = Markup(template("environment.html.j2", rows=rows, names=names))
    return Section("environment", "Environment", "Where it was trained.", body=table)


def _skipped(records: Sequence[Record], names: Sequence[str]) -> Section:
    texts: dict[str, str] = {}
    notes: list[str] = []
    for record, name in zip(records, names, strict=True):
        said = f"{name}: " if len(names) > 1 else ""
        notes += [f"{said}{note}" for note in record.notes]
        if files := _lines(record.summary.get("skipped")):
            texts[f"{said}{len(files)} file{'s' * (len(files) > 1)}"] = "\n".join(files)
        else:
            notes.append(f"{said}No file of the data was skipped.")
    intro = "What could not be read, in the data and in the run folder."
    return Section("skipped", "Skipped files", intro, notes=tuple(notes), body=_texts(texts))


def _texts(texts: Mapping[str, str]) -> Markup:
    """Long texts that fold; a single one is open."""
    block = '<details{}><summary>{}</summary><pre tabindex="0">{}</pre></details>'
    opened = Markup(" open" if len(texts) == 1 else "")
    return Markup("").join(Markup(block).format(opened, name, text) for name, text in texts.items())


def _lines(skipped: Any) -> list[str]:
    """One line per file: summary.json maps names to reasons."""
    if isinstance(skipped, Mapping):
        return [f"{name}: {why}" for name, why in skipped.items()]
    return [str(name) for name in skipped] if isinstance(skipped, list) else []
