"""Trains R-JEPA from the same start by each learning rule and records the loss, on data of several lengths.

Human scanpaths end after a few seconds, so OSIE has a single length. Missing data sets are left out.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ... import methods
from ...data import loader
from ...data.scanpaths import settings
from ...data.series import generated
from ...methods import rjepa
from ...nn import CNN
from ...nn.encoder import EncoderConfig
from ...nn.pixels import Pixels
from ...recurrent import unroll
from ...recurrent.circuit import Circuit
from ...run import optim
from ...run.optim import Optim
from ...types import Batch, Rng, Signal

GRADIENT_RULES: Final[tuple[unroll.Rule, ...]] = ("rfp", "bptt", "truncated")
LAST, WIDTH, LR = 10, 32, 3e-3


@dataclass(frozen=True)
class Task:
    """The data of a training, and the encoder and circuit that read them.

    `data` opens the data in the folder of all data sets, for samples of a given length; `needs` is the file required
    there. `steps` maps the length of samples to the number of training steps.
    """

    data: Callable[[Path, int], Any]
    steps: Mapping[int, int]
    needs: str = ""
    encoder: EncoderConfig = field(default_factory=Pixels)
    circuit: Circuit = field(default_factory=lambda: Circuit(width=WIDTH, norm=False))
    batch: int = 8


def lorenz_data(_: Path, length: int) -> generated.Config:
    """Lorenz trajectories of `length` points."""
    return generated.Config("lorenz", count=400, length=length)


def saccade_data(data: Path, length: int) -> settings.Config:
    """Pictures of CIFAR-10 with `length` generated fixations each, more often on salient places."""
    path = str(data / CIFAR)
    return settings.Config(path, size=SEEN, crop=0.25, count=length, steps=length, limit=PICTURES)


def gaze_data(data: Path, length: int) -> settings.Config:
    """Scanpaths of people on the pictures of OSIE, of at most `length` fixations and at least half as many."""
    images, fixations = data / OSIE / "images.tar", data / OSIE / "fixations.json.gz"
    return settings.Config(
        str(images), str(fixations), SEEN, timing="duration", steps=length, least=length // 2, limit=PICTURES
    )


CIFAR, OSIE, SEEN, PICTURES = "cifar10/train.parquet", "gaze_osie", (8, 8), 512
# The encoder is random and not trained, so that forward propagation is exact.
FIXATION_ENCODER: Final = CNN((1, *SEEN), WIDTH, (16,))
TASKS: Final[Mapping[str, Task]] = {
    "Lorenz": Task(lorenz_data, {8: 150, 64: 100, 512: 40}),
    "saccades over CIFAR-10": Task(
        saccade_data, {8: 100, 128: 50, 1024: 20}, CIFAR, FIXATION_ENCODER, Circuit(width=WIDTH)
    ),
    "OSIE": Task(gaze_data, {8: 100}, OSIE, FIXATION_ENCODER, Circuit(width=WIDTH)),
}


def rule_losses(task: Task, data: Path, length: int, seed: int, steps: int) -> dict[str, list[float]]:
    """The loss at every training step by each rule, from the same weights and batches."""
    dataset = task.data(data, length).open()
    signal = dataset.signal()
    batches = list(loader.batches(dataset, signal, seed=seed, batch=task.batch, start=0, stop=steps))
    return {rule: train_losses(task, signal, batches, rule, seed) for rule in GRADIENT_RULES}


def train_losses(task: Task, signal: Signal, batches: Sequence[Batch], rule: unroll.Rule, seed: int) -> list[float]:
    """The loss at every training step by one rule."""
    method = methods.build(rjepa.Config(task.encoder, task.circuit, rule=rule, below="frozen"), signal, seed)
    rates = Optim(lr=LR, start_lr=LR, final_lr=LR, warmup=0.0, weight_decay=1e-4, final_weight_decay=1e-4)
    optimizer, found = optim.build_optimizer(rates, method), []
    for k, batch in enumerate(batches):
        loss = method(batch.to("cpu"), Rng(seed, k)).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


def loss_curves(data: Path, seed: int, steps: int | None = None) -> dict[str, dict[str, list[float]]]:
    """The loss at every step of one seed's trainings, by data with length, and by rule; missing data are left out."""
    return {
        f"{name}, {length} steps": rule_losses(task, data, length, seed, steps or count)
        for name, task in TASKS.items()
        if not task.needs or (data / task.needs).exists()
        for length, count in task.steps.items()
    }


def final_loss(losses: Sequence[float]) -> float:
    """The mean loss of the last steps."""
    return statistics.fmean(losses[-LAST:])
