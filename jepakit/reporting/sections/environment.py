"""The section on where the runs were trained: machine, versions, command."""

from collections.abc import Sequence
from typing import Final

from ...run.write import flatten_settings
from ..facts import UNKNOWN
from ..section import Part, Section, View
from ..templates import fill_template

SECTION: Final = Section(120, "Environment", "Where it was trained.")


def show(views: Sequence[View]) -> Part:
    """A table of the environment with one column per run."""
    flat = [flatten_settings(view.record.environment) if view.record.environment else {} for view in views]
    keys = list(dict.fromkeys(key for entries in flat for key in entries))
    if not keys:
        return Part(notes=("No environment.json was found.",))
    rows = [(key, [UNKNOWN if f.get(key) is None else f[key] for f in flat]) for key in keys]
    return Part(body=fill_template("environment.html.j2", rows=rows, names=[view.name for view in views]))
