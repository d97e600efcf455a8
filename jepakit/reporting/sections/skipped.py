"""The section that lists unreadable files in the data and in the run folder."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..section import Part, Section, View
from ..templates import folded_texts

SECTION: Final = Section(130, "Skipped files", "What could not be read, in the data and in the run folder.")


def show(views: Sequence[View]) -> Part:
    """A list of skipped data files per run, and a note for each broken file of the run folder."""
    texts: dict[str, str] = {}
    notes: list[str] = []
    for view in views:
        prefix = f"{view.name}: " if len(views) > 1 else ""
        notes += [f"{prefix}{note}" for note in view.record.notes]
        if files := file_lines(view.record.summary.get("skipped")):
            texts[f"{prefix}{len(files)} file{'s' * (len(files) > 1)}"] = "\n".join(files)
        else:
            notes.append(f"{prefix}No file of the data was skipped.")
    return Part(notes=tuple(notes), body=folded_texts(texts))


def file_lines(skipped: Any) -> list[str]:
    """One line per skipped file with the reason; `skipped` maps names to reasons as summary.json does."""
    if isinstance(skipped, Mapping):
        return [f"{name}: {why}" for name, why in skipped.items()]
    return [str(name) for name in skipped] if isinstance(skipped, list) else []
