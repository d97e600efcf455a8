"""Look at data before training: what is there, what cannot be read, what is there twice."""

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
    """What `jepa check-data` prints of the data at `path`, every item of which is read once.

    `image`, `label`, `fixations` and `timing` are as in the data's config; `progress` is called with (done, all).
    Raises ValueError where there is nothing to read at all.
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
    """Problems as a table with a row each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("item", "problem", "detail"), *((p.name, p.problem, p.detail) for p in problems)])
    return text.getvalue()
