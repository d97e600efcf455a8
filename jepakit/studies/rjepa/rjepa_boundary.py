"""Study: where does recurrent forward propagation stop being exact, and by how much? It compares gradients with bptt's.

All gradients are in float64. Each case breaks one condition:

1. Coupling: a dense circuit whose traces omit the coupling of units, over the scale of its recurrent weights.
2. Sparsity: the same with units coupled only within blocks, over the size of the blocks.
3. Depth: stacked circuits, each with a past; forward propagation sends the errors of a step only through the present
   states of the levels above.
4. Below: an encoder that learns from the error of each step alone, over how open the gates are.
5. Online: weights that change after every step, beside the gradient at the weights of the start, over the rate.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from ...recurrent import rfp, unroll
from ...recurrent.circuit import Circuit
from ...recurrent.gradients import add_in_place
from ...reporting.charts import Line, line_chart
from ...reporting.figures import Figure
from ...types import Rng
from ..cells import cells_of
from ..claims import AtMost, Falls, Numbers, Rises, Statement
from ..study import Own, Study
from . import propagation as rules

N, D, T, BATCH = 16, 8, 20, 4
RECURRENT_SCALES: Final = (0.0, 0.3, 0.6, 1.0, 1.5, 2.0)
BLOCK_SIZES: Final = (1, 2, 4, 8, 16)
DEPTHS: Final = (1, 2, 3, 4)
GATE_OFFSETS: Final = (-4.0, -2.0, 0.0, 2.0, 4.0)  # added to the gates' drives
RATES: Final = (1e-3, 1e-2, 1e-1, 1.0)
AXIS_NAMES: Final = {
    "coupling": "recurrent scale",
    "sparsity": "block size",
    "depth": "levels with a past",
    "below": "mean gate",
    "online": "learning rate",
}
ERROR_METRIC: Final = "relative error"
Pair = tuple[Sequence[Tensor], Sequence[Tensor]]


def gradient_agreement(found: Sequence[Tensor], exact: Sequence[Tensor]) -> dict[str, float]:
    """The cosine of the whole gradients, and the norm of their difference over that of the exact one."""
    a, b = (torch.cat([g.flatten() for g in each]) for each in (found, exact))
    return {"cosine": rules.gradient_cosine([a], [b]), ERROR_METRIC: float((a - b).norm() / b.norm())}


def small_problem(seed: int, block: int = 1, recurrent: float = 1.0) -> rules.Problem:
    """A small circuit in float64; its recurrent weights are normal, of deviation `recurrent` / √block."""
    made = rules.Problem(Rng(seed), T, N, D, BATCH, block=block, dtype=torch.float64)
    gen = Rng(seed).fork("recurrent").generator()
    with torch.no_grad():
        own = torch.randn(made.cell.own.shape, generator=gen, dtype=torch.float64)
        made.cell.own.copy_(own * recurrent / math.sqrt(block))
    return made


def circuit_gradient(gradient: Sequence[Tensor]) -> Sequence[Tensor]:
    """Only the circuit's gradients: the predictor's are exact under any rule."""
    return gradient[:3]


def coupling_gradients(seed: int, scale: float) -> Pair:
    """Case 1 of the module: the gradient found and the exact one."""
    one = small_problem(seed, N, scale)
    return circuit_gradient(rules.forward_gradient(one, diagonal=True)), circuit_gradient(rules.bptt_gradient(one))


def sparsity_gradients(seed: int, block: int) -> Pair:
    """Case 2 of the module, at scale 1."""
    one = small_problem(seed, block)
    return circuit_gradient(rules.forward_gradient(one, diagonal=True)), circuit_gradient(rules.bptt_gradient(one))


def depth_gradients(seed: int, levels: int) -> Pair:
    """Case 3 of the module, on vectors, so that each level reads the whole level below it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cfg = Circuit(width=N, levels=(N,) * (levels - 1), recurrence="all", norm=False)
        net, predictor = cfg.build(D, (1, 1)).double(), nn.Linear(N, N).double()
    x = torch.randn(T, BATCH, D, 1, 1, generator=Rng(seed).generator(), dtype=torch.float64)

    def loss(h: Tensor, t: int) -> Tensor:
        wrong: Tensor = predictor(h[:-1]) - h[1:].detach()
        return wrong.square().sum()

    rule = unroll.ForwardPropagation(net, lambda first, last: x[first:last], loss, list(predictor.parameters()))
    _, found, _ = rule.run(unroll.start_stream(net, BATCH), T)
    shown, _ = unroll.through_time(net, x)
    exact = torch.autograd.grad(loss(shown, 1), rule.parameters)
    count = 3 * levels
    return found[:count], exact[:count]


def below_gradients(seed: int, offset: float) -> tuple[Pair, float]:
    """Case 4 of the module, for a linear encoder; and the mean gate."""
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
    rule = unroll.ForwardPropagation(net, frames, loss, list(predictor.parameters()), trained, "instant")
    _, found, _ = rule.run(unroll.start_stream(net, BATCH), T)
    shown, _ = unroll.through_time(net, frames(0, T))
    exact = torch.autograd.grad(loss(shown, 1), trained)
    with torch.no_grad():
        path = rfp.forward_chunk(cell, cell.start(BATCH), encoder(x)).states
        gates = cell.gate(path[:-1], cell.drive(encoder(x)))
    return (found[-2:], exact), float(gates.mean())


