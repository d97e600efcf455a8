"""Where recurrent forward propagation stops being exact, and by how much: its gradient beside bptt's, in float64.

1. Coupling: a dense circuit whose traces leave out what couples units, over the scale of its recurrent weights.
2. Sparsity: the same where units are coupled within blocks alone, over the size of the blocks.
3. Depth: circuits one above the other, each with a past; forward propagation takes the errors of a step through the
   levels above as they are in that step.
4. Below: an encoder that learns from the error of each step alone, over how open the gates are.
5. Online: weights that change after every step, beside the gradient at the weights of the start, over the rate.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from ...recurrent import rfp, unroll
from ...recurrent.circuit import Circuit
from ...recurrent.gradients import add
from ...reporting.charts import Line, chart, short
from ...reporting.figures import Figure
from ...types import Rng
from ..study import Own, Scores, Study
from . import propagation as rules

N, D, T, BATCH = 16, 8, 20, 4
SCALES: Final = (0.0, 0.3, 0.6, 1.0, 1.5, 2.0)
BLOCKS: Final = (1, 2, 4, 8, 16)
DEPTHS: Final = (1, 2, 3, 4)
OFFSETS: Final = (-4.0, -2.0, 0.0, 2.0, 4.0)  # added to the gates' drives
RATES: Final = (1e-3, 1e-2, 1e-1, 1.0)
NAMES: Final = {
    "coupling": "recurrent scale",
    "sparsity": "block size",
    "depth": "levels with a past",
    "below": "mean gate",
    "online": "learning rate",
}
Pair = tuple[Sequence[Tensor], Sequence[Tensor]]


def compared(found: Sequence[Tensor], exact: Sequence[Tensor]) -> dict[str, float]:
    """The cosine of the whole gradients, and the length of their difference over that of the exact one."""
    a, b = (torch.cat([g.flatten() for g in each]) for each in (found, exact))
    return {"cosine": rules.cosine([a], [b]), "relative error": float((a - b).norm() / b.norm())}


def problem(seed: int, block: int = 1, recurrent: float = 1.0) -> rules.Problem:
    """A small circuit in float64; its recurrent weights are normal, of deviation `recurrent` / √block."""
    made = rules.Problem(Rng(seed), T, N, D, BATCH, block=block, dtype=torch.float64)
    gen = Rng(seed).fork("recurrent").generator()
    with torch.no_grad():
        own = torch.randn(made.cell.own.shape, generator=gen, dtype=torch.float64)
        made.cell.own.copy_(own * recurrent / math.sqrt(block))
    return made


def circuit(one: rules.Problem, gradient: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradients of the circuit alone: the predictor's are exact under any rule."""
    return gradient[:3]


def coupling(seed: int, scale: float) -> Pair:
    """1 of the module."""
    one = problem(seed, N, scale)
    return circuit(one, rules.forward(one, diagonal=True)), circuit(one, rules.bptt(one))


def sparsity(seed: int, block: int) -> Pair:
    """2 of the module, at scale 1."""
    one = problem(seed, block)
    return circuit(one, rules.forward(one, diagonal=True)), circuit(one, rules.bptt(one))


def depth(seed: int, levels: int) -> Pair:
    """3 of the module: vectors, so that levels read all that is below them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cfg = Circuit(width=N, levels=(N,) * (levels - 1), recurrence="all", norm=False)
        net, predictor = cfg.build(D, (1, 1)).double(), nn.Linear(N, N).double()
    x = torch.randn(T, BATCH, D, 1, 1, generator=Rng(seed).generator(), dtype=torch.float64)

    def loss(h: Tensor, t: int) -> Tensor:
        wrong: Tensor = predictor(h[:-1]) - h[1:].detach()
        return wrong.square().sum()

    rule = unroll.Forward(net, lambda first, last: x[first:last], loss, list(predictor.parameters()))
    _, found, _ = rule.run(unroll.begin(net, BATCH), T)
    shown, _ = unroll.through_time(net, x)
    exact = torch.autograd.grad(loss(shown, 1), rule.parameters)
    count = 3 * levels
    return found[:count], exact[:count]


def below(seed: int, offset: float) -> tuple[Pair, float]:
    """4 of the module, for a linear encoder; and the mean gate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Circuit(width=N, norm=False).build(D, (1, 1)).double()
        encoder, predictor = nn.Linear(D, D).double(), nn.Linear(N, N).double()
    cell = net.top.cell
    with torch.no_grad():
        cell.bias[:, 1] += offset
    x = torch.randn(T, BATCH, D, generator=Rng(seed).generator(), dtype=torch.float64)

    def frames(first: int, last: int) -> Tensor:
        made: Tensor = encoder(x[first:last])
        return made[..., None, None]

    def loss(h: Tensor, t: int) -> Tensor:
        wrong: Tensor = predictor(h[:-1]) - h[1:].detach()
        return wrong.square().sum()

    trained = list(encoder.parameters())
    rule = unroll.Forward(net, frames, loss, list(predictor.parameters()), trained, "instant")
    _, found, _ = rule.run(unroll.begin(net, BATCH), T)
    shown, _ = unroll.through_time(net, frames(0, T))
    exact = torch.autograd.grad(loss(shown, 1), trained)
    with torch.no_grad():
        path = rfp.go(cell, cell.start(BATCH), encoder(x)).states
        gates = cell.gate(path[:-1], cell.drive(encoder(x)))
    return (found[-2:], exact), float(gates.mean())


