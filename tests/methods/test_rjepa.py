"""R-JEPA: its equation, padding, states that know no future, and one gradient whichever rule computes it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from jepakit import api, methods, testing
from jepakit.methods import rjepa
from jepakit.nn import CNN, MLP, Pixels, ResNet50
from jepakit.recurrent import balance
from jepakit.recurrent.circuit import Circuit
from jepakit.run.metrics import read_rows
from jepakit.testing.sequential import knows_no_future
from jepakit.types import ActionSpec, Batch, Rng, Signal, State

FILM = Signal(2, (5, 8, 8), mean=(0.4, 0.5), std=(0.3, 0.25), action=ActionSpec(2))
SERIES = Signal(3, (12,))
CFG = rjepa.Config(CNN((1, 8, 8), width=6, channels=(4,)), Circuit(width=7), hidden=9, saccade=True)


def build(signal: Signal = FILM, base: rjepa.Config = CFG, **changes: Any) -> rjepa.RJEPA:
    made = methods.build(replace(base, **changes), signal)
    assert isinstance(made, rjepa.RJEPA)
    return made.double()


def films(count: int = 3, lengths: list[int] | None = None, seed: int = 0) -> Batch:
    gen = Rng(seed).fork("films").generator()
    x = torch.rand(count, 2, 5, 8, 8, generator=gen, dtype=torch.float64)
    action = torch.randn(count, 4, 2, generator=gen, dtype=torch.float64)
    size = None if lengths is None else torch.tensor(lengths)
    return Batch(x, action=action, length=size, id=torch.arange(count))


def gradients(method: rjepa.RJEPA, batch: Batch, scale: float = 1.0) -> dict[str, Tensor]:
    method.zero_grad()
    (scale * method(batch, Rng(0)).total).backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def test_the_loss_is_the_mean_squared_error_of_the_next_state() -> None:
    method, batch = build(), films()
    y = method.encoder(method.normalize(batch.x))
    y = torch.nn.functional.layer_norm(y, y.shape[2:])
    cell, h, states = method.circuits.top.cell, torch.zeros(3, 7, 1).double(), []
    for t in range(5):
        h = cell(h, cell.drive(y[:, t]))
        states.append(h[..., 0])
    errors = []
    assert batch.action is not None
    for t in range(4):
        pred = method.predictor(torch.cat([states[t], batch.action[:, t]], 1))
        errors.append((pred - states[t + 1]).square().mean())
    assert_close(method(batch, Rng(0)).total, torch.stack(errors).mean())
    assert_close(method.encode(batch.x), torch.stack(states, 1))


@pytest.mark.parametrize("rule", ["bptt", "rfp", "truncated"])
def test_no_gradient_reaches_encoder_or_circuit_by_the_targets(rule: str) -> None:
    for stop in (True, False):
        method = build(rule=rule, stop_gradient=stop)
        torch.nn.init.zeros_(method.predictor[0].weight)  # so that no prediction depends on a state
        found = gradients(method, films())
        reached = any(g.any() for name, g in found.items() if not name.startswith("predictor"))
        assert reached == (not stop)
        assert found["predictor.0.weight"].any()


RULES: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {"predictor": "mlp"},
    "no predictor": {"predictor": "none", "saccade": False},
    "no stop-gradient": {"stop_gradient": False},
    "frozen": {"below": "frozen"},
    "reciprocal": {"circuit": Circuit("reciprocal", 7)},
    "positions": {"encoder": CNN((1, 4, 4), width=6, channels=(4,)), "circuit": Circuit(width=7, kernel=3)},
    "l1": {"distance": "l1"},
    "frozen resnet50": {"encoder": ResNet50((1, 1), width=4, frozen=True)},
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("chunk", [1, 2, 32])
def test_forward_propagation_has_the_loss_and_the_gradient_of_bptt(name: str, chunk: int) -> None:
    batch = films(3, [5, 2, 4])
    one = build(rule="bptt", **RULES[name])
    other = build(rule="rfp", chunk=chunk, **RULES[name])
    assert_close(one(batch, Rng(0)).total, other(batch, Rng(0)).total)
    expected, found = gradients(one, batch), gradients(other, batch)
    assert found.keys() >= expected.keys()
    for key, g in expected.items():
        assert_close(found[key], g, rtol=1e-9, atol=1e-14)


def test_scaling_and_accumulation_reach_the_gradient_of_forward_propagation() -> None:
    method, batch = build(rule="rfp"), films(4)
    whole, scaled = gradients(method, batch), gradients(method, batch, 1024.0)
    method.zero_grad()
    for part in (batch[:2], batch[2:]):
        (method(part, Rng(0)).total / 2).backward()
    for name, p in method.named_parameters():
        assert_close(scaled[name], 1024 * whole[name])
        assert_close(p.grad, whole[name])


@pytest.mark.parametrize("below", ["frozen", "full"])
def test_under_autocast_forward_propagation_has_the_float32_gradient_of_bptt(below: str) -> None:
    exact = gradients(build(rule="bptt", below=below), films())
    method, batch = build(rule="rfp", below=below).float(), films().to("cpu", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(batch, Rng(0)).total
    loss.backward()
    assert loss.dtype == torch.float32
    for name, p in method.named_parameters():
        if name in exact:
            assert p.grad is not None
            assert (p.grad - exact[name]).norm() < 1e-5 * exact[name].norm()


def test_a_truncated_gradient_is_that_of_each_step_by_itself() -> None:
    batch = films()
    cut, whole = gradients(build(rule="truncated"), batch), gradients(build(rule="bptt"), batch)
    key = "circuits.levels.0.cell.weight"
    assert not torch.allclose(cut[key], whole[key], rtol=1e-3)
    memoryless = {"circuit": Circuit("memoryless", 7)}
    cut, whole = (gradients(build(rule=rule, **memoryless), batch) for rule in ("truncated", "bptt"))
    assert_close(cut[key], whole[key])


@pytest.mark.parametrize("rule", ["bptt", "rfp"])
def test_padding_changes_no_bit_of_loss_or_gradient(rule: str) -> None:
    method, batch = build(rule=rule), films(3, [5, 2, 4])
    before, loss = gradients(method, batch), method(batch, Rng(0)).total
    x, action = batch.x.clone(), batch.action
    assert action is not None
    action = action.clone()
    x[1, :, 2:], x[2, :, 4:] = float("nan"), 1e9
    action[1, 1:], action[2, 3:] = float("nan"), 7.0
    padded = replace(batch, x=x, action=action)
    assert torch.equal(method(padded, Rng(0)).total, loss)
    for key, g in gradients(method, padded).items():
        assert torch.equal(g, before[key])


def test_every_sample_weighs_the_same_whatever_its_length() -> None:
    method, batch = build(), films(2, [5, 3])
    alone = [method(replace(batch[i : i + 1], length=batch.length[i : i + 1]), Rng(0)).total for i in (0, 1)]  # type: ignore[index]
    assert_close(method(batch, Rng(0)).total, torch.stack(alone).mean())


def test_states_do_not_change_with_what_comes_later_nor_do_streamed_ones() -> None:
    method, batch = build().eval(), films()
    h = method.encode(batch.x)
    other = batch.x.clone()
    other[:, :, 3:] = 1 - other[:, :, 3:]
    assert torch.equal(method.encode(other)[:, :3], h[:, :3])
    state = method.start(batch.x[:, :, 0])
    for t in range(1, 5):
        assert_close(state.tokens[:, 0], h[:, t - 1])
        state = method.observe(state, batch.x[:, :, t])
    assert_close(state.tokens[:, 0], h[:, 4])


def test_an_imagined_step_shows_the_prediction_and_reads_the_action() -> None:
    method, batch = build().eval(), films()
    assert batch.action is not None
    state = method.start(batch.x[:, :, 0])
    dreamt = method.step(state, batch.action[:, 0])
    h = torch.cat([state.tokens[:, 0], batch.action[:, 0]], 1)
    assert_close(dreamt.tokens[:, 0], method.predictor(h))
    assert not torch.equal(dreamt.tokens, method.step(state, batch.action[:, 1]).tokens)
    assert_close(method.circuits.shown(dreamt.hidden[-1].flatten(0, 1)), dreamt.tokens)


@pytest.mark.parametrize("rule", ["bptt", "rfp"])
def test_the_contract_holds_for_every_learning_rule(rule: str) -> None:
    signal = Signal(2, (4, 8, 8), mean=(0.4, 0.5), std=(0.3, 0.25))
    for clause in testing.CLAUSES:
        case = testing.Case(rjepa.RJEPA, signal, testing.example(signal))
        tiny = replace(case.cfg, rule=rule, below="frozen" if rule == "rfp" else "full")
        clause(_With(case.method, case.signal, case.batch, tiny))


class _With(testing.Case):
    """A case with settings of its own."""

    def __init__(self, method: Any, signal: Signal, batch: Batch, cfg: rjepa.Config) -> None:
        super().__init__(method, signal, batch)
        object.__setattr__(self, "_cfg", cfg)

    @property
    def cfg(self) -> Any:
        return self._cfg  # type: ignore[attr-defined]


class LooksAhead(rjepa.RJEPA):
    Config = rjepa.Config

    def encode(self, batch: Batch, weights: Any = "target") -> Tensor:
        s = super().encode(batch, weights)
        return s + s.mean(1, keepdim=True)


class ForgetsInStreams(rjepa.RJEPA):
    Config = rjepa.Config

    def observe(self, state: State, obs: Tensor, action: Tensor | None = None) -> State:
        return self.start(obs)


@pytest.mark.parametrize(
    ("broken", "words"), [(LooksAhead, "changing frame 2 changes states"), (ForgetsInStreams, "another state 2")]
)
def test_the_contract_finds_states_that_know_the_future_or_lose_the_past(broken: Any, words: str) -> None:
    signal = testing.SIGNALS[1]
    with pytest.raises(AssertionError, match=words):
        knows_no_future(testing.Case(broken, signal, testing.example(signal)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": "rfp", "circuit": Circuit("dense", 7)}, "coupled.*rule bptt"),
        ({"rule": "rfp", "below": "instant"}, "not exact here.*below instant"),
        ({"encoder": Pixels(), "circuit": Circuit(width=7, levels=(4,)), "rule": "rfp"}, "a past"),
        ({"encoder": CNN((5, 8, 8), width=6)}, "so there is nothing to predict"),
        ({"predictor": "none"}, "cannot read saccades"),
        ({"encoder": CNN((1, 8, 8)), "saccade": True, "hidden": 0}, "hidden is 0"),
        ({"below": "instant"}, "which rule bptt does not support"),
    ],
)
def test_what_cannot_work_is_refused_with_the_fix(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(**changes)


def test_what_traces_of_an_encoder_take_is_said_before_step_1() -> None:
    said = build(rule="rfp").caution(64)
    assert "also carries traces of the encoder" in said
    assert "for 64 samples" in said
    for changes in ({"rule": "bptt"}, {"rule": "rfp", "below": "frozen"}):
        assert build(**changes).caution(64) == ""


def test_a_signal_without_time_is_told_what_has_one_and_can_be_given() -> None:
    with pytest.raises(
        ValueError, match=r"needs time.*give a series, --data\.name scanpaths.* or a stream of"
    ) as error:
        methods.build(rjepa.Config(CNN((8, 8))), Signal(3, (8, 8)))
    assert "video" not in str(error.value)


def test_an_encoder_that_sees_all_times_is_refused() -> None:
    from jepakit.nn import vit

    with pytest.raises(ValueError, match="sees all times at once"):
        build(encoder=replace(vit("tiny"), patch=(1, 4, 4)), saccade=False)


@pytest.mark.parametrize(("cell", "below"), [("gated", "instant"), ("dense", "frozen"), ("dense", "full")])
def test_an_approximate_rule_says_how_close_it_is(cell: Any, below: str) -> None:
    x, circuit = films().x, Circuit(cell, 7)
    method = build(rule="rfp", approximate=True, circuit=circuit, below=below)
    found = float(method.diagnostics(x)["rfp/cosine"])
    whole = build(rule="bptt", circuit=circuit, below=below.replace("instant", "full"))
    mine, exact = (gradients(each, Batch(x[:1])) for each in (method, whole))
    one, other = (torch.cat([g[k].flatten() for k in exact]) for g in (mine, exact))
    assert found == pytest.approx(float(torch.cosine_similarity(one, other, dim=0)))
    assert 0.3 < found < 0.9999


def test_a_rule_that_is_exact_has_no_cosine_to_watch_though_approximations_are_allowed() -> None:
    method = build(rule="rfp", approximate=True)
    assert method(films(), Rng(0)).log.keys() == {"change"}
    assert "rfp/cosine" not in method.diagnostics(films().x)


def test_the_cosine_is_taken_for_rows_alone_and_on_one_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    ours = rjepa.RJEPA.gradient_cosine
    noted = lambda method, batch: seen.append(batch.x) or ours(method, batch)  # noqa: E731
    monkeypatch.setattr(rjepa.RJEPA, "gradient_cosine", noted)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(40, 2, 12)).astype(np.float32))
    settings = {"method.rule": "rfp", "method.below": "instant", "method.approximate": True, "loop.log_every": 3}
    sizes = {"method.encoder.patch": [3], "method.circuit.width": 5, "length.batch": 4, "evals.report": False}
    api.train(tmp_path / "a.npy", tmp_path / "run", recipe="rjepa", steps=6, settings={**settings, **sizes})
    rows = [row for row in read_rows(tmp_path / "run") if row]
    assert [row["step"] for row in rows] == [3, 6]
    assert all(0 < row["watched"]["rfp/cosine"] < 1 for row in rows)
    assert len(seen) == 2
    assert torch.equal(*seen)
    assert len(seen[0]) == 1


def test_series_are_read_patch_by_patch() -> None:
    method = build(SERIES, rjepa.Config(MLP((3,), width=6, hidden=5, depth=1), Circuit(width=7)))
    x = torch.randn(2, 3, 12, dtype=torch.float64)
    assert method.encode(x).shape == (2, 4, 7)
    state = method.start(x[:, :, :3])
    assert_close(method.observe(state, x[:, :, 3:6]).tokens[:, 0], method.encode(x)[:, 1])


def test_batch_statistics_of_an_encoder_stay_as_they_are() -> None:
    method = build(encoder=CNN((1, 8, 8), width=6, channels=(4,), norm="batch")).train()
    before = {k: v.clone() for k, v in method.named_buffers()}
    whole = gradients(method, films(4))
    assert all(torch.equal(v, before[k]) for k, v in method.named_buffers())
    assert whole


def test_the_balance_is_nought_where_both_sides_are_equal_and_reads_a_linear_predictor_only() -> None:
    method = build(saccade=False, circuit=Circuit(width=6))
    layer = method.predictor[0]  # type: ignore[index]
    with torch.no_grad():
        layer.weight.copy_(balance.candidate_weights(method.circuits.top.cell).T)
        watched = method.diagnostics(films().x)
    assert float(watched["balance"]) == pytest.approx(0, abs=1e-12)
    assert float(watched["balance/cosine"]) == pytest.approx(1, abs=1e-6)
    assert build(predictor="mlp").diagnostics(films().x) == {}
    names = {"balance", "balance/units", "balance/cosine", "balance/states", "balance/off_diagonal"}
    assert watched.keys() == names


@torch.no_grad()
def test_the_predictor_is_held_against_the_second_moment_of_the_states() -> None:
    method, x = build(), films().x
    h = method.encode(x).flatten(0, 1)
    moment = h.T @ h / len(h)
    weight = method.predictor[0].weight  # type: ignore[index]
    p = weight[:, :7].T @ weight[:, :7]
    expected = (p * moment).sum() / (p.norm() * moment.norm())
    assert_close(method.diagnostics(x)["balance/states"], expected)
    weight[:, :7] = torch.linalg.cholesky(moment + 1e-12 * torch.eye(7)).T
    assert float(method.diagnostics(x)["balance/states"]) == pytest.approx(1, abs=1e-6)


def test_weights_of_pairs_add_up_to_one() -> None:
    share = rjepa.pair_shares(films(3, [5, 2, 4]), 5, 1)
    assert_close(share.sum(0), torch.full((3,), 1 / 3))
    assert (share > 0).sum(0).tolist() == [4, 1, 3]
