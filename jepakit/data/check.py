"""The report of `jepa check-data`: what a data set holds, which items are unreadable, which are duplicates."""

import csv
import io
from collections.abc import Sequence

from .base import Dataset
from .config import SourceConfig
from .overlap import overlap_sentence
from .registry import guess_kind, load, read_like
from .report import MAX_PROBLEMS_LISTED, Problem, Progress, Report


def check_path(
    path: str,
    *,
    test: str = "",
    image: str = "",
    label: str = "",
    fixations: str = "",
    timing: str = "auto",
    progress: Progress = None,
) -> Report:
    """The report that `jepa check-data` prints for the data at `path`; reads every item once.

    `image`, `label`, `fixations` and `timing` are as in the data's config; `progress` is called with (done, all). With
    the path `test` of a second set, a row counts its items that equal an item of the first, as training would read
    them. Raises ValueError if there is nothing to read.
    """
    kind, why = guess_kind(path)
    if fixations or kind == "scanpaths":
        kind, why = "scanpaths", f"fixations in {fixations}" if fixations else why
        cfg = load(kind)().at(path, fixations=fixations, timing=timing)
    else:
        cfg = load(kind)(path=path).with_names(image, label)
    both = open_both(cfg, test) if test else None
    report = cfg.report(progress)
    report = report._replace(rows=[("read as", f"{kind} ({why})"), *report.rows])
    return report if both is None else add_overlap(report, *both, path)


def open_both(cfg: SourceConfig, test: str) -> tuple[Dataset, Dataset]:
    """The data of `cfg`, and those at `test` read the same way: by windows of the same length, for example."""
    train = cfg.open()
    settings, _ = cfg.resolve(train, frozenset(), "check-data")
    return train, read_like(settings, test).whole().open()


def add_overlap(report: Report, train: Dataset, test: Dataset, path: str) -> Report:
    """The report on `train`, at `path`, with a row and problems on the items of `test` that are also there."""
    shared = shared_items(train, test)
    row = ("overlap with --test", overlap_sentence(len(shared), len(test)))
    found = [Problem(test.name(i), "overlap", f"also in {path}") for i in shared[:MAX_PROBLEMS_LISTED]]
    return Report([*report.rows, row], (*report.problems, *found))


def as_csv(problems: Sequence[Problem]) -> str:
    """The problems as a CSV table, one row each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("item", "problem", "detail"), *((p.name, p.problem, p.detail) for p in problems)])
    return text.getvalue()


def shared_items(train: Dataset, test: Dataset) -> list[int]:
    """The items of the data set `test` that equal an item of `train`; reads every item of both."""
    known = {train.content_hash(i) for i in range(len(train))} - {None}
    return [i for i in range(len(test)) if test.content_hash(i) in known]
