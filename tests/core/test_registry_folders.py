"""A member may be a folder: its `__init__.py` imports what a module inside defines, for every kind of member."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

from jepakit import methods, recipes
from jepakit.cli.commands.list import REGISTRY_PATHS, find_registry
from jepakit.core import registry as registry_module
from jepakit.core.registry import Registry, is_dataclass_with, one_class
from jepakit.training.request import Request, settings
from jepakit.types import Signal

DATACLASS = "from dataclasses import dataclass\n@dataclass(frozen=True)\n"
# One member of every kind, named folded: the modules of its folder, and what `__init__.py` imports from each.
FOLDERS: dict[str, list[tuple[str, str]]] = {
    "methods": [
        ("from jepakit.methods import ijepa\n" + DATACLASS + "class Config(ijepa.Config):\n    pass\n", "Config"),
        (
            "from jepakit.methods import ijepa\nfrom .part0 import Config\n"
            "class Folded(ijepa.IJEPA):\n    needs = frozenset({'label'})\n",
            "Folded",
        ),
    ],
    "recipes": [
        (
            "from jepakit.methods import ijepa\nfrom jepakit.data import synthetic\n"
            "from jepakit.run.settings import Run\ndef folded() -> Run:\n"
            "    return Run(ijepa.Config(), synthetic.Config())\n",
            "folded",
        )
    ],
    "encoders": [
        (
            DATACLASS + "class Folded:\n    patch: tuple[int, ...] = (4,)\n    def build(self, signal):\n        ...\n",
            "Folded",
        )
    ],
    "predictors": [(DATACLASS + "class Folded:\n    def build(self, dim, grid, out=None):\n        ...\n", "Folded")],
    "dynamics": [(DATACLASS + "class Folded:\n    def build(self, dim, action, grid):\n        ...\n", "Folded")],
    "readouts": [(DATACLASS + "class Folded:\n    def build(self, dim, out, grid):\n        ...\n", "Folded")],
    "environments": [(DATACLASS + "class Config:\n    def build(self):\n        ...\n", "Config")],
    "masks": [
        (
            DATACLASS
            + "class Folded:\n    def check(self, grid):\n        ...\n"
            + "    def __call__(self, grid, batch, rng):\n        ...\n",
            "Folded",
        )
    ],
    "data": [
        ("from jepakit.data.config import DataConfig\n" + DATACLASS + "class Config(DataConfig):\n    pass\n", "Config")
    ],
    "probes": [
        (DATACLASS + "class Config:\n    k: int = 1\n", "Config"),
        ("def evaluate(train, test, cfg):\n    yield 'value', 0.0\n", "evaluate"),
    ],
    "studies": [("from jepakit.studies.study import Study\nSTUDY = Study('t', 's', 'c', ())\n", "STUDY")],
    "sections": [
        (
            "from jepakit.reporting.section import Section\nSECTION = Section(1, 'Folded')\n"
            "def show(views):\n    ...\n",
            "SECTION, show",
        )
    ],
    "commands": [
        ("def add_arguments(parser):\n    ...\n", "add_arguments"),
        ("def run(arguments):\n    ...\n", "run"),
    ],
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python imports from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("folded_")]:
        del sys.modules[name]


def write_folder(folder: Path, parts: list[tuple[str, str]], statement: str) -> None:
    """A package whose `__init__.py` imports what its modules `part0`, `part1` … define, by lines like `statement`."""
    folder.mkdir()
    for i, (text, _) in enumerate(parts):
        (folder / f"part{i}.py").write_text(text)
    lines = [
        statement.format(inside=f"part{i}", package=folder.name, names=names) for i, (_, names) in enumerate(parts)
    ]
    (folder / "__init__.py").write_text("\n".join(['"""What the folder is."""', *lines]))


def offer(site: Path, noun: str, statement: str = "from .{inside} import {names}") -> Registry[Any]:
    """The registry of a kind of members, with a package installed that offers a folder as the member `folded`."""
    registry = find_registry(REGISTRY_PATHS[noun])
    write_folder(site / f"folded_{noun}", FOLDERS[noun], statement)
    info = site / "folded-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: folded\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.group}]\nfolded = folded_{noun}\n")
    return registry


@pytest.mark.parametrize(
    "statement",
    ["from .{inside} import {names}", "from {package}.{inside} import {names}", "from .{inside} import *"],
)
@pytest.mark.parametrize("noun", REGISTRY_PATHS)
def test_a_folder_that_imports_its_member_from_inside_is_found(noun: str, statement: str, site: Path) -> None:
    registry = offer(site, noun, statement)
    assert registry.unusable_members() == {}
    member = registry.load("folded")
    kind = getattr(member, "Config", member if isinstance(member, type) else type(member))
    if is_dataclass(kind) and noun not in ("studies", "probes"):
        assert registry.name_of(kind) == "folded"


@pytest.mark.parametrize("noun", REGISTRY_PATHS)
def test_a_folder_of_ours_is_found_like_a_file(noun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = find_registry(REGISTRY_PATHS[noun])
    monkeypatch.setattr(registry_module, "_package_folder", lambda package: tmp_path)
    write_folder(tmp_path / "folded", FOLDERS[noun], "from .{inside} import {names}")
    assert Registry("jepakit.drawn", noun, "a member", known._rule, known._member).names() == ("folded",)


def test_a_class_that_is_imported_under_another_name_is_found_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_package_folder", lambda package: tmp_path)
    write_folder(tmp_path / "stripes", FOLDERS["encoders"], "from .{inside} import {names} as Stripes")
    registry = Registry("jepakit.drawn", "shape", "a class", one_class(is_dataclass_with("build", "signal")), str)
    assert registry.places()["stripes"].attribute == "Stripes"


def test_a_file_does_not_offer_what_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_package_folder", lambda package: tmp_path)
    write_folder(tmp_path / "stripes", FOLDERS["encoders"], "from .{inside} import {names}")
    (tmp_path / "user.py").write_text("from .stripes import Folded\n")
    registry = Registry("jepakit.drawn", "shape", "a class", one_class(is_dataclass_with("build", "signal")), str)
    assert registry.names() == ("stripes",)


def test_a_method_in_two_modules_of_a_folder_is_built_from_its_settings(site: Path) -> None:
    offer(site, "methods")
    entry = methods.load("folded")
    assert entry.Config.__module__ != entry.Method.__module__
    cfg = entry.Config()
    assert methods.class_of(cfg) is entry.Method
    assert methods.name_of(cfg) == "folded"
    with pytest.raises(ValueError, match=r"^folded needs label, which the data lack"):
        methods.build(cfg, Signal(3, (32, 32)))


HELPERS = """
def small() -> Run: ...
def medium() -> "settings.Run": ...
def steps(): return 3
def names() -> list[str]: ...
def sized(width: int) -> Run: ...
def starred(*widths) -> Run: ...
def _hidden() -> Run: ...
"""


def test_only_functions_that_say_that_they_return_a_run_are_recipes() -> None:
    assert set(recipes.recipe_functions("file", ast.parse(HELPERS))) == {"small", "medium"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("steps", r"steps of jepakit\.recipes\.mine is not a recipe; annotate what it returns: -> Run"),
        ("sized", r"sized of jepakit\.recipes\.mine is not a recipe; give it no parameters"),
        ("smal", "No recipe or method 'smal'"),
    ],
)
def test_a_helper_that_is_asked_for_as_a_recipe_is_said_to_be_none(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes.RECIPES.names()  # kept by the registry, so that other tests do not find the helpers below
    monkeypatch.setattr(
        recipes.RECIPES, "own_trees", lambda: iter([("mine", "jepakit.recipes.mine", ast.parse(HELPERS))])
    )
    with pytest.raises(ValueError, match=sentence):
        settings(Request(name, out=tmp_path))
