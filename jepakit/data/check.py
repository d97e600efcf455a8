"""The report of `jepa check-data`: what a data set holds, which items are unreadable, which are duplicates."""

import csv
import io
from collections.abc import Sequence

from .registry import guess_kind, load
from .report import Problem, Progress, Report


def check_path(
    path: str,
    *,
    image: str = "",
    label: str = "",
    fixations: str = "",
    timing: str = "auto",
    progress: Progress = None,
) -> Report:
    """The report that `jepa check-data` prints for the data at `path`; reads every item once.

    `image`, `label`, `fixations` and `timing` are as in the data's config; `progress` is called with (done, all).
    Raises ValueError if there is nothing to read.
    """
    kind, why = guess_kind(path)
    if fixations or kind == "scanpaths":
        kind, why = "scanpaths", f"fixations in {fixations}" if fixations else why
        cfg = load(kind)().at(path, fixations=fixations, timing=timing)
    else:
        cfg = load(kind)(path=path).with_names(image, label)
    report = cfg.report(progress)
    return report._replace(rows=[("read as", f"{kind} ({why})"), *report.rows])


def as_csv(problems: Sequence[Problem]) -> str:
    """The problems as a CSV table, one row each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("item", "problem", "detail"), *((p.name, p.problem, p.detail) for p in problems)])
    return text.getvalue()
