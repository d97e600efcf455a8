"""What can be proved of R-JEPA with fixed gates and a linear predictor, against the house's own circuits.

h_t is linear in the input weights W, L = ½ E |P h_t − sg(h_{t+1})|², weight decay η on both, gradient flow by small
Euler steps.
"""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from jepakit.recurrent import balance, rfp
from jepakit.recurrent.cells import Gated
from jepakit.studies.rjepa import rjepa_modes as modes
from jepakit.types import Rng

SHARED, OWN = (0.4,) * 7, tuple(0.1 + 0.8 * i / 6 for i in range(7))


def circuit(gates: tuple[float, ...], inputs: int, seed: int = 0) -> Gated:
    """A circuit whose gates are what they are, whatever the input."""
    torch.manual_seed(seed)
    cell = Gated(inputs, len(gates), own=False, scale=1.5, linear=True).double()
    with torch.no_grad():
        cell.weight[:, 1] = 0
        cell.bias[:, 1] = torch.tensor(gates).double().logit()
    return cell


def linear(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width, bias=False)).double()


def inputs(samples: int, steps: int, features: int, size: float = 1.0, keep: float = 0.8) -> Tensor:
    """Sequences (N, T, d) that change slowly, some features stronger than others."""
    gen = Rng(0).fork("theory").generator()
    noise = torch.randn(samples, steps, features, generator=gen, dtype=torch.float64)
    x = [noise[:, 0]]
    for t in range(1, steps):
        x.append(keep * x[-1] + math.sqrt(1 - keep**2) * noise[:, t])
    return size * torch.stack(x, 1) * torch.linspace(1.0, 2.0, features).double()


def states(cell: Gated, x: Tensor) -> Tensor:
    h, shown = cell.start(len(x)), []
    for drive in cell.drive(x).unbind(1):
        h = cell(h, drive)
        shown.append(cell.out(h))
    return torch.stack(shown, 1)


def error(cell: Gated, predictor: nn.Module, x: Tensor, stop: bool = True) -> Tensor:
    h = states(cell, x)
    target = h[:, 1:].detach() if stop else h[:, 1:]
    return (predictor(h[:, :-1]) - target).square().sum(2).mean() / 2


def flow(
    cell: Gated, predictor: nn.Sequential, x: Tensor, decay: float, lr: float, steps: int, stop: bool = True
) -> None:
    """Euler steps of the gradient flow of W and P, nothing else."""
    for _ in range(steps):
        weights = (cell.weight, predictor[0].weight)
        by_w, by_p = torch.autograd.grad(error(cell, predictor, x, stop), weights)
        by_w[:, 1] = 0
        with torch.no_grad():
            cell.weight[:, 0] -= lr * (by_w[:, 0] + decay * cell.weight[:, 0])
            predictor[0].weight -= lr * (by_p + decay * predictor[0].weight)


def imbalance(cell: Gated, predictor: nn.Sequential) -> Tensor:
    w, p = balance.candidate_weights(cell), predictor[0].weight.detach()
    return w @ w.T - p.T @ p


def traced(cell: Gated, x: Tensor) -> Tensor:
    """E (N, T, m, d): what every input weight has done to its unit by each step, as forward propagation holds it."""
    traces, state, found = rfp.start(cell, len(x)), cell.start(len(x)), []
    for t in range(x.shape[1]):
        gone = rfp.forward_chunk(cell, state, x[:, t : t + 1].transpose(0, 1))
        traces, state = rfp.advance_traces(cell, gone, traces), gone.states[-1]
        found.append(traces.drive[:, :, 0, 0, :-1].clone())
    return torch.stack(found, 1)


