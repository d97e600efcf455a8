"""Study: where should recurrence sit in R-JEPA: nowhere, at the top, at all levels, or at all levels with feedback?

Two convolutional circuits below a top of one vector read the frames directly (nn/circuit.py), without an encoder. They
learn by back-propagation through time, which is exact for every row, with equal steps and seeds. `none` is the
memoryless control of the same width. The data are generated (data/synthetic.py); both parts use different digit scans:

- fixations: a digit somewhere in a picture, with ten fixations on salient places; the predictor reads the saccade
- moving digits: clips of ten frames. No single frame shows how a digit moves, so only a memory can represent it

The study measures on held-out digits, at the last frame, or the one before for predictions: the prediction error over
that of the best constant and over that of persistence; the R² of a ridge for the next frame and for the motion (how far
the digit's centre of mass moved in the last step); and a linear probe of the digit, also before training. A step is
timed in processor time, with rows in turns; its bytes are those of all tensors alive at once in forward and backward
pass, besides weights and input (`studies/alive.py`).
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ... import methods
from ...collapse import features
from ...core import schedules
from ...data.images import synthetic
from ...data.loader import batch_ids
from ...data.scanpaths import settings
from ...methods import rjepa
from ...nn.pixels import Pixels
from ...recurrent.circuit import Circuit
from ...run import optim
from ...run.optim import Optim
from ...types import Batch, Rng, Signal, unit
from ..study import Own, Study
from .alive import measure_peak
from .recurrence_claims import (
    DIGIT,
    MOTION,
    NEXT,
    PROBE_METRICS,
    RANK,
    RATIO,
    UNTRAINED,
    claims,
    conclusions,
    draw_figures,
)
from .rjepa_probes import SequenceStates, class_accuracy, next_feature, prediction_errors, ridge_score
from .rjepa_states import record_circuit

STEPS, BATCH, FRAMES = 600, 32, 10
TRAIN, HELD = 3000, 1000
LEVELS, WIDTH, SIDE = (8, 16), 64, 20
OPTIM: Final = Optim(lr=1e-3, start_lr=1e-5, final_lr=1e-5, warmup=0.08, weight_decay=1e-4, final_weight_decay=1e-4)
ROWS: Final[Mapping[str, Mapping[str, Any]]] = {
    "none": {"recurrence": "none"},
    "top": {"recurrence": "top"},
    "all levels": {"recurrence": "all"},
    "all with feedback": {"recurrence": "all", "feedback": True},
}
SPREAD_METRIC: Final = "std"
GAZE_DATA: Final = settings.Config("digits", size=(12, 12), crop=0.6, count=FRAMES)
SeedNumbers = Mapping[str, Mapping[str, Mapping[str, float]]]


class Part(NamedTuple):
    """Sequences, the actions between frames, the digit that each sequence shows, and its motion at the end."""

    x: UInt8[Tensor, "n 1 t h w"]
    action: Float[Tensor, "n _ 2"] | None
    label: Int64[np.ndarray, " n"]
    motion: Float[np.ndarray, "n 2"] | None


@dataclass(frozen=True, eq=False)
class Samples:
    """The training part and the held-out part."""

    signal: Signal
    train: Part
    held: Part


@cache
def fixation_samples() -> Samples:
    """Scanpaths over generated pictures of digits."""
    paths = GAZE_DATA.open()
    cut = synthetic.Config(GAZE_DATA.path).part()[1]

    def part(first: int, count: int) -> Part:
        ids = np.arange(first, first + count)
        clips = [paths.clip(int(i), paths.native) for i in ids]
        x, action = (torch.stack(column) for column in zip(*clips, strict=True))
        return Part(x, action, np.array([paths.label(int(i)) for i in ids]), None)

    train = np.arange(min(TRAIN, cut))
    signal = paths.subset(train).with_config(GAZE_DATA).signal()
    return Samples(signal, part(0, TRAIN), part(cut, HELD))


@cache
def moving_samples() -> Samples:
    """Clips of digits that move."""

    def part(count: int, seed: int, test: bool) -> Part:
        clips, label = synthetic.moving_digits(count, FRAMES, (SIDE, SIDE), seed, test)
        x = torch.from_numpy(clips)
        at = mass_centres(x[:, 0, -2:])
        return Part(x, None, label, at[:, 1] - at[:, 0])

    train = part(TRAIN, 0, False)
    pixels = unit(train.x)
    signal = Signal(1, (FRAMES, SIDE, SIDE), (float(pixels.mean()),), (float(pixels.std()),), classes=10)
    return Samples(signal, train, part(HELD, 1, True))


def mass_centres(x: UInt8[Tensor, "n t h w"]) -> Float[np.ndarray, "n t 2"]:
    """The centre of mass (x, y) of every frame, in pixels."""
    mass = x.double() / x.double().sum((2, 3), keepdim=True)
    across, down = (mass.sum(axis) @ torch.arange(mass.shape[5 - axis]).double() for axis in (2, 3))
    return torch.stack([across, down], -1).numpy()


DATA: Final[Mapping[str, Callable[[], Samples]]] = {"fixations": fixation_samples, "moving digits": moving_samples}


def build_row(row: str, signal: Signal, seed: int) -> rjepa.RJEPA:
    """The untrained method of a row."""
    circuit = Circuit(width=WIDTH, levels=LEVELS, **ROWS[row])
    made = methods.build(rjepa.Config(Pixels(), circuit, saccade=signal.action is not None), signal, seed)
    assert isinstance(made, rjepa.RJEPA)
    return made


def measure_seeds(seeds: Sequence[int], steps: int | None, _: Path) -> Iterator[dict[str, Any]]:
    """The numbers of one seed after another, by data and row."""
    for seed in seeds:
        yield {name: train_rows(source(), seed, steps or STEPS) for name, source in DATA.items()}


def train_rows(source: Samples, seed: int, steps: int) -> dict[str, dict[str, float]]:
    """Train all rows side by side and measure them before and after training."""
    made = {row: build_row(row, source.signal, seed) for row in ROWS}
    cost = {row: {"MiB per step": step_bytes(method, source.train) / 2**20} for row, method in made.items()}
    before = {row: measure_method(method, source) for row, method in made.items()}
    for row, each in train_turns(made, source.train, seed, steps).items():
        cost[row]["ms per step"] = 1e3 * statistics.median(each)
        cost[row]["parameters"] = float(sum(p.numel() for p in made[row].parameters() if p.requires_grad))
    return {
        row: combine_numbers(before[row], measure_method(method, source)) | cost[row] for row, method in made.items()
    }


def combine_numbers(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """The numbers after training, the probes before training, and the remaining share of the spread."""
    first = {f"{name}{UNTRAINED}": value for name, value in before.items() if name in (*PROBE_METRICS, RANK)}
    return {**after, **first, RATIO: after[SPREAD_METRIC] / before[SPREAD_METRIC]}


def measure_method(method: rjepa.RJEPA, source: Samples) -> dict[str, float]:
    """Errors, probes, and the spread and rank of the states on held-out digits."""
    train, held = (record_part(method, part) for part in (source.train, source.held))
    last = FRAMES - 1
    found = {
        name.rpartition(",")[0]: value
        for name, value in prediction_errors(held, last).items()
        if name.startswith("error")
    }
    read = next_feature(train, held, last)
    found |= {NEXT: read[f"next feature R² from the state, {last}"]}
    found |= {f"{NEXT} from the present frame": read[f"next feature R² from the present, {last}"]}
    found[DIGIT] = class_accuracy(train, held, FRAMES)
    if source.train.motion is not None and source.held.motion is not None:
        found[MOTION] = ridge_score(train.h[last], source.train.motion, held.h[last], source.held.motion)
    h = torch.from_numpy(held.h).transpose(0, 1)
    return {**found, RANK: features.effective_rank(h.flatten(0, 1)), SPREAD_METRIC: features.std_over_samples(h)}


@torch.no_grad()
def record_part(method: rjepa.RJEPA, part: Part) -> SequenceStates:
    """A method's states and predictions on a part."""
    y = method.maps(method.normalize(unit(part.x)))
    found = record_circuit(method, y, None if part.action is None else part.action.transpose(0, 1))
    n = len(part.label)
    return SequenceStates(
        found.h, found.pred, y.flatten(2).numpy(), found.gate.mean((1, 2)), np.full(n, FRAMES), part.label, np.arange(n)
    )


