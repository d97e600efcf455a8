"""From a folder of pictures to representations, by Python and by the command line."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import jaxtyping
import numpy as np
import pyarrow.parquet as pq
import pytest
import support
import torch
import yaml
from PIL import Image

import jepakit as jk
from jepakit import api
from jepakit.cli import text
from jepakit.core.progress import SilentProgress
from jepakit.inference.embed import encoder_identity
from jepakit.run import checkpoint

ENCODE = """
import sys, torch, jepakit as jk
torch.save(jk.load(sys.argv[1]).encode(sys.argv[2]).mean(1)[0], sys.argv[3])
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of 40 pictures of unequal sizes, as JPEG and PNG."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for kind, base in (("dark", 40), ("light", 200)):
        (root / kind).mkdir()
        for i in range(40):
            height, width = rng.integers(40, 70, 2)
            pixels = (base + rng.normal(0, 25, (height, width, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / kind / f"{i:02d}.{'png' if i % 2 else 'jpg'}")
    return root


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    out = folder / "run"
    file = support.write_settings(folder, photos, evals={"kinds": ["knn", "linear"], "report": True})
    done = support.jepa("train", file, "--out", out, "--length.steps", "8")
    assert done.returncode == 0, done.stderr
    assert f"report: {out / 'report.html'}" in done.stdout
    return out


def test_embed_encode_and_another_process_agree_on_one_file(run, photos, tmp_path):
    first = sorted(photos.rglob("*.*"))[0]
    jk.embed(run, photos, tmp_path / "all.npy")
    ids = (tmp_path / "all.ids.csv").read_text().split()
    row = next(i for i, line in enumerate(ids) if str(first.relative_to(photos)) in line) - 1
    embedded = torch.from_numpy(np.load(tmp_path / "all.npy")[row])
    here = jk.load(run).encode(first).mean(1)[0]
    subprocess.run([sys.executable, "-c", ENCODE, run, first, tmp_path / "there.pt"], check=True, timeout=120)
    there = torch.load(tmp_path / "there.pt", weights_only=True)
    torch.testing.assert_close(embedded, here, atol=1e-5, rtol=1e-5)
    assert torch.equal(here, there)


def test_training_with_labels_leaves_probes_beside_both_baselines_and_a_page(run):
    for kind in ("knn", "linear"):
        result = json.loads((run / "evals" / f"{kind}.json").read_text())
        assert {"metric", "value", "low", "high", "random_init", "raw", "data", "weights", "per_class"} <= result.keys()
        assert (result["n_train"], result["n_test"], result["step"]) == (64, 16, 8)
    assert (run / "report.html").stat().st_size > 10_000


def test_the_run_folder_holds_what_its_contract_names(run):
    summary = json.loads((run / "summary.json").read_text())
    assert {"steps", "seconds", "loss", "verdict", "skipped"} <= summary.keys()
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"step", "loss", "terms", "metrics", "lr", "time"} <= row.keys()
    assert {"normalized_loss", "std_ratio_target", "rank_context", "throughput", "verdict"} <= row["metrics"].keys()
    assert (run / "checkpoints" / "last").resolve().name == "step-00000008"
    assert sorted(p.name for p in (run / "checkpoints" / "last").iterdir()) == [
        "model.safetensors",
        "optim.safetensors",
        "state.json",
    ]


def test_any_input_size_that_the_patch_divides_is_encoded_on_its_own_grid(run):
    model = jk.load(run)
    assert model.encode(torch.rand(2, 3, 32, 32)).shape == (2, 16, 32)
    assert model.encode(torch.rand(1, 3, 48, 64)).shape == (1, 48, 32)
    with pytest.raises(ValueError, match="does not divide size"):
        model.encode(torch.rand(1, 3, 30, 32))


def test_probe_fits_on_one_set_and_scores_on_another(run, photos):
    path = jk.probe(run, "knn", data=photos, test=photos, name="self", settings={"knn.k": 1})
    result = json.loads(path.read_text())
    assert path.name == "knn-self.json"
    assert (result["value"], result["n_test"]) == (1.0, 80)
    assert "knn-self: the test data are the training data" in text.describe_probes([path])


def test_a_probe_says_so_where_its_interval_reaches_a_baseline(tmp_path):
    path = tmp_path / "knn.json"
    found = {"value": 0.5, "low": 0.4, "high": 0.6, "random_init": 0.4, "raw": 0.39, "n_test": 100, "notes": {}}
    path.write_text(json.dumps(found))
    assert "knn: not clearly better than the untrained encoder" in text.describe_probes([path])
    assert "raw input;" not in text.describe_probes([path])
    path.write_text(json.dumps(found | {"random_init": 0.3}))
    assert "not clearly" not in text.describe_probes([path])


def test_check_data_reads_the_array_it_is_given_and_counts_as_it_goes(tmp_path):
    np.savez(tmp_path / "a.npz", pixels=np.random.default_rng(0).integers(0, 255, (5, 20, 20), dtype=np.uint8))
    progress = support.Recorder()
    found = dict(api.check_data(tmp_path / "a.npz", image="pixels", progress=progress))
    row, steps = progress.rows[-1]
    assert (found["readable"], row["step"], steps) == ("5", 5, 5)


def test_training_from_python_shows_how_far_it_is_unless_it_is_to_be_quiet(photos, tmp_path, capsys):
    file = support.write_settings(tmp_path, photos, evals={"kinds": ["knn"]})
    jk.train(out=tmp_path / "loud", recipe=str(file), steps=2)
    shown = capsys.readouterr().err
    assert "step 2/2  loss" in shown
    assert "80/80  probing: encoding" in shown
    assert "100/100  probing knn: raw input" in shown
    jk.train(out=tmp_path / "quiet", recipe=str(file), steps=2, quiet=True)
    assert capsys.readouterr().err == ""
    progress = support.Recorder()
    jk.train(out=tmp_path / "own", recipe=str(file), steps=2, progress=progress)
    assert capsys.readouterr().err == ""
    assert [row["step"] for row, _ in progress.rows if row["metrics"].get("doing", "").startswith("probing: ")][
        -1
    ] == 80


def test_test_data_of_one_class_are_counted_in_the_classes_of_training(run, photos, tmp_path):
    one = tmp_path / "val"
    shutil.copytree(photos / "light", one / "light")
    settings = {"knn.k": 1}
    result = json.loads(jk.probe(run, "knn", data=photos, test=one, name="one", settings=settings).read_text())
    assert (result["value"], result["n_test"], result["per_class"]) == (1.0, 40, {"light": 1.0})
    assert result["notes"]["warning"].startswith("40 of 40 test samples (100.0 %) are also training samples")
    (one / "light").rename(one / "bright")
    with pytest.raises(ValueError, match=r"no sample of 1 .*\('bright'\).* --test without those"):
        jk.probe(run, "knn", data=photos, test=one)
    for other in ("dim", "dull", "grey"):
        shutil.copytree(one / "bright", one / other)
    with pytest.raises(
        ValueError, match=r"no sample of 4 of .*\('bright', 'dim', 'dull' …\), so nothing can be learnt"
    ):
        jk.probe(run, "knn", data=photos, test=one)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_pictures_of_other_channels_are_converted_by_embed_as_by_encode(run, photos, tmp_path, mode):
    root = tmp_path / mode
    for path in [photos / "dark" / "01.png", photos / "light" / "03.png"]:
        (root / path.parent.name).mkdir(parents=True)
        Image.open(path).convert(mode).save(root / path.parent.name / path.name)
    progress = support.Recorder()
    jk.embed(run, root, tmp_path / "e.npy", progress=progress)
    assert any("the others are converted" in note for note in progress.notes)
    encoded = jk.load(run).encode(sorted(root.rglob("*.png"))).mean(1)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "e.npy")), encoded, atol=1e-5, rtol=1e-5)
    result = json.loads(jk.probe(run, "knn", data=photos, test=root, name=mode).read_text())
    assert result["n_test"] == 2


