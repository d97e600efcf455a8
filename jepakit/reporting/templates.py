"""Builds pieces of HTML: fills the templates of this folder, and folds long texts."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

MAX_UNBROKEN: Final = 32  # characters


def fill_template(name: str, **values: Any) -> Markup:
    """Fill in a template of this folder; escapes everything in `values`."""
    loader = FileSystemLoader(Path(__file__).parent)
    engine = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.tests["unbroken"] = is_unbroken
    return Markup(engine.get_template(name).render(**values))


def is_unbroken(value: object) -> bool:
    """Whether a cell begins with a number and is short, so that it must not break across lines."""
    return bool(re.match(r"[–−+-]?[\d.]", text := str(value))) and len(text) <= MAX_UNBROKEN


def folded_texts(texts: Mapping[str, str]) -> Markup:
    """HTML of folding texts, by title; a single text starts unfolded."""
    block = '<details{}><summary>{}</summary><pre tabindex="0">{}</pre></details>'
    state = Markup(" open" if len(texts) == 1 else "")
    return Markup("").join(Markup(block).format(state, name, text) for name, text in texts.items())
