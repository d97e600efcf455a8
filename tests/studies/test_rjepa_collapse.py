"""The study `rjepa-collapse`: what is trained is what the loop trains, and what is told is what was found."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from jepakit import api, launch
from jepakit.core.progress import SilentProgress
from jepakit.recurrent import balance
from jepakit.run.checkpoint import load_run
from jepakit.run.settings import Evals, Length, Loop, Run
from jepakit.studies.rjepa import rjepa_collapse as study
from jepakit.studies.rjepa import rjepa_modes as modes
from jepakit.studies.rjepa import rjepa_training as training
from jepakit.studies.study import Scores
from jepakit.training.request import Request
from jepakit.types import Batch, Rng


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (40, 24, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", x=pictures)
    few = {"Lorenz": {"count": 80}, "fixations": {"path": str(tmp_path / "pictures.npz")}}
    monkeypatch.setattr(training, "DATA", {k: replace(cfg, **few[k]) for k, cfg in training.DATA.items()})
    monkeypatch.setattr(training, "HELD", 16)
    monkeypatch.setattr(training, "ROWS", 3)
    training.read_samples.cache_clear()


@pytest.mark.parametrize("name", ["as it is", "no stop-gradient", "predictor mlp", "predictor none"])
def test_the_loss_side_by_side_is_that_of_the_method(name: str) -> None:
    method, x = training.build_arm(training.ARMS[name], "Lorenz", 0), training.read_samples("Lorenz").held
    mine, own = training.Loss(method)(x), method.loss(Batch(x), Rng(0)).total
    assert_close(mine, own)
    key = "circuits.levels.0.cell.weight"
    each = [torch.autograd.grad(loss, dict(method.named_parameters())[key])[0] for loss in (mine, own)]
    assert_close(*each)


def test_trainings_side_by_side_are_what_the_loop_makes_of_them(tmp_path: Path) -> None:
    arm, source = training.ARMS["weight decay 0.1"], training.read_samples("Lorenz")
    first = training.build_arm(arm, "Lorenz", 1)
    data = training.DATA["Lorenz"]
    loop = Loop("cpu", False, workers=0)
    run = Run(
        first.cfg, data, training.decay_settings(0.1), Length(5, batch=training.BATCH), loop, Evals((), False), seed=1
    )
    whole = replace(source, train=torch.cat([source.held, source.train]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "read_samples", lambda name: whole)
        found = training.train_arms([arm, training.ARMS["as it is"]], "Lorenz", [0, 1], 5)
    launch.train_settings(run, Request(out=tmp_path / "run"), SilentProgress())
    alone = load_run(tmp_path / "run").method
    expected = training.PanelReference(alone, source.held).paths()  # type: ignore[arg-type]
    assert_close(torch.tensor(found[1]["paths"]), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(torch.tensor(found[3]["paths"]), torch.tensor(expected), atol=1e-5)


def test_fixations_are_trained_on_too() -> None:
    (found,) = training.train_arms([training.ARMS["as it is"]], "fixations", [0], 2)
    assert [row["step"] for row in found["rows"]] == [0, 1, 2]
    assert found["rows"][-1]["std_ratio_target"] != 1
    assert torch.tensor(found["paths"]).shape == (training.NUM_PATHS, 10, training.WIDTH)


def test_correlated_units_read_alike() -> None:
    arm = training.ARMS["correlated units 0.9"]
    rows = [balance.candidate_weights(training.build_arm(arm, "Lorenz", seed).circuits.top.cell) for seed in range(20)]
    pairs = [torch.corrcoef(w)[5, 6:].mean() for w in rows]
    assert float(torch.stack(pairs).mean()) == pytest.approx(0.9, abs=0.05)
    plain = balance.candidate_weights(training.build_arm(training.ARMS["as it is"], "Lorenz", 0).circuits.top.cell)
    assert float(rows[0].var(1).mean() / plain.var(1).mean()) == pytest.approx(1, abs=0.4)


def row(step: int, rank: float = 8.0, std: float = 1.0, off: float = 0.5) -> dict[str, float]:
    values = {"rank_target": rank, "rank_share_target": rank / 24, "std_ratio_target": std, "normalized_loss": 0.1}
    return {"step": step, **values, "input/off_diagonal": off, "balance": 1.0, "balance/off_diagonal": 0.4}


def test_what_is_lost_is_dated_by_the_first_row_beyond_its_threshold() -> None:
    rows = [row(0), row(5, off=0.81), row(9, rank=3.9), row(20, rank=3.0, std=0.09)]
    assert study.loss_steps(rows) == {"structure": 5, "rank": 9, "spread": 20}
    assert study.loss_steps([row(0), row(5, rank=4.1, std=0.11, off=0.79)]) == dict.fromkeys(
        ("structure", "rank", "spread")
    )
    found = study.training_row(rows)
    assert found["full collapse"] == 1
    assert found["structure lost before rank"] == 1
    assert study.training_row([row(0), row(5, rank=3.0), row(9, rank=3.0, off=0.9)])["structure lost before rank"] == 0
    assert "structure lost before rank" not in study.training_row([row(0), row(9, off=0.9)])


def scores(**changed: dict[str, float]) -> Scores:
    """Three seeds of every arm, healthy but for `changed`."""
    values: dict[tuple[str, str], list[float]] = {}
    for data in study.DATA:
        for name in study.ARMS:
            found = study.training_row([row(0), row(9)]) | changed.get(name.replace(" ", "_").replace("-", "_"), {})
            values |= {(f"{data} · {name}", metric): [value] * 3 for metric, value in found.items()}
    for name in study.OPTIMISERS:
        for what in ("largest decay survived", "largest decay survived, theory", "furthest from theory"):
            values[f"one mode · {name} · r 0.9, v 1", what] = [0.1] * 3
    return Scores(values, ())


def test_a_claim_holds_only_where_the_numbers_say_so() -> None:
    gone = {"full collapse": 1.0, "spread lost": 1.0, "std ratio": 0.01}
    told = study.STUDY.sentences(scores(no_stop_gradient=gone, predictor_none=gone))
    for claim, verdict in (("No collapse", "holds."), ("Stop-gradient", "holds."), ("A predictor", "holds.")):
        assert f": {verdict}" in next(sentence for sentence in told if sentence.startswith(claim))
    told = study.STUDY.sentences(scores(as_it_is=gone, initial_rank_1=gone))
    for claim, verdict in (("No collapse", "does not"), ("Stop-gradient", "does not"), ("First weights", "holds with")):
        assert f": {verdict}" in next(sentence for sentence in told if sentence.startswith(claim))
    assert any("no stop-gradient: 0 of 6 collapse" in sentence for sentence in told)
    assert any(
        "of 12 that lost spread, 12 kept their structure" in s
        for s in study.STUDY.sentences(scores(no_stop_gradient=gone, as_it_is=gone))
    )


def test_theory_for_a_mode_knows_where_it_starts() -> None:
    assert study.predicted_mode(False, 0.9, 1.0, 0.1) == pytest.approx(0.7702, abs=1e-4)
    assert study.predicted_mode(False, 0.9, 1.0, 0.21) == 0
    assert study.predicted_mode(True, 0.9, 1.0, 0.21) == pytest.approx(modes.adam_fixed_point(0.9, 0.21, modes.BATCH))
    assert study.surviving_decay([0.9] * 10 + [0.01] * 15) == modes.WEIGHT_DECAYS[9]


def test_it_is_reproduced_without_data_and_takes_no_seed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: training.ARMS[name] for name in ("as it is", "no stop-gradient")}
    for module in (study, training):
        monkeypatch.setattr(module, "ARMS", few)
    monkeypatch.setattr(study, "DATA", {"Lorenz": training.DATA["Lorenz"]})
    monkeypatch.setattr("jepakit.studies.rjepa.rjepa_figures.ARMS_SHOWN", tuple(few))
    monkeypatch.setattr("jepakit.studies.rjepa.rjepa_figures.order_figure", lambda seeds, what: _figure())
    monkeypatch.delenv("JEPAKIT_DATA", raising=False)
    rows, page = api.reproduce("rjepa-collapse", out=tmp_path / "out", seeds=1, steps=2)
    assert {r["seeds"] for r in json.loads((tmp_path / "out" / "table.json").read_text())["rows"]} == {1}
    for name in ("eigenvalues-as-it-is", "paths-no-stop-gradient", "survival-adamw"):
        assert (tmp_path / "out" / "figures" / f"{name}.svg").is_file()
    assert "One mode and weight decay" in page.read_text()
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "taken").iterdir()}
    again, _ = api.reproduce("rjepa-collapse", out=tmp_path / "out", seeds=1, steps=2)
    assert again == rows
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "taken").iterdir()} == written


def _figure() -> Any:
    from jepakit.reporting.figures import Figure
    from jepakit.studies.maps import draw_map_grid

    return Figure("Order", draw_map_grid([], (1.0, 2.0), (1.0, 2.0), "none", ("x", "y")), "")
