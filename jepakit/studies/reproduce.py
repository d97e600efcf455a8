"""Runs a study: trains every arm with every seed, then writes table, figures and page; skips finished work."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any, Final, NamedTuple

from .. import launch
from ..core import files
from ..core.files import file_slug
from ..core.progress import Progress
from ..evals.base import load_kind
from ..evals.runs import probe_run
from ..methods.base import Weights
from ..run.settings import Evals, Run
from ..training.request import Request
from . import load
from .pace import Pace, load_paces
from .page import write_study
from .study import MEMORY_METRIC, Arm, Own, Row, Scores, Study, require_data

BASELINE_NAMES: Final = {"random_init": "untrained", "raw": "raw input"}


class OwnNumbers(NamedTuple):
    """A study's own numbers for one seed, the version of the study that measured them, and the cost in time."""

    version: int
    processor_seconds: float
    found: Any


def reproduce(
    name: str, data: Path, out: Path, progress: Progress, *, seeds: int | None = None, steps: int | None = None
) -> tuple[list[Row], Path]:
    """Run the study called `name` into `out`; returns the rows of its table.json and the path of its page.

    `data` is the folder that holds the data sets. `steps` shortens every training to a rehearsal, and the page says so.
    An interrupted study continues where it stopped. Raises ValueError before the first step if data are missing.
    """
    study = load(name)
    seeds = study.seeds if seeds is None else seeds
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; give 1 or more, or {study.seeds} to measure their scatter")
    data = study.prepare(data, out)
    for path in study.files:
        require_data(name, data, path)
    plan = {} if steps is not None else plan_paces(study, data, out, progress)
    values = collect_scores(study, data, out, progress, range(seeds), steps, plan)
    kept = own_numbers(study.own, data, out, progress, range(seeds), steps) if study.own else []
    own, seconds = [one.found for one in kept], sum(one.processor_seconds for one in kept)
    further = study.own.table(own) if study.own else {}
    scores = Scores({**values, **further}, study.arms, study.own.paper if study.own else {})
    rows = scores.rows()
    found = {
        "study": name,
        "title": study.title,
        "source": study.source,
        "claim": study.claim,
        "says": study.sentences(scores) if steps is None else [rehearsal_note(steps)],
        "rows": [r._asdict() for r in rows],
        **({"processor_seconds": round(seconds, 1)} if kept else {}),
    }
    files.write_json(out / "table.json", found)
    figures = [*(study.own.figures(own) if study.own else ())]
    figures += study.figures({arm.label: run_folder(out, arm, 0) for arm in study.arms})
    return rows, write_study(found, row_groups(study), out, figures)


def own_numbers(
    own: Own, data: Path, out: Path, progress: Progress, seeds: Sequence[int], steps: int | None
) -> list[OwnNumbers]:
    """The study's own numbers, seed by seed; numbers of this version in the study's folder are not measured again."""
    rest = "" if steps is None else f"-{steps}-steps"
    paths = {seed: out / "taken" / f"seed-{seed}{rest}.json" for seed in seeds}
    missing = [seed for seed, path in paths.items() if not is_current(path, own.version)]
    if missing:
        progress.note(f"measuring {'seed' if len(missing) == 1 else 'seeds'} {', '.join(map(str, missing))}")
        begun = process_time()
        for seed, found in zip(missing, own.measure(missing, steps, data), strict=True):
            now = process_time()
            files.write_json(paths[seed], OwnNumbers(own.version, now - begun, found)._asdict())
            begun = now
    return [OwnNumbers(**json.loads(path.read_text())) for path in paths.values()]


def is_current(path: Path, version: int) -> bool:
    """Whether a file exists and holds a seed's numbers, measured by this version of the study."""
    kept = json.loads(path.read_text()) if path.exists() else None
    # Files older than the version field hold bare numbers.
    return isinstance(kept, dict) and kept.get("version") == version


def rehearsal_note(steps: int) -> str:
    """The sentence that replaces every conclusion of a rehearsal."""
    return f"A rehearsal of {steps} steps per training: its numbers are no evidence for or against the claim."


def plan_paces(study: Study, data: Path, out: Path, progress: Progress) -> dict[str, Pace]:
    """The pace of every training; empty if no training depends on the time of another."""
    after = {arm.label: arm.pace for arm in study.arms if arm.pace}
    runs = {arm.label: localize_run(arm, data, 0, None) for arm in study.arms}
    return load_paces(runs, after, out / "paces.json", progress) if after else {}