def online_gradients(seed: int, rate: float) -> Pair:
    """Case 5 of the module: each pair's gradient, at the weights after the updates of the previous pairs."""
    one = small_problem(seed)
    exact = rules.bptt_gradient(one)
    state, traces = one.cell.start(BATCH), rfp.start(one.cell, BATCH)
    sums = [torch.zeros_like(p) for p in one.parameters]
    for t in range(T):
        found = rfp.gradients(one.cell, one.x[:, t : t + 1], one.loss, one.above, chunk=1, state=state, traces=traces)
        state, traces, step = found.state, found.traces, list(found.gradients.values())
        # The state before the first step is not part of the sequence.
        if t:
            add_in_place(sums, step)
            with torch.no_grad():
                for p, g in zip(one.parameters, step, strict=True):
                    p.sub_(rate * (T - 1) * g)
    return sums[:3], exact[:3]


CASES: Final[Mapping[str, tuple[Callable[[int, Any], Pair], Sequence[float]]]] = {
    "coupling": (coupling_gradients, RECURRENT_SCALES),
    "sparsity": (sparsity_gradients, BLOCK_SIZES),
    "depth": (depth_gradients, DEPTHS),
    "online": (online_gradients, RATES),
}


def measure_seed(seed: int) -> dict[str, list[dict[str, float]]]:
    """All points of one seed, by case."""
    found = {
        name: [{"x": x, **gradient_agreement(*case(seed, x))} for x in points] for name, (case, points) in CASES.items()
    }
    pairs = [below_gradients(seed, offset) for offset in GATE_OFFSETS]
    found["below"] = [{"x": gate, **gradient_agreement(*pair)} for pair, gate in pairs]
    return found


def measure_seeds(seeds: Sequence[int], steps: int | None, _: Path) -> Iterator[Any]:
    """Yield the numbers of one seed after another; `steps` is ignored, because there is nothing to shorten."""
    return (measure_seed(seed) for seed in seeds)


def tabulate(seeds: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """Cosine and relative error of every point; case 4 is labelled by the added gate drive."""
    found = {}
    for name, points in seeds[0].items():
        for k, point in enumerate(points):
            at = f"gate drive {GATE_OFFSETS[k]:+g}" if name == "below" else f"{AXIS_NAMES[name]} {point['x']:g}"
            for metric in ("cosine", ERROR_METRIC):
                found[f"{name} · {at}", metric] = [one[name][k][metric] for one in seeds]
            if name == "below":
                found[f"{name} · {at}", "mean gate"] = [one[name][k]["x"] for one in seeds]
    return found


def claims() -> tuple[Statement, ...]:
    """Claims on where forward propagation is exact, and on the cost of each broken condition."""
    rows = {name: [f"{name} · {AXIS_NAMES[name]} {x:g}" for x in points] for name, (_, points) in CASES.items()}
    rows["below"] = [f"below · gate drive {offset:+g}" for offset in GATE_OFFSETS]
    words = {
        "coupling": "Coupled units",
        "sparsity": f"Units coupled within blocks, {N} in all, scale 1 (traces of whole blocks are exact again, at "
        "block size times the memory)",
        "depth": "Levels above one another, each with a past",
        "below": "An encoder below that learns from each step alone; a smaller gate means a longer memory",
        "online": "Weights that change after every step",
    }
    return (
        AtMost((rows["sparsity"][0],), ERROR_METRIC, 1e-12, words="Exact if each unit's past enters only that unit"),
        *(
            Falls(cells_of(rows[name], "cosine"), words=words[name])
            for name in ("coupling", "sparsity", "depth", "below")
        ),
        Falls(
            cells_of(rows["below"], ERROR_METRIC),
            words="The longer the memory, the more of the gradient's length is missing",
        ),
        Numbers(tuple(rows["below"]), ("mean gate",), words="Mean gates by what is added to their drives"),
        Rises(cells_of(rows["online"], ERROR_METRIC), words=words["online"]),
    )


def draw_figures(seeds: Sequence[Mapping[str, Any]]) -> list[tuple[str, Figure]]:
    """The cosine over each condition that breaks exactness; for online updates the relative error."""
    found = []
    for name, points in seeds[0].items():
        metric = ERROR_METRIC if name == "online" else "cosine"
        x = np.array([np.mean([one[name][k]["x"] for one in seeds]) for k in range(len(points))])
        values = np.array([[point[metric] for point in one[name]] for one in seeds])
        lines = [Line("mean", x, values.mean(0))]
        lines += [Line("lowest seed", x, values.min(0), color=1, dashed=True)] if metric == "cosine" else []
        log = name == "online"
        body = line_chart(
            lines,
            f"{metric} over {AXIS_NAMES[name]}",
            x_label=AXIS_NAMES[name],
            log_x=log or name == "sparsity",
            log_y=log,
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
    "coupling": "A dense circuit with traces of each unit's own past only, beside back-propagation through time.",
    "sparsity": "The same for blocks of coupled units; at block size 1 nothing is left out.",
    "depth": "The gradient of all levels; one level is exact.",
    "below": "The gradient of a linear encoder that learns from each step's error alone. Gate 1 has no memory.",
    "online": "The sum of the gradients along the way, compared with the gradient at the initial weights.",
}
STUDY = Study(
    title="Where recurrent forward propagation is exact",
    source="Velarde & Parra 2024, arXiv:2411.16695, which claims exactness for a large class and gives no figures",
    claim=(
        "The gradient is exact if each unit's past enters only that unit, its input does not learn through time, and "
        "the layers above have no past. Each broken condition has a measurable cost."
    ),
    arms=(),
    claims=claims(),
    kinds=(),
    own=Own(measure_seeds, tabulate, draw_figures),
    seeds=5,
)
