"""From a folder of pictures to representations, by Python and by the command line."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import runs
import torch
from PIL import Image

import jepakit as jk

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
    file = runs.write_settings(folder, photos, evals={"kinds": ["knn", "linear"], "report": True})
    done = runs.jepa("train", file, "--out", out, "--length.steps", "8")
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


def test_embed_writes_ids_in_the_order_of_the_data(run, photos, tmp_path):
    done = runs.jepa("embed", run, "--data", photos, "--out", tmp_path / "e.parquet", "--tokens")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "e.parquet")
    assert table["id"].to_pylist() == sorted(str(p.relative_to(photos)) for p in photos.rglob("*.*"))
    assert np.array(table["embedding"][0].as_py()).shape == (16, 32)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "ijepaa", "--data", "."), "No recipe or method 'ijepaa'. Did you mean 'ijepa'?"),
        (("train", "ijepa", "--data", "nowhere"), "no file or folder 'nowhere'"),
        (("train", "ijepa", "--dta", "."), "No option --dta. Did you mean --data?"),
        (("train", "ijepa", "--optim.lr"), "--optim.lr needs a value"),
        (("train",), "say what to train"),
        (("probe", "nowhere", "--kind", "knn"), "nowhere is no run folder"),
        (("report", "nowhere"), "nowhere"),
        (("trian", "ijepa"), "No command 'trian'. Did you mean 'train'?"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence_and_exit_code_2(words, sentence, tmp_path, monkeypatch, capsys):
    from jepakit import cli

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert sentence in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_print_config_writes_a_file_that_repeats_the_run(tmp_path, capsys):
    from jepakit import api, cli

    assert cli.main(["train", "cifar10-ijepa", "--optim.lr", "7e-4", "--print-config"]) == 0
    file = tmp_path / "again.yaml"
    file.write_text(capsys.readouterr().out)
    assert api.settings(api.Request(str(file))).optim.lr == 7e-4


def test_list_names_every_method_probe_and_recipe(capsys):
    from jepakit import cli

    assert cli.main(["list"]) == 0
    words = capsys.readouterr().out
    assert all(name in words for name in ("ijepa", "knn", "linear", "cifar10-ijepa", "multiblock", "vit_tiny"))
