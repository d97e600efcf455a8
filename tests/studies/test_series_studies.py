"""The studies on real series: what they make of the archives, and what they say of scores."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepakit import studies
from jepakit.core.progress import SilentProgress
from jepakit.data.series import settings as series
from jepakit.studies.bijepa import bijepa_ett, series_anomaly
from jepakit.studies.cjepa import cjepa_series
from jepakit.studies.reproduce import reproduce
from jepakit.studies.study import Scores


def nab(data: Path) -> None:
    """An archive of three series of 1,000 steps that jump at step 600; the second is labelled nowhere."""
    draw = np.random.default_rng(0)
    time = np.datetime64("2024-01-01T00:00:00", "s") + np.arange(1000) * np.timedelta64(300, "s")
    texts = {}
    for name in ("real/a.csv", "real/b.csv", "real/c.csv"):
        x = 50 + 3 * np.sin(np.arange(1000) / 5) + 0.2 * draw.normal(size=1000)
        x[600:640] += 9
        rows = [f"{str(t).replace('T', ' ')},{v:.4f}" for t, v in zip(time, x, strict=True)]
        texts[f"data/{name}"] = "\n".join(["timestamp,value", *rows])
    labelled = [[f"{time[600]}.000000".replace("T", " "), f"{time[639]}.000000".replace("T", " ")]]
    texts["labels/combined_windows.json"] = json.dumps(
        {"real/a.csv": labelled, "real/b.csv": [], "real/c.csv": labelled}
    )
    (data / "timeseries").mkdir(parents=True)
    with tarfile.open(data / series_anomaly.NAB_ARCHIVE, "w:gz") as archive:
        for name, text in texts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))


def test_a_series_is_brought_to_the_mean_and_deviation_of_its_first_part_and_labels_stay_apart(tmp_path: Path) -> None:
    nab(tmp_path)
    values, labels = series_anomaly.read_archive(tmp_path / series_anomaly.NAB_ARCHIVE)
    assert list(values) == ["real/a.csv", "real/b.csv", "real/c.csv"]
    first = values["real/a.csv"][:150]
    assert (first.mean(), first.std()) == (pytest.approx(0, abs=1e-9), pytest.approx(1))
    assert np.flatnonzero(labels["real/a.csv"]).tolist() == list(range(600, 640))
    assert not labels["real/b.csv"].any()
    folder = series_anomaly.write_tables(tmp_path, tmp_path / "out")
    assert len(series_anomaly.read_all(folder).steps.label) == 3000
    # A jump is far from the mean, and averaged over a window it is far from it for longer.
    areas = series_anomaly.baseline_areas(folder)
    assert [len(found) for found in areas.values()] == [2] * 10
    assert areas[series_anomaly.LEVEL_ROW][0] > 0.95


@pytest.mark.slow
def test_the_study_of_anomalies_goes_from_the_archive_to_its_page(tmp_path: Path) -> None:
    nab(tmp_path)
    rows, page = reproduce("series-anomaly", tmp_path, tmp_path / "out", SilentProgress(), seeds=1, steps=30)
    found = {(row.name, row.metric): row.mean for row in rows}
    for name in ("NAB · BiJEPA", "NAB · forward alone"):
        # The first of the two labelled series chose the score, so the second alone is reported.
        assert found[name, series_anomaly.AUC] == found[name, f"{series_anomaly.AUC}, low"]
        assert found[name, series_anomaly.AUC] > 0.9
        assert 0 <= found[name, series_anomaly.CAUSAL] <= 1
        assert found[name, f"{series_anomaly.AUC}, low"] <= found[name, series_anomaly.AUC]
    assert page.exists()


def test_what_is_said_of_anomalies_sets_both_beside_the_best_baseline() -> None:
    arms = series_anomaly.STUDY.arms
    values: dict[tuple[str, str], list[float]] = {}
    for arm, area in zip(arms, (0.7, 0.6), strict=True):
        scores = (*series_anomaly.SCORES, *(name + series_anomaly.AVERAGED_SUFFIX for name in series_anomaly.SCORES))
        ours = (*scores, series_anomaly.CAUSAL, series_anomaly.CAUSAL_PREDICTION)
        for metric in (
            *ours,
            *(f"{b}{e}" for b in series_anomaly.BASELINES for e in ("", series_anomaly.AVERAGED_SUFFIX)),
        ):
            value = area if metric in ours else 0.65 if metric.startswith("distance to the last") else 0.5
            values |= {(arm.label, metric): [value] * 2, (arm.label, f"{metric}, low"): [0.1] * 2}
            values[arm.label, f"{metric}, high"] = [0.9] * 2
    text = " ".join(series_anomaly.STUDY.sentences(Scores(values, arms)))
    assert (
        'has a higher "AUC, averaged over a window" than "distance to the last value, averaged over a window": ' in text
    )
    assert "0.7 (0.1 to 0.9) against 0.65 (0.1 to 0.9), +0.05 ± 0 over 2 seeds" in text
    assert "NAB: BiJEPA has a higher AUC than forward alone: holds, " in text


def ucr(data: Path) -> None:
    """An archive with every set of the study, of two kinds of waves; the last set has unequal lengths."""
    draw, arrays = np.random.default_rng(0), {}
    for name in cjepa_series.SERIES_LENGTHS:
        for part, count in (("train", 40), ("test", 10)):
            y = np.arange(count) % 2
            x = np.sin(np.arange(21) * (0.3 + 0.3 * y[:, None])) + 0.1 * draw.normal(size=(count, 21))
            if name == "JapaneseVowels":
                x[0, 11:] = np.nan
            arrays |= {f"{name}_X_{part}": x[:, None].astype(np.float32), f"{name}_y_{part}": np.array(["-1", "1"])[y]}
    (data / "timeseries").mkdir(parents=True)
    np.savez(data / cjepa_series.UCR_ARCHIVE, **arrays)


def test_every_sample_keeps_its_class_also_that_called_minus_1(tmp_path: Path) -> None:
    ucr(tmp_path)
    folder = cjepa_series.unpack_sets(tmp_path, tmp_path / "out")
    for name in cjepa_series.SERIES_LENGTHS:
        for part, count in (("train", 40), ("test", 10)):
            path = str(folder / f"{name}_{part}.npz")
            assert (
                np.bincount(series.Config(path=path, window=0, layout="NCT").open().labels).tolist() == [count // 2] * 2
            )


def test_unequal_series_come_to_one_length_with_both_ends_kept() -> None:
    x = np.array([[[0.0, 1.0, 2.0, np.nan]], [[3.0, 2.0, 1.0, 0.0]]])
    found = cjepa_series.stretch_series(x, 7)
    np.testing.assert_allclose(found[0, 0], np.linspace(0, 2, 7), rtol=1e-6)
    np.testing.assert_allclose(found[1, 0], np.linspace(3, 0, 7), rtol=1e-6)


@pytest.mark.slow
def test_the_study_of_labels_goes_from_the_archive_to_its_page(tmp_path: Path) -> None:
    ucr(tmp_path)
    rows, page = reproduce("cjepa-series", tmp_path, tmp_path / "out", SilentProgress(), seeds=1, steps=2)
    found = {(row.name, row.metric): row.mean for row in rows}
    for name in cjepa_series.SERIES_LENGTHS:
        assert found[f"{name} · I-JEPA", "1-NN DTW accuracy"] == found[f"{name} · BiJEPA", "1-NN DTW accuracy"]
        assert found[f"{name} · C-JEPA", "1-NN Euclidean accuracy"] == 1.0
        for metric in (cjepa_series.LINEAR, f"{cjepa_series.LINEAR}, context encoder"):
            assert 0 <= found[f"{name} · C-JEPA", metric] <= 1
    assert page.exists()


def test_what_is_said_of_labels_counts_a_set_only_where_both_neighbours_are_beaten() -> None:
    arms = cjepa_series.STUDY.arms
    values = {}
    for arm in arms:
        better = arm.data in ("GunPoint", "OSULeaf") and arm.name == "C-JEPA"
        values[arm.label, cjepa_series.LINEAR] = [0.96 if better else 0.7] * 2
        values[arm.label, "1-NN Euclidean accuracy"] = [0.6] * 2
        values[arm.label, "1-NN DTW accuracy"] = [0.8] * 2
    text = " ".join(cjepa_series.STUDY.sentences(Scores(values, arms)))
    assert "C-JEPA is ahead of both neighbours on 2 sets: GunPoint, OSULeaf." in text
    assert "I-JEPA is ahead of both neighbours on 0 sets: none." in text
    assert "GunPoint · C-JEPA, linear accuracy is at least 95.0 %: holds, 96.0" in text
    assert "GunPoint · BiJEPA, linear accuracy is at least 95.0 %: does not hold, 70.0" in text


@pytest.mark.parametrize("name", ["series-anomaly", "cjepa-series"])
def test_an_archive_that_is_not_there_is_named_before_anything_is_written(tmp_path: Path, name: str) -> None:
    study = studies.load(name)
    with pytest.raises(ValueError, match=f"study {name} reads timeseries/"):
        study.prepare(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def ett(data: Path, rows: int = 20 * bijepa_ett.MONTH) -> np.ndarray:
    """A table of seven waves in the place of the set, and its values."""
    hours = np.arange(rows)[:, None]
    x = np.sin(2 * np.pi * hours / (20 + 3 * np.arange(7))) + 0.1 * np.random.default_rng(0).normal(size=(rows, 7))
    lines = [f"2016-07-01 00:00:00,{','.join(f'{v:.6f}' for v in row)}" for row in x]
    (data / "timeseries").mkdir(parents=True)
    (data / bijepa_ett.ETT_FILE).write_text("\n".join(["date,a,b,c,d,e,f,OT", *lines, ""]))
    return x


def test_the_parts_of_ett_follow_one_another_and_what_is_scored_lies_in_its_own_months(tmp_path: Path) -> None:
    x = ett(tmp_path)
    folder = bijepa_ett.split_table(tmp_path, tmp_path / "out")
    train, choose, test = (bijepa_ett.read_table(folder / f"{name}.csv") for name in ("train", "choose", "test"))
    month, half = bijepa_ett.MONTH, bijepa_ett.HALF
    np.testing.assert_allclose(train, x[: 12 * month], atol=1e-6)
    np.testing.assert_allclose(bijepa_ett.split_windows(choose)[1][0, :, 0], x[12 * month], atol=1e-6)
    past, future = bijepa_ett.split_windows(test)
    np.testing.assert_allclose(future[0, :, 0], x[16 * month], atol=1e-6)
    np.testing.assert_allclose(future[-1, :, -1], x[20 * month - 1], atol=1e-6)
    np.testing.assert_allclose(past[0, :, -1], x[16 * month - 1], atol=1e-6)
    assert len(future) == 4 * month - half + 1


def test_the_linear_model_continues_waves_and_the_last_value_does_not(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(bijepa_ett, "HALF", 48)
    monkeypatch.setattr(bijepa_ett, "HORIZONS", (24, 48))
    x = ett(tmp_path, 1500)
    found = dict(bijepa_ett.linear_forecasts(x[:1000], x[1000:]))
    names = ("linear, all channels", "linear, per channel", "last value")
    assert set(found) == {f"{name}, MSE to {h}" for name in names for h in (24, 48)}
    assert 0.02 < found["linear, per channel, MSE to 48"] < found["last value, MSE to 48"] / 2
    assert 0.02 < found["linear, all channels, MSE to 48"] < found["last value, MSE to 48"] / 2


def test_a_linear_model_per_channel_follows_a_level_that_was_never_seen(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(bijepa_ett, "HALF", 48)
    monkeypatch.setattr(bijepa_ett, "HORIZONS", (48,))
    x = ett(tmp_path, 1500)
    still, moved = (dict(bijepa_ett.linear_forecasts(x[:1000], x[1000:] + level)) for level in (0, 5))
    name = "linear, per channel, MSE to 48"
    assert moved[name] == pytest.approx(still[name], rel=1e-3)


def test_a_missing_table_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bijepa-ett reads timeseries/ETTh1\.csv, which"):
        reproduce("bijepa-ett", tmp_path, tmp_path / "out", SilentProgress())
    assert not (tmp_path / "out").exists()