def train_turns(made: Mapping[str, rjepa.RJEPA], part: Part, seed: int, steps: int) -> dict[str, list[float]]:
    """Train all methods on the same batches, one step each in turn; returns the processor time of every step."""
    optimizers = {row: optim.build_optimizer(OPTIM, method) for row, method in made.items()}
    spent: dict[str, list[float]] = {row: [] for row in made}
    for k in range(steps):
        batch = select_batch(part, batch_ids(k, len(part.x), seed, BATCH, 0, BATCH)[0])
        for row in list(made)[:: 1 if k % 2 else -1]:
            begun = time.process_time()
            optim.set_schedule(optimizers[row], OPTIM, schedules.run_progress(k, steps))
            made[row](batch, Rng(seed, k)).total.backward()
            optimizers[row].step()
            optimizers[row].zero_grad()
            spent[row].append(time.process_time() - begun)
    return spent


def select_batch(part: Part, ids: Int64[np.ndarray, " b"]) -> Batch:
    """A batch of some sequences."""
    rows = torch.from_numpy(ids)
    return Batch(unit(part.x[rows]), action=None if part.action is None else part.action[rows])


def step_bytes(method: rjepa.RJEPA, part: Part) -> int:
    """The peak of bytes alive at once in the forward and backward pass of a batch, including all gradients."""
    batch = select_batch(part, np.arange(BATCH))
    weights = [p for p in method.parameters() if p.requires_grad]
    known = [*method.parameters(), *method.buffers(), batch.x, *([] if batch.action is None else [batch.action])]
    return measure_peak(lambda: torch.autograd.grad(method(batch, Rng(0)).total, weights), known)


def tabulate(seeds: Sequence[SeedNumbers]) -> dict[tuple[str, str], list[float]]:
    """Every number of every row by seed."""
    found: dict[tuple[str, str], list[float]] = {}
    for one in seeds:
        for data, rows in one.items():
            for row, numbers in rows.items():
                for metric, value in numbers.items():
                    found.setdefault((f"{data} · {row}", metric), []).append(value)
    return found


STUDY = Study(
    title="Where recurrence should sit in R-JEPA",
    source="Velarde & Parra 2024, arXiv:2411.16695, which leaves the question open; no published figures",
    claim="Recurrence belongs at every level of the encoder, with feedback, not only at the top.",
    arms=(),
    claims=tuple(claims([*DATA], [*ROWS])),
    conclusions=conclusions,
    kinds=(),
    own=Own(measure_seeds, tabulate, lambda seeds: draw_figures(tabulate(seeds))),
    seeds=3,
)