@pytest.mark.parametrize("gates", [SHARED, OWN])
def test_states_are_the_input_weights_times_their_traces(gates: tuple[float, ...]) -> None:
    cell, x = circuit(gates, 5), inputs(8, 6, 5)
    e = traced(cell, x)
    assert_close(torch.einsum("ij,ntij->nti", balance.candidate_weights(cell), e), states(cell, x).detach())
    shared = bool((e - e[:, :, :1]).abs().max() < 1e-12)
    assert shared == (gates == SHARED)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_with_one_gate_for_all_units_the_whole_imbalance_decays_by_twice_the_weight_decay(decay: float) -> None:
    cell, predictor, x = circuit(SHARED[:4], 3), linear(4), inputs(32, 4, 3)
    before = imbalance(cell, predictor)
    flow(cell, predictor, x, decay, lr=0.04, steps=150)
    assert_close(imbalance(cell, predictor), before * math.exp(-2 * decay * 0.04 * 150), rtol=0, atol=0.03)
    assert before.abs().max() > 0.5


def test_with_gates_of_their_own_units_balance_one_by_one_and_not_together() -> None:
    cell, predictor, x = circuit(OWN[::2], 3), linear(4), inputs(32, 4, 3)
    before = imbalance(cell, predictor)
    flow(cell, predictor, x, 0.1, lr=0.04, steps=150)
    left = imbalance(cell, predictor) - before * math.exp(-2 * 0.1 * 0.04 * 150)
    assert_close(left.diagonal(), torch.zeros(4).double(), rtol=0, atol=0.03)
    assert left.abs().max() > 0.1


class Ran(NamedTuple):
    loss: list[float]
    size: list[float]
    whole: list[float]
    units: list[float]
    rank: list[int]


def ran(gates: tuple[float, ...]) -> Ran:
    """8000 steps of 0.05 with decay 0.02, from second moments of the traces: noted at 0, 2000, 4000 and 8000."""
    cell, predictor, x = circuit(gates, 5), linear(7), inputs(64, 15, 5, 0.2)
    e, out = traced(cell, x).flatten(2), Ran([], [], [], [], [])
    same, after = (torch.einsum("nta,ntb->ab", e[:, :-1], s) / s[..., 0].numel() for s in (e[:, :-1], e[:, 1:]))
    own = torch.eye(7).double().repeat_interleave(5, 0)  # which unit a trace belongs to
    w, p = balance.candidate_weights(cell).clone(), predictor[0].weight.detach().clone()
    for k in range(8001):
        rows = own.T * w.flatten()  # h = rows @ e
        h, next_ = rows @ same, rows @ after.T
        if k in (0, 2000, 4000, 8000):
            _note(
                out,
                cell,
                predictor,
                w,
                p,
                float((p @ h @ rows.T @ p.T - 2 * p @ (rows @ after) @ rows.T).trace() + (h @ rows.T).trace()) / 2,
            )
        by_p = p @ h @ rows.T - next_ @ rows.T
        by_w = ((p.T @ (p @ h - next_)) * own.T).sum(0).view(7, 5)
        w, p = w - 0.05 * (by_w + 0.02 * w), p - 0.05 * (by_p + 0.02 * p)
    return out


def _note(out: Ran, cell: Gated, predictor: nn.Sequential, w: Tensor, p: Tensor, loss: float) -> None:
    with torch.no_grad():
        cell.weight[:, 0], predictor[0].weight[:] = w, p
    watched = balance.balance_metrics(cell, predictor[0], torch.eye(7).double())  # type: ignore[arg-type]
    out.loss.append(loss)
    out.size.append(float(w.norm()))
    out.whole.append(float(watched["balance"]))
    out.units.append(float(watched["balance/units"]))
    out.rank.append(int((torch.linalg.svdvals(w) > 1e-2).sum()))


def test_sides_meet_and_the_loss_falls_while_the_rank_is_lost_too() -> None:
    whole, own = ran(SHARED), ran(OWN)
    for one in (whole, own):
        assert one.loss[-1] < one.loss[0] / 10
        assert one.size[-1] < one.size[0]
        assert one.units[1] < 0.1
        assert one.units[-1] < 1e-4
        # Stop-gradient, predictor and weight decay are all there, and the rank falls below what the input has.
        assert one.rank[0] == 5
        assert one.rank[-1] <= 3
    assert whole.whole[-1] < 1e-5
    assert own.whole[1] > 2 * own.units[1]


