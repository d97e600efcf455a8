"""Scores and forecasts by runs on whole series of unequal lengths: each has them, or a sentence says why not."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import save_untrained, step_errors

import jepakit as jk
from jepakit.cli.__main__ import main
from jepakit.data.series.settings import Config as SeriesConfig
from jepakit.inference import score
from jepakit.inference.hiding import scoring_rounds
from jepakit.inference.windows import WindowLengths
from jepakit.masks.random import Random
from jepakit.methods import bijepa, ijepa
from jepakit.methods.base import Method
from jepakit.nn import Predictor, ViT
from jepakit.types import Signal

VIT = ViT(patch=(4,), width=32, depth=1, heads=2, init="xavier")
HEAD = Predictor(width=16, depth=1, heads=1, init="xavier")
METHODS = {"ijepa": ijepa.Config(VIT, HEAD, (Random(ratio=0.5),)), "bijepa": bijepa.Config(VIT, HEAD)}
STEPS = (12, 15, 20, 22) * 5  # of the series: 3, 3, 5 and 5 whole patches


def waves(steps: int, k: int) -> np.ndarray:
    """One channel that knows its phase."""
    return np.sin(0.5 * np.arange(steps) + k)


def table(path: Path, series: dict[str, np.ndarray]) -> Path:
    rows = [f"{name},{v:.6f}" for name, values in series.items() for v in values]
    path.write_text("\n".join(["entity,c0", *rows]) + "\n")
    return path


def untrained(folder: Path, method: Any = METHODS["ijepa"], size: int = 24, **data: Any) -> Path:
    """A run on 20 waves of 12 to 22 steps whose model was never trained."""
    path = table(folder / "a.csv", {f"s{k:02d}": waves(steps, k) for k, steps in enumerate(STEPS)})
    settings = SeriesConfig(str(path), columns=("c0",), **{"window": 0, **data})
    return save_untrained(folder / "run", method, Signal(1, (size,), (0.0,), (0.7,)), settings)


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def scores(path: Path) -> dict[str, np.ndarray]:
    rows = read(path)
    names = dict.fromkeys(row["entity"].partition("/")[2] for row in rows)
    return {n: np.array([float(r["score"] or "nan") for r in rows if r["entity"].endswith(f"/{n}")]) for n in names}


def errors(method: Method, x: np.ndarray, causal: bool = False) -> np.ndarray:
    """The error of each token of one window, NaN where it has none; x holds whole patches."""
    found = np.full(len(x) // 4, np.nan)
    with torch.no_grad():
        for one in scoring_rounds(method, causal, len(x) // 4):
            found[one.tokens] = one.token_errors(method, torch.from_numpy(x).float()[None, None])[0]
    return found


@pytest.mark.parametrize("name", METHODS)
def test_a_series_that_ends_with_a_patch_is_scored_as_the_one_window_that_it_was_trained_as(
    tmp_path: Path, name: str
) -> None:
    run = untrained(tmp_path, METHODS[name])
    done = jk.score(run, tmp_path / "a.csv", tmp_path / "s.csv")
    assert (done.series, done.steps, done.scored, done.short) == (20, sum(STEPS), sum(STEPS), ())
    method, found = jk.load(run).method, step_errors(run, tmp_path / "a.csv")
    for k in (0, 2, 4, 6):
        expected = errors(method, np.round(waves(STEPS[k], k), 6)).repeat(4)
        np.testing.assert_allclose(found[f"a.csv/s{k:02d}"], expected, rtol=1e-4)


def test_steps_after_the_last_whole_patch_are_scored_by_a_second_window_at_the_end(tmp_path: Path) -> None:
    run = untrained(tmp_path)
    x, method = np.round(waves(15, 1), 6), jk.load(run).method
    first, last = errors(method, x[:12]).repeat(4), errors(method, x[3:]).repeat(4)
    expected = np.nanmean([np.append(first, [np.nan] * 3), np.append([np.nan] * 3, last)], axis=0)
    np.testing.assert_allclose(step_errors(run, tmp_path / "a.csv")["a.csv/s01"], expected, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_causal_windows_begin_with_the_series_and_grow_up_to_the_longest(tmp_path: Path, name: str) -> None:
    run = untrained(tmp_path, METHODS[name])
    new = table(tmp_path / "b.csv", {"long": waves(40, 3), "brief": waves(8, 0)})
    done = jk.score(run, new, tmp_path / "s.csv", causal=True)
    assert done.short == ("b.csv/brief",)
    found, method = step_errors(run, new, causal=True), jk.load(run).method
    x = np.round(waves(40, 3), 6)
    # The first window has 3 patches, as the shortest series; from 5 on, the most in training, windows slide.
    ends = {12: 0, 16: 0, 20: 0, 24: 4, 40: 20}
    for end, begin in ends.items():
        expected = errors(method, x[begin:end], True)[-1]
        np.testing.assert_allclose(found["b.csv/long"][end - 4 : end], expected, rtol=1e-4)
    written = scores(tmp_path / "s.csv")
    for long, brief in ((found["b.csv/long"], found["b.csv/brief"]), (written["long"], written["brief"])):
        assert np.flatnonzero(np.isnan(long)).tolist() == list(range(8))
        assert np.isnan(brief).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_causal_score_knows_nothing_of_later_steps(tmp_path: Path, name: str) -> None:
    run = untrained(tmp_path, METHODS[name])
    x = waves(30, 5)
    found = []
    for end in (x[21:], x[21:] + 3):
        new = table(tmp_path / "b.csv", {"s": np.append(x[:21], end)})
        jk.score(run, new, tmp_path / "s.csv", causal=True, stride=1, overwrite=True)
        found.append(scores(tmp_path / "s.csv")["s"])
    np.testing.assert_array_equal(found[0][:21], found[1][:21])
    assert not np.allclose(found[0][21:], found[1][21:])


def test_windows_go_in_batches_of_one_length(tmp_path: Path) -> None:
    run = untrained(tmp_path)
    few, many = (step_errors(run, tmp_path / "a.csv", causal=True, stride=1, batch=batch) for batch in (2, 256))
    for name, found in few.items():
        np.testing.assert_allclose(found, many[name], rtol=1e-4)


def test_a_window_is_as_long_as_the_series_allows_within_what_was_trained_on() -> None:
    lengths = WindowLengths(12, 20, 4)
    assert [lengths.longest_fit(steps) for steps in (11, 12, 15, 16, 20, 23, 99)] == [0, 12, 12, 16, 20, 20, 20]
    assert [WindowLengths(24, 24, 4).longest_fit(steps) for steps in (23, 24, 27, 99)] == [0, 24, 24, 24]


@pytest.mark.parametrize("how", ["pad", "cut"])
def test_every_series_of_the_run_is_forecast_from_its_end(tmp_path: Path, how: str) -> None:
    run = untrained(tmp_path, size=24 if how == "pad" else 12, unequal=how, split="train", held_out=0.4)
    done = jk.forecast(run, tmp_path / "a.csv", 6, tmp_path / "f.csv", plot=tmp_path / "f.png")
    assert (done.series, done.horizon) == (20, 6)
    rows = read(tmp_path / "f.csv")
    assert [row["entity"] for row in rows[::6]] == [f"a.csv/s{k:02d}" for k in range(20)]
    found = np.array([float(row["c0"]) for row in rows]).reshape(20, 6)
    truth = np.stack([waves(steps + 6, k)[steps:] for k, steps in enumerate(STEPS)])
    # Waves of one speed are linear in what even an untrained encoder keeps of half a window.
    assert np.abs(found - truth)[:, :4].max() < 0.25
    assert done.errors[done.reader] < 0.05 * done.errors["last-value"]


def test_a_forecast_needs_half_of_the_shortest_series_alone(tmp_path: Path) -> None:
    run = untrained(tmp_path, split="train", held_out=0.4)
    new = table(tmp_path / "b.csv", {"enough": waves(8, 1), "long": waves(90, 2)})
    assert jk.forecast(run, new, 3, tmp_path / "f.csv").series == 2
    new = table(tmp_path / "b.csv", {"enough": waves(8, 1), "brief": waves(7, 2)})
    sentence = (
        r"b.csv/brief has 7 steps, but a forecast starts from 8, the earlier half: the shortest series that the run "
        r"was trained on has 12 steps in whole patches; give longer series, or train with a data.window"
    )
    with pytest.raises(ValueError, match=sentence):
        jk.forecast(run, new, 3, tmp_path / "g.csv")


def test_series_that_are_all_shorter_than_the_shortest_have_no_score(tmp_path: Path) -> None:
    run = untrained(tmp_path)
    new = table(tmp_path / "b.csv", {"brief": waves(11, 1)})
    with pytest.raises(
        ValueError, match=r"the shortest series .* has 12 steps .*, but the longest series in .* has 11"
    ):
        jk.score(run, new, tmp_path / "s.csv")


@pytest.mark.parametrize("words", [["score"], ["forecast", "--horizon", "3"]], ids=["score", "forecast"])
def test_steps_of_stretched_series_have_no_length_and_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    run = untrained(tmp_path, size=20, unequal="stretch")
    command, *more = words
    with pytest.raises(SystemExit) as stopped:
        main([command, str(run), "--data", str(tmp_path / "a.csv"), "--out", str(tmp_path / "s.csv"), *more])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert "stretches series of 12 to 22 steps to one length" in told
    assert "train with data.unequal=pad or data.unequal=cut, or with a data.window" in told
    assert not (tmp_path / "s.csv").exists()


def test_to_allow_stretching_is_no_mistake_where_windows_are_all_alike(tmp_path: Path) -> None:
    run = untrained(tmp_path, size=12, unequal="stretch", window=12, stride=1)
    assert jk.score(run, tmp_path / "a.csv", tmp_path / "s.csv").scored == sum(STEPS)
    assert jk.forecast(run, tmp_path / "a.csv", 2, tmp_path / "f.csv").series == 20


def test_rounds_are_made_for_the_lengths_that_some_series_has_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = untrained(tmp_path), []

    def noted(method: Method, causal: bool, tokens: int) -> Any:
        asked.append(tokens)
        return scoring_rounds(method, causal, tokens)

    monkeypatch.setattr(score, "scoring_rounds", noted)
    jk.score(run, tmp_path / "a.csv", tmp_path / "s.csv")
    assert sorted(asked) == [3, 5]


def test_the_command_says_of_series_without_scores_that_training_had_none_so_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = untrained(tmp_path)
    new = table(tmp_path / "b.csv", {"long": waves(40, 3), "brief": waves(8, 0)})
    assert main(["score", str(run), "--data", str(new), "--out", str(tmp_path / "s.csv")]) == 0
    said = "1 series are shorter than the shortest training window"
    assert said in capsys.readouterr().out


def test_what_needs_equal_lengths_says_how_to_train_for_it(tmp_path: Path) -> None:
    run = untrained(tmp_path, METHODS["bijepa"])
    sentence = (
        r"completing needs equal lengths; train with data\.unequal=stretch or data\.unequal=cut, or with a data\.win"
    )
    with pytest.raises(ValueError, match=sentence):
        jk.complete(run, tmp_path / "a.csv", tmp_path / "out", hide="future")
