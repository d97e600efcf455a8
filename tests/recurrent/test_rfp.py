"""Recurrent forward propagation: the gradient of back-propagation through time, at every size, chunk and precision."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from jepakit.recurrent import gradients, rfp, unroll
from jepakit.recurrent.cells import Cell, Gated, Memoryless, Reciprocal
from jepakit.recurrent.circuit import Circuit, Circuits, check_inputs

KINDS = ("gated", "mingru", "blocks", "reciprocal", "memoryless")


def build(kind: str, d: int, n: int) -> Cell:
    """A circuit of the exact class."""
    if kind == "reciprocal":
        return Reciprocal(d, n)
    if kind == "memoryless":
        return Memoryless(d, n)
    if kind == "blocks":
        return Gated(d, 2 * n, block=2)
    return Gated(d, n, own=kind == "gated", linear=kind == "mingru")


def error(h: Tensor, predictor: nn.Module) -> Tensor:
    """The squared error of the next state (N, K, w) as predicted, the target without gradient."""
    return (predictor(h[:, :-1]) - h[:, 1:].detach()).square().sum()


def bptt(cell: Cell, predictor: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients by autograd, all steps in one graph."""
    state, shown = cell.start(len(x)), []
    for t in range(x.shape[1]):
        state = cell(state, cell.drive(x[:, t]))
        shown.append(cell.out(state))
    loss = error(torch.stack(shown, 1), predictor)
    wanted = [cell.weight, cell.bias, *([cell.own] if cell.own.numel() else []), *predictor.parameters()]
    return loss, list(torch.autograd.grad(loss, wanted))


