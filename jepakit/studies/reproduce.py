"""Carry out a study: every arm with every seed, then its table, figures and page; what is done is not done again."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any, Final, NamedTuple

from .. import launch
from ..core import files
from ..core.files import slug
from ..core.progress import Watch
from ..evals.runs import probe_run
from ..reporting import write_study
from ..run.settings import Evals, Run
from ..training.request import Request
from . import load
from .pace import Pace, paces
from .study import MEMORY, Arm, Own, Row, Scores, Study

BASELINES: Final = {"random_init": "untrained", "raw": "raw input"}


class Taken(NamedTuple):
    """A study's own numbers for one seed, the version of the study that took them, and what that cost."""

    version: int
    processor_seconds: float
    found: Any


def reproduce(
    name: str, data: Path, out: Path, watch: Watch, *, seeds: int | None = None, steps: int | None = None
) -> tuple[list[Row], Path]:
    """Run the study called `name` into `out`; the rows of its table.json and its page.

    `data` is the folder that holds the data sets. `steps` shortens every training: a rehearsal, which the page says. A
    study that was interrupted goes on where it was. Raises ValueError where data are missing, before the first step.
    """
    study = load(name)
    seeds = study.seeds if seeds is None else seeds
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; give 1 or more, {study.seeds} to know how far they scatter")
    data = study.prepare(data, out)
    for path in (path for arm in study.arms for path in (arm.run.data.path, arm.test)):
        if not (data / path).exists():
            raise ValueError(f"study {name} reads {path}, which {data} does not hold; give --data the folder that does")
    plan = {} if steps is not None else planned(study, data, out, watch)
    values = collect(study, data, out, watch, range(seeds), steps, plan)
    kept = taken(study.own, data, out, watch, range(seeds), steps) if study.own else []
    own, seconds = [one.found for one in kept], sum(one.processor_seconds for one in kept)
    further = study.own.table(own) if study.own else {}
    scores = Scores({**values, **further}, study.arms, study.own.paper if study.own else {})
    rows, notes = scores.rows(), [] if steps is None else [rehearsal(steps)]
    found = {
        "study": name,
        "title": study.title,
        "source": study.source,
        "claim": study.claim,
        "says": notes + (study.says(scores) if steps is None else []),
        "rows": [r._asdict() for r in rows],
        **({"processor_seconds": round(seconds, 1)} if kept else {}),
    }
    files.write_json(out / "table.json", found)
    drawn = [*(study.own.figures(own) if study.own else ())]
    drawn += study.draws({arm.label: folder(out, arm, 0) for arm in study.arms})
    return rows, write_study(found, groups(study), out, drawn)


def taken(own: Own, data: Path, out: Path, watch: Watch, seeds: Sequence[int], steps: int | None) -> list[Taken]:
    """The study's own numbers, seed by seed; those that its folder holds are not taken again, if of this version."""
    rest = "" if steps is None else f"-{steps}-steps"
    paths = {seed: out / "taken" / f"seed-{seed}{rest}.json" for seed in seeds}
    missing = [seed for seed, path in paths.items() if not holds(path, own.version)]
    if missing:
        watch.note(f"taking the numbers of {'seed' if len(missing) == 1 else 'seeds'} {', '.join(map(str, missing))}")
        begun = process_time()
        for seed, found in zip(missing, own.take(missing, steps, data), strict=True):
            now = process_time()
            files.write_json(paths[seed], Taken(own.version, now - begun, found)._asdict())
            begun = now
    return [Taken(**json.loads(path.read_text())) for path in paths.values()]


def holds(path: Path, version: int) -> bool:
    """Whether a file is there and has a seed's numbers as this version of a study takes them."""
    kept = json.loads(path.read_text()) if path.exists() else None
    # Files of before there were versions are bare numbers.
    return isinstance(kept, dict) and kept.get("version") == version


def rehearsal(steps: int) -> str:
    """The sentence that stands in place of any conclusion."""
    return f"A rehearsal of {steps} steps per training: its numbers say nothing about the claim."


def planned(study: Study, data: Path, out: Path, watch: Watch) -> dict[str, Pace]:
    """Every training's pace, where some get as many steps as the time of another allows; else nothing."""
    after = {arm.label: arm.pace for arm in study.arms if arm.pace}
    runs = {arm.label: placed(arm, data, 0, None) for arm in study.arms}
    return paces(runs, after, out / "paces.json", watch) if after else {}