def online(seed: int, rate: float) -> Pair:
    """5 of the module: each pair's gradient, by its mean squared error, taken at the weights that those before left."""
    one = problem(seed)
    exact = rules.bptt(one)
    state, traces = one.cell.start(BATCH), rfp.start(one.cell, BATCH)
    sums = [torch.zeros_like(p) for p in one.parameters]
    for t in range(T):
        found = rfp.gradients(one.cell, one.x[:, t : t + 1], one.loss, one.above, chunk=1, state=state, traces=traces)
        state, traces, step = found.state, found.traces, list(found.gradients.values())
        # The state before the first step is no state of the sequence.
        if t:
            add(sums, step)
            with torch.no_grad():
                for p, g in zip(one.parameters, step, strict=True):
                    p.sub_(rate * (T - 1) * g)
    return sums[:3], exact[:3]


CASES: Final[Mapping[str, tuple[Callable[[int, Any], Pair], Sequence[float]]]] = {
    "coupling": (coupling, SCALES),
    "sparsity": (sparsity, BLOCKS),
    "depth": (depth, DEPTHS),
    "online": (online, RATES),
}


def taken(seed: int) -> dict[str, list[dict[str, float]]]:
    """All points of one seed, by case."""
    found = {name: [{"x": x, **compared(*case(seed, x))} for x in points] for name, (case, points) in CASES.items()}
    pairs = [below(seed, offset) for offset in OFFSETS]
    found["below"] = [{"x": gate, **compared(*pair)} for pair, gate in pairs]
    return found


def take(seeds: Sequence[int], steps: int | None, _: Path) -> Iterator[Any]:
    """One seed after another; there is nothing to shorten."""
    return (taken(seed) for seed in seeds)


def table(seeds: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """Cosine and relative error of every point; those below, whose gates differ by seed, by what was added to them."""
    found = {}
    for name, points in seeds[0].items():
        for k, point in enumerate(points):
            at = f"gate drive {OFFSETS[k]:+g}" if name == "below" else f"{NAMES[name]} {point['x']:g}"
            for metric in ("cosine", "relative error"):
                found[f"{name} · {at}", metric] = [one[name][k][metric] for one in seeds]
            if name == "below":
                found[f"{name} · {at}", "mean gate"] = [one[name][k]["x"] for one in seeds]
    return found


def says(scores: Scores) -> list[str]:
    """Which circuits break exactness, and by how much."""
    v = scores.each(statistics.fmean)

    def told(name: str, points: Sequence[int] | Sequence[float], metric: str = "cosine") -> str:
        return ", ".join(f"{short(v[f'{name} · {NAMES[name]} {x:g}', metric])} at {x:g}" for x in points)

    gates = [
        tuple(v[f"below · gate drive {o:+g}", metric] for metric in ("cosine", "relative error", "mean gate"))
        for o in OFFSETS
    ]
    return [
        "Exact where each unit's own past enters it alone: relative error "
        f"{short(v['sparsity · block size 1', 'relative error'])}.",
        f"Coupled units, cosine over the recurrent scale: {told('coupling', SCALES)}.",
        f"Units coupled within blocks, {N} in all, scale 1, over the block size: {told('sparsity', BLOCKS)}. Traces of "
        "whole blocks are exact again, at block size times the memory.",
        f"Levels above one another, each with a past: {told('depth', DEPTHS)}.",
        "An encoder below that learns from each step alone, cosine (relative error) over the mean gate: "
        + ", ".join(f"{short(c)} ({short(e)}) at {g:.2f}" for c, e, g in gates)
        + ". The longer the memory, the more of the gradient's length is missing.",
        "Weights that change after every step, relative error over the rate: "
        f"{told('online', RATES, 'relative error')}. For small rates it is in proportion to the rate.",
    ]


def figures(seeds: Sequence[Mapping[str, Any]]) -> list[tuple[str, Figure]]:
    """Cosine over what breaks exactness; the relative error of online updates."""
    found = []
    for name, points in seeds[0].items():
        metric = "relative error" if name == "online" else "cosine"
        x = np.array([np.mean([one[name][k]["x"] for one in seeds]) for k in range(len(points))])
        values = np.array([[point[metric] for point in one[name]] for one in seeds])
        lines = [Line("mean", x, values.mean(0))]
        lines += [Line("lowest seed", x, values.min(0), color=1, dashed=True)] if metric == "cosine" else []
        log = name == "online"
        body = chart(
            lines, f"{metric} over {NAMES[name]}", x_label=NAMES[name], log_x=log or name == "sparsity", log_y=log
        )
        found.append((name, Figure(f"{TITLES[name]}: {metric}", body, CAPTIONS[name])))
    return found


TITLES: Final = {
    "coupling": "Coupled units",
    "sparsity": "Units coupled in blocks",
    "depth": "Levels with a past",
    "below": "An encoder below",
    "online": "Weights that change",
}
CAPTIONS: Final = {
    "coupling": "A dense circuit, traces of each unit's own past alone, against back-propagation through time.",
    "sparsity": "The same for blocks of coupled units; at block size 1 nothing is left out.",
    "depth": "The gradient of all levels; one level is exact.",
    "below": "The gradient of a linear encoder that learns from each step's error alone. Gate 1 has no memory.",
    "online": "The sum of the gradients along the way against the gradient at the first weights.",
}
STUDY = Study(
    title="Where recurrent forward propagation is exact",
    source="Velarde & Parra 2024, arXiv:2411.16695, which claims exactness for a large class and gives no figures",
    claim=(
        "The gradient is exact where each unit's past enters it alone, what it reads does not learn through time, and "
        "what lies above has no past. Each condition that is given up costs a part of it that can be measured."
    ),
    arms=(),
    says=says,
    kinds=(),
    own=Own(take, table, figures),
    seeds=5,
)
