"""Writes a self-contained HTML report on run folders: what was trained, whether it worked, what the encoder sees."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..core.progress import Progress, SilentProgress
from ..core.registry import Registry, file_with

if TYPE_CHECKING:
    from .section import Entry

__all__ = [
    "SECTIONS",
    "atlas",
    "charts",
    "comparison_table",
    "curves",
    "facts",
    "figures",
    "imagination",
    "page",
    "paths",
    "pictures",
    "probes",
    "records",
    "samples",
    "scanpaths",
    "section",
    "sections",
    "templates",
    "time",
    "write",
]

MAP_IMAGES = 1000


def section_of(module: Any) -> "Entry":
    """The section that a module defines. Raises ValueError if it defines none."""
    from .section import Entry, Section

    if not isinstance(module.SECTION, Section) or not callable(module.show):
        raise ValueError(f"{module.__name__} needs a Section SECTION and a function show(views)")
    if not isinstance(module.SECTION.order, int | float):
        raise ValueError(f"SECTION.order of {module.__name__} is {module.SECTION.order!r}; give a number")
    return Entry(module.SECTION, module.show)


SECTIONS: "Final[Registry[Entry]]" = Registry(
    "jepakit.reporting.sections",
    "report section",
    "a Section SECTION and a function show(views)",
    file_with("SECTION", "show"),
    section_of,
    group="jepakit.sections",
)


def write(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    images: int = 600,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Write the report on one run, or a comparison of several, and return its path.

    The default path is RUN/report.html, or report.html beside the first run if there are several.
    The page is one file that loads nothing; it is renamed into place when it is complete. Each run's encoder processes
    `images` samples of its data (at most 1000 over all runs) on `device`. The page says what is missing from a run.
    A section that fails, or that cannot be used, costs only its own place on the page; `progress` gets a note.
    Raises ValueError if `runs` is empty or a folder is not a run.
    """
    from ..core.files import write_text
    from ..core.version import VERSION
    from .page import render_page
    from .records import read_record
    from .samples import look_at_run

    runs = [Path(run) for run in runs]
    if not runs:
        raise ValueError("no run given; name at least one run folder, e.g. jepa report runs/a")
    target = Path(out) if out else (runs[0] if len(runs) == 1 else runs[0].resolve().parent) / "report.html"
    if target.is_dir():
        raise ValueError(f"{target} is a folder; give --out a file, e.g. {target / 'report.html'}")
    records = [read_record(run) for run in runs]
    each = max(2, min(images, MAP_IMAGES // len(runs)))
    # Keeps the page of many runs about as large as the page of four.
    shown = max(2, min(8, 32 // len(runs)))
    note = (progress or SilentProgress()).note
    looks = [look_at_run(run, each, device, note).first(shown) for run in runs]
    problems = SECTIONS.unusable_members()
    sections = {name: SECTIONS.load(name) for name in SECTIONS.names() if name not in problems}
    for problem in problems.values():
        note(problem)
    html = render_page(records, looks, VERSION, sections, list(problems.values()), note)
    # File names may contain bytes that are not text; Python decodes them to lone surrogates, which cannot be encoded.
    write_text(target, html.encode("utf-8", "replace").decode())
    return target


def comparison_table(runs: Sequence[Path]) -> dict[str, Any]:
    """The numbers of several runs and the settings that differ, one column per run."""
    from .facts import compare_records
    from .records import read_record, unique_names

    records = [read_record(Path(run)) for run in runs]
    return compare_records(records, unique_names(records))
