"""The verdict beside the truth, and the numbers of the panel beside the probe: what the studies count."""

from pathlib import Path

import numpy as np
import pytest
import support
import torch

from jepakit.data.images import arrays
from jepakit.evals.metrics.ranks import tied_ranks
from jepakit.run import checkpoint, optim
from jepakit.studies.collapse import calibration, label_free, truth
from jepakit.studies.collapse.calibration import NO_MOMENT, STATES, TRUTHS, Case
from jepakit.studies.collapse.label_free import LABEL_METRIC, MIN_TRAININGS, PANEL_PREFIX
from jepakit.studies.collapse.truth import Truth
from jepakit.studies.correlations import Runs, bootstrap_correlation, rank_correlation
from jepakit.studies.study import Scores
from jepakit.types import Rng, Signal

ONE = np.zeros(40, dtype=np.int64)


def numbers(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_the_rank_correlation_equals_spearmans_closed_form_and_ignores_every_rising_scale() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=40), rng.normal(size=40)
    squares = ((tied_ranks(x) - tied_ranks(y)) ** 2).sum()
    assert rank_correlation(Runs(x, y, ONE)) == pytest.approx(1 - 6 * squares / (40 * (40**2 - 1)))
    assert rank_correlation(Runs(np.exp(x), y**3, ONE)) == pytest.approx(rank_correlation(Runs(x, y, ONE)))
    assert rank_correlation(Runs(x, -x, ONE)) == pytest.approx(-1.0)


def test_equal_values_share_the_mean_of_their_ranks_and_a_constant_goes_with_nothing() -> None:
    assert tied_ranks(numbers(3, 1, 3, 2, 3)).tolist() == [4, 1, 4, 2, 4]
    assert rank_correlation(Runs(np.ones(40), np.arange(40.0), ONE)) == 0.0


def test_a_difference_between_groups_is_no_correlation_within_them() -> None:
    x, y = numbers(1, 2, 3, 11, 12, 13), numbers(3, 2, 1, 13, 12, 11)
    assert rank_correlation(Runs(x, y, np.zeros(6, dtype=np.int64))) > 0.5
    assert rank_correlation(Runs(x, y, np.array([0, 0, 0, 1, 1, 1]))) == pytest.approx(-1.0)


def test_the_interval_holds_the_correlation_shrinks_with_more_runs_and_is_the_same_every_time() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for n in (20, 200):
        x = rng.normal(size=n)
        sample = Runs(x, x + rng.normal(size=n), np.zeros(n, dtype=np.int64))
        found = bootstrap_correlation(sample, Rng(0))
        assert found.low < found.value < found.high
        assert str(bootstrap_correlation(sample, Rng(0))) == str(found)
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_the_best_number_is_named_and_one_that_few_runs_have_is_not() -> None:
    arms = label_free.STUDY.arms[: MIN_TRAININGS + 5]
    accuracy = {(arm.label, LABEL_METRIC): [0.5 + 0.01 * k] for k, arm in enumerate(arms)}
    good = {(arm.label, f"{PANEL_PREFIX}good"): [-float(k)] for k, arm in enumerate(arms)}
    poor = {(arm.label, f"{PANEL_PREFIX}poor"): [float(k * 7 % 5)] for k, arm in enumerate(arms)}
    rare = {(arm.label, f"{PANEL_PREFIX}rare"): [float(k)] for k, arm in enumerate(arms[: MIN_TRAININGS - 1])}
    told = label_free.conclusions(Scores({**accuracy, **good, **poor, **rare}, arms))
    assert f"of the 2 numbers that all {MIN_TRAININGS + 5} runs have: good -1.00" in told[0]
    assert "It is the largest in 100 % of 400 resamples, poor in 0 %." in told[0]
    assert not any("rare" in line for line in told)


def real(variance: tuple[float, ...], trained: float = 0.5, change: float = 1.0) -> Truth:
    """A run whose variance was taken at every 10 % of it."""
    return Truth(0.5, trained, 1000, change, tuple(range(len(variance))), variance)


GONE = (1.0, 0.5, 0.2, 0.02, 0.009, 0.008, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4)


@pytest.mark.parametrize(
    ("variance", "onset"),
    [
        (GONE, 40.0),
        ((1.0, 1e-3, 0.5, 1e-3, 1e-3), 75.0),
        ((1.0, 1e-3, 1e-3, 1e-3, 0.5), None),
        ((1.0, 0.011), None),
        ((1.0, 0.009), 100.0),
    ],
)
def test_the_onset_is_where_the_variance_is_gone_for_good(variance: tuple[float, ...], onset: float | None) -> None:
    assert real(variance).collapse_onset == onset


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (real(GONE), "full"),
        (real((1.0, 0.5), trained=0.4), "worse"),
        (real((1.0, 0.5), trained=0.47), "alive"),  # within the intervals of 1,000 pictures
        (real((1.0, 1.0), change=0.005), "still"),
        (real((1.0, 2.0)), "alive"),
    ],
)
def test_the_truth_of_a_run_is_named_without_asking_the_verdict(found: Truth, state: str) -> None:
    assert calibration.true_outcome(found) == state


