"""What pip installs is the whole package: it builds from a bare copy of the sources, and it runs away from them."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import jepakit

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("jepakit", "pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta as b; getattr(b, 'build_' + sys.argv[1])(sys.argv[2])"
PINS = re.compile(r"^([\w.-]+)\s*([<>=!~].*)$", re.MULTILINE)


def test_torch_has_a_lower_bound_and_no_upper_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [line for line in project["dependencies"] if line.startswith("torch")] == ["torch>=2.6"]


def test_the_makefile_installs_under_the_constraints_that_keep_torch_small() -> None:
    (name, bound), *others = PINS.findall((ROOT / "constraints.txt").read_text())
    assert (name, others) == ("torch", [])
    assert bound.startswith("<")
    installs = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)


def run(*command: str | Path, cwd: Path) -> str:
    """The standard output of a command that must succeed, run without the checkout on Python's path."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(kind: str, sources: Path, out: Path) -> Path:
    """The wheel or sdist that pip would build from `sources`."""
    out.mkdir()
    run(sys.executable, "-c", BUILD, kind, out, cwd=sources)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from, without the tests, and without files left by earlier builds."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", sources, tmp_path_factory.mktemp("dist") / "wheel")


def package_files(names: Iterator[str] | list[str]) -> set[str]:
    return {name for name in names if name.startswith("jepakit/") and not name.endswith("/")}


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(sources: Path, wheel: Path) -> None:
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "jepakit").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        assert package_files(archive.namelist()) == {name for name in expected if "__pycache__" not in name}


@pytest.mark.slow
def test_the_wheel_carries_the_version_of_the_code_and_asks_for_no_older_torch_than_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Version"] == jepakit.__version__
    assert "torch>=2.6" in metadata.get_all("Requires-Dist", [])


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(sources: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", sources, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = build("wheel", unpacked, tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert package_files(first.namelist()) == package_files(second.namelist())
        assert all(first.read(name) == second.read(name) for name in package_files(first.namelist()))


@pytest.mark.slow
def test_an_installed_wheel_trains_and_reports_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path)
    python, jepa = home / "bin" / "python", home / "bin" / "jepa"
    # The dependencies come from this environment's folder. A .pth line adds the folder but does not read the .pth files
    # inside it, so the editable jepakit there stays out of sight.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path
    )
    where = Path(run(python, "-c", "import jepakit; print(jepakit.__file__)", cwd=tmp_path).strip())
    assert where.is_relative_to(site)
    assert run(jepa, "--version", cwd=tmp_path).strip() == jepakit.__version__
    assert "ijepa" in run(jepa, "list", cwd=tmp_path)
    run(jepa, "train", "demo", "--steps", "5", "--out", "runs/demo", cwd=tmp_path)
    assert jepakit.__version__ in (tmp_path / "runs" / "demo" / "report.html").read_text()
