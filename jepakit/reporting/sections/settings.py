"""The section that shows the config.yaml of every run."""

from collections.abc import Sequence
from typing import Final

from ..section import Part, Section, View
from ..templates import folded_texts

SECTION: Final = Section(110, "Settings", "The run's config.yaml: jepa train with this file repeats it.")


def show(views: Sequence[View]) -> Part:
    """One folding text per run with all its settings."""
    texts = {view.name: view.record.config for view in views if view.record.config}
    return Part(body=folded_texts(texts)) if texts else Part(notes=("No config.yaml was found.",))
