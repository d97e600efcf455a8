"""Scores of steps: what is unexpected scores highest, nothing looks ahead that may not, and every row has its place."""

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import support
import torch
from support import sine_waves, write_table

import jepakit as jk
from jepakit import methods
from jepakit.data.series import settings as series
from jepakit.inference import score as scoring
from jepakit.inference.hiding import scoring_rounds
from jepakit.masks.halves import Halves
from jepakit.masks.random import Random
from jepakit.methods import bijepa, ijepa, mae, vicreg
from jepakit.methods.masked import Masked
from jepakit.nn import MLP, ViT
from jepakit.nn.mlp import Perceptron
from jepakit.nn.predictor import Predictor
from jepakit.types import Signal

VIT = ViT(patch=(4,), width=32, depth=1, heads=2, init="xavier")
PREDICTOR = Predictor(width=16, depth=1, heads=1, init="xavier")
IJEPA = ijepa.Config(VIT, PREDICTOR, (Random(ratio=0.5),))
BOTH = bijepa.Config(VIT, PREDICTOR)
TWO = bijepa.Config(MLP((12,), width=16, hidden=32), Perceptron(hidden=32))
SIGNAL = Signal(2, (24,))


def untrained(folder: Path, method: Any, data: Any = None, signal: Signal = SIGNAL) -> Path:
    """A run on the table a.csv in `folder` whose model was never trained."""
    data = data or series.Config(path=str(folder / "a.csv"), window=24, stride=6, columns=("c0", "c1"))
    return support.save_untrained(folder / "run", method, signal, data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds a.csv: 120 rows of two channels."""
    write_table(tmp_path / "a.csv", 120)
    return tmp_path


def of_arrays(folder: Path) -> Path:
    """An untrained run on a.npy, whose channels have no names."""
    np.save(folder / "a.npy", sine_waves(120, 2).T)
    return untrained(folder, IJEPA, series.Config(path=str(folder / "a.npy"), window=24, stride=6))


def columns(path: Path) -> dict[str, list[str]]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def scores(path: Path) -> np.ndarray:
    return np.array([float(cell or "nan") for cell in columns(path)["score"]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of a small BiJEPA on two waves, and b.csv: more of them, which stand still for 12 steps."""
    folder = tmp_path_factory.mktemp("trained")
    write_table(folder / "a.csv", 400)
    settings = {
        "method.encoder": "{name: mlp, patch: [12], width: 16, hidden: 64}",
        "method.predictor": "{name: mlp, hidden: 64}",
        "method.ema": "[0.98, 0.9995]",
        "data.window": 24,
        "data.stride": 1,
        "optim.lr": 2e-3,
        "length.batch": 64,
        "loop.device": "cpu",
        "loop.workers": 0,
        "loop.log_every": 100,
        "loop.save_every": 1000,
        "loop.panel_every": 1000,
        "loop.panel_size": 16,
        "evals.kinds": "[]",
        "evals.report": "false",
    }
    jk.train(folder / "a.csv", folder / "run", recipe="bijepa", settings=settings, steps=200)
    values = write_table(folder / "b.csv", 300)
    lines = (folder / "b.csv").read_text().splitlines()
    for t in range(150, 162):
        lines[1 + t] = f"{lines[1 + t].split(',')[0]},{values[0, 150]:.6f},{values[1, 150]:.6f}"
    (folder / "b.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("causal", [False, True])
def test_a_planted_anomaly_has_the_highest_score_and_stands_out(trained: Path, tmp_path: Path, causal: bool) -> None:
    done = jk.score(trained / "run", trained / "b.csv", tmp_path / "s.csv", causal=causal, stride=2)
    found = scores(tmp_path / "s.csv")
    assert 138 <= np.nanargmax(found) < 174
    z, flags = (np.array([float(c or "nan") for c in columns(tmp_path / "s.csv")[key]]) for key in ("z", "anomalous"))
    flagged = np.flatnonzero(flags == 1)
    assert len(flagged) == done.anomalous > 0
    assert np.mean((flagged >= 127) & (flagged < 186)) > 0.9
    ordinary = np.r_[0:120, 190:300]
    assert np.abs(np.nanmedian(z[ordinary])) < 1.5
    # Written scores are rounded.
    assert found[flags == 1].min() > done.reference.threshold * (1 - 1e-6)
    assert found[flags == 0].max() < done.reference.threshold * (1 + 1e-6)


def test_the_threshold_is_the_score_that_a_share_of_normal_steps_exceeds(trained: Path, tmp_path: Path) -> None:
    done = jk.score(trained / "run", trained / "a.csv", tmp_path / "s.csv", quantile=0.9)
    assert done.reference.threshold == pytest.approx(1)  # one step in ten
    # 40 steps were left out: too few, so what was trained on is the reference.
    assert done.reference.seen
    assert done.reference.steps == 400
    assert 30 <= done.anomalous <= 45
    assert done.reference.median == pytest.approx(np.median(scores(tmp_path / "s.csv")), rel=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_an_unusual_course_of_ordinary_values_is_flagged_and_the_prediction_is_a_reason(
    trained: Path, tmp_path: Path, causal: bool
) -> None:
    write_table(tmp_path / "b.csv", 300)
    head, *lines = (tmp_path / "b.csv").read_text().splitlines()
    times, rows = zip(*(line.split(",", 1) for line in lines), strict=True)
    backwards = [*rows[:150], *rows[150:180][::-1], *rows[180:]]
    table = [head, *(f"{time},{row}" for time, row in zip(times, backwards, strict=True))]
    (tmp_path / "b.csv").write_text("\n".join(table) + "\n")
    jk.score(trained / "run", tmp_path / "b.csv", tmp_path / "s.csv", causal=causal, stride=2)
    found, flagged = columns(tmp_path / "s.csv"), flags_of(tmp_path / "s.csv")
    assert flagged[150:185].mean() > 0.3
    assert flagged[np.r_[30:120, 215:300]].mean() < 0.03
    why = Counter(zip(np.array(found["channel"])[flagged], np.array(found["reason"])[flagged], strict=True))
    assert why["", "prediction"] > 5


def frozen_column(path: Path, channel: str, begin: int, end: int) -> None:
    """Hold a column of a table at its value in row `begin`, up to row `end`."""
    head, *lines = path.read_text().splitlines()
    rows, at = [line.split(",") for line in lines], head.split(",").index(channel)
    for row in rows[begin:end]:
        row[at] = rows[begin][at]
    path.write_text("\n".join([head, *(",".join(row) for row in rows)]) + "\n")


def flags_of(path: Path) -> np.ndarray:
    """Whether each step is flagged."""
    return np.array(columns(path)["anomalous"]) == "1"


@pytest.mark.parametrize("causal", [False, True])
def test_a_channel_that_is_flat_for_thousands_of_steps_is_flagged_for_its_whole_length(
    trained: Path, tmp_path: Path, causal: bool
) -> None:
    write_table(tmp_path / "b.csv", 4000)
    frozen_column(tmp_path / "b.csv", "c1", 1000, 3500)
    jk.score(trained / "run", tmp_path / "b.csv", tmp_path / "s.csv", causal=causal)
    found, flagged = columns(tmp_path / "s.csv"), flags_of(tmp_path / "s.csv")
    assert flagged[1050:3450].all()
    assert flagged[np.r_[100:950, 3700:3900]].mean() < 0.02
    assert set(found["channel"][1050:3450]) <= {"c1", ""}
    why = Counter(zip(found["channel"][1050:3450], found["reason"][1050:3450], strict=True))
    assert why["c1", "flat"] + why["c1", "still"] > 2300


@pytest.mark.parametrize("causal", [False, True])
def test_a_dead_sensor_in_a_real_table_is_flagged_and_named(shared_data: Path, tmp_path: Path, causal: bool) -> None:
    lines = (shared_data / "timeseries" / "ETTh1.csv").read_text().splitlines()
    for name, rows in (("a.csv", lines[1:8001]), ("b.csv", lines[8001:13001])):
        (tmp_path / name).write_text("\n".join([lines[0], *rows]) + "\n")
    # All seven sensors stood still for a day or more in the training data, and LUFL again for 140 hours later.
    frozen_column(tmp_path / "b.csv", "HUFL", 1500, 4000)
    channels = tuple(lines[0].split(",")[1:])
    data = series.Config(path=str(tmp_path / "a.csv"), window=48, stride=6, columns=channels, split="train")
    method = bijepa.Config(MLP((24,), width=16, hidden=32), Perceptron(hidden=32))
    mean, std = (7.0,) * 7, (6.0,) * 7
    run = untrained(tmp_path, method, data, Signal(7, (48,), mean, std))
    done = jk.score(run, tmp_path / "b.csv", tmp_path / "s.csv", causal=causal)
    assert (done.reference.seen, done.reference.steps) == (False, 800)
    assert done.reference.false_alarms < 0.05
    found, flagged = columns(tmp_path / "s.csv"), flags_of(tmp_path / "s.csv")
    assert flagged[1600:3900].all()
    assert found["channel"][1600:3900].count("HUFL") > 2000
    assert flagged[1320:1440].mean() > 0.3
    assert "LUFL" in found["channel"][1320:1440]
    assert flagged[np.r_[100:1250, 4100:5000]].mean() < 0.05


@pytest.mark.parametrize("method", [IJEPA, BOTH, TWO], ids=["ijepa", "bijepa", "two tokens"])
@pytest.mark.parametrize("causal", [False, True])
def test_scores_do_not_depend_on_how_many_windows_go_at_a_time(folder: Path, method: Any, causal: bool) -> None:
    run = untrained(folder, method)
    few, many = (support.step_errors(run, folder / "a.csv", causal=causal, batch=batch) for batch in (5, 256))
    np.testing.assert_allclose(few["a.csv"], many["a.csv"], rtol=1e-4)


@pytest.mark.parametrize("method", [IJEPA, BOTH, TWO], ids=["ijepa", "bijepa", "two tokens"])
def test_a_causal_score_does_not_change_with_what_comes_later(folder: Path, method: Any) -> None:
    run = untrained(folder, method)
    lines = (folder / "a.csv").read_text().splitlines()
    changed = [*lines[:71], *(f"{line.split(',')[0]},5.0,-3.0" for line in lines[71:])]
    (folder / "b.csv").write_text("\n".join(changed))
    found = {}
    for causal in (True, False):
        for name in "ab":
            jk.score(run, folder / f"{name}.csv", folder / "s.csv", causal=causal, stride=1, batch=16, overwrite=True)
            found[causal, name] = scores(folder / "s.csv")
    # Steps 0 to 69 are the same in both. A step's score is that of the window that ends with it.
    np.testing.assert_array_equal(found[True, "a"][:70], found[True, "b"][:70])
    assert not np.allclose(found[True, "a"][70:], found[True, "b"][70:])
    assert not np.allclose(found[False, "a"][:70], found[False, "b"][:70])


@pytest.mark.parametrize("method", [IJEPA, BOTH, TWO], ids=["ijepa", "bijepa", "two tokens"])
def test_every_token_is_hidden_once_and_causally_the_last_alone(method: Any) -> None:
    built = methods.build(method, SIGNAL).eval()
    tokens = int(np.prod(built.encoder.grid))
    assert sorted(torch.cat([one.tokens for one in scoring_rounds(built, False)]).tolist()) == list(range(tokens))
    (one,) = scoring_rounds(built, True)
    assert one.tokens.tolist() == [tokens - 1]
    assert int(one.masks.context.max()) < tokens - 1


@pytest.mark.parametrize("method", [BOTH, TWO], ids=["many tokens", "two tokens"])
def test_errors_are_those_of_the_loss(method: Any) -> None:
    built = methods.build(method, SIGNAL).eval()
    x = torch.from_numpy(sine_waves(48, 2)).float().reshape(2, 2, 24).transpose(0, 1).contiguous()
    errors = torch.cat([one.token_errors(built, x) for one in scoring_rounds(built, False)], 1)
    torch.testing.assert_close(errors.mean(1), built.energy(x, x))


class ThereAndBack(Masked):
    """Somebody else's method of two directions: it declares them, and is no BiJEPA."""

    def __init__(self, cfg: Any, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.inner = methods.build(cfg, signal)
        self.encoder = self.inner.encoder  # type: ignore[assignment]

    @property
    def directions(self) -> int:
        return 2


def test_any_method_that_declares_two_directions_is_scored_by_its_own_masks_and_their_reverse() -> None:
    ours, theirs = methods.build(TWO, SIGNAL), ThereAndBack(TWO, SIGNAL)
    for causal in (False, True):
        rounds = [scoring_rounds(method, causal) for method in (ours, theirs)]  # type: ignore[arg-type]
        found = [[(one.is_backward, one.tokens.tolist()) for one in each] for each in rounds]
        assert found[0] == found[1]
    assert [one.is_backward for one in scoring_rounds(theirs, False)] == [False, True]


def test_where_both_ways_lead_the_same_token_is_asked_of_the_right_predictor(folder: Path) -> None:
    built = methods.build(TWO, SIGNAL).eval()
    there, back = scoring_rounds(built, False)
    x = torch.randn(3, 2, 24)
    with torch.no_grad():
        for p in built.predictors[1].parameters():
            p.zero_()
    target = built.encode(x)
    torch.testing.assert_close(back.token_errors(built, x)[:, 0], target[:, 0].square().mean(1))
    assert not torch.allclose(there.token_errors(built, x)[:, 0], target[:, 1].square().mean(1))


def test_forward_alone_leaves_the_first_steps_without_a_score(folder: Path) -> None:
    run = untrained(folder, bijepa.Config(TWO.encoder, TWO.predictor, alpha=1.0))
    done = jk.score(run, folder / "a.csv", folder / "s.csv")
    assert np.flatnonzero(np.isnan(scores(folder / "s.csv"))).tolist() == list(range(12))
    assert (done.steps, done.scored) == (120, 108)


def test_rows_are_those_of_the_input_with_their_times_and_steps_without_a_score_are_empty(folder: Path) -> None:
    run = untrained(folder, IJEPA)
    jk.score(run, folder / "a.csv", folder / "s.csv", causal=True)
    found = columns(folder / "s.csv")
    given = [line.split(",")[0] for line in (folder / "a.csv").read_text().splitlines()[1:]]
    assert [time.replace(" ", "T")[:16] for time in found["time"]] == given
    assert set(found["entity"]) == {"a.csv"}
    assert list(found) == ["entity", "time", "score", "z", "anomalous", "channel", "reason"]
    empty = [score == "" for score in found["score"]]
    assert all([cell == "" for cell in found[key]] == empty for key in ("z", "anomalous", "reason"))
    # The first window of 24 steps ends with token 20 to 23.
    assert [score == "" for score in found["score"]] == [True] * 20 + [False] * 100
    jk.score(run, folder / "a.csv", folder / "s.parquet", causal=True)
    other = pq.read_table(folder / "s.parquet")
    assert other["score"].null_count == 20
    np.testing.assert_allclose(other["score"].to_numpy(), scores(folder / "s.csv"), rtol=1e-6)
    for key in ("channel", "reason"):
        assert other[key].to_pylist()[20:] == found[key][20:]
        assert other[key].to_pylist()[:20] == [None] * 20
    assert [str(t)[:16].replace(" ", "T") for t in other["time"].to_pylist()] == given


def test_series_of_one_file_are_scored_apart_and_those_too_short_have_no_score(folder: Path) -> None:
    run = untrained(folder, IJEPA)
    lines = (folder / "a.csv").read_text().splitlines()
    names = ["entity", *(["long"] * 90), *(["brief"] * 10), *(["other"] * 20)]
    (folder / "b.csv").write_text("\n".join(f"{name},{line}" for name, line in zip(names, lines, strict=True)))
    done = jk.score(run, folder / "b.csv", folder / "s.csv")
    assert (done.series, done.short) == (3, ("b.csv/brief", "b.csv/other"))
    found = columns(folder / "s.csv")
    assert [name.partition("/")[2] for name in found["entity"]] == names[1:]
    assert [score != "" for score in found["score"]] == [True] * 90 + [False] * 30
    (folder / "long.csv").write_text("\n".join(lines[:91]))
    jk.score(run, folder / "long.csv", folder / "alone.csv")
    # The long one knows nothing of the others.
    np.testing.assert_allclose(scores(folder / "s.csv")[:90], scores(folder / "alone.csv"), rtol=1e-5)


def test_series_without_times_are_counted_and_drawn(folder: Path) -> None:
    run = of_arrays(folder)
    np.save(folder / "b.npy", sine_waves(60, 2).T)
    done = jk.score(run, folder / "b.npy", folder / "s.csv", plot=folder / "s.png")
    assert columns(folder / "s.csv")["time"] == [str(t) for t in range(60)]
    assert done.scored == 60
    assert (folder / "s.png").read_bytes().startswith(b"\x89PNG")


def test_a_long_series_is_drawn_with_its_highest_score() -> None:
    from jepakit.inference.plots import MAX_POINTS, score_strip
    from jepakit.inference.tables import SeriesScores

    score = np.zeros(7 * MAX_POINTS + 3)
    score[4321] = 9.0
    values = np.zeros((1, len(score)))
    values[0, 4321] = -5.0
    texts = np.full(len(score), "")
    drawn = score_strip(values, SeriesScores("a", np.arange(len(score)), score, score, score > 1, texts, texts))
    assert len(drawn.score) <= MAX_POINTS
    assert drawn.score.max() == 9.0
    assert drawn.values.min() == -5.0


def mistakes(folder: Path) -> dict[str, dict[str, Any]]:
    """What is wrong, and the words that ask for it."""
    np.save(folder / "three.npy", sine_waves(60, 3).T)
    np.save(folder / "brief.npy", sine_waves(20, 2).T)
    return {
        r"has 1 channels .* trained on 2": {"data": folder / "one.csv"},
        r"has 3 channels .* trained on 2": {"data": folder / "three.npy"},
        r"window has 24 steps, but the longest series in .* has 20": {"data": folder / "brief.npy"},
        r"quantile is 1; give a share": {"quantile": 1.0},
        r"stride is 0": {"stride": 0},
        r"the batch is 0": {"batch": 0},
        r"ends in '.npy', which names no format; use .csv, .parquet": {"out": folder / "s.npy"},
        r"a.csv exists already": {"out": folder / "a.csv"},
        r"s.jpg ends in '.jpg', which names no format; use .png": {"plot": folder / "s.jpg"},
    }


@pytest.mark.parametrize("k", range(9))
def test_a_mistake_is_one_sentence_and_nothing_is_written(folder: Path, k: int) -> None:
    run = of_arrays(folder)
    write_table(folder / "one.csv", 60, columns=1)
    sentence, words = list(mistakes(folder).items())[k]
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match=sentence):
        jk.score(run, **{"data": folder / "a.csv", "out": folder / "s.csv", **words})
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("method", "name"),
    [(vicreg.Config(VIT), "vicreg"), (mae.Config(VIT, PREDICTOR, (Random(),)), "mae")],
    ids=["vicreg", "mae"],
)
def test_a_method_that_predicts_no_representation_is_refused(folder: Path, method: Any, name: str) -> None:
    run = untrained(folder, method, signal=Signal(2, (24,), views=2))
    with pytest.raises(ValueError, match=f"{name} predicts no representation"):
        jk.score(run, folder / "a.csv", folder / "s.csv")


def test_a_run_on_pictures_is_refused(tmp_path: Path) -> None:
    from jepakit.data.images import synthetic

    run = support.untrained_run(tmp_path / "run", synthetic.Config(path="shapes", size=(16, 16)), Signal(3, (16, 16)))
    with pytest.raises(ValueError, match=r"trained on samples of size \(16, 16\), but scores are those of series"):
        jk.score(run, "shapes", tmp_path / "s.csv")


def test_what_predicts_the_past_from_the_future_alone_has_no_causal_score(folder: Path) -> None:
    run = untrained(folder, bijepa.Config(TWO.encoder, TWO.predictor, (Halves(context="last"),), alpha=1.0))
    with pytest.raises(ValueError, match="predicts the past from the future alone"):
        jk.score(run, folder / "a.csv", folder / "s.csv", causal=True)
    jk.score(run, folder / "a.csv", folder / "s.csv")


def test_a_table_without_the_columns_of_the_run_is_refused(folder: Path) -> None:
    run = untrained(folder, IJEPA)
    write_table(folder / "one.csv", 60, columns=1)
    with pytest.raises(ValueError, match="has no column 'c1'"):
        jk.score(run, folder / "one.csv", folder / "s.csv")


def test_training_data_that_are_gone_are_named(folder: Path) -> None:
    run = untrained(folder, IJEPA)
    (folder / "a.csv").rename(folder / "b.csv")
    with pytest.raises(ValueError, match=r"a.csv.*The run was trained on it"):
        jk.score(run, folder / "b.csv", folder / "s.csv")
    assert not (folder / "s.csv").exists()


def test_scores_are_written_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = untrained(folder, IJEPA)

    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "series_scores", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jk.score(run, folder / "a.csv", folder / "s.csv")
    assert not list(folder.glob("*s.csv*"))


def test_the_command_says_what_it_wrote_and_a_mistake_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jepakit.cli.__main__ import main

    words = ["score", str(untrained(folder, IJEPA)), "--data", str(folder / "a.csv"), "--out", str(folder / "s.csv")]
    assert main([*words, "--stride", "8", "--quantile", "0.5"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"s.csv: (59|60|61) of 120 scored steps above 0.301\n", out)
    assert "of 120 steps of the run's own data, seen in training, " in out
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("exists already; give another name, or --overwrite") == 1


def with_offset(path: Path) -> list[str]:
    """Write +02:00 behind the times of a table of minutes; they, as scores have them."""
    head, *lines = path.read_text().splitlines()
    cut = [line.split(",", 1) for line in lines]
    path.write_text("\n".join([head, *(f"{time}:00+02:00,{rest}" for time, rest in cut)]))
    return [f"{time.replace('T', ' ')}:00+02:00" for time, _ in cut]


def test_times_with_an_offset_are_written_with_it_and_are_the_same_moments_in_parquet(folder: Path) -> None:
    run = untrained(folder, IJEPA)
    given = with_offset(folder / "a.csv")
    jk.score(run, folder / "a.csv", folder / "s.csv")
    assert columns(folder / "s.csv")["time"] == given
    jk.score(run, folder / "a.csv", folder / "s.parquet")
    times = pq.read_table(folder / "s.parquet")["time"]
    assert str(times.type.tz) == "+02:00"
    assert [str(time) for time in times.to_pylist()] == given


def holes(path: Path, count: int) -> None:
    """Empty so many cells of c1 in a row."""
    lines = path.read_text().splitlines()
    lines[20 : 20 + count] = [f"{line.rsplit(',', 1)[0]}," for line in lines[20 : 20 + count]]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("command", ["score", "forecast", "embed"])
def test_more_missing_values_than_usual_are_held_where_the_command_is_told_to(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from jepakit.cli.__main__ import main

    run = untrained(folder, IJEPA)
    write_table(folder / "b.csv", 120)
    holes(folder / "b.csv", 30)
    words = [command, str(run), "--data", str(folder / "b.csv"), "--out", str(folder / "s.csv")]
    words += ["--horizon", "3"] if command == "forecast" else []
    with pytest.raises(SystemExit):
        main(words)
    assert "30 in a row; fill them, leave the column out with data.columns, or repeat" in capsys.readouterr().err
    assert main([*words, "--data.fill", "30"]) == 0
    assert (folder / "s.csv").is_file()


def test_settings_of_how_data_are_read_are_taken_and_others_are_not(folder: Path) -> None:
    run = untrained(folder, IJEPA)
    (folder / "b.csv").write_text((folder / "a.csv").read_text().replace("time,c0,c1", "when,x,y"))
    settings = {"data.columns": ["x", "y"], "data.time": "when"}
    jk.score(run, folder / "b.csv", folder / "s.csv", settings=settings)
    jk.score(run, folder / "a.csv", folder / "a_s.csv")
    np.testing.assert_array_equal(scores(folder / "s.csv"), scores(folder / "a_s.csv"))
    with pytest.raises(
        ValueError, match=r"^--optim\.lr is a training setting; give only settings of how data are read, such as"
    ):
        jk.score(run, folder / "a.csv", folder / "b_s.csv", settings={"optim.lr": 1})
    with pytest.raises(ValueError, match=r"No setting data\.fil\. Did you mean data\.fill"):
        jk.score(run, folder / "a.csv", folder / "b_s.csv", settings={"data.fil": 1})


def test_pictures_are_refused_by_a_run_on_series_as_such(folder: Path) -> None:
    from PIL import Image

    run = untrained(folder, IJEPA)
    (folder / "pictures").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "pictures" / "a.png")
    for command in (jk.score, jk.embed):
        with pytest.raises(
            ValueError, match=r"pictures' holds pictures, but the run was trained on series; give data of"
        ):
            command(run, folder / "pictures", folder / "s.csv")


def test_a_table_shorter_than_the_window_is_named_by_embed_with_what_helps(folder: Path) -> None:
    run = untrained(folder, IJEPA)
    write_table(folder / "b.csv", 10)
    sentence = (
        r"^b\.csv has 10 steps, fewer than the window of 24; give longer series, or train with data\.window=5 or less$"
    )
    with pytest.raises(ValueError, match=sentence):
        jk.embed(run, folder / "b.csv", folder / "e.csv")
