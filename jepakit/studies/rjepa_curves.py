"""R-JEPA trained from the same start by each learning rule: the loss over the steps, on data of several lengths."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from .. import methods, optim, unroll
from ..data import dynamics, loader
from ..data import statistics as measured
from ..methods import rjepa
from ..nn.circuit import Circuit
from ..nn.encoder import EncoderConfig
from ..nn.pixels import Pixels
from ..optim import Optim
from ..types import Rng

RULES: Final[tuple[unroll.Rule, ...]] = ("rfp", "bptt", "truncated")
LAST, WIDTH, LR = 10, 32, 3e-3


@dataclass(frozen=True)
class Task:
    """Data to learn from, and what reads them. `steps` has, by the length of samples, how many steps are trained.

    The length of samples is set by the field of `data` that is called `field`.
    """

    data: Any
    steps: Mapping[int, int]
    encoder: EncoderConfig = field(default_factory=Pixels)
    circuit: Circuit = field(default_factory=lambda: Circuit(width=WIDTH, norm=False))
    field: str = "length"
    batch: int = 8


TASKS: Final[Mapping[str, Task]] = {
    "Lorenz": Task(dynamics.Config("lorenz", count=400), {8: 150, 64: 100, 512: 40}),
}


def curve(task: Task, length: int, rule: unroll.Rule, seed: int, steps: int) -> list[float]:
    """The loss at every step of a training."""
    cfg = replace(task.data, **{task.field: length})
    dataset = cfg.open()
    signal = measured.fit(dataset, cfg)
    method = methods.build(rjepa.Config(task.encoder, task.circuit, rule=rule), signal, seed)
    rates = Optim(lr=LR, start_lr=LR, final_lr=LR, warmup=0.0, weight_decay=1e-4, final_weight_decay=1e-4)
    optimizer, found = optim.build(rates, method), []
    for k, batch in enumerate(loader.batches(dataset, cfg, signal, seed=seed, batch=task.batch, start=0, stop=steps)):
        loss = method(batch.to("cpu"), Rng(seed, k)).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


def curves(seed: int, steps: int | None = None) -> dict[str, dict[str, list[float]]]:
    """All trainings of one seed: the loss at every step, by data with their length and by rule."""
    return {
        f"{name}, {length} steps": {rule: curve(task, length, rule, seed, steps or count) for rule in RULES}
        for name, task in TASKS.items()
        for length, count in task.steps.items()
    }


def final(losses: Sequence[float]) -> float:
    """The mean loss of the last LAST steps."""
    return statistics.fmean(losses[-LAST:])
