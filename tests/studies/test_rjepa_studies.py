"""The studies of forward propagation: what they measure is what it is called, and both run through on small sizes."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from jepakit import api, studies
from jepakit.recurrent import rfp
from jepakit.studies.rjepa import propagation as rules
from jepakit.studies.rjepa import rjepa_boundary, rjepa_curves, rjepa_rfp
from jepakit.studies.rjepa.alive import measure_peak
from jepakit.types import Rng


def test_peak_counts_what_is_alive_at_once_and_not_what_was_there_before() -> None:
    x = torch.zeros(1000)
    one = 4 * 1000
    assert measure_peak(lambda: [x + k for k in range(10)], [x]) == 10 * one
    assert measure_peak(lambda: [float((x + k)[0]) for k in range(10)], [x]) == one
    assert measure_peak(lambda: x[:10].view(2, 5), [x]) == 0
    w = torch.zeros(1000, requires_grad=True)
    # Each factor is kept for the way back, which makes a gradient beside them.
    assert measure_peak(lambda: torch.autograd.grad((w * 2).exp().sum(), w), [w]) >= 2 * one


def problem(steps: int = 9, **changes: int) -> rules.Problem:
    return rules.Problem(Rng(0), steps, 6, 3, 2, dtype=torch.float64, **changes)


def test_every_rule_of_the_study_has_the_gradient_that_it_is_named_for() -> None:
    one = problem()
    exact = rules.bptt_gradient(one)
    for chunk in (1, 4, 32):
        assert rules.largest_error(rules.forward_gradient(one, chunk), exact) < 1e-12
        assert_close(rules.truncated_gradient(one, chunk), rules.truncated_gradient(one, 32))
    cut = rules.truncated_gradient(one)
    assert rules.largest_error(cut, exact) > 0.05
    assert_close(cut[3:], exact[3:])  # what lies above the circuit has no past to lose
    with torch.no_grad():
        one.cell.bias[:, 1] += 40.0
        one.cell.own.zero_()
    assert_close(rules.truncated_gradient(one), rules.bptt_gradient(one))  # open gates: no past at all


def test_memory_is_flat_in_time_for_forward_propagation_and_grows_for_bptt() -> None:
    for name in ("rfp", "rfp, chunk 1"):
        few, many = (rules.peak_bytes(rules.GRADIENT_RULES[name], t, 3, 6) for t in (64, 128))
        assert many == few
    assert rules.peak_bytes(rules.bptt_gradient, 80, 3, 6) > 1.8 * rules.peak_bytes(rules.bptt_gradient, 40, 3, 6)


@pytest.mark.slow
def test_at_n_256_and_1024_steps_forward_propagation_takes_a_fifteenth_of_the_memory_of_bptt() -> None:
    assert rules.peak_bytes(rules.bptt_gradient, 1024) >= 15 * rules.peak_bytes(rules.forward_gradient, 1024)


def test_measured_traces_are_those_of_the_formula() -> None:
    for dense in (False, True):
        assert rules.trace_bytes((4, 8), dense) == rules.trace_formula((4, 8), dense)


def test_the_length_from_which_bptt_takes_more_lies_between_those_measured() -> None:
    found = rules.memory_crossing(32, (32, 64, 128))
    at = next(k for k, value in enumerate(found["bptt"]) if value > found["rfp"])
    assert found["lengths"][at - 1] < found["T"] <= found["lengths"][at]
    assert rules.memory_crossing(32, (8, 16))["T"] is None


def test_learning_by_forward_propagation_is_that_of_bptt_and_truncation_is_another() -> None:
    task = rjepa_curves.TASKS["Lorenz"]
    each = rjepa_curves.rule_losses(task, Path(), 16, 0, 6)
    assert each["rfp"] == pytest.approx(each["bptt"], rel=1e-4)
    assert each["truncated"][0] == pytest.approx(each["bptt"][0], rel=1e-5)
    assert each["truncated"][-1] != pytest.approx(each["bptt"][-1], rel=1e-4)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "N", 8)
    monkeypatch.setattr(rules, "ERROR_STEPS", {"float64": (8,), "float32": (8, 16)})
    for name, value in {
        "SEQUENCE_LENGTHS": (8, 32),
        "MEMORY_LENGTH": 32,
        "BPTT_LENGTHS": (8, 32, 64),
        "INPUT_WIDTHS": (4, 8),
        "STATE_WIDTHS": (4, 8, 16),
        "DENSE_WIDTHS": (4, 8),
        "CHUNK_SIZES": (1, 8),
        "TIMING_ROUNDS": {1: (8, 1), 64: (4, 1)},
    }.items():
        monkeypatch.setattr(rjepa_rfp, name, value)
    lorenz = rjepa_curves.TASKS["Lorenz"]
    monkeypatch.setattr(
        rjepa_curves, "TASKS", {"Lorenz": replace(lorenz, steps={8: 4}), "none": replace(lorenz, needs="nothing")}
    )


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_one_run_leaves_table_figures_and_page_of_rjepa_rfp(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JEPAKIT_DATA", raising=False)
    out = tmp_path
    rows, page = api.reproduce("rjepa-rfp", out=out, seeds=2)  # type: ignore[arg-type]
    found = {(r.name, r.metric) if hasattr(r, "name") else (r["name"], r["metric"]) for r in rows}
    for rule in ("rfp", "rfp, chunk 1", "bptt", "truncated"):
        for metric in ("gradient_error_float64", "peak_bytes_T32", "seconds_per_step", "seconds_per_step, batch 64"):
            assert (rule, metric) in found
    for rule in rjepa_curves.GRADIENT_RULES:
        assert (rule, "final_loss, Lorenz, 8 steps") in found
    table = json.loads((page.parent / "table.json").read_text())
    assert table["says"][0].startswith("Exact")
    assert any("final losses of rfp and bptt are equal within 0.1 %: holds" in s for s in table["says"])
    assert not re.search(r'(src|href)="(?!#|data:)', page.read_text())
    drawn = {p.stem for p in (page.parent / "figures").iterdir()}
    assert drawn == {"memory", "chunk-time", "chunk-memory", "traces", "curves-lorenz-8-steps"}


def test_what_breaks_exactness_and_what_does_not() -> None:
    found = rjepa_boundary.measure_seed(0)
    for name in ("coupling", "sparsity", "depth"):
        assert found[name][0]["relative error"] < 1e-12
        assert all(point["relative error"] > 0.05 for point in found[name][1:])
    assert [p["cosine"] for p in found["coupling"]] == sorted((p["cosine"] for p in found["coupling"]), reverse=True)
    slow, fast = (point["relative error"] for point in found["online"][:2])
    assert fast == pytest.approx(10 * slow, rel=0.2)
    gates = [point["x"] for point in found["below"]]
    assert gates == sorted(gates)
    assert found["below"][0]["relative error"] > found["below"][-1]["relative error"]


def test_the_study_of_the_boundary_says_and_draws_what_it_found(tmp_path: object) -> None:
    _, page = api.reproduce("rjepa-boundary", out=tmp_path, seeds=2)  # type: ignore[arg-type]
    assert {p.stem for p in (page.parent / "figures").iterdir()} == set(rjepa_boundary.AXIS_NAMES)
    says = json.loads((page.parent / "table.json").read_text())["says"]
    assert len(says) == len(rjepa_boundary.claims())
    assert "relative error is at most 1e-12: holds" in says[0]
    assert "cosine falls from 0 to 2: holds, 1 at 0, " in says[1]


def test_both_studies_are_found_by_name_and_take_five_seeds() -> None:
    assert studies.load("rjepa-rfp").seeds == studies.load("rjepa-boundary").seeds == 5


def test_an_empty_sequence_is_refused() -> None:
    one = problem()
    with pytest.raises(ValueError, match=r"1 step or more"):
        rfp.gradients(one.cell, one.x[:, :0], one.loss)


def test_inputs_that_the_circuit_does_not_read_and_a_chunk_of_nought_are_refused() -> None:
    one = problem()
    with pytest.raises(ValueError, match=r"give \(rows, 1 step or more, \d+\)"):
        rfp.gradients(one.cell, one.x[..., :-1], one.loss)
    with pytest.raises(ValueError, match="chunk is 0;"):
        rfp.gradients(one.cell, one.x, one.loss, chunk=0)