def test_arrays_of_other_channels_are_refused_in_one_sentence(run, tmp_path):
    np.savez(tmp_path / "grey.npz", x=np.zeros((40, 32, 32), np.uint8), y=np.arange(40) % 2)
    for use in (lambda data: jk.embed(run, data, tmp_path / "e.npy"), lambda data: jk.probe(run, data=data)):
        with pytest.raises(ValueError, match="1 channels but the model takes 3"):
            use(tmp_path / "grey.npz")


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_nothing_is_refused_before_anything_is_read(batch, tmp_path):
    with pytest.raises(ValueError, match=f"the batch is {batch}; give 1 or more"):
        jk.embed(tmp_path / "nowhere", tmp_path / "nothing", tmp_path / "e.npy", batch=batch)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "torch.uint8; give floats"),
        (torch.zeros(1, 1, 32, 32), r"\(1, 1, 32, 32\), but the model takes .batch, 3, .*x.repeat_interleave\(3, 1\)"),
        (torch.zeros(3, 32, 32), r"x\[None\] makes a batch of one sample"),
        ([], "one file or more, such as images"),
        (np.zeros((1, 3, 32, 32), np.float32), r"torch.from_numpy\(x\)"),
        ([torch.zeros(3, 32, 32)], r"torch.stack\(x\)"),
    ],
    ids=["bytes", "grey", "no batch", "nothing", "array", "tensors"],
)
def test_what_cannot_be_encoded_is_refused_with_the_way_out(run, monkeypatch, given, sentence):
    model = jk.load(run)
    # As a user has it: nothing checks annotations there.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=sentence):
        model.encode(given)


