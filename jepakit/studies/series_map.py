"""Where norms grow without LayerNorms: a map over weight decay and learning rate."""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from ..data.series.dataset import Series
from . import together
from .series_forms import FORMS, Task, run, signal_of

RATES: Final = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
DECAYS: Final = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def mapped(task: Task, steps: int | None) -> dict[str, list[list[float]]]:
    """The growth of the norm and the last forward error without LayerNorms, for the first seed, by [decay][rate]."""
    form = FORMS["unconstrained"]
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

    begun = len(found.steps) // 10
    return {"growth": square(found.norm[-1] / found.norm[begun]), "forward": square(found.forward[-1])}
