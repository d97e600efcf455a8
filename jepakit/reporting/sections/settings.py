"""The settings of the runs, as their config.yaml."""

from collections.abc import Sequence
from typing import Final

from ..section import Part, Section, View
from ..templates import folded_texts

SECTION: Final = Section(110, "Settings", "The run's config.yaml: jepa train with this file repeats it.")


def show(views: Sequence[View]) -> Part:
    """A text per run."""
    texts = {view.name: view.record.config for view in views if view.record.config}
    return Part(body=folded_texts(texts)) if texts else Part(notes=("No config.yaml was found.",))