def collect_scores(
    study: Study,
    data: Path,
    out: Path,
    progress: Progress,
    seeds: Sequence[int],
    steps: int | None,
    plan: Mapping[str, Pace],
) -> dict[tuple[str, str], list[float]]:
    """Run every arm with every seed and return the values by (arm, metric).

    Seeds form the outer loop, so that an interrupted study has trained every arm at least once. Memory comes from
    `plan`, which measured it once for all seeds.
    """
    values = {(arm.label, MEMORY_METRIC): [plan[arm.label].memory_bytes / 2**20] for arm in study.arms if plan}
    with_baselines = {arm.label for arm in study.first_arms.values() if study.baselines}
    todo = [(seed, arm) for seed in seeds for arm in study.arms]
    for k, (seed, arm) in enumerate(todo, 1):
        progress.note(f"{k} of {len(todo)}: {arm.label}, seed {seed}")
        here = run_folder(out, arm, seed)
        length = plan[arm.label].steps if plan and arm.pace else steps
        launch.train_settings(localize_run(arm, data, seed, length), Request(out=here, resume="auto"), progress)
        test = str(data / arm.test) if arm.test else None
        for metric, value in probe_scores(here, study, test, progress, arm.label in with_baselines):
            values.setdefault((arm.label, metric), []).append(value)
        for name, metric, value in baseline_scores(here, study, test) if arm.label in with_baselines else ():
            values.setdefault((f"{arm.data} · {name}", metric), []).append(value)
        for name, measure in study.parts.items():
            for metric, value in measure(here).items():
                values.setdefault((f"{arm.label} · {name}", metric), []).append(value)
    return {key: values[key] for key in sorted(values, key=lambda key: _sort_key(row_groups(study), key))}


def run_folder(out: Path, arm: Arm, seed: int) -> Path:
    """The folder of an arm's run."""
    return out / "runs" / f"{file_slug(arm.label)}-seed-{seed}"


def localize_run(arm: Arm, data: Path, seed: int, steps: int | None) -> Run:
    """The arm's Run with full data paths and `seed` added to its own, without probes: the study runs the probes.

    `steps` shortens its heads as well.
    """
    run = arm.run
    here = replace(run.data, path=str(data / run.data.path)) if arm.test else run.data
    short: dict[str, Any] = {} if steps is None else {"steps": steps}
    heads = tuple(replace(head, length=replace(head.length, **short)) for head in run.heads)
    alone = replace(run, evals=Evals(kinds=(), report=False), heads=heads)
    return replace(alone, data=here, seed=run.seed + seed, length=replace(run.length, **short))


def row_groups(study: Study) -> dict[str, str]:
    """The data set of every row: the trainings, the baselines of the first on each set, and parts of trainings."""
    baselines = {
        f"{data} · {name}": data for data in study.first_arms for name in BASELINE_NAMES.values() if study.baselines
    }
    parts = {f"{arm.label} · {name}": arm.data for arm in study.arms for name in study.parts}
    return {arm.label: arm.data for arm in study.arms} | baselines | parts


def probe_scores(
    run: Path, study: Study, test: str | None, progress: Progress, baselines: bool
) -> list[tuple[str, float]]:
    """A finished run's scores by every kind of probe, its seconds and `study.run_metrics`.

    Results of earlier probes are read from the run. With `baselines`, the probes include the untrained encoder and the
    raw input.
    """
    summary = json.loads((run / "summary.json").read_text())
    scores: list[tuple[str, float]] = []
    for weights in study.encoders:
        found = stored_results(run, summary["steps"], test, weights)
        known = {result["kind"] for result in found if not (baselines and result["raw"] is None)}
        if missing := [kind for kind in study.kinds if kind not in known]:
            options = {key: value for key, value in study.options.items() if key.partition(".")[0] in missing}
            asked: dict[str, Any] = {"weights": weights, "settings": options, "baselines": baselines}
            probe_run(run, missing, test=test, progress=progress, cache=False, **asked)
            found = stored_results(run, summary["steps"], test, weights)
        end = "" if weights == study.encoders[0] else f", {weights} encoder"
        scores += [(f"{result['kind']} {result['metric']}{end}", float(result["value"])) for result in found]
    return [*scores, ("seconds", float(summary["seconds"])), *study.run_metrics(run).items()]


def baseline_scores(run: Path, study: Study, test: str | None) -> list[tuple[str, str, float]]:
    """The scores of a finished run's untrained encoder and of the raw input: (name, metric, value)."""
    step = json.loads((run / "summary.json").read_text())["steps"]
    return [
        (name, f"{result['kind']} {result['metric']}", float(result[key]))
        for result in stored_results(run, step, test, study.encoders[0])
        for key, name in BASELINE_NAMES.items()
    ]


def stored_results(run: Path, step: int, test: str | None, weights: Weights) -> list[dict[str, Any]]:
    """The probe results of a run's last step on the data at `test`, or its own, by the encoder with these weights."""
    results = [json.loads(path.read_text()) for path in sorted((run / "evals").glob("*.json"))]
    # What other commands measured, such as plans, judges no encoder.
    here = [r for r in results if "weights" in r and r["step"] == step and r["data"].endswith(test or "")]
    # A prediction starts from the context encoder, whichever weights were asked for.
    return [r for r in here if r["weights"] == weights or load_kind(r["kind"]).reads == "windows"]


def _sort_key(names: Mapping[str, str], key: tuple[str, str]) -> tuple[list[str | int], int]:
    """A sort key: metric, with numbers in numerical order ("after 2" before "after 10"), then the study's arm order."""
    metric = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", key[1])]
    return metric, [*names].index(key[0])
