"""Measures the pace of trainings on this machine, so that each gets as many steps as fit into the same time.

The speed of a machine varies over time. The trainings therefore take turns, a few optimiser steps each, for several
rounds, and the median over rounds counts: whatever slows down one round slows down all trainings.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..core import devices, distributed, files
from ..core.progress import Progress
from ..run.settings import Length, Run
from ..training import estimate, loop, session

ROUNDS, STEPS = 5, 6


class Pace(NamedTuple):
    """The number of optimiser steps of a training, the seconds per step, and the memory.

    The memory covers weights, gradients, AdamW's moments and the tensors that the forward pass of one micro-batch keeps
    for the backward pass; it covers neither libraries nor temporary buffers of operations (`prepare.estimate`).
    """

    steps: int
    seconds_per_step: float
    memory_bytes: int


def load_paces(runs: Mapping[str, Run], after: Mapping[str, str], path: Path, progress: Progress) -> dict[str, Pace]:
    """The pace of every training: read from `path` if it exists, else measured and written to it.

    An existing file is never replaced, because a training that has begun must keep its steps. `after` maps a training
    to the training whose time it gets. Raises ValueError if `path` lacks one of the trainings.
    """
    if not path.exists():
        progress.note(f"measuring the pace of {len(runs)} trainings, in turns")
        found = fit_steps(measure_paces(runs, path.parent), after)
        files.write_json(path, {label: pace._asdict() for label, pace in found.items()})
    stored = {label: Pace(**entry) for label, entry in json.loads(path.read_text()).items()}
    if missing := [label for label in runs if label not in stored]:
        raise ValueError(f"{path} has no pace of {missing[0]!r}: the study has changed; start again in another --out")
    return stored


def fit_steps(found: Mapping[str, Pace], after: Mapping[str, str]) -> dict[str, Pace]:
    """The paces, with as many steps for each training in `after` as its reference's time allows, at least 1."""
    fit = {label: found[other].steps * found[other].seconds_per_step for label, other in after.items()}
    return {
        label: pace._replace(steps=max(1, round(fit[label] / pace.seconds_per_step))) if label in fit else pace
        for label, pace in found.items()
    }


def measure_paces(runs: Mapping[str, Run], out: Path) -> dict[str, Pace]:
    """The pace of every run at its own number of steps.

    Runs that differ only in length are measured once; runs on one data set take turns. If a loss is not finite, the ids
    of its batch are written to `out`.
    """
    endless = {label: replace(run, length=replace(run.length, steps=10**6, epochs=1.0)) for label, run in runs.items()}
    like = {label: next(first for first in endless if endless[first] == run) for label, run in endless.items()}
    costs: dict[str, Cost] = {}
    for path in dict.fromkeys(run.data.path for run in runs.values()):
        firsts = [label for label in dict.fromkeys(like.values()) if runs[label].data.path == path]
        costs |= zip(firsts, time_in_turns([endless[label] for label in firsts], out), strict=True)
    return {label: fit_own_steps(run.length, costs[like[label]]) for label, run in runs.items()}


class Cost(NamedTuple):
    """The seconds and memory of one step, and the number of samples in the data."""

    seconds: float
    memory: int
    samples: int


def fit_own_steps(length: Length, cost: Cost) -> Pace:
    """The pace of a training of this length."""
    fixed, _ = length.resolve(cost.samples, distributed.world_size())
    return Pace(fixed.steps or 0, cost.seconds, cost.memory)


def time_in_turns(runs: Sequence[Run], out: Path) -> list[Cost]:
    """The cost of each run: the median over rounds."""
    with distributed.process_group(devices.device_for(runs[0].loop.device)) as dist:
        turns = [session.build_session(run, out, dist) for run in runs]
        for turn in turns:
            # Decode the data once here, not in each round.
            turn.dataset = turn.dataset.in_memory()
        memory = [step_memory(turn) for turn in turns]
        rounds = [[seconds_per_step(turn) for turn in turns] for _ in range(ROUNDS)]
    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    return [Cost(t, m, len(turn.dataset)) for t, m, turn in zip(medians, memory, turns, strict=True)]


def seconds_per_step(turn: session.Session) -> float:
    """The mean seconds of a few steps, loading included, after the prefetched batches are used up."""
    ahead = 1 + 2 * (turn.run.loop.workers or 0)
    source = loop.open_source(turn)
    with closing(source.batches()) as batches:
        for _ in range(ahead):
            loop.take_step(turn, source, next(batches), turn.run.optim)
        begun = estimate.read_clock(turn.dist.device)
        for _ in range(STEPS):
            loop.take_step(turn, source, next(batches), turn.run.optim)
        return (estimate.read_clock(turn.dist.device) - begun) / STEPS


def step_memory(turn: session.Session) -> int:
    """The memory of a step with the whole batch."""
    with closing(loop.open_source(turn).batches()) as batches:
        cost = estimate.estimate_cost(turn, next(batches))
    turn.optimizer.zero_grad(set_to_none=True)
    return cost.memory_bytes
