"""From a table to a trained run, its embedding and its probes."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from support import logged_losses, two_kinds, write_table

import jepakit as jk
from jepakit.methods import METHODS
from jepakit.run import parse

SMALL = {
    "method.encoder.width": 32,
    "method.encoder.depth": 1,
    "method.encoder.heads": 2,
    "length.batch": 16,
    "loop.device": "cpu",
    "loop.workers": 0,
    "loop.panel_size": 16,
    "loop.save_every": 6,
    "loop.panel_every": 6,
    "evals.kinds": "[]",
    "evals.report": "false",
}
PREDICTOR = {"method.predictor.width": 16, "method.predictor.depth": 1, "method.predictor.heads": 2}


def settings(**more):
    return SMALL | PREDICTOR | more


def test_a_csv_is_trained_on_and_embedded(tmp_path):
    values = write_table(tmp_path / "a.csv", 300)
    run = tmp_path / "run"
    jk.train(tmp_path / "a.csv", run, settings=settings(), steps=6)
    stored = parse.from_yaml(run / "config.yaml")
    assert (stored.data.window, stored.data.columns) == (24, ("c0", "c1"))
    done = jk.embed(run, tmp_path / "a.csv", tmp_path / "e.parquet")
    names = pq.read_table(tmp_path / "e.parquet")["id"].to_pylist()
    assert done.shape == (len(names), 32)
    assert names[1] == f"a.csv[{stored.data.stride}:{stored.data.stride + 24}]"
    model = jk.load(run)
    np.testing.assert_allclose(model.loaded.method.mean.flatten(), values.mean(1), atol=0.05)


@pytest.mark.slow
def test_a_run_on_series_goes_on_to_the_same_losses(tmp_path):
    write_table(tmp_path / "a.csv", 300)
    run = tmp_path / "run"
    jk.train(tmp_path / "a.csv", run, settings=settings() | {"loop.log_every": 1, "loop.save_every": 3}, steps=6)
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    before = logged_losses(run)
    jk.train(out=run, resume=True)
    assert logged_losses(run) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in ("ijepa", "cjepa", "vicreg", "lejepa", "simclr", "mae") if n in METHODS.names()]
)
def test_every_method_trains_on_series(tmp_path, name):
    x, y = two_kinds(48)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    small = SMALL | (PREDICTOR if name in ("ijepa", "cjepa") else {})
    summary = jk.train(tmp_path / "a.npz", tmp_path / "run", recipe=name, settings=small, steps=3)
    assert np.isfinite(summary["loss"])


def test_labelled_series_are_probed_beside_the_raw_values(tmp_path):
    for part, seed in (("train", 0), ("test", 1)):
        x, y = two_kinds(64, seed=seed)
        np.savez(tmp_path / f"{part}.npz", x=x, y=y)
    run = tmp_path / "run"
    jk.train(tmp_path / "train.npz", run, settings=settings(), steps=2)
    test = tmp_path / "test.npz"
    for kind in ("knn", "linear", "attentive"):
        quick = {"attentive.epochs": 2} if kind == "attentive" else {}
        found = json.loads(jk.probe(run, kind, data=tmp_path / "train.npz", test=test, settings=quick).read_text())
        assert (found["n_train"], found["n_test"]) == (64, 64)
    assert found["raw"] is not None


def test_windows_are_probed_on_later_times_than_they_were_fitted_on(tmp_path):
    rows = 400
    write_table(tmp_path / "a.csv", rows)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    labels = ["label", *("up" if t // 10 % 2 else "down" for t in range(rows))]
    (tmp_path / "a.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, labels, strict=True)))
    run = tmp_path / "run"
    more = {"data.window": 10, "data.stride": 5, "data.held_out": 0.25}
    jk.train(tmp_path / "a.csv", run, settings=settings(**more), steps=2)
    found = json.loads(jk.probe(run, "knn").read_text())
    # 300 rows make 59 windows, 100 make 19: none of them across the cut.
    assert (found["n_train"], found["n_test"]) == (59, 19)
    assert "test part" in found["data"]


def test_a_file_of_series_is_encoded_as_it_is_embedded(tmp_path):
    write_table(tmp_path / "a.csv", 300)
    jk.train(tmp_path / "a.csv", tmp_path / "run", settings=settings(), steps=2)
    jk.embed(tmp_path / "run", tmp_path / "a.csv", tmp_path / "e.npy", tokens=True)
    model, embedded = jk.load(tmp_path / "run"), np.load(tmp_path / "e.npy")
    np.testing.assert_allclose(model.encode(tmp_path / "a.csv"), embedded, atol=1e-5)
    twice = model.encode([tmp_path / "a.csv", tmp_path / "a.csv"])
    np.testing.assert_allclose(twice, np.concatenate([embedded, embedded]), atol=1e-5)
    with pytest.raises(ValueError, match=r"gone\.csv"):
        model.encode(tmp_path / "gone.csv")


def test_a_file_of_series_of_unequal_lengths_has_no_single_shape(tmp_path):
    lines = ["entity,c0", *(f"{name},{np.sin(t)}" for name, n in (("p", 24), ("q", 24), ("r", 36)) for t in range(n))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    whole = {"data.window": 0, "method.encoder.patch": "[4]"}
    jk.train(tmp_path / "a.csv", tmp_path / "run", settings=settings(**whole) | {"length.batch": 2}, steps=1)
    model = jk.load(tmp_path / "run")
    with pytest.raises(ValueError, match=r"the samples have 6 to 9 patches; encode files of one length at a time"):
        model.encode(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("\n".join(lines[:49]))
    assert model.encode(tmp_path / "b.csv").shape == (2, 6, 32)
