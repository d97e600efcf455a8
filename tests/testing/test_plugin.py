"""A method in a package of its own, installed beside jepakit, is a method like any other."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


CLI = "import sys; from jepakit.cli import main; sys.exit(main({argv!r}))"


def test_an_outside_method_keeps_the_contract_like_our_own(installed: Path) -> None:
    code = "from jepakit import methods, testing; testing.contract(methods.load('denoise').Method, testing.SIGNALS[:1])"
    done = python(installed, code)
    assert done.returncode == 0, done.stderr


def test_an_outside_method_is_listed_and_its_settings_are_flags(installed: Path) -> None:
    assert "denoise" in python(installed, CLI.format(argv=["list"])).stdout
    argv = ["train", "denoise", "--method.noise", "0.25", "--print-config"]
    done = python(installed, CLI.format(argv=argv))
    assert done.returncode == 0, done.stderr
    assert "noise: 0.25" in done.stdout


def test_without_the_package_the_name_is_unknown_and_ours_are_offered() -> None:
    done = subprocess.run([sys.executable, "-c", CLI.format(argv=["train", "denoise"])], capture_output=True, text=True)
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
