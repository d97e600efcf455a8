"""Runs the trainings of `rjepa-collapse` with their panel; trainings of one shape run side by side.

The seed determines the sample order and the initial weights of a training. One call does the work of a training step
for all trainings of one shape (`studies/side_by_side.py`). At moments that are closer together in the beginning, the
panel measures the states of held-out samples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ... import collapse, losses, methods
from ...data import loader
from ...data.loader import batch_ids
from ...data.scanpaths import settings
from ...data.series import generated
from ...methods import rjepa
from ...nn.mlp import MLP
from ...recurrent import balance
from ...recurrent.circuit import Circuit
from ...run.optim import Optim
from ...types import Batch, Signal
from ..side_by_side import Adam, Matrix

STEPS, BATCH, HELD, ROWS = 800, 16, 128, 16
WIDTH, HIDDEN, LR = 24, 32, 3e-3
NUM_EIGENVALUES: Final = 8  # eigenvalues of the covariance of the states, recorded at every row
NUM_PATHS: Final = 7  # samples whose final states are recorded
PANEL_METRICS: Final = ("std_ratio", "rank_target", "rank_share", "norm_target")  # of the panel
DATA: Final[Mapping[str, Any]] = {
    "Lorenz": generated.Config("lorenz", count=1500),
    "fixations": settings.Config("shapes", size=(4, 4), crop=0.3, count=10, viewers=1, limit=1500),
}
PATCH_SIZES: Final[Mapping[str, tuple[int, ...]]] = {"Lorenz": (4,), "fixations": (1, 4, 4)}


@dataclass(frozen=True)
class Arm:
    """The changes of one training: the method's settings, the weight decay, and the initial weights.

    `correlated` is the correlation between the input weights of any two units.
    """

    method: Mapping[str, Any]
    decay: float = 1e-4
    scale: float = 1.0
    rank: int = 0
    correlated: float = 0.0


ARMS: Final[Mapping[str, Arm]] = {
    "as it is": Arm({}),
    "no stop-gradient": Arm({"stop_gradient": False}),
    "predictor mlp": Arm({"predictor": "mlp"}),
    "predictor none": Arm({"predictor": "none"}),
    **{f"weight decay {d:g}": Arm({}, decay=d) for d in (0.0, 0.01, 0.1, 1.0, 10.0)},
    **{f"initial scale {s:g}": Arm({}, scale=s) for s in (0.01, 0.1, 10.0)},
    **{f"initial rank {r}": Arm({}, rank=r) for r in (1, 4)},
    "correlated units 0.9": Arm({}, correlated=0.9),
    "correlated units 0.9, no stop-gradient": Arm({"stop_gradient": False}, correlated=0.9),
}


@dataclass(frozen=True)
class Samples:
    """Training samples and held-out samples for the panel, both (N, C, *size)."""

    signal: Signal
    train: Float[Tensor, "n c ..."]
    held: Float[Tensor, "m c ..."]


@cache
def read_samples(name: str) -> Samples:
    """All samples of one of DATA."""
    cfg = DATA[name]
    dataset = cfg.open()
    signal = dataset.signal()
    x = torch.cat([batch.to("cpu", torch.float32).x for batch in loader.read_stream(dataset, signal, batch=HELD)])
    return Samples(signal, x[HELD:], x[:HELD])


class Loss(nn.Module):
    """The loss of samples of one length, as a module so that its parameters can be given from outside."""

    def __init__(self, method: rjepa.RJEPA) -> None:
        super().__init__()
        self.method = method

    def forward(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, ""]:
        """The method's loss without its panel records, which depend on lengths and therefore do not work under vmap."""
        h = self.method.encode(Batch(x))
        target = h[:, 1:].detach() if self.method.cfg.stop_gradient else h[:, 1:]
        pred = self.method.predict(h[:, :-1, None])[:, :, 0]
        return losses.elementwise(pred, target, self.method.cfg.distance).mean()


def build_arm(arm: Arm, data: str, seed: int) -> rjepa.RJEPA:
    """The untrained method of an arm."""
    circuit = Circuit(width=WIDTH, scale=arm.scale, rank=arm.rank)
    cfg = rjepa.Config(
        MLP(PATCH_SIZES[data], width=WIDTH, hidden=HIDDEN, depth=1), circuit, hidden=HIDDEN, **arm.method
    )
    made = methods.build(cfg, read_samples(data).signal, seed)
    assert isinstance(made, rjepa.RJEPA)
    if arm.correlated:
        correlate_units(made.circuits.top.cell.weight, arm.correlated)
    return made


