"""What the documents tell a reader to do works, and what they show exists."""

import ast
import io
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import support
import yaml
from PIL import Image
from pyarrow import parquet, table
from support import write_idx

from jepakit import collapse, data, methods
from jepakit.run import families, write
from jepakit.run.optim import Optim
from jepakit.run.settings import Evals, Length, Loop, Run

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# Documents that name modules of earlier versions. Elsewhere foo.py stands for a file of the reader's own.
HISTORY = {
    "CHANGELOG.md",
    "LOG.md",
    "0001-data-lies-below-config.md",
    "0002-no-module-is-named-like-a-public-function.md",
}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALL_RECIPES = {
    "cifar10-ijepa",
    "cifar10-best",
    "fashion-ijepa",
    "series-bijepa",
    "world-model",
    "two-rooms-fixed",
    "metric",
}
# What makes a training short; the README's own settings stand before it.
SHORT = "--steps 3 --length.batch 8 --evals.report false"
SHORT_METRIC = "--heads.metric.length.steps 3 --heads.metric.length.batch 8"
SHALLOW = "--method.encoder.depth 1 --method.predictor.depth 1"


def blocks(document: Path, *kinds: str) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in BLOCK.findall(document.read_text()) if kind in kinds]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stripes and blobs, as JPEG in photos/cat and photos/dog and in the files of the two known sets, and
    two tables of waves.
    """
    folder = tmp_path_factory.mktemp("desk")
    generator = np.random.default_rng(0)
    for label, animal in enumerate(("cat", "dog")):
        (folder / "photos" / animal).mkdir(parents=True)
        for i in range(1, 41):
            Image.fromarray(pattern(generator, label, 28)).save(folder / "photos" / animal / f"{i:02d}.jpg")
    labels = [i % 2 for i in range(80)]
    for name in ("train.parquet", "test.parquet"):
        images = [{"bytes": jpeg(pattern(generator, label, 32))} for label in labels]
        parquet.write_table(table({"image": images, "label": labels}), folder / name)
    for name in ("train", "t10k"):
        grey = np.stack([pattern(generator, label, 28)[..., 0] for label in labels])
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", grey)
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", np.array(labels, np.uint8))
    support.write_table(folder / "plant.csv", 1200)
    support.write_table(folder / "today.csv", 300)
    return folder


def pattern(generator: np.random.Generator, label: int, size: int) -> np.ndarray:
    """Stripes for label 1, a blob for label 0."""
    rows, columns = np.mgrid[:size, :size] / size
    a, b, c = generator.uniform(0.2, 0.8, 3)
    shape = np.sin(20 * (a * rows + b * columns)) if label else -np.hypot(rows - a, columns - b)
    pixels = np.stack([shape, c * shape, 1 - shape], -1) + 0.02 * generator.normal(size=(size, size, 3))
    return (255 * (pixels - pixels.min()) / np.ptp(pixels)).astype(np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    Image.fromarray(pixels).save(file := io.BytesIO(), format="JPEG")
    return file.getvalue()


def shortened(line: str) -> str:
    """A README command as the test runs it: few steps, and installing or making only rehearsed."""
    words = shlex.split(line)
    if words[0] == "make":
        return f"make -C {shlex.quote(str(ROOT))} -n {' '.join(words[1:])}"
    if words[:2] == ["pip", "install"]:
        rehearse = ["install", "-q", "--dry-run", "--no-deps", "--no-index", "--no-build-isolation", "-e", str(ROOT)]
        return f"python -m pip {shlex.join(rehearse)}"
    if words[:2] == ["jepa", "complete"]:
        return f"{line} --steps 3"
    if words[:2] == ["jepa", "collect"]:
        return f"{line} --episodes 30"
    if words[:2] == ["jepa", "plan"]:
        return f"{line} --episodes 2 --steps 4 --no-film"
    if words[:2] == ["jepa", "train"] and "--print-config" not in words and "--resume" not in words:
        if "two-rooms-fixed" in words or "--heads" in words:
            line = f"{line.replace('--heads metric', '')} {SHORT_METRIC}"
        # A small recipe reads several blocks and is small as it is.
        return f"{line} {SHORT}" if words[2] in SMALL_RECIPES else f"{line} {SHORT} {SHALLOW}"
    return line


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.slow
def test_the_readme_works_from_the_first_block_to_the_last(desk: Path) -> None:
    for kind, text in blocks(ROOT / "README.md", "sh", "python"):
        if kind == "sh":
            script = "\n".join(["set -euo pipefail", *(shortened(line) for line in text.splitlines() if line.strip())])
            command = ["bash", "-c", script]
        else:
            short = 'steps=3, settings={"length.batch": 8, "method.encoder.depth": 1}, out='
            command = [sys.executable, "-c", text.replace("out=", short)]
        done = subprocess.run(command, cwd=desk, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert (desk / "features.parquet").is_file()
    assert (desk / "runs" / "a" / "report.html").is_file()


def test_the_readme_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    from jepakit.cli.__main__ import main

    with pytest.raises(SystemExit):
        main(["--help"])
    listed = re.findall(r"^ {4}([a-z-]+)(?: |$)", capsys.readouterr().out, re.MULTILINE)
    assert {"train", "probe", "embed", "report", "check-data", "list", "doctor"} <= set(listed)
    text = (ROOT / "README.md").read_text()
    assert not [name for name in listed if f"jepa {name}" not in text]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", document.read_text())
    assert not [target for target in targets if not (document.parent / target).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_that_documents_name_exist(document: Path) -> None:
    if document.name in HISTORY:
        return
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_0-9]+\.py)`", document.read_text())
    real = [name for name in named if not name.endswith("foo.py")]
    assert not [name for name in real if not any((top / name).is_file() for top in (ROOT, ROOT / "jepakit"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_documents_import_or_call_by_its_full_name_exists(document: Path) -> None:
    text = document.read_text()
    for _, code in blocks(document, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jepakit"):
                exec(compile(ast.Module([node], []), str(document), "exec"), {})
    if document.name not in HISTORY:
        named = re.findall(r"`(jepakit(?:\.\w+)+)", text)
        sources = [path.read_text() for path in (ROOT / "jepakit").rglob("*.py")]
        groups = {group for source in sources for group in re.findall(r'group="(jepakit\.\w+)"', source)}
        for name in set(named) - groups:
            pkgutil.resolve_name(name)


def test_every_verdict_the_watch_can_give_is_explained() -> None:
    explained = (ROOT / "docs" / "reading-the-report.md").read_text()
    assert not [name for name in get_args(collapse.State) if f"| `{name}` |" not in explained]


def sections(settings: Any, around: tuple[type, ...] = ()) -> Iterator[Any]:
    """A settings object and all that stand inside it, of every name that may stand there, none inside its own kind."""
    if type(settings) in around:
        return
    yield settings
    hints = get_type_hints(type(settings))
    for key in (field.name for field in fields(settings)):
        hint, value = hints[key], getattr(settings, key)
        group = families.family_of(hint) or families.family_of(next(iter(get_args(hint)), None))
        inner = [group.default_settings(name) for name in group.names] if group else [value]
        for part in (part for part in inner if is_dataclass(part)):
            yield from sections(part, (*around, type(settings)))


def test_every_setting_is_explained() -> None:
    run = Run(methods.load("ijepa").Config(), data.load("images")())
    explained = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "settings.md").read_text()))
    missing = {
        f"{type(part).__module__}: {field.name}"
        for part in sections(run)
        for field in fields(part)
        if field.name not in explained
    }
    assert not missing, f"describe in docs/settings.md: {', '.join(sorted(missing))}"


def test_the_defaults_in_the_documents_are_those_of_the_code() -> None:
    row = re.compile(r"^\| (`[^|]*`) \| ([^|`]*) \| [^|]+ \|$", re.MULTILINE)
    shown = {
        tuple(re.findall(r"`(\w+)`", keys)): yaml.safe_load(f"[{default}]")
        for keys, default in row.findall((ROOT / "docs" / "settings.md").read_text())
    }
    for part in (Optim(), Length(), Loop(), Evals()):
        own = {keys: values for keys, values in shown.items() if all(hasattr(part, key) for key in keys)}
        assert {key for keys in own for key in keys} == {f.name for f in fields(part)}
        assert own == {keys: [write.dump_settings(getattr(part, key)) for key in keys] for keys in own}
