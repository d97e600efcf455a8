"""Compares learning rules on a bare circuit with a linear predictor: their gradients, memory and time.

    s_t = F(s_{t−1}, W x_t + b)        L = mean over t of (P s_t − sg(s_{t+1}))²

rfp is `jepakit.rfp`; bptt differentiates the graph of all steps; truncated differentiates each step alone, in chunks as
long as those of rfp. Dense RTRL is rfp on a circuit with a single block of the whole width.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...recurrent import rfp
from ...recurrent.cells import Cell, Gated
from ...recurrent.gradients import add_in_place
from ...types import Rng
from .alive import measure_peak

N, D = 256, 32
Gradient = list[Tensor]
Rule = Callable[["Problem"], Gradient]
ERROR_STEPS: Final = {"float64": (64,), "float32": (128, 512)}


class Problem:
    """A circuit, its predictor and a sequence (B, T, d), drawn from `rng`."""

    def __init__(
        self,
        rng: Rng,
        steps: int,
        n: int = N,
        d: int = D,
        batch: int = 1,
        *,
        block: int = 1,
        recurrent: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.fork("weights").generator().initial_seed())
            self.cell: Cell = Gated(d, n, block, recurrent=recurrent).to(dtype)
            self.predictor = nn.Linear(n, n).to(dtype)
        self.x = torch.randn(batch, steps, d, generator=rng.fork("x").generator(), dtype=torch.float64).to(dtype)

    @property
    def above(self) -> list[nn.Parameter]:
        """The parameters above the circuit: the predictor's."""
        return list(self.predictor.parameters())

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters."""
        return [self.cell.weight, self.cell.bias, self.cell.own, *self.above]

    def loss(self, h: Float[Tensor, "b k n"], t: int = 1) -> Float[Tensor, ""]:
        """The contribution of a window of states to the loss."""
        pairs = (self.x.shape[1] - 1) * len(h) * h.shape[2]
        wrong: Tensor = self.predictor(h[:, :-1]) - h[:, 1:].detach()
        return wrong.square().sum() / pairs


def bptt_gradient(problem: Problem) -> Gradient:
    """The gradient by back-propagation through the graph of all steps."""
    cell, state, shown = problem.cell, problem.cell.start(len(problem.x)), []
    for drive in cell.drive(problem.x.transpose(0, 1)).unbind():
        state = cell(state, drive)
        shown.append(cell.out(state))
    return list(torch.autograd.grad(problem.loss(torch.stack(shown, 1)), problem.parameters))


def truncated_gradient(problem: Problem, chunk: int = rfp.CHUNK_STEPS) -> Gradient:
    """The gradient that treats the past of every step as a constant."""
    cell, steps = problem.cell, problem.x.transpose(0, 1)
    before, sums = cell.start(len(problem.x)), [torch.zeros_like(p) for p in problem.parameters]
    for first in range(0, len(steps), chunk):
        # A window begins with the last step of the previous one, as in rfp.
        taken = steps[max(first - 1, 0) : first + chunk]
        states = rfp.forward_chunk(cell, before, taken).states
        with torch.enable_grad():
            shown = cell.out(cell(states[:-1], cell.drive(taken)))
            found = torch.autograd.grad(problem.loss(shown.transpose(0, 1)), problem.parameters)
        add_in_place(sums, found)
        before = states[-2]
    return sums


def forward_gradient(problem: Problem, chunk: int = rfp.CHUNK_STEPS, diagonal: bool = False) -> Gradient:
    """The gradient by recurrent forward propagation."""
    found = rfp.gradients(problem.cell, problem.x, problem.loss, problem.above, chunk=chunk, diagonal=diagonal)
    return list(found.gradients.values())


GRADIENT_RULES: Final[Mapping[str, Rule]] = {
    "rfp": forward_gradient,
    "rfp, chunk 1": lambda problem: forward_gradient(problem, 1),
    "bptt": bptt_gradient,
    "truncated": truncated_gradient,
}


def largest_error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The error max |difference| / max |gradient| of the worst tensor."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True) if b.abs().max())


def gradient_cosine(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The cosine between two whole gradients."""
    a, b = (torch.cat([g.flatten() for g in each]).double() for each in (found, exact))
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def rule_errors(seed: int, batch: int = 4) -> dict[str, dict[str, float]]:
    """Each rule's error against bptt in float64, by precision and length."""
    found: dict[str, dict[str, float]] = {name: {} for name in GRADIENT_RULES}
    for precision, lengths in ERROR_STEPS.items():
        for steps in lengths:
            exact = Problem(Rng(seed).fork("error"), steps, batch=batch, dtype=torch.float64)
            mine = Problem(Rng(seed).fork("error"), steps, batch=batch, dtype=getattr(torch, precision))
            # Both precisions start from the same numbers; otherwise rounding them would count as an error of the rule.
            exact.x = mine.x.double()
            exact.cell.load_state_dict(mine.cell.state_dict())
            exact.predictor.load_state_dict(mine.predictor.state_dict())
            right = bptt_gradient(exact)
            key = f"gradient_error_{precision}" + ("" if precision == "float64" else f"_T{steps}")
            for name, rule in GRADIENT_RULES.items():
                found[name][key] = largest_error(rule(mine), right)
    return found


def peak_bytes(rule: Rule, steps: int, d: int = D, n: int = N) -> int:
    """The peak of bytes alive at once, besides weights and input: forward pass, traces and all gradients."""
    problem = Problem(Rng(0), steps, n, d)
    return measure_peak(lambda: rule(problem), [*problem.parameters, problem.x])


def memory_crossing(d: int, lengths: Sequence[int]) -> dict[str, Any]:
    """Peak bytes of bptt at every length and of rfp at the last, and the length beyond which bptt takes more."""
    back = [peak_bytes(bptt_gradient, steps, d) for steps in lengths]
    ahead = peak_bytes(forward_gradient, lengths[-1], d)
    at = next((k for k, value in enumerate(back) if value > ahead), None)
    where = None
    if at:
        share = (ahead - back[at - 1]) / (back[at] - back[at - 1])
        where = lengths[at - 1] + share * (lengths[at] - lengths[at - 1])
    with torch.device("meta"):
        floats = rfp.trace_floats(Gated(d, N))
    return {"rfp": ahead, "bptt": back, "lengths": list(lengths), "T": where, "formula": 4 * floats}


def trace_bytes(sizes: Sequence[int], dense: bool) -> list[int]:
    """The measured bytes of the traces of one row with n = d inputs."""
    found = []
    for n in sizes:
        cell = Gated(n, n, n if dense else 1)
        found.append(measure_peak(lambda cell=cell: rfp.start(cell, 1), cell.parameters()))  # type: ignore[misc]
    return found


def trace_formula(sizes: Sequence[int], dense: bool) -> list[int]:
    """The bytes of the traces of one row with n = d inputs, by the formula."""
    with torch.device("meta"):
        return [4 * rfp.trace_floats(Gated(n, n, n if dense else 1)) for n in sizes]


def step_seconds(rules: Mapping[str, Rule], problem: Problem, rounds: int) -> dict[str, list[float]]:
    """Processor time per step of every rule in every round, after a warm-up; each goes first in half the rounds."""
    found: dict[str, list[float]] = {name: [] for name in rules}
    for k in range(rounds + 1):
        for name in list(rules)[:: 1 if k % 2 else -1]:
            begun = time.process_time()
            rules[name](problem)
            if k:
                found[name].append((time.process_time() - begun) / problem.x.shape[1])
    return found
