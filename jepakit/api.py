"""The public functions behind Python and the command line: train, load, embed, probe, report, check_data."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from .core import files
from .core.progress import Progress, SilentProgress, progress_counter, terminal_progress
from .evals.runs import probe_run
from .inference.collect import collect
from .inference.complete import complete
from .inference.embed import embed
from .inference.forecast import forecast
from .inference.plan import plan, plan_run
from .inference.score import score
from .launch import dry_run, train_and_report
from .methods.base import Weights
from .model import Model, load
from .run.write import to_yaml
from .training.request import PathLike, Request, settings

__all__ = [
    "Model",
    "Request",
    "check_data",
    "collect",
    "compare",
    "complete",
    "doctor",
    "dry_run",
    "embed",
    "forecast",
    "load",
    "plan",
    "plan_run",
    "probe",
    "probe_run",
    "report",
    "reproduce",
    "score",
    "settings",
    "settings_text",
    "train",
    "train_and_report",
]


def settings_text(request: Request) -> str:
    """The settings as YAML, with auto values as null."""
    return to_yaml(settings(request))


def train(
    data: PathLike | None = None,
    out: PathLike | None = None,
    *,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    steps: int | None = None,
    seed: int | None = None,
    resume: Literal[False, True, "auto"] = False,
    allow_change: Sequence[str] = (),
    overwrite: bool = False,
    init: PathLike | None = None,
    progress: Progress | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train on a folder, manifest, shards, parquet or arrays; returns the content of summary.json and the `finding`.

    `recipe` is a recipe, a method (default "ijepa") or a YAML file; `settings` are dotted, as {"optim.lr": 1e-3}.
    Where there are labels the encoder is probed, and the run's report.html is written. `finding` says what the probes
    found in `outcome` ("better", "unclear" or "worse" than the untrained encoder and the raw input), `sentence` and
    `advice`; it is None where nothing was probed. Notes and a bar on stderr show how far it is, in a log a line every
    ten seconds; `quiet` shows nothing, `progress` takes what would be shown.
    """
    short = {"length.steps": steps, "seed": seed}
    flags = {**(settings or {}), **{k: v for k, v in short.items() if v is not None}}
    recipe = recipe or (None if resume else "ijepa")
    request = Request(recipe, data, out, None, flags, resume, allow_change, overwrite, init)
    silent = SilentProgress() if quiet else progress
    with terminal_progress() if silent is None else nullcontext(silent) as shown:
        done = train_and_report(request, shown)
    return {**done["summary"], "finding": done["finding"] and done["finding"].to_json()}


def probe(
    run: PathLike,
    kind: str = "knn",
    *,
    data: PathLike | None = None,
    test: PathLike | None = None,
    weights: Weights = "target",
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    step: int | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Evaluate a run's encoder by `kind`, beside the untrained encoder and raw input; returns the evals/*.json written.

    Without `data` the run's own data are used, without `test` a fixed fifth of them is held out. `settings` are the
    kind's own, as {"knn.k": 5}; `step` is that of a checkpoint, by default the newest. With `cache`, features are kept
    in the run folder for the next kind. Of a kind with several results, such as "lowshot", the first is returned.
    """
    train, held = (None if path is None else os.fspath(path) for path in (data, test))
    return probe_run(Path(run), (kind,), train, held, weights, name, settings, step, cache=cache, progress=progress)[0]


def report(*runs: PathLike, out: PathLike | None = None, progress: Progress | None = None) -> Path:
    """Write one self-contained HTML page about one or several runs; returns its path."""
    from .reporting import write

    return write([Path(run) for run in runs], None if out is None else Path(out), progress=progress)


def compare(
    *runs: PathLike, out: PathLike | None = None, progress: Progress | None = None
) -> tuple[dict[str, Any], Path]:
    """Compare two or more runs in a table and on one page; returns the table and the path of the page.

    The table holds `names`, `rows` of (what, one value per run) and `settings` of (key, values) that differ. Raises
    ValueError if fewer than two runs are given.
    """
    from .reporting import comparison_table

    if len(runs) < 2:
        raise ValueError(f"comparing takes two runs or more, {len(runs)} given, e.g. jepa compare runs/a runs/b")
    page = report(*runs, out=out, progress=progress)
    return comparison_table([Path(run) for run in runs]), page


def reproduce(
    name: str,
    data: PathLike | None = None,
    out: PathLike | None = None,
    *,
    seeds: int | None = None,
    steps: int | None = None,
    progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], Path]:
    """Run a study and write table.json, figures and page; returns the table's rows and the page's path.

    `data` is the folder of all data sets (default: the environment's JEPAKIT_DATA), `out` by default studies/NAME.
    `seeds` is by default what the study names, three for most. Finished trainings are kept. `steps` shortens them all,
    for a rehearsal.
    """
    from . import studies
    from .studies.reproduce import reproduce as carry_out

    study = studies.load(name)
    folder = data or os.environ.get("JEPAKIT_DATA")
    if study.files and not study.has_standin and not folder:
        raise ValueError(f"study {name} needs data sets; give --data the folder that holds them, or set JEPAKIT_DATA")
    where = Path(out) if out is not None else Path("studies") / name
    rows, page = carry_out(name, Path(folder or ""), where, progress or SilentProgress(), seeds=seeds, steps=steps)
    return [row._asdict() for row in rows], page


def check_data(
    path: PathLike,
    csv: PathLike | None = None,
    *,
    test: PathLike | None = None,
    image: str = "",
    label: str = "",
    fixations: str = "",
    timing: Literal["auto", "duration", "onset"] = "auto",
    progress: Progress | None = None,
) -> list[tuple[str, str]]:
    """Read every item of a data set; returns the findings as rows. With `csv`, also writes a row per problem.

    `image` and `label` name columns or arrays, where they are not called as usual; `fixations` is a file of scanpaths
    on the pictures, `timing` what its times are. With `test`, a second data set, a row counts its items that are also
    in the first.
    """
    from .data.check import as_csv, check_path

    count = progress_counter(progress or SilentProgress(), "reading", "items")
    other = "" if test is None else os.fspath(test)
    names = {"image": image, "label": label, "fixations": fixations, "timing": timing}
    found = check_path(os.fspath(path), test=other, **names, progress=count)
    if csv is not None:
        files.write_text(Path(csv), as_csv(found.problems))
    return found.rows


def doctor(data: PathLike | None = None) -> list[tuple[str, str]]:
    """Rows about the installation, this machine, and how fast `data` is read compared with a training step."""
    from .doctor import diagnose

    return diagnose(None if data is None else os.fspath(data))
