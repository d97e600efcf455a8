"""Claims declared as data: what they say of numbers whose answer is known, and of every study's committed results."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from jepakit import studies
from jepakit.studies.cells import Mean, cells_of, split_names
from jepakit.studies.claims import (
    NOT_MEASURED,
    AtLeast,
    AtMost,
    Better,
    Changes,
    Equal,
    Every,
    Falls,
    Numbers,
    Ranking,
    Rises,
)
from jepakit.studies.study import Scores

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def scores(**rows: list[float]) -> Scores:
    """The error and the accuracy, which are alike, of rows by seed."""
    values = {(row, metric): found for row, found in rows.items() for metric in ("error", "accuracy")}
    return Scores(values, (), {("a", "error"): 0.2, ("b", "error"): 0.4})


@pytest.mark.parametrize(
    ("a", "verdict"),
    [
        ([0.1, 0.12, 0.11], "holds"),
        ([0.9, 0.92, 0.91], "does not hold"),
        ([0.1, 0.9, 0.6], "not told apart"),
    ],
)
def test_a_row_is_better_only_beyond_the_scatter_of_the_seeds(a: list[float], verdict: str) -> None:
    found = Better("a", "b", "error", lower=True).sentence(scores(a=a, b=[0.5, 0.5, 0.5]))
    assert found.startswith(f"a has a lower error than b: {verdict}, ")
    assert found.endswith(" over 3 seeds (paper: a 0.2, b 0.4).")


def test_one_seed_decides_nothing_but_where_no_seed_changes_the_numbers() -> None:
    one = scores(a=[0.1], b=[0.5])
    assert "not told apart, 0.1 against 0.5" in Better("a", "b", "error", lower=True).sentence(one)
    assert "than b: holds, " in Better("a", "b", "error", lower=True, exact=True).sentence(one)
    assert "than b: does not hold, " in Better("a", "b", "error", exact=True).sentence(one)


def test_a_ratio_is_that_of_the_means_and_a_difference_of_accuracies_is_in_points() -> None:
    found = scores(a=[0.2, 0.4], b=[0.4, 0.2], c=[0.5])
    assert "0.3 ± 0.14 against 0.3 ± 0.14, 1.00 times as much, lower in 1 of 2 seeds" in (
        Better("a", "b", "error", lower=True, by="ratio").sentence(found)
    )
    said = Better("b", "c", "accuracy").sentence(found)  # c was measured once, for both seeds
    assert "30.0 ± 14.1 % against 50.0 %, -20.0 ± 14.1 points over 2 seeds" in said


def test_a_row_may_be_compared_by_another_metric_of_its_own() -> None:
    found = Scores({("a", "error, here"): [1.0, 1.1], ("a", "rival"): [3.0, 3.1]}, ())
    assert Better("a", "a", "error, here", "rival", lower=True).sentence(found).startswith(
        'a has a lower "error, here" than rival: holds'
    )  # fmt: skip


def test_several_rows_count_as_their_mean_seed_by_seed() -> None:
    found = scores(a=[0.0, 0.2], b=[0.4, 0.2], c=[0.1, 0.1])
    mean = Mean("both", ("a", "b"))
    assert (
        Better(mean, "c", "error").sentence(found).startswith("both has a higher error than c: holds, 0.2 against 0.1")
    )


def test_a_limit_is_kept_by_every_seed_of_every_row_or_not_at_all() -> None:
    found = scores(a=[0.5, 0.7], b=[0.9, 0.8])
    assert (
        AtMost(("a", "b"), "error", 0.9).sentence(found).startswith("error is at most 0.9: holds, a: 0.6 ± 0.14, b: ")
    )
    broken = AtLeast(("a", "b"), "error", 0.6).sentence(found)
    assert broken.startswith("error is at least 0.6: does not hold, a: 0.6 ± 0.14 (below it in 1 of 2 seeds), b: 0.85")
    assert "(above it)" in AtMost(("a", "b"), "error", 0.75).sentence(found)


def test_a_path_rises_or_falls_by_its_ends() -> None:
    path = tuple((f"{row}", "error") for row in ("x 1", "x 2", "x 3"))
    values = {("x 1", "error"): [0.1, 0.2], ("x 2", "error"): [0.9, 0.9], ("x 3", "error"): [0.5, 0.6]}
    found = Scores(values, ())
    assert Rises(path).sentence(found).startswith("x, error rises from 1 to 3: holds, 0.15 ± 0.071 at 1, 0.9 at 2, ")
    assert Falls(path).sentence(found).startswith("x, error falls from 1 to 3: does not hold")
    both = Every("both ways", (Rises(path), Falls(path)), words="x").sentence(found)
    assert both.startswith("x: both ways: does not hold, error rises from 1 to 3: holds (")


def test_pairs_are_equal_but_for_a_share_and_those_not_measured_do_not_count() -> None:
    found = scores(a=[1.0, 1.1], b=[1.05, 1.05], c=[2.0, 2.0])
    pairs = tuple(((row, "error"), ("b", "error")) for row in ("a", "c", "nobody"))
    near = Equal("errors", pairs[::2], 0.1).sentence(found)
    assert near.startswith("errors are equal within 10 %: holds, 1.00 to 1.00 times as much")
    assert "over 1 pair; the furthest seed is off by 4.8 %" in near
    assert Equal("errors", pairs, 0.1).sentence(found).endswith("further apart: c (1.90).")
    assert NOT_MEASURED in Equal("errors", pairs[2:], 0.1).sentence(found)


def test_a_ranking_tells_who_is_level_and_whether_the_claimed_row_is_first() -> None:
    found = scores(a=[0.5, 0.5, 0.6], b=[0.5, 0.6, 0.5], c=[0.1, 0.1, 0.1])
    cells = cells_of(("c", "a", "b"), "error")
    assert Ranking(cells).sentence(found) == (
        "error, highest first: a 0.5333 ± 0.058 ≈ b 0.5333 ± 0.058 > c 0.1; level with the first: b."
    )
    ends = {"a": "not told apart", "b": "not told apart", "c": "does not hold"}
    for first, verdict in ends.items():
        assert Ranking(cells, first=first).sentence(found).endswith(f"{first} is best: {verdict}.")
    assert Ranking(cells, True, "c").sentence(found).endswith("c is best: holds.")


def test_changes_are_grouped_by_whether_the_seeds_tell_them_apart() -> None:
    found = scores(a=[0.5, 0.6], b=[0.1, 0.9], c=[0.2, 0.2], base=[0.4, 0.5])
    pairs = tuple(((row, "error"), ("base", "error")) for row in ("a", "b", "c"))
    assert Changes(pairs, words="beside base").sentence(found) == (
        "beside base: beyond the scatter of 2 seeds, more: a 0.55 ± 0.071 (+0.1 ± 0); less: c 0.2 (-0.25 ± 0.071); "
        "not told apart: b 0.5 ± 0.57 (+0.05 ± 0.49)."
    )  # fmt: skip


def test_numbers_give_the_interval_of_the_first_seed_where_there_is_one() -> None:
    values = {("a", "AUC"): [0.6], ("a", "AUC, low"): [0.5], ("a", "AUC, high"): [0.7], ("b", "AUC"): [0.5]}
    assert Numbers(("a", "b"), ("AUC",)).sentence(Scores(values, ())) == "AUC: a 0.6 (0.5 to 0.7), b 0.5."


def test_a_claim_of_what_was_not_measured_says_so() -> None:
    assert (
        Better("a", "nobody", "error").sentence(scores(a=[1.0])) == f"a has a higher error than nobody: {NOT_MEASURED}."
    )


@pytest.mark.parametrize(
    ("names", "shared", "rest"),
    [
        (["A · x", "A · y"], "A", ["x", "y"]),
        (["A · x · s", "A · y · s"], "A · s", ["x", "y"]),
        (["A · x", "A · x · s"], "A", ["x", "x · s"]),
        (["rate 1", "rate 2"], "rate", ["1", "2"]),
        (["error, 2", "error, 7"], "error", ["2", "7"]),
        (["r 0.9, v 1", "r 0.5, v 1"], "v 1", ["r 0.9", "r 0.5"]),
        (["r 0.9, v 1", "r 0.9, v 2", "r 0.5, v 1"], "", ["r 0.9, v 1", "r 0.9, v 2", "r 0.5, v 1"]),
        (["same", "same"], "", ["same", "same"]),
    ],
)
def test_what_names_share_is_told_once(names: list[str], shared: str, rest: list[str]) -> None:
    assert split_names(names) == (shared, rest)


@pytest.mark.parametrize("name", [name for name in studies.STUDIES.names() if (RESULTS / f"{name}.json").exists()])
def test_every_declared_claim_is_answered_by_the_committed_results(name: str) -> None:
    study, found = studies.load(name), json.loads((RESULTS / f"{name}.json").read_text())
    values = {(row, metric): v for row, metrics in found["runs"].items() for metric, v in metrics.items()}
    told = study.sentences(Scores(values, study.arms, study.own.paper if study.own else {}))
    assert [sentence for sentence in told if NOT_MEASURED in sentence] == []
    assert len(told) >= len(study.claims)
    # A sentence that stands twice tells nothing new: a claim's words lack what sets it apart.
    counts = defaultdict(int)
    for sentence in told:
        counts[sentence] += 1
    assert max(counts.values()) == 1