@torch.no_grad()
def correlate_units(weight: Float[Tensor, "m q d"], share: float) -> None:
    """Mix the input weights of all units with those of the first, so that any two correlate by `share`."""
    weight.mul_(math.sqrt(1 - share)).add_(weight[:1] * math.sqrt(share / (1 - share)))


def decay_settings(decay: float) -> Optim:
    """AdamW with a constant weight decay, at a rate that lets the decay act within few steps."""
    return replace(Optim(), lr=LR, weight_decay=decay, final_weight_decay=decay)


def panel_steps(steps: int) -> list[int]:
    """The steps after which the panel measures."""
    return sorted({round(steps * (k / ROWS) ** 2) for k in range(ROWS + 1)})


def train_arms(arms: Sequence[Arm], data: str, seeds: Sequence[int], steps: int) -> list[dict[str, Any]]:
    """Train arms of one shape with every seed; returns rows, eigenvalues and last states of each, arm by arm."""
    source = read_samples(data)
    made = [build_arm(arm, data, seed) for arm in arms for seed in seeds]
    modules = [Loss(m) for m in made]
    online = Matrix(modules, True)
    adam = Adam(online, [decay_settings(arm.decay) for arm in arms for _ in seeds])
    panels = [PanelReference(m, source.held) for m in made]
    found = [[panel.row(0)] for panel in panels]
    due = panel_steps(steps)

    def one(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        loss: Tensor = functional_call(modules[0], (dict(parameters),), (x,))
        return loss

    for k in range(steps):
        rows = batch_rows(k, len(source.train), seeds, len(arms))
        total = vmap(one)(online.named(), source.train[rows])
        (gradient,) = torch.autograd.grad(total.sum(), online.values)
        adam.step(gradient, k, steps)
        if k + 1 in due:
            online.write_to(modules)
            for panel, had in zip(panels, found, strict=True):
                had.append(panel.row(k + 1))
    return [{"rows": had, "paths": panel.paths()} for panel, had in zip(panels, found, strict=True)]


def batch_rows(k: int, items: int, seeds: Sequence[int], arms: int) -> Tensor:
    """The samples in batch k of every training, (A · S, B): the training loop's order, the same for all arms."""
    each = torch.stack([torch.from_numpy(batch_ids(k, items, seed, BATCH, 0, BATCH)[0]) for seed in seeds])
    return each.repeat(arms, 1)


class PanelReference:
    """A method, and the panel's reference values from before its first step."""

    def __init__(self, method: rjepa.RJEPA, x: Float[Tensor, "m c ..."]) -> None:
        self.method, self.x = method, x
        self.start = collapse.start_panel(self.states(), None)

    @torch.no_grad()
    def states(self) -> Float[Tensor, "m t d"]:
        """The states h(t) of the held-out samples."""
        return self.method.encode(Batch(self.x))

    @torch.no_grad()
    def row(self, step: int) -> dict[str, Any]:
        """The panel's row, the error over the best constant's, the balance, and the largest eigenvalues of h."""
        h = self.states()
        pred = self.method.predict(h[:, :-1, None])[:, :, 0]
        row = {key: v for key, v in collapse.panel_row(h, None, self.start).items() if key.startswith(PANEL_METRICS)}
        row["normalized_loss"] = collapse.normalized_loss(pred, h[:, 1:], "l2")
        row |= {key: float(value) for key, value in self.method.diagnostics(Batch(self.x)).items()}
        row["input/off_diagonal"] = float(off_diagonal(self.method))
        values = collapse.spectrum(h.flatten(0, 1))[:NUM_EIGENVALUES]
        return {"step": step, **row, "eigenvalues": values.tolist()}

    def paths(self) -> list[Any]:
        """The states h(t) of the first samples, (samples, T, D)."""
        found: list[Any] = self.states()[:NUM_PATHS].tolist()
        return found


def off_diagonal(method: rjepa.RJEPA) -> float:
    """The share of the squares of W Wᵀ off its diagonal; W are the weights from the input to the units."""
    w = balance.candidate_weights(method.circuits.top.cell)
    both = (w @ w.T).square()
    return float(1 - both.diagonal().sum() / both.sum().clamp(min=1e-30))


def group_shapes() -> Iterator[list[str]]:
    """The names of ARMS, grouped by the shape of networks and losses."""
    kinds = dict.fromkeys(tuple(sorted(arm.method.items())) for arm in ARMS.values())
    for kind in kinds:
        yield [name for name, arm in ARMS.items() if tuple(sorted(arm.method.items())) == kind]