def collect(
    study: Study,
    data: Path,
    out: Path,
    watch: Watch,
    seeds: Sequence[int],
    steps: int | None,
    plan: Mapping[str, Pace],
) -> dict[tuple[str, str], list[float]]:
    """The values by (arm, metric); seed by seed, so that an interrupted study has compared every arm at least once.

    Memory was measured once, for all seeds, with the paces of `plan`.
    """
    values = {(arm.label, MEMORY): [plan[arm.label].memory_bytes / 2**20] for arm in study.arms if plan}
    beside = {arm.label for arm in study.firsts.values() if study.baselines}
    todo = [(seed, arm) for seed in seeds for arm in study.arms]
    for k, (seed, arm) in enumerate(todo, 1):
        watch.note(f"{k} of {len(todo)}: {arm.label}, seed {seed}")
        here = folder(out, arm, seed)
        length = plan[arm.label].steps if plan and arm.pace else steps
        launch.carry_out(placed(arm, data, seed, length), Request(out=here, resume="auto"), watch)
        for metric, value in measured(here, study, str(data / arm.test), watch, arm.label in beside):
            values.setdefault((arm.label, metric), []).append(value)
        for name, metric, value in baselines(here, str(data / arm.test)) if arm.label in beside else ():
            values.setdefault((f"{arm.data} · {name}", metric), []).append(value)
    return {key: values[key] for key in sorted(values, key=lambda key: _order(groups(study), key))}


def folder(out: Path, arm: Arm, seed: int) -> Path:
    """Where the run of an arm lies."""
    return out / "runs" / f"{slug(arm.label)}-seed-{seed}"


def placed(arm: Arm, data: Path, seed: int, steps: int | None) -> Run:
    """The arm's Run with its data where they lie, for a seed counted from its own; probes are the study's to make."""
    run = arm.run
    here = replace(run.data, path=str(data / run.data.path))
    length = run.length if steps is None else replace(run.length, steps=steps)
    return replace(run, data=here, seed=run.seed + seed, length=length, evals=Evals(kinds=(), report=False))


def groups(study: Study) -> dict[str, str]:
    """The data set of every row of a training, and of those that stand beside its first one."""
    beside = {f"{data} · {name}": data for data in study.firsts for name in BASELINES.values() if study.baselines}
    return {arm.label: arm.data for arm in study.arms} | beside


def measured(run: Path, study: Study, test: str, watch: Watch, beside: bool) -> list[tuple[str, float]]:
    """A finished run's scores by every kind of probe, its seconds and `study.extra`; probes made before are read.

    With `beside` they are probes that have baselines, too.
    """
    summary = json.loads((run / "summary.json").read_text())
    found = stored(run, summary["steps"], test)
    known = {result["kind"] for result in found if not (beside and result["raw"] is None)}
    if missing := [kind for kind in study.kinds if kind not in known]:
        options = {key: value for key, value in study.options.items() if key.partition(".")[0] in missing}
        probe_run(run, missing, test=test, settings=options, watch=watch, cache=False, baselines=beside)
        found = stored(run, summary["steps"], test)
    scores = [(f"{result['kind']} {result['metric']}", float(result["value"])) for result in found]
    return [*scores, ("seconds", float(summary["seconds"])), *study.extra(run).items()]


def baselines(run: Path, test: str) -> list[tuple[str, str, float]]:
    """What the probes of a finished run say of its untrained encoder and of the raw input: (name, metric, value)."""
    step = json.loads((run / "summary.json").read_text())["steps"]
    return [
        (name, f"{result['kind']} {result['metric']}", float(result[key]))
        for result in stored(run, step, test)
        for key, name in BASELINES.items()
    ]


def stored(run: Path, step: int, test: str) -> list[dict[str, Any]]:
    """The results of a run's last step on the data at `test`."""
    results = [json.loads(path.read_text()) for path in sorted((run / "evals").glob("*.json"))]
    return [r for r in results if r["step"] == step and r["data"].endswith(test)]


def _order(names: Mapping[str, str], key: tuple[str, str]) -> tuple[list[str | int], int]:
    """By metric, whose numbers count as numbers ("after 2" before "after 10"), then as the study lists its arms."""
    metric = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", key[1])]
    return metric, [*names].index(key[0])
