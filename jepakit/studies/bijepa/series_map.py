"""Maps where norms grow and where spread is lost without LayerNorms, over weight decay and learning rate."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

import torch
from torch import Tensor

from ... import collapse
from ...data.series.dataset import Series
from ...reporting.charts import short_number
from . import together
from .series_forms import (
    FORMS,
    Task,
    build_untrained,
    probe_set,
    represent_windows,
    signal_of,
    tabulate_forms,
    training_run,
)

LEARNING_RATES: Final = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
WEIGHT_DECAYS: Final = (1e-4, 1e-3, 1e-2, 1e-1)
MAP_FORM: Final = "unconstrained"
ROW_PREFIX: Final = "map, learning rate "
LEAST_RISE, LARGEST_RISE, LARGEST_GROWTH, LARGEST_LOSS = (
    "least rise of norm",
    "largest rise of norm",
    "largest growth of norm",
    "largest loss",
)
LATE_GROWTH, LEAST_SPREAD = "largest late growth of norm", "least spread"


def map_norms(task: Task, steps: int | None) -> dict[str, Any]:
    """Norms, spread and forward error after training without LayerNorms, for the first seed, by [decay][rate].

    `rise` is the final norm over that of the first batch, `growth` the final norm over that after a tenth of the
    `steps`, and `late` the mean norm over the last tenth over that of the tenth before. `spread` is the deviation of
    f(past) over new windows, relative to before training; `forward` is the last forward error, which is also low after
    a loss of spread. Values above 1e6, and those of trainings that are no longer finite, are 1e6.
    """
    form, steps = FORMS[MAP_FORM], steps or task.map_steps or task.steps
    runs = []
    for decay in WEIGHT_DECAYS:
        for rate in LEARNING_RATES:
            one = training_run(task, form, 0, steps, rate)
            runs.append(replace(one, optim=replace(one.optim, weight_decay=decay, final_weight_decay=decay)))
    dataset = cast(Series, runs[0].data.open())
    found = together.train_together(runs, dataset, signal_of(task, dataset))

    def square(values: Tensor) -> list[list[float]]:
        kept = torch.nan_to_num(values.double(), nan=1e6, posinf=1e6).clamp(max=1e6)
        return [[float(v) for v in row] for row in kept.reshape(len(WEIGHT_DECAYS), len(LEARNING_RATES))]

    norm, tenth = found.norm, max(1, len(found.steps) // 10)
    squares = {
        "rise": norm[-1] / norm[0],
        "growth": norm[-1] / norm[len(found.steps) // 10],
        "late": norm[-tenth:].mean(0) / norm[-2 * tenth : -tenth].mean(0),
        "spread": relative_spread(task, found),
        "forward": found.forward[-1],
    }
    return {"steps": steps, **{name: square(values) for name, values in squares.items()}}


def relative_spread(task: Task, found: together.TrainedForms) -> Tensor:
    """The deviation (M,) of f(past) over unseen windows, relative to that of the untrained encoder."""
    new = probe_set(task, 1000)
    before, *after = (
        collapse.feature_std(torch.from_numpy(represent_windows(method, new).s))
        for method in (build_untrained(task, 0, MAP_FORM), *found.methods)
    )
    return torch.tensor(after) / before


def tabulate(seeds: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """The rows of the forms and, for each learning rate, a summary of the first seed's map over all weight decays."""
    found, rows = seeds[0]["map"], tabulate_forms(seeds)
    for k, rate in enumerate(LEARNING_RATES if found else ()):
        column = {name: [row[k] for row in found[name]] for name in ("rise", "growth", "late", "spread", "forward")}
        ends = {
            LEAST_RISE: min(column["rise"]),
            LARGEST_RISE: max(column["rise"]),
            LARGEST_GROWTH: max(column["growth"]),
            LATE_GROWTH: max(column["late"]),
            LEAST_SPREAD: min(column["spread"]),
            LARGEST_LOSS: max(column["forward"]),
        }
        rows |= {(f"{ROW_PREFIX}{short_number(rate)}", metric): [value] for metric, value in ends.items()}
    return rows
