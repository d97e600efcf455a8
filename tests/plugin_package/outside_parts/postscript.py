"""A last word on every run."""

from collections.abc import Sequence

from jepakit.reporting.section import Part, Section, View

SECTION = Section(1000, "Postscript", "What a package of somebody else's says of these runs.")


def show(views: Sequence[View]) -> Part:
    """The number of steps of each."""
    return Part(notes=tuple(f"{view.name} went {view.record.steps} steps." for view in views))
