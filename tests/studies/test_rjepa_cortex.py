"""The measures of `rjepa-cortex`: on signals whose answer is known, in trials with circuits, and from end to end."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from jepakit import api, methods
from jepakit.methods.rjepa import RJEPA
from jepakit.nn.conv import CNN
from jepakit.recurrent import unroll
from jepakit.recurrent.circuit import Circuit
from jepakit.run import checkpoint
from jepakit.run.settings import Loop
from jepakit.studies.rjepa import cortex, cortex_trials, rjepa_cortex, standin
from jepakit.studies.rjepa.cortex_claims import INTERVAL_SUFFIXES
from jepakit.studies.rjepa.cortex_trials import AT, OTHER, OWN, SAME, HeldScanpaths
from jepakit.studies.rjepa.rjepa_states import record_circuit
from jepakit.studies.study import Scores
from jepakit.types import ActionSpec, Rng, Signal

T, VIEWERS = 10, 3


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_the_time_constant_of_an_autoregressive_unit_is_that_of_its_coefficient() -> None:
    phi = np.array([0.0, 0.4, 0.7, 0.9])
    h = noise(400, 300, 4)
    for t in range(1, 400):
        h[t] += phi * h[t - 1]
    found = cortex.time_constant(cortex.unit_autocorrelation(h[50:], 8))
    assert found[0] < 0.25
    assert found[1:] == pytest.approx(-1 / np.log(phi[1:]), rel=0.05)


def test_what_all_samples_do_alike_is_no_memory() -> None:
    h = noise(200, 60, 3) + 10 * np.sin(np.arange(200) / 20)[:, None, None]
    assert np.abs(cortex.unit_autocorrelation(h, 4)[1:]).max() < 0.05


def test_the_time_constant_of_a_difference_is_how_fast_it_shrinks() -> None:
    h, tau = noise(8, 20, 3), np.array([0.5, 2.0, 10.0])
    other = h + np.exp(-np.arange(8)[:, None] / tau)[:, None] * noise(20, 3, seed=1)
    assert cortex.time_constant(cortex.remaining_difference(h, other)) == pytest.approx(tau, rel=0.02)
    same = h + np.exp(-np.arange(8) / 3)[:, None, None] * noise(20, 3, seed=1)
    assert cortex.time_constant(cortex.remaining_norm(h, same)) == pytest.approx([3], rel=0.02)


def test_what_keeps_nothing_everything_or_never_varied_has_the_constant_0_the_longest_or_none() -> None:
    found = cortex.time_constant(np.array([[1, 0, 0, 0], [1.0] * 4, [np.nan] * 4]).T)
    assert found[:2].tolist() == [0, cortex.LONGEST]
    assert np.isnan(found[2])
    flat = noise(9, 5, 2) * np.array([1.0, 0.0])
    assert np.isnan(cortex.unit_autocorrelation(flat, 2)[:, 1]).all()
    rows = rjepa_cortex.quartile_rows("x", [np.array([[1, 0, 0], [1.0] * 3, [np.nan] * 3]).T] * 2)
    assert rows["x, level 1"] == rows["x, level 2"] == cortex.LONGEST / 2


def test_an_effect_is_a_ratio_and_a_difference_over_its_own_deviation() -> None:
    n = 4000
    b = 2 + 0.1 * noise(n)
    a = b + 1 + 0.5 * noise(n, seed=1)
    found = cortex.paired_effect(a, b, np.arange(n) // 10, Rng(0))
    assert found.ratio == pytest.approx(1.5, abs=0.01)
    assert found.d == pytest.approx(2, abs=0.1)
    assert found.ratio_low < 1.5 < found.ratio_high
    assert found.d_low < 2 < found.d_high
    assert cortex.paired_effect(b, b, np.arange(n), Rng(0)) == (1, 1, 1, 0, 0, 0)


def test_an_interval_knows_that_scanpaths_of_one_picture_are_not_independent() -> None:
    b, picture = np.ones(400), np.arange(400) // 20
    a = 2 + noise(20)[picture]
    together, apart = (cortex.paired_effect(a, b, group, Rng(0)) for group in (picture, np.arange(400)))
    assert together.ratio_high - together.ratio_low > 3 * (apart.ratio_high - apart.ratio_low)


def test_adaptation_is_the_contrast_of_first_and_last() -> None:
    assert cortex.adaptation_index(np.array([3.0, 2.0, 1.0])) == 0.5
    assert cortex.adaptation_index(np.array([1.0, 5.0, 3.0])) == -0.5
    assert cortex.adaptation_index(np.zeros(3)) == 0


def test_sparseness_is_0_where_all_respond_alike_and_1_where_one_does() -> None:
    assert cortex.response_sparseness(np.eye(7)) == pytest.approx(np.ones(7))
    assert cortex.response_sparseness(np.full((2, 7), 3.0)) == pytest.approx([0, 0])
    assert cortex.response_sparseness(np.zeros((1, 7))) == 0
    # Half of eight respond: (1 - 1 / 2) / (1 - 1 / 8).
    assert cortex.response_sparseness(np.array([[1.0] * 4 + [0.0] * 4])) == pytest.approx(4 / 7)
    assert cortex.response_sparseness(np.abs(noise(1, 100_000))) == pytest.approx(1 - 2 / np.pi, abs=0.01)


def test_kurtosis_is_that_of_known_distributions_and_units_that_do_not_vary_have_no_part() -> None:
    rng, n = np.random.default_rng(0), 200_000
    h = np.stack([rng.normal(3, 2, n), rng.laplace(size=n), rng.choice([-1.0, 1.0], n), np.ones(n)], 1)
    z = cortex.standardise_units(h)
    assert z.shape == (n, 3)
    assert cortex.excess_kurtosis(z) == pytest.approx([0, 3, -2], abs=0.2)


def test_fixations_are_exchanged_one_for_one_with_other_pictures_or_within_one() -> None:
    picture = np.array([4, 4, 4, 7, 7, 9, 4, 9, 7, 5])
    other, same = cortex_trials.other_picture(picture, Rng(0)), cortex_trials.same_picture(picture)
    assert sorted(other) == sorted(same) == list(range(10))
    assert (picture[other] != picture).all()
    assert (picture[same] == picture).all()
    assert (same != np.arange(10)).sum() == 9  # picture 5 has nobody else
    with pytest.raises(ValueError, match="one of 2 held-out pictures has 3 of their 4 scanpaths"):
        cortex_trials.other_picture(np.array([1, 1, 1, 2]), Rng(0))


def circuit(**changes: Any) -> RJEPA:
    settings = {"width": 12, "norm": False, **changes}
    signal = Signal(1, (T, 16, 16), action=ActionSpec(2))
    encoder = CNN(patch=(1, 16, 16), width=8, channels=(4,))
    made = methods.build(methods.rjepa.Config(encoder, Circuit(**settings), saccade=True), signal, 0)
    assert isinstance(made, RJEPA)
    return made.eval()


def held(pictures: int = 6) -> HeldScanpaths:
    n = pictures * VIEWERS
    y = torch.from_numpy(noise(T, n, 8, 1, 1)).float()
    length = np.where(np.arange(n) % VIEWERS == 0, 7, T)
    return HeldScanpaths(y, torch.from_numpy(noise(T - 1, n, 2)).float(), length, np.arange(n) // VIEWERS)


@pytest.mark.parametrize("changes", [{}, {"levels": (3, 5), "recurrence": "all", "feedback": True}])
def test_states_are_those_of_training_at_every_level(changes: dict[str, Any]) -> None:
    method = circuit(**changes)
    y = torch.from_numpy(noise(5, 4, 8, 1, 1)).float()
    found = record_circuit(method, y)
    h, _ = unroll.through_time(method.circuits, y)
    assert_close(torch.from_numpy(found.h), h.detach().flatten(2))
    assert [each.shape[:2] for each in found.levels] == [(5, 4)] * len(method.circuits.levels)
    assert_close(torch.from_numpy(found.pred), method.predict(h[:-1]).detach().flatten(2))
    assert found.gate.shape == (5, 4, 12)


def test_a_swap_changes_one_fixation_nothing_before_and_without_a_past_nothing_after() -> None:
    for recurrence, lasts in (("top", True), ("none", False)):
        swapped = cortex_trials.swap_fixation(circuit(recurrence=recurrence), held(), Rng(0))
        own = swapped.states[OWN].h
        for name in (SAME, OTHER):
            h = swapped.states[name].h
            assert (h[: AT - 1] == own[: AT - 1]).all()
            assert (h[AT - 1] != own[AT - 1]).any(1).all()
            assert np.allclose(h[AT:], own[AT:]) is not lasts
            before = [swapped.errors(part)[: AT - 2] for part in (name, OWN)]
            assert (before[0] == before[1]).all()
    # Without a past a state is that of its fixation: exchanged ones are the same states in another order.
    assert np.sort(h[AT - 1], 0) == pytest.approx(np.sort(own[AT - 1], 0), abs=1e-6)


def test_a_surprise_is_found_where_pictures_differ_and_predictions_persist() -> None:
    method, part = circuit(recurrence="none"), held(20)
    alike = torch.from_numpy(noise(20, 8, 1, 1, seed=3)).float()[torch.from_numpy(part.picture)]
    persisting(method)
    rows = rjepa_cortex.measure_surprise(
        cortex_trials.swap_fixation(method, part._replace(y=3 * alike + 0.3 * part.y), Rng(0))
    ).rows
    assert rows["surprise, low"] > 5
    assert rows["surprise over same picture, low"] > 5
    assert rows["change where surprised"] > 2
    assert rows["gate where surprised"] == 1
    plain = rjepa_cortex.measure_surprise(cortex_trials.swap_fixation(method, part, Rng(0))).rows
    assert plain["surprise, low"] < 1 < plain["surprise, high"]


def persisting(method: RJEPA) -> None:
    """Let the predictor say that the state stays, whatever the saccade."""
    with torch.no_grad():
        weight: Tensor = method.predictor[0].weight  # type: ignore[index]
        weight.copy_(torch.eye(12, 14))
        method.predictor[0].bias.zero_()  # type: ignore[index]


def test_repeats_move_a_circuit_without_a_past_once_and_one_with_a_past_less_and_less() -> None:
    method = circuit(recurrence="none")
    persisting(method)
    found = cortex_trials.repeat_fixation(method, held())
    assert all(len(curve) == cortex_trials.REPEATS + 2 for curve in found.values())
    assert found["change"][1:-2] == pytest.approx(np.zeros(cortex_trials.REPEATS - 1), abs=1e-6)
    rows = rjepa_cortex.measure_adaptation(method, held()).rows
    assert rows["adaptation of the change"] == rows["adaptation of the error"] == 1
    assert [rows[f"release of the {what}"] for what in found] == pytest.approx([1, 1, 1])
    moved = cortex_trials.repeat_fixation(circuit(), held())["change"]
    assert (np.diff(moved[:-2]) < 0).all()
    assert moved[-2] > moved[-3]


def test_a_circuit_that_keeps_a_known_share_has_the_time_constant_of_it() -> None:
    method = circuit(cell="mingru")
    with torch.no_grad():
        cell = method.circuits.top.cell
        cell.weight[:, 1] = 0
        cell.bias[:, 1] = float(np.log(0.3 / 0.7))  # z = 0.3 whatever is seen
    swapped = cortex_trials.swap_fixation(method, held(20), Rng(0))
    rows = rjepa_cortex.measure_integration(method, held(20), swapped).rows
    for what in ("swap", "swap, all units", "independent"):
        assert rows[f"time constant, {what}"] == pytest.approx(-1 / np.log(0.7), rel=0.1)


class Drawn(dict[tuple[str, str], list[float]]):
    """Any scores at all."""

    def __init__(self, seed: int, seeds: int) -> None:
        super().__init__()
        self.rng, self.seeds, self.digits = np.random.default_rng(seed), seeds, seed

    def __missing__(self, key: tuple[str, str]) -> list[float]:
        self[key] = self.rng.normal(size=self.seeds).round(self.digits).tolist()
        return self[key]


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_it_says_is_said_of_any_scores(seeds: int) -> None:
    for k in range(4):
        lines = rjepa_cortex.STUDY.sentences(Scores(Drawn(k, seeds), ()))
        assert "--kind rsa" in lines[-1]
        assert ("one seed" in lines[-3]) is (seeds == 1)
    same: Any = defaultdict(lambda: [1.0] * seeds)
    assert "more: nothing; less: nothing; not told apart: time constant" in changes(same)
    same["fixations · gated", "kurtosis"] = [2.0, 2.1, 2.2][:seeds]
    assert "more: kurtosis 2" in changes(same)


def changes(values: Any) -> str:
    """What the study says of the trained circuit beside the memoryless one."""
    return rjepa_cortex.STUDY.claims[-1].sentence(Scores(values, ()))


def test_a_property_is_learned_where_it_is_there_and_more_than_untrained() -> None:
    values: Any = defaultdict(lambda: [0.5, 0.5, 0.5])
    key = "adaptation of the response"
    (claim,) = [c for c in rjepa_cortex.STUDY.claims if getattr(c, "name", "").startswith(key)]
    for trained, untrained, verdict in (
        ([0.2, 0.3, 0.2], [0.1, 0.1, 0.1], "holds"),
        ([0.2, 0.3, 0.2], [0.3, 0.3, 0.3], "does not hold"),
        ([-0.2, -0.1, -0.2], [-0.5, -0.5, -0.5], "does not hold"),
        ([0.1, 0.4, 0.2], [0.2, 0.1, 0.3], "not told apart"),
    ):
        values["fixations · gated", key], values["fixations · untrained", key] = trained, untrained
        assert claim.sentence(Scores(values, ())).startswith(f"{key} is there and learned: {verdict}")


def test_it_runs_without_any_data_and_its_untrained_circuit_has_its_first_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standin, "PICTURES", 30)
    monkeypatch.setattr(cortex_trials, "SEQUENCES", 16)
    arms = tuple(
        replace(arm, run=replace(arm.run, length=replace(arm.run.length, batch=8), loop=Loop(workers=0, panel_size=8)))
        for arm in rjepa_cortex.STUDY.arms
    )
    monkeypatch.setattr(rjepa_cortex, "STUDY", replace(rjepa_cortex.STUDY, arms=arms))
    monkeypatch.delenv("JEPAKIT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    rows, page = api.reproduce("rjepa-cortex", out=tmp_path / "out", seeds=1, steps=2)
    found = {(row["name"], row["metric"]): row["values"] for row in rows}
    assert found["fixations · gated", "fixations of people"] == (0.0,)
    assert found["fixations · memoryless", "time constant, swap"] == (0.0,)
    assert {f"surprise{part}" for part in INTERVAL_SUFFIXES} <= {metric for _, metric in found}
    assert "Generated scanpaths" in rjepa_cortex.STUDY.sentences(Scores(found, ()))[-2]
    assert "Adaptation of the response" in page.read_text()
    same, other = (
        checkpoint.load_run(tmp_path / f"out/runs/fixations-{name}-seed-0") for name in ("untrained", "gated")
    )
    first = dict(methods.build(same.run.method, same.method.signal, 0).named_parameters())
    assert all(torch.equal(p, first[name]) for name, p in same.method.named_parameters())
    assert not all(torch.equal(p, first[name]) for name, p in other.method.named_parameters())