@pytest.mark.parametrize(("alarm", "caught"), [(3, True), (4, True), (5, False), (None, False)])
def test_the_delay_counts_from_the_onset_and_an_early_alarm_is_no_miss(alarm: int | None, caught: bool) -> None:
    at = [10.0 * k for k in range(len(GONE))]
    rows = [{"std_ratio_target": v**0.5, "std_ratio_context": 1.0} for v in GONE]
    said = ["full" if alarm is not None and k >= alarm else "healthy" for k in range(len(GONE))]
    found = calibration.verdict_numbers(real(GONE), at, rows, said)
    assert (found["onset"], found["alarm"]) == (40.0, NO_MOMENT if alarm is None else 10.0 * alarm)
    assert Case("run", found).within(found["alarm"]) == caught
    assert found["lowest spread"] == pytest.approx(0.01)
    assert found["spread by the deadline"] == pytest.approx(0.009**0.5)


def case(
    name: str, truth: str, verdict: str, alarm: float = NO_MOMENT, onset: float = NO_MOMENT, **more: float
) -> Case:
    base = {"linear accuracy": 0.5, "untrained accuracy": 0.5, "lowest spread": 0.5, "spread by the deadline": 0.5}
    entries = {"truth": TRUTHS.index(truth), "verdict": STATES.index(verdict), "alarm": alarm, "onset": onset}
    warning = NO_MOMENT if verdict in ("healthy", "unknown") else 50.0
    return Case(name, {**base, **{k: float(v) for k, v in entries.items()}, "warning": warning, **more})


def test_an_intervention_that_does_not_collapse_is_listed_and_neither_missed_nor_a_false_alarm() -> None:
    fine = [case(f"fine {k}", "alive", "healthy") for k in range(14)] + [case("odd", "alive", "idle")]
    forced = [
        case("shrinks", "full", "full", alarm=44.0, onset=40.0),
        case("shrinks later", "full", "full", alarm=46.0, onset=40.0),
        case("overlooked", "full", "healthy", onset=40.0),
        case("spared", "alive", "full", alarm=20.0),
    ]
    told = calibration.half_conclusions(fine, forced)
    assert told[0].startswith("1 of 3 full collapses were detected within 5 % of the run; not: ")
    assert "shrinks later (6 % late)" in told[0]
    assert "overlooked (never)" in told[0]
    assert "0 of 15 (0 to 20 %) healthy runs were ever called a collapse." in told
    assert "1 of 15 (1 to 30 %) healthy runs were ever called anything but healthy or unknown." in told
    assert "truth full: full 2, healthy 1." in told
    assert told[-1] == "interventions that did not collapse (truth; verdict): spared (alive; full)."


def test_a_threshold_lies_between_what_collapsed_and_what_did_not_and_is_none_where_they_overlap() -> None:
    fulls = [case(str(v), "full", "full", **{"spread by the deadline": v}) for v in (0.01, 0.04)]
    others = [case(str(v), "alive", "healthy", **{"lowest spread": v}) for v in (0.36, 0.9)]
    assert calibration.fit_threshold(fulls, others) == pytest.approx(0.12)
    low = case("low", "alive", "healthy", **{"lowest spread": 0.03})
    assert calibration.fit_threshold(fulls, [*others, low]) is None
    assert calibration.fit_threshold([], others) is None


def test_the_halves_share_neither_a_method_nor_a_seed() -> None:
    halves = [(*half.healthy, *half.forced_arms) for half in (calibration.FITTED_HALF, calibration.SCORED_HALF)]
    for read in (lambda arm: type(arm.run.method), lambda arm: arm.run.seed):
        first, second = ({read(arm) for arm in half} for half in halves)
        assert not first & second
    assert sum(len(half.healthy) for half in (calibration.FITTED_HALF, calibration.SCORED_HALF)) >= 30
    assert sum(len(half.forced_arms) for half in (calibration.FITTED_HALF, calibration.SCORED_HALF)) >= 16


@pytest.mark.parametrize("dead", [False, True])
def test_the_truth_of_a_run_folder_is_read_from_its_checkpoints(tmp_path: Path, dead: bool) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    x = rng.normal(100 + 40 * y[:, None, None], 60, (400, 16, 16)).clip(0, 255).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    data = arrays.Config(str(tmp_path / "data.npz"), (16, 16), split="train", held_out=0.5)
    out = support.untrained_run(tmp_path / "run", data, Signal(1, (16, 16), mean=(0.4,), std=(0.2,)))
    loaded = checkpoint.load_run(out)
    if dead:
        with torch.no_grad():
            loaded.method.target_encoder.patch_embed.proj.weight.zero_()
    for step in (5, 10):
        checkpoint.save_checkpoint(
            out, step, loaded.method, optim.build_optimizer(loaded.run.optim, loaded.method), {}, keep=9
        )
    found = truth.read_truth(out)
    assert found.steps == (0, 5, 10)
    assert found.untrained > 0.8
    assert calibration.true_outcome(found) == ("full" if dead else "still")
    assert found.collapse_onset == (50.0 if dead else None)
    assert found.worse == dead


def test_the_truth_refuses_a_run_that_saw_everything(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((8, 16, 16), np.uint8), y=np.arange(8))
    data = arrays.Config(str(tmp_path / "data.npz"), (16, 16))
    out = support.untrained_run(tmp_path / "run", data, Signal(1, (16, 16)))
    with pytest.raises(ValueError, match=r"pictures that it did not see: data\.split=train"):
        truth.read_truth(out)
