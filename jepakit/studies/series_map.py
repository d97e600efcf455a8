"""Where norms grow without LayerNorms: a map over weight decay and learning rate."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from ..data.series.dataset import Series
from ..reporting.charts import short
from . import together
from .series_forms import FORMS, Task, run, signal_of
from .series_forms import table as of_forms

RATES: Final = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
DECAYS: Final = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
ROW: Final = "map, learning rate "
LEAST, MOST, GROWTH, LOSS = "least rise of norm", "largest rise of norm", "largest growth of norm", "largest loss"


def mapped(task: Task, steps: int | None) -> dict[str, Any]:
    """What becomes of norms and of the forward error without LayerNorms, for the first seed, by [decay][rate].

    `growth` is the norm at the end over that after a tenth of the `steps`, `rise` that over the norm of the first
    batch, `forward` the last forward error. Of trainings that are no longer finite, and beyond it, 1e6 stands.
    """
    form, steps = FORMS["unconstrained"], steps or task.map_steps or task.steps
    runs = []
    for decay in DECAYS:
        for rate in RATES:
            one = run(task, form, 0, steps, rate)
            runs.append(replace(one, optim=replace(one.optim, weight_decay=decay, final_weight_decay=decay)))
    dataset = runs[0].data.open()
    assert isinstance(dataset, Series)
    found = together.train(runs, dataset, signal_of(task, dataset))

    def square(values: Tensor) -> list[list[float]]:
        kept = torch.nan_to_num(values.double(), nan=1e6, posinf=1e6).clamp(max=1e6)
        return [[float(v) for v in row] for row in kept.reshape(len(DECAYS), len(RATES))]

    first, begun, last = found.norm[0], found.norm[len(found.steps) // 10], found.norm[-1]
    squares = {"growth": last / begun, "rise": last / first, "forward": found.forward[-1]}
    return {"steps": steps, **{name: square(values) for name, values in squares.items()}}


def table(seeds: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """The rows of the forms and, for each learning rate, what the map of the first seed says over all weight decays."""
    found, rows = seeds[0]["map"], of_forms(seeds)
    for k, rate in enumerate(RATES if found else ()):
        rise, growth, loss = ([row[k] for row in found[name]] for name in ("rise", "growth", "forward"))
        ends = {LEAST: min(rise), MOST: max(rise), GROWTH: max(growth), LOSS: max(loss)}
        rows |= {(f"{ROW}{short(rate)}", metric): [value] for metric, value in ends.items()}
    return rows