def test_unfinished_embeddings_of_other_weights_are_told_apart(run):
    last, before = checkpoint.load_run(run), checkpoint.load_run(run, 4)
    one = encoder_identity(last, "target")
    assert one == encoder_identity(checkpoint.load_run(run), "target")
    assert one != encoder_identity(last, "context")
    moved = replace(before, step=last.step)  # the weights alone differ
    assert one != encoder_identity(moved, "target")


def test_an_earlier_checkpoint_is_embedded_and_probed_where_asked(run, photos, tmp_path):
    for step in (4, 8):
        jk.embed(run, photos, tmp_path / f"{step}.npy", step=step)
    assert (tmp_path / "4.npy").read_bytes() != (tmp_path / "8.npy").read_bytes()
    assert json.loads(jk.probe(run, "knn", step=4).read_text())["step"] == 4


@pytest.mark.parametrize(
    ("folders", "kinds", "written", "noted"),
    [
        (["a", "b"] * 8, ["knn", "linear"], ["knn", "linear"], []),
        (["a", "b", "b", *"cdefghij"], ["knn", "linear"], ["knn"], ["no linear: l2 cannot be chosen"]),
        (list("abcdefghijkl"), ["knn", "linear"], [], ["no knn: no class has two", "no linear: no class has two"]),
        (None, ["knn"], [], ["no knn after the last step: the data carry only the class '0'"]),
    ],
    ids=["few per class", "one class of two", "one per class", "one class"],
)
def test_data_that_cannot_be_probed_cost_a_note_and_never_the_report(tmp_path, folders, kinds, written, noted):
    data, progress = tmp_path / "data", support.Recorder()
    if folders:
        support.write_pictures(data, [f"{folder}/{i}.png" for i, folder in enumerate(folders)])
    else:
        data = tmp_path / "data.npz"
        np.savez(
            data, x=np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), dtype=np.uint8), y=np.zeros(16, int)
        )
    file = support.write_settings(
        tmp_path, data, evals={"kinds": kinds, "report": True}, data={"name": "images" if folders else "arrays"}
    )
    summary = jk.train(recipe=str(file), out=tmp_path / "run", steps=2, progress=progress)
    assert summary["steps"] == 2
    assert sorted(p.stem for p in (tmp_path / "run").glob("evals/*.json")) == written
    found = [note for note in progress.notes if note.startswith("no ")]
    assert len(found) == len(noted)
    assert all(note.startswith(text) for note, text in zip(found, noted, strict=True)), found
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("labels", [None, "a"], ids=["no labels", "one class"])
@pytest.mark.parametrize("command", ["train", "dry_run"])
def test_a_probe_asked_for_that_the_data_cannot_serve_is_refused_before_step_1(tmp_path, labels, command):
    support.write_pictures(tmp_path / "data", [f"{labels or '.'}/{i}.png" for i in range(16)])
    file, out = support.write_settings(tmp_path, tmp_path / "data"), tmp_path / "run"
    request = api.Request(str(file), out=out, flags={"evals.kinds": "[linear, knn]"})
    ask = {"train": lambda: api.train_and_report(request, SilentProgress()), "dry_run": lambda: api.dry_run(request)}[
        command
    ]
    found = "only the class 'a'" if labels else "no labels"
    with pytest.raises(
        ValueError, match=rf"^evals\.kinds asks for linear, knn, but the data carry {found}.*kinds '\[\]'$"
    ):
        ask()
    assert not out.exists()