def test_without_stop_gradient_the_states_vanish_and_with_it_they_do_not() -> None:
    left = {}
    for stop in (True, False):
        cell, predictor, x = circuit(SHARED[:4], 3), linear(4), inputs(32, 4, 3)
        before = states(cell, x).detach().norm()
        flow(cell, predictor, x, 0.0, lr=0.04, steps=200, stop=stop)
        left[stop] = float(states(cell, x).detach().norm() / before)
    assert left[True] > 1
    assert left[False] < 0.1


def test_the_best_predictor_is_that_of_the_states_covariances() -> None:
    cell, predictor, x = circuit(OWN[::2], 3), linear(4), inputs(32, 6, 3)
    h, decay = states(cell, x).detach(), 0.1
    before, after = (part.flatten(0, 1) for part in (h[:, :-1], h[:, 1:]))
    for _ in range(1000):
        loss = (predictor(before) - after).square().sum(1).mean() / 2
        (by,) = torch.autograd.grad(loss, [predictor[0].weight])
        with torch.no_grad():
            predictor[0].weight -= 0.3 * (by + decay * predictor[0].weight)
    crossed, own = after.T @ before / len(before), before.T @ before / len(before)
    assert_close(predictor[0].weight.detach(), crossed @ (own + decay * torch.eye(4).double()).inverse())


@pytest.mark.parametrize(("decay", "left"), [(0.1, 0.7702), (0.19, 0.5618), (0.21, 0.0)])
def test_a_mode_survives_below_the_threshold_and_stays_at_the_larger_root(decay: float, left: float) -> None:
    found = modes.descend_mode(0.9, 1.0, decay, start=0.9, lr=0.1, steps=4000)
    assert found == pytest.approx(left, abs=5e-5)
    assert modes.fixed_points(0.9, 1.0, decay).stable == pytest.approx(left, abs=5e-5)
    assert (decay < 0.9**2 / 4) == (left > 0)


def test_a_mode_that_starts_below_the_smaller_root_dies() -> None:
    ends = [modes.descend_mode(0.9, 1.0, 0.1, start, lr=0.1, steps=2000) for start in (0.12, 0.14)]
    assert ends == pytest.approx([0, 0.7702], abs=5e-5)
    assert modes.fixed_points(0.9, 1.0, 0.1).border == pytest.approx(0.1298, abs=5e-5)


@pytest.mark.parametrize("adam", [False, True])
def test_trained_modes_end_where_theory_says(adam: bool) -> None:
    pairs, decays = ((0.9, 1.0), (0.5, 0.25)), (0.003, 0.03, 0.3)
    found = modes.train_modes(pairs, decays, Rng(0), adam, steps=2500)
    for row, (r, v) in zip(found, pairs, strict=True):
        theory = [
            modes.adam_fixed_point(r, d, modes.BATCH) if adam else modes.fixed_points(r, v, d).stable for d in decays
        ]
        assert row.tolist() == pytest.approx(theory, abs=0.02)
        # What kills a mode by gradient descent leaves it by AdamW.
        assert (row[-1] > 0.4) == adam


def test_a_unit_of_the_circuit_survives_where_its_mode_does() -> None:
    x = inputs(256, 8, 1)
    e = traced(circuit((0.5,), 1), x)[..., 0, 0]
    v = float(e[:, :-1].square().mean())
    r = float((e[:, 1:] * e[:, :-1]).mean() / v)
    ends = {}
    for factor in (0.8, 1.25):
        cell, predictor = circuit((0.5,), 1), linear(1)
        with torch.no_grad():
            cell.weight[:, 0], predictor[0].weight[:] = r / 2, r / 2
        decay = factor * r * r * v / 4
        flow(cell, predictor, x, decay, lr=0.2, steps=400)
        ends[factor] = float(predictor[0].weight.detach())
        expected = modes.fixed_points(r, v, decay).stable
    assert ends[0.8] == pytest.approx(modes.fixed_points(r, v, 0.8 * r * r * v / 4).stable, abs=1e-3)
    assert expected == 0
    assert ends[1.25] < r / 4
