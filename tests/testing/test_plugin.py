"""What a package of somebody else's offers, installed beside jepakit, is used like our own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import support
from support import Done

PACKAGE = Path(__file__).parents[1] / "plugin_package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the fixture package, with its entry point."""
    source, target = tmp_path_factory.mktemp("source") / "package", tmp_path_factory.mktemp("target")
    shutil.copytree(PACKAGE, source)  # a build leaves files beside the source
    pip_install(source, target)
    return target


def pip_install(source: Path, target: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    subprocess.run(pip, check=True, capture_output=True, text=True)


def python(installed: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


# Importing torch takes longer than most of the commands, so that one process runs several.
COMMANDS = "import json, sys, support; print(json.dumps([support.jepa_here(*line.split()) for line in sys.argv[1:]]))"


def run_cli(installed: Path, folder: Path, *lines: str) -> list[Done]:
    """Commands of `jepa`, run in `folder` one after the other, in one process of their own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (installed, *PACKAGE.parents[:2])))}
    command = [sys.executable, "-c", COMMANDS, *lines]
    found = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return [Done(*one) for one in json.loads(found.stdout)]


@pytest.fixture(scope="module")
def said(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
    """What short commands say: a list, the settings of a training, and a study without its data."""
    return run_cli(
        installed,
        tmp_path_factory.mktemp("said"),
        "list",
        "train denoise --method.noise 0.25 --print-config",
        "reproduce outside-study --seeds 1 --steps 2 --data .",
    )


def test_an_outside_method_keeps_the_contract_like_our_own(installed: Path) -> None:
    code = "from jepakit import methods, testing; testing.contract(methods.load('denoise').Method, testing.SIGNALS[:1])"
    done = python(installed, code)
    assert done.returncode == 0, done.stderr


def test_the_settings_of_an_outside_method_are_flags(said: list[Done]) -> None:
    done = said[1]
    assert done.returncode == 0, done.stderr
    assert "noise: 0.25" in done.stdout


OUTSIDE = (
    "denoise",
    "stripes",
    "patchwise",
    "average",
    "ramps",
    "outside-demo",
    "episodes",
    "centroid",
    "outside-study",
    "steps",
    "postscript",
)


def test_one_member_of_every_kind_is_listed_and_a_broken_one_is_named(said: list[Done]) -> None:
    listed = said[0]
    assert listed.returncode == 0, listed.stderr
    assert all(f"\n  {name} " in listed.stdout for name in OUTSIDE)
    assert "the masker 'broken-stripes' of the package denoise-jepa cannot be used" in listed.stdout
    assert "the data 'broken-ramps' of the package denoise-jepa cannot be used" in listed.stdout
    assert "No module named 'a_library_that_is_not_there'" in listed.stdout


def test_one_member_of_every_kind_is_used(installed: Path, tmp_path: Path) -> None:
    quick = "--method.encoder.width 16 --data.name synthetic --data.count 32 --data.size [16,16] --length.batch 16"
    trained, other, ramps, broken = run_cli(
        installed,
        tmp_path,
        "train outside-demo --out a",
        f"train ijepa --method.encoder.name patchwise --method.masks.name stripes {quick} --steps 1 --out b",
        "train denoise --data ramps --method.encoder.name patchwise --length.batch 16 --steps 1 --out r",
        f"train ijepa --method.masks.name broken-stripes {quick} --out c",
    )
    assert trained.returncode == 0, trained.stderr
    config = (tmp_path / "a" / "config.yaml").read_text()
    assert "name: patchwise" in config
    assert "name: average" in config
    assert (tmp_path / "a" / "evals" / "centroid.json").is_file()
    assert other.returncode == 0, other.stderr
    assert "name: stripes" in (tmp_path / "b" / "config.yaml").read_text()
    assert ramps.returncode == 0, ramps.stderr
    assert "name: ramps" in (tmp_path / "r" / "config.yaml").read_text()
    assert broken.returncode == 2
    assert "the masker 'broken-stripes' of the package denoise-jepa" in broken.stderr
    # A later process finds the members by the names in the run folder.
    again = ("probe a --kind centroid --name again", "steps a", "report a")
    probed, counted, reported = run_cli(installed, tmp_path, *again)
    assert (tmp_path / "a" / "evals" / "centroid-again.json").is_file(), probed.stderr
    assert counted.stdout == "2 steps\n"
    assert reported.returncode == 0, reported.stderr
    assert "a went 2 steps." in (tmp_path / "a" / "report.html").read_text()


def test_an_outside_kind_of_data_is_used_by_every_command(installed: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(24) % 2
    walks = np.cumsum(draw.normal(size=(24, 8, 3)) + labels[:, None, None], 1).astype(np.float32)
    np.savez(tmp_path / "walks.npz", observations=walks, actions=np.diff(walks, axis=1)[..., :2], labels=labels)
    quick = "--method.encoder.width 16 --method.encoder.patch [1] --length.batch 8 --steps 3"
    checked, trained, views = run_cli(
        installed,
        tmp_path,
        "check-data walks.npz --csv problems.csv",
        f"train rjepa --data walks.npz {quick} --out run",
        "train simclr --data walks.npz --out views",
    )
    probed, embedded, completed, scored, reported = run_cli(
        installed,
        tmp_path,
        "probe run --kind knn --name again",
        "embed run --data walks.npz --out walks.csv",
        "complete run --data walks.npz --hide future --out later",
        "score run --data walks.npz --out scores.csv",
        "report run",
    )
    words = " ".join(checked.stdout.split())
    assert "read as episodes (an .npz of observations and actions)" in words, checked.stderr
    for one in (trained, probed, embedded, reported):
        assert one.returncode == 0, one.stderr
    assert "name: episodes" in (tmp_path / "run" / "config.yaml").read_text()
    assert len((tmp_path / "walks.csv").read_text().splitlines()) == 25
    for refused in (completed, scored, views):
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
    assert "are not augmented, so a sample has no two views" in views.stderr


def test_a_study_of_an_outside_package_is_found_by_its_name(said: list[Done]) -> None:
    done = said[2]
    assert done.returncode == 2
    assert "study outside-study reads shapes, which is not in ." in done.stderr


def test_without_the_package_the_name_is_unknown_and_ours_are_offered() -> None:
    done = support.jepa_here("train", "denoise")
    assert done.returncode == 2
    assert "denoise" in done.stderr
    assert "ijepa" in done.stderr


def test_a_name_that_is_taken_is_refused(installed: Path, tmp_path: Path) -> None:
    info = tmp_path / "rival-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[jepakit.methods]\ndenoise = rival\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); from jepakit import methods; methods.METHODS.names()"
    done = python(installed, code)
    assert "two members of jepakit.methods are called 'denoise'" in done.stderr


@pytest.mark.slow
def test_an_installed_package_carries_every_file_that_the_checkout_has(tmp_path: Path) -> None:
    root, source = PACKAGE.parent.parent, tmp_path / "source"
    shutil.copytree(root / "jepakit", source / "jepakit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    pip_install(source, tmp_path / "target")
    here, there = (
        {str(p.relative_to(folder)) for p in (folder / "jepakit").rglob("*") if p.is_file() and p.suffix != ".pyc"}
        for folder in (source, tmp_path / "target")
    )
    assert here == there