def test_probes_that_nobody_asked_for_are_noted_before_step_1_where_there_are_no_labels(tmp_path):
    support.write_pictures(tmp_path / "data", [f"{i}.png" for i in range(16)])
    progress = support.Recorder()
    progress.row = lambda row, steps: progress.notes.append(f"step {row['step']}")
    settings = {k: v for k, v in support.SETTINGS.items() if k != "evals"} | {"length": {"steps": 1, "batch": 8}}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(settings))
    jk.train(tmp_path / "data", tmp_path / "run", recipe=str(tmp_path / "plain.yaml"), progress=progress)
    (said,) = [note for note in progress.notes if note.startswith("no knn")]
    assert said.startswith("no knn, linear after the last step: the data carry no labels")
    assert progress.notes.index(said) < progress.notes.index("step 1")
    assert not [note for note in progress.notes if note.startswith("probing")]
    assert not (tmp_path / "run" / "evals").exists()


def test_comparing_runs_shows_the_settings_that_differ_the_probes_and_one_page(run, tmp_path):
    other, page = tmp_path / "other", tmp_path / "both.html"
    shutil.copytree(run, other)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["optim"]["lr"] = 0.25
    (other / "config.yaml").write_text(yaml.safe_dump(settings))
    done = support.jepa_here("compare", run, other, "--out", page)
    assert done.returncode == 0, done.stderr
    told = done.stdout
    lines = {line.split("  ")[0].strip(): line.split() for line in told.splitlines()}
    assert lines[""] == ["run", "other"]
    assert lines["optim.lr"][2] == "0.25"
    shown = json.loads((run / "evals" / "knn.json").read_text())
    score = "{:.1f} % ({:.1f} % … {:.1f} %)".format(*(100 * shown[key] for key in ("value", "low", "high")))
    assert [line for line in told.splitlines() if line.startswith("knn accuracy") and score in line]
    assert "method.encoder.width" not in lines
    assert "other" in page.read_text()
    assert told.endswith(f"report: {page}\n")


def test_embed_writes_ids_in_the_order_of_the_data(run, photos, tmp_path):
    done = support.jepa_here("embed", run, "--data", photos, "--out", tmp_path / "e.parquet", "--tokens")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "e.parquet")
    assert table["id"].to_pylist() == sorted(str(p.relative_to(photos)) for p in photos.rglob("*.*"))
    assert np.array(table["embedding"][0].as_py()).shape == (16, 32)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "ijepaa", "--data", "."), "No recipe or method 'ijepaa'. Did you mean 'ijepa'?"),
        (("train", "ijepa", "--data", "nowhere"), "no file or folder 'nowhere'"),
        (("train", "ijepa", "--dta", "."), "No option --dta for train. Did you mean --data?"),
        (("train", "ijepa", "--optim.lr"), "--optim.lr needs a value"),
        (("train",), "say what to train"),
        (("probe", "nowhere", "--kind", "knn"), "nowhere is not a run folder"),
        (("report", "nowhere"), "nowhere"),
        (("compare", "one"), "comparing takes two runs or more, 1 given"),
        (("trian", "ijepa"), "No command 'trian'. Did you mean 'train'?"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence_and_exit_code_2(words, sentence, tmp_path, monkeypatch, capsys):
    from jepakit.cli import __main__ as cli

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert sentence in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_print_config_writes_a_file_that_repeats_the_run(tmp_path, capsys):
    from jepakit import api
    from jepakit.cli import __main__ as cli

    assert cli.main(["train", "cifar10-ijepa", "--optim.lr", "7e-4", "--print-config"]) == 0
    file = tmp_path / "again.yaml"
    file.write_text(capsys.readouterr().out)
    assert api.settings(api.Request(str(file))).optim.lr == 7e-4


def test_list_names_every_method_probe_and_recipe(capsys):
    from jepakit.cli import __main__ as cli

    assert cli.main(["list"]) == 0
    words = capsys.readouterr().out
    assert all(name in words for name in ("ijepa", "knn", "linear", "cifar10-ijepa", "multiblock", "vit_tiny"))
