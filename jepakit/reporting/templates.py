"""Pieces of HTML: the templates of this folder, and long texts that fold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def fill_template(name: str, **values: Any) -> Markup:
    """A template of this folder, filled in; everything in `values` is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    engine = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return Markup(engine.get_template(name).render(**values))


def folded_texts(texts: Mapping[str, str]) -> Markup:
    """Long texts, by title, that fold; a single one is open."""
    block = '<details{}><summary>{}</summary><pre tabindex="0">{}</pre></details>'
    state = Markup(" open" if len(texts) == 1 else "")
    return Markup("").join(Markup(block).format(state, name, text) for name, text in texts.items())
