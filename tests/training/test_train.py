"""The loop: the same numbers however the batch is split, and no run that only seems to work."""

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import support
import torch

from jepakit import api, data, launch
from jepakit.core import devices, distributed
from jepakit.data.images import arrays
from jepakit.reporting.charts import short_number
from jepakit.reporting.facts import median_throughput
from jepakit.reporting.records import read_record
from jepakit.run import checkpoint
from jepakit.training import estimate, loop, session


@pytest.fixture
def array(tmp_path):
    path = tmp_path / "pictures.npy"
    np.save(path, support.noise_pictures(32))
    return path


def settings(tmp_path, array, **sections):
    return support.write_settings(tmp_path, array, **{"data": {"name": "arrays"}, **sections})


EXACT = {"loop": {"dtype": "float64"}, "length": {"steps": 5}}


def test_two_processes_have_the_losses_of_one_with_the_same_global_batch(tmp_path, array):
    file = settings(tmp_path, array, **EXACT)
    api.train(out=tmp_path / "one", recipe=str(file))
    words = [
        "--nproc_per_node",
        "2",
        "--master_addr",
        "127.0.0.1",
        "-m",
        "jepakit.cli",
        "train",
        file,
        "--out",
        tmp_path / "two",
    ]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", *map(str, words)]
    done = subprocess.run(
        launcher, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    one, two = support.logged_losses(tmp_path / "one"), support.logged_losses(tmp_path / "two")
    assert list(two) == [1, 2, 3, 4, 5]
    assert max(abs(one[k] - two[k]) for k in one) < 1e-9


def test_accumulated_micro_batches_have_the_losses_of_the_whole_batch(tmp_path, array):
    api.train(out=tmp_path / "one", recipe=str(settings(tmp_path, array, **EXACT)))
    parts = {**EXACT, "length": {"steps": 5, "accumulate": 2}}
    api.train(out=tmp_path / "two", recipe=str(settings(tmp_path, array, **parts)))
    one, two = support.logged_losses(tmp_path / "one"), support.logged_losses(tmp_path / "two")
    assert max(abs(one[k] - two[k]) for k in one) < 1e-9


def test_the_target_encoder_follows_the_weights_that_the_step_has_made(tmp_path, array):
    sections = {"method": {"ema": [0.0, 0.0]}, "length": {"steps": 1}}
    api.train(out=tmp_path / "one", recipe=str(settings(tmp_path, array, **sections)))
    made = checkpoint.load_run(tmp_path / "one").method
    assert all(map(torch.equal, made.target_encoder.parameters(), made.encoder.parameters()))


def test_activation_checkpointing_changes_no_loss(tmp_path, array):
    api.train(out=tmp_path / "a", recipe=str(settings(tmp_path, array)), settings={"loop.amp": False})
    api.train(
        out=tmp_path / "b",
        recipe=str(settings(tmp_path, array)),
        settings={"loop.amp": False, "loop.activation_checkpointing": True},
    )
    assert support.logged_losses(tmp_path / "a") == pytest.approx(support.logged_losses(tmp_path / "b"), rel=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_the_ids_of_the_batch(tmp_path):
    path = tmp_path / "broken.npy"
    pictures = np.random.default_rng(0).random((16, 1, 32, 32), dtype=np.float32)
    np.save(path, pictures)
    file = settings(tmp_path, path, length={"batch": 16, "steps": 3})
    current = session.build_session(api.settings(api.Request(str(file))), tmp_path / "run", distributed.Dist())
    with torch.no_grad():
        next(iter(current.method.encoder.parameters())).fill_(float("inf"))
    with pytest.raises(FloatingPointError, match=r"the batch's ids are in .*not-finite-step-00000000\.json"):
        loop.train_session(current)
    saved = json.loads((tmp_path / "run" / "not-finite-step-00000000.json").read_text())
    assert len(set(saved["ids"])) == 16


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(tmp_path, array):
    file = settings(tmp_path, array, length={"steps": 5, "batch": 8})
    current = session.build_session(api.settings(api.Request(str(file))), tmp_path / "run", distributed.Dist())
    current.method.predictor.proj.bias.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(FloatingPointError, match="the gradient's norm nan at step 0"):
        loop.train_session(current)
    assert all(p.isfinite().all() for p in current.method.parameters())


def test_resuming_and_beginning_anew_exclude_each_other(tmp_path, array):
    file = str(settings(tmp_path, array))
    api.train(out=tmp_path / "run", recipe=file, steps=1)
    with pytest.raises(ValueError, match="--resume continues a run and --init starts a new one"):
        api.train(out=tmp_path / "run", recipe=file, steps=1, resume=True, init=tmp_path / "run")


def test_another_run_gives_its_weights_and_a_misfit_names_every_key(tmp_path, array):
    api.train(out=tmp_path / "first", recipe=str(settings(tmp_path, array)))
    file = str(settings(tmp_path, array))
    request = api.Request(file, out=tmp_path / "second", init=tmp_path / "first", flags={"seed": 5})
    started = launch.open_session(request, api.settings(request), distributed.Dist())
    given = checkpoint.load_checkpoint(tmp_path / "first").model
    assert all(torch.equal(v, given[k]) for k, v in started.method.state_dict().items())
    with pytest.raises(ValueError, match=r"qkv\.weight is \(96, 32\), not \(144, 48\).* and \d+ more"):
        api.train(
            out=tmp_path / "third",
            recipe=file,
            init=tmp_path / "first",
            settings={"method.encoder.width": 48, "method.encoder.heads": 2},
        )
    assert not (tmp_path / "third").exists()


def test_a_dry_run_says_what_it_costs_and_writes_nothing(tmp_path, array):
    rows = dict(api.dry_run(api.Request(str(settings(tmp_path, array)), out=tmp_path / "run")))
    assert {"parameters", "compute", "memory", "time"} <= rows.keys()
    assert rows["samples"] == "training reads 32 images"


def test_a_dry_run_lists_the_probes_that_the_data_allow(tmp_path):
    file = tmp_path / "pictures.npz"
    for labels in ({}, {"y": np.arange(32) % 2}):
        np.savez(file, x=support.noise_pictures(32), **labels)
        kinds = {"data": {"name": "arrays"}, "evals": {"kinds": ["knn", "linear"], "report": False}}
        recipe = support.write_settings(tmp_path, file, **kinds)
        rows = dict(api.dry_run(api.Request(str(recipe), out=tmp_path / "run", flags={"data.split": "train"})))
        assert ("not in it: probe knn, probe linear" in rows["time from"]) is bool(labels)
        assert rows["samples"] == "training reads 30 images, and 2 are left out for tests"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_dry_run_times_whole_batches_with_their_loading_and_the_panel(tmp_path, array, monkeypatch):
    """Reading is made slow, so that what else the machine is doing hardly matters."""
    draw, read = arrays.Arrays.draw, arrays.Arrays.read

    def slowly(wait, function):
        def call(*args):
            time.sleep(wait)
            return function(*args)

        return call

    monkeypatch.setattr(arrays.Arrays, "draw", slowly(0.3, draw))
    monkeypatch.setattr(arrays.Arrays, "read", slowly(0.02, read))
    monkeypatch.setattr(estimate, "TIMED_SECONDS", 1.0)
    file = str(settings(tmp_path, array, length={"steps": 20}))
    rows = dict(api.dry_run(api.Request(file, out=tmp_path / "run")))
    seconds = api.train(out=tmp_path / "run", recipe=file, quiet=True)["seconds"]
    told = float(re.search(r"per step, ([\d.]+) s for 20 steps", rows["time"])[1])
    assert seconds > 6
    assert told == pytest.approx(seconds, rel=0.3)
    assert rows["time from"].endswith(" steps with no workers")


@pytest.mark.parametrize(
    ("limit", "how"), [("SLOW_STEP", "timed over"), ("TOO_SLOW_STEP", "a guess from a few samples")]
)
def test_where_steps_are_slow_a_dry_run_measures_less_and_says_so(limit, how, tmp_path, array, monkeypatch):
    monkeypatch.setattr(estimate, limit, 0.0)
    monkeypatch.setattr(estimate, "MAX_TIMED", 3)
    rows = dict(api.dry_run(api.Request(str(settings(tmp_path, array, length={"steps": 2000})), out=tmp_path / "run")))
    assert rows["time from"].startswith(how)
    assert "for 2,000 steps" in rows["time"]
    assert {"steps", "panel"} <= {part.split()[0] for part in rows["time for"].split(", ")}


def test_the_flops_of_a_dry_run_are_those_of_the_step(tmp_path, array):
    def gigaflops(batch):
        request = api.Request(str(settings(tmp_path, array, length={"batch": batch})))
        return float(dict(api.dry_run(request))["compute"].split()[0])

    assert gigaflops(32) == pytest.approx(4 * gigaflops(8), rel=0.2)


def test_every_auto_is_said_with_its_reason_and_resolved_in_the_saved_settings(tmp_path, array):
    notes = []

    class Watch:
        def note(self, text):
            notes.append(text)

        def row(self, row, steps):
            pass

    file = str(
        settings(tmp_path, array, length={"steps": None, "epochs": 1}, loop={"device": None, "save_every": None})
    )
    api.train(out=tmp_path / "run", recipe=file, progress=Watch())
    said = {note.partition(" = ")[0] for note in notes}
    assert {"length.steps", "loop.device", "loop.amp", "loop.save_every"} <= said
    saved = checkpoint.load_run(tmp_path / "run").run
    assert (saved.length.steps, saved.loop.device) == (4, devices.best_device()[0])


def test_pictures_of_100_pixels_are_trained_on_at_96_and_the_run_says_and_stores_it(tmp_path):
    photos = support.write_pictures(tmp_path / "photos", [f"{k}.png" for k in range(8)], side=100)
    file = str(settings(tmp_path, photos, data={"name": "images", "size": None}))
    progress = support.Recorder()
    api.train(out=tmp_path / "run", recipe=file, steps=1, progress=progress)
    assert progress.said("data.size = [96, 96] (the median shorter side is 100 px; a multiple of 8 x 8, at most 224)")
    loaded = checkpoint.load_run(tmp_path / "run")
    assert (loaded.run.data.size, loaded.method.signal.size) == ((96, 96), (96, 96))


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"length": {"batch": 64}}, "hold 32 samples, fewer than one batch of 64"),
        ({"length": {"batch": 8, "accumulate": 3}}, "cannot be split over 1 processes × 3"),
        ({"length": {"steps": 0}}, "length: steps is 0; give 1 or more"),
        ({"method": {"encoder": {"name": "vit", "patch": [5, 5]}}}, "does not divide size"),
        ({"method": {"target_blocks": 3}}, "target_blocks is 3"),
        ({"loop": {"device": "abacus"}}, "loop.device 'abacus' cannot be used here"),
        ({"data": {"name": "arrays", "path": "nowhere.npy"}}, "no file or folder 'nowhere.npy'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(sections, sentence, tmp_path, array):
    file = settings(tmp_path, array, **sections)
    with pytest.raises(ValueError, match=sentence):
        api.train(sections.get("data", {}).get("path"), tmp_path / "run", recipe=str(file))
    assert not (tmp_path / "run").exists()


def test_every_kind_of_data_has_a_name_that_a_config_may_use():
    assert {"images", "arrays", "synthetic"} <= set(data.KINDS.names())


def test_the_rate_shown_while_training_is_that_of_the_report(tmp_path, array):
    seen = support.Recorder()
    file = settings(tmp_path, array, length={"steps": 5}, loop={"log_every": 1, "workers": 0})
    api.train(out=tmp_path / "run", recipe=str(file), progress=seen)
    (last, _) = [(row, steps) for row, steps in seen.rows if "doing" not in row["metrics"]][-1]
    assert short_number(last["metrics"]["throughput"]) == median_throughput(read_record(tmp_path / "run"))