def worst(cell: Cell, x: Tensor, chunk: int) -> float:
    """max |difference| / max |gradient| over the tensors, RFP beside BPTT."""
    torch.manual_seed(1)
    predictor = nn.Sequential(nn.Linear(cell.width, 5), nn.Tanh(), nn.Linear(5, cell.width)).to(x.dtype)
    loss, expected = bptt(cell, predictor, x)
    found = rfp.gradients(cell, x, lambda h, t: error(h, predictor), list(predictor.parameters()), chunk=chunk)
    assert float(found.loss) == pytest.approx(float(loss.detach()), rel=1e-5)
    mine = [g for g in found.gradients.values() if g.numel()]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(mine, expected, strict=True))


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    d=st.integers(1, 6),
    n=st.integers(1, 7),
    batch=st.integers(1, 16),
    steps=st.integers(2, 24),
    chunk=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_the_gradient_is_that_of_bptt_to_1e_12(
    kind: str, d: int, n: int, batch: int, steps: int, chunk: int, seed: int
) -> None:
    torch.manual_seed(seed)
    cell = build(kind, d, n).double()
    assert worst(cell, torch.randn(batch, steps, d, dtype=torch.float64), chunk) <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "bound"), [(128, 1e-5), pytest.param(512, 5e-5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("chunk", [1, 32])
def test_in_float32_it_is_so_to_rounding(kind: str, steps: int, bound: float, chunk: int) -> None:
    torch.manual_seed(3)
    assert worst(build(kind, 6, 9), torch.randn(4, steps, 6), chunk) <= bound


def test_a_dense_circuit_with_one_block_is_real_time_recurrent_learning() -> None:
    torch.manual_seed(0)
    cell = Gated(3, 6, block=6).double()
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    assert worst(cell, x, 1) <= 1e-12
    assert rfp.why_inexact(cell) is not None
    found = rfp.gradients(cell, x, lambda h, t: h.square().sum(), diagonal=True, chunk=4)
    exact = rfp.gradients(cell, x, lambda h, t: h.square().sum(), chunk=4)
    cosine = torch.cosine_similarity(found.gradients["weight"].flatten(), exact.gradients["weight"].flatten(), dim=0)
    assert 0.5 < float(cosine) < 0.9999


def test_windows_overlap_by_one_state_and_hold_every_pair_of_neighbours_once() -> None:
    cell, seen = Gated(2, 3), []
    x = torch.randn(1, 10, 2)

    def note(h: Tensor, t: int) -> Tensor:
        seen.extend(range(t, t + h.shape[1] - 1))
        return h.sum() * 0

    rfp.gradients(cell, x, note, chunk=4)
    assert seen == list(range(1, 10))


def test_a_stream_goes_on_where_it_stands() -> None:
    torch.manual_seed(0)
    cell, p = Gated(3, 5).double(), nn.Linear(5, 5).double()
    x = torch.randn(2, 12, 3, dtype=torch.float64)

    def loss(h: Tensor, t: int) -> Tensor:
        return error(h, p)

    whole = rfp.gradients(cell, x, loss, list(p.parameters()), chunk=3)
    first = rfp.gradients(cell, x[:, :7], loss, list(p.parameters()), chunk=3)
    kept = rfp.Traces(*(t.clone() for t in first.traces))
    second = rfp.gradients(cell, x[:, 7:], loss, list(p.parameters()), chunk=2, state=first.state, traces=kept)
    for name, g in whole.gradients.items():
        assert_close(first.gradients[name] + second.gradients[name], g)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_squared_error_whose_gradients_are_written_out_has_those_of_autograd(kind: str, bias: bool) -> None:
    torch.manual_seed(0)
    cell = build(kind, 3, 5).double()
    p, x = nn.Linear(cell.width, cell.width, bias).double(), torch.randn(2, 6, 3, dtype=torch.float64)
    found = rfp.gradients(cell, x, lambda h, t: h.sum() * 0)
    loss, above = rfp.SquaredError(p), list(p.parameters())
    each = [
        rfp.observe(cell, x[:, 0], used, above, found.state, rfp.Traces(*(t.clone() for t in found.traces)))
        for used in (loss, lambda before, now: loss(before, now))
    ]
    assert_close(*(one.loss for one in each))
    assert_close(*(one.gradients for one in each))


class Odd(nn.Module):
    """A layer that is used twice, another without a bias, one through its weight alone, and one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(5, 5), nn.Linear(5, 5, bias=False), nn.Linear(5, 2)

    def forward(self, h: Tensor) -> Tensor:
        one: Tensor = self.b(torch.tanh(self.a(self.a(h)))) * self.b.weight.diagonal()
        return one + torch.func.vmap(self.a)(h)


@pytest.mark.parametrize("chunk", [3, 20])
def test_a_loss_may_use_its_layers_and_gradients_of_its_own_as_it_likes(chunk: int) -> None:
    torch.manual_seed(0)
    cell, p = Gated(3, 5).double(), Odd().double()
    x = torch.randn(2, 9, 3, dtype=torch.float64)

    def steep(h: Tensor, t: int) -> Tensor:
        pred = p(h)
        (slope,) = torch.autograd.grad(pred.sum(), h, create_graph=True)
        return pred.square().sum() + slope.square().sum()

    def loss(h: Tensor, t: int) -> Tensor:
        # Windows overlap by one step, which counts once.
        new = h[:, 1:] if t > 1 else h
        return steep(new, t)

    found = rfp.gradients(cell, x, loss, list(p.parameters()), chunk=chunk)
    state, shown = cell.start(2), []
    for drive in cell.drive(x.transpose(0, 1)).unbind():
        state = cell(state, drive)
        shown.append(cell.out(state))
    wanted = [cell.weight, cell.bias, cell.own, *p.parameters()]
    exact = torch.autograd.grad(steep(torch.stack(shown, 1), 1), wanted, allow_unused=True, materialize_grads=True)
    assert_close(list(found.gradients.values()), list(exact), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_online_steps_sum_to_the_gradient_of_the_whole_sequence(kind: str, rows: int) -> None:
    torch.manual_seed(0)
    cell = build(kind, 3, 5).double()
    p, x = nn.Linear(cell.width, cell.width).double(), torch.randn(rows, 9, 3, dtype=torch.float64)
    above = list(p.parameters())
    whole = rfp.gradients(cell, x, lambda h, t: error(h, p), above)
    found = rfp.gradients(cell, x[:, :1], lambda h, t: h.sum() * 0, above)
    sums, total = found.gradients, found.loss
    for now in x[:, 1:].unbind(1):
        found = rfp.observe(
            cell, now, lambda h, y: (p(h) - y).square().sum(), above, found.state, found.traces, diagonal=False
        )
        total = total + found.loss
        sums = {name: g + found.gradients[name] for name, g in sums.items()}
    assert_close(total, whole.loss)
    assert_close(sums, whole.gradients, rtol=1e-12, atol=1e-12)


def test_trace_floats_counts_what_is_there() -> None:
    for kind in KINDS:
        cell = build(kind, 4, 6)
        assert sum(t[0].numel() for t in rfp.start(cell, 3)) == rfp.trace_floats(cell)


def test_trace_memory_grows_with_the_square_of_n_and_that_of_a_dense_circuit_with_the_cube() -> None:
    import numpy as np

    sizes = [32, 64, 128, 256, 512]

    def slope(make: Any) -> float:
        return float(np.polyfit(np.log(sizes), np.log([rfp.trace_floats(make(n)) for n in sizes]), 1)[0])

    with torch.device("meta"):
        assert abs(slope(lambda n: Gated(n, n)) - 2) <= 0.1
        assert abs(slope(lambda n: Gated(n, n, block=n)) - 3) <= 0.1


def circuits(**changes: Any) -> Circuits:
    torch.manual_seed(0)
    return Circuit(width=6, **changes).build(3, (4, 4)).double()


@pytest.mark.parametrize(
    ("changes", "below", "words"),
    [
        ({}, "frozen", None),
        ({"kernel": 3}, "frozen", None),
        ({"block": 3}, "full", None),
        ({"cell": "reciprocal"}, "frozen", None),
        ({"levels": (4,), "recurrence": "none"}, "instant", None),
        ({"cell": "dense"}, "frozen", "coupled"),
        ({}, "instant", "below instant"),
        ({"levels": (4,)}, "frozen", "the circuit above has a past"),
        ({"levels": (4,), "recurrence": "none", "feedback": True}, "frozen", "feedback"),
    ],
)
def test_what_is_said_to_be_exact_is_and_what_is_not_is_refused_by_its_reason(
    changes: dict[str, Any], below: unroll.Below, words: str | None
) -> None:
    net = circuits(**changes)
    encoder = nn.Linear(2, 3).double()
    x = torch.randn(7, 2, 4, 4, 2, dtype=torch.float64)
    predictor = nn.Linear(6, 6).double()

    def frames(first: int, last: int) -> Tensor:
        return encoder(x[first:last]).movedim(-1, 2)

    def loss(h: Tensor, t: int) -> Tensor:
        return (predictor(h[:-1]) - h[1:].detach()).square().sum()

    def jacobian(t: int) -> Tensor:
        names = [name for name, _ in encoder.named_parameters()]

        def rows(*values: Tensor) -> Tensor:
            made = torch.func.functional_call(encoder, dict(zip(names, values, strict=True)), (x[t : t + 1],))
            return net.read(made.movedim(-1, 2))[0]

        by = torch.func.jacrev(rows, argnums=(0, 1))(*encoder.parameters())
        return torch.cat([j.flatten(2) for j in by], -1)

    trained = [] if below == "frozen" else list(encoder.parameters())
    rule = unroll.ForwardPropagation(net, frames, loss, list(predictor.parameters()), trained, below, jacobian)
    shown, _ = unroll.through_time(net, frames(0, 7) if trained else frames(0, 7).detach())
    asked = [p for p in rule.parameters if p.requires_grad]
    expected = torch.autograd.grad(loss(shown, 1), asked, allow_unused=True, materialize_grads=True)
    traced = sum(p.numel() for p in trained) if below == "full" else 0
    for chunk in (1, 3, 7):
        _, all_found, _ = rule.run(unroll.start_stream(net, 2, traced), 7, chunk)
        found = [g for p, g in zip(rule.parameters, all_found, strict=True) if p.requires_grad]
        off = max(
            float((a - b).abs().max() / b.abs().max())
            for a, b in zip(found, expected, strict=True)
            if b.abs().max() > 1e-12
        )
        # A dense circuit is exact where its whole block is traced: it is refused for what that costs.
        exact = words is None or words == "coupled"
        assert off <= 1e-12 if exact else off > 1e-4
    if words is None:
        unroll.check_exact(net, below, approximate=False)
    else:
        with pytest.raises(ValueError, match=words):
            unroll.check_exact(net, below, approximate=False)
        unroll.check_exact(net, below, approximate=True)


def test_traces_that_do_not_fit_are_refused_before_the_first_step_with_what_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, like = circuits(), torch.zeros(1)
    one = unroll.trace_bytes(net, None, 1)
    monkeypatch.setattr(unroll, "free_bytes", lambda device: 5 * one)
    unroll.check_memory(net, None, 5, like)
    with pytest.raises(ValueError, match="at most 5 at a time"):
        unroll.check_memory(net, None, 6, like)
    monkeypatch.setattr(unroll, "free_bytes", lambda device: one // 2)
    with pytest.raises(ValueError, match=r"method\.circuit\.width of at most 3"):
        unroll.check_memory(net, None, 1, like)


@pytest.mark.parametrize("cell", ["gated", "dense"])
def test_the_widest_circuit_that_fits_fits_and_the_next_does_not(cell: Any) -> None:
    net = Circuits(Circuit(cell=cell, width=40), 5, (1,))
    free = unroll.trace_bytes(net, None, 1) // 2
    width = unroll.max_width(net, None, free)
    sizes = [unroll.trace_bytes(Circuits(Circuit(cell=cell, width=w), 5, (1,)), None, 1) for w in (width, width + 1)]
    assert sizes[0] <= free < sizes[1]
    assert unroll.max_width(net, None, 10) == 0


def test_inputs_that_want_a_gradient_and_what_is_no_circuit_are_refused() -> None:
    cell, x = Gated(3, 4), torch.randn(2, 5, 3)
    with pytest.raises(ValueError, match=r"inputs are constants here, .*give inputs\.detach\(\)"):
        rfp.gradients(cell, x.requires_grad_(), lambda h, t: h.sum())
    with pytest.raises(ValueError, match="GRUCell is not a circuit with its own derivatives"):
        check_inputs(nn.GRUCell(3, 4), x.detach())


def test_the_loss_is_a_node_whose_gradients_scale_and_that_cannot_be_differentiated_twice() -> None:
    p = nn.Parameter(torch.tensor([2.0, 3.0]))

    def work() -> tuple[Tensor, list[Tensor]]:
        return p.detach().square().sum(), [2 * p.detach()]

    loss = gradients.known_gradient_loss(work, [p])
    (1024 * loss).backward()
    assert_close(p.grad, 1024 * 2 * p.detach())
    (first,) = torch.autograd.grad(gradients.known_gradient_loss(work, [p]), p, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        first.sum().backward()
