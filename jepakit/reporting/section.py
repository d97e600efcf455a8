"""Defines a section of the page: a file in `sections/` with a constant `SECTION` and a function `show`.

`show` gets one `View` per run and returns a `Part`, or None if the section has nothing to show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from markupsafe import Markup

from .figures import Figure
from .records import RunRecord
from .samples import Look

Folding = Literal["never", "for several runs", "always"]


class Section(NamedTuple):
    """A section's title, the sentence under it, and its position on the page: a lower `order` comes first.

    `folds` says when only its title is shown at first: a section that repeats figures for every run folds for several.
    """

    order: int
    title: str
    intro: str = ""
    folds: Folding = "always"

    def is_open(self, runs: int) -> bool:
        """Whether the section starts unfolded on a page about so many runs."""
        return self.folds == "never" or (self.folds == "for several runs" and runs == 1)


NO_BODY: Final = Markup("")


@dataclass(frozen=True)
class Part:
    """The content of a section: figures, `notes` on what could not be shown, and an optional `body` of safe HTML."""

    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    body: Markup = NO_BODY


@dataclass(frozen=True)
class Block:
    """A section as the template renders it, with its entry in the index."""

    id: str
    title: str
    intro: str = ""
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    body: Markup = NO_BODY
    open: bool = True


@dataclass(frozen=True, eq=False)
class View:
    """The data of one run: its files and its encoded samples. `name` is the run's name on the page."""

    record: RunRecord
    name: str
    look: Look = field(default_factory=Look)


Show = Callable[[Sequence[View]], Part | None]


class Entry(NamedTuple):
    """A registered section and the function that fills it."""

    section: Section
    show: Show


def figures_per_run(views: Sequence[View], draw: Callable[[View], tuple[Sequence[Figure], str]]) -> Part | None:
    """The figures of every run, with a note for missing ones; titles carry the run's name if there are several runs.

    None if there is neither a figure nor a note.
    """
    figures: list[Figure] = []
    notes: list[str] = []
    for view in views:
        drawn, note = draw(view)
        figures += [replace(f, title=f"{f.title} · {view.name}") if len(views) > 1 else f for f in drawn]
        if note:
            notes.append(f"{view.name}: {note}" if len(views) > 1 else note)
    return Part(tuple(figures), tuple(notes)) if figures or notes else None
