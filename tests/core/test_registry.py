"""The registry finds what a file or another package offers, and imports nothing until it is asked for it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jepakit.core import registry as registry_module
from jepakit.core.registry import Registry, file_with, is_dataclass_with, one_class

GROUP = "jepakit.test_shapes"
SHAPE = '''"""A square: four equal sides."""

SIDES = 4
'''


def sides(module: Any) -> int:
    if not isinstance(module.SIDES, int):
        raise ValueError(f"SIDES is {module.SIDES!r}; give a whole number")
    return module.SIDES


def shapes() -> Registry[int]:
    return Registry("jepakit.core", "shape", "a constant SIDES", file_with("SIDES"), sides, GROUP)


def offer(folder: Path, package: str, **modules: str) -> None:
    """Install a package that offers each of these modules, by its name, as a shape."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    points = [f"{name} = {package}_{name}" for name in modules]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *points]))
    for name, text in modules.items():
        (folder / f"{package}_{name}.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python imports from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("geometry_", "euclid_", "broken_"))]:
        del sys.modules[name]


def test_what_a_package_offers_is_named_and_described_without_being_imported(site: Path) -> None:
    offer(site, "geometry", square=SHAPE)
    registry = shapes()
    assert registry.names() == ("square",)
    assert registry.describe("square") == "A square: four equal sides."
    assert "geometry_square" not in sys.modules
    assert registry.load("square") == 4


def test_a_name_that_two_packages_claim_is_refused_and_both_are_named(site: Path) -> None:
    offer(site, "geometry", square=SHAPE)
    offer(site, "euclid", square=SHAPE)
    with pytest.raises(ValueError, match=r"two members .* 'square': \w+_square and \w+_square; uninstall one"):
        shapes().names()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_thing\nSIDES = 3", "ImportError|ModuleNotFoundError: No module named 'no_such_thing'"),
        ("CORNERS = 3", "does not define a constant SIDES"),
        ("SIDES = 'three'", "SIDES is 'three'; give a whole number"),
        ("SIDES = undefined", "name 'undefined' is not defined"),
        ("SIDES = 1 / 0", "ZeroDivisionError: division by zero"),
        ("SIDES = 4; assert False, 'no sides'", "AssertionError: no sides"),
        ("SIDES = (", "SyntaxError"),
    ],
)
def test_a_broken_member_is_named_with_its_package_and_the_rest_works(site: Path, text: str, reason: str) -> None:
    offer(site, "geometry", square=SHAPE)
    offer(site, "broken", triangle=text)
    registry = shapes()
    assert registry.names() == ("square", "triangle")
    assert registry.load("square") == 4
    with pytest.raises(
        ValueError, match=f"shape 'triangle' of the package broken cannot be used: .*({reason}).* uninstall"
    ):
        registry.load("triangle")
    assert set(registry.unusable_members()) == {"triangle"}


def test_a_module_that_is_not_there_is_a_broken_member(site: Path) -> None:
    offer(site, "broken", circle=SHAPE)
    (site / "broken_circle.py").unlink()
    registry = shapes()
    assert registry.describe("circle") == ""
    assert "there is no module broken_circle" in registry.unusable_members()["circle"]


def test_an_unknown_name_is_answered_with_the_nearest_one(site: Path) -> None:
    offer(site, "geometry", square=SHAPE)
    with pytest.raises(ValueError, match=r"No shape 'sqare'\. Did you mean 'square'\? Available: square"):
        shapes().load("sqare")


def test_a_file_of_ours_that_is_no_member_is_said_to_be_none() -> None:
    with pytest.raises(ValueError, match=r"padding\.py of jepakit\.core is no shape: it does not define a constant"):
        shapes().load("padding")


def test_one_class_is_found_by_what_it_can_do() -> None:
    import ast

    text = "@dataclass(frozen=True)\nclass A:\n  def build(self, signal): ...\nclass B:\n  def build(self, signal): ..."
    rule = one_class(is_dataclass_with("build", "signal"), "TABLE")
    assert rule("stem", ast.parse(text)) == {"stem": "A"}
    assert rule("stem", ast.parse(text.replace("signal", "dim"))) == {}
    assert rule("stem", ast.parse(text + "\nTABLE = {'a': A(), 'b': A()}")) == {"a": "TABLE.a", "b": "TABLE.b"}


def test_the_registries_are_read_without_importing_torch() -> None:
    code = "import sys; from jepakit.core import registry; assert not {'torch', 'numpy', 'yaml'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_half_written_file_of_ours_is_named_and_the_rest_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_package_folder", lambda package: tmp_path)
    (tmp_path / "square.py").write_text(SHAPE)
    (tmp_path / "circle.py").write_text('"""A circle')
    registry = Registry("jepakit.drawn", "shape", "a constant SIDES", file_with("SIDES"), sides, GROUP)
    assert registry.names() == ("square",)
    with pytest.raises(ValueError, match=r"circle\.py of jepakit\.drawn is no shape: Python cannot parse it"):
        registry.check_name("circle")


def test_a_member_of_ours_that_cannot_be_imported_is_named_with_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_package_folder", lambda package: tmp_path)
    (tmp_path / "square.py").write_text("import a_library_that_is_not_there\n" + SHAPE)
    registry = Registry("jepakit.drawn", "shape", "a constant SIDES", file_with("SIDES"), sides, GROUP)
    reason = "the shape 'square' of jepakit.drawn.square cannot be used: ModuleNotFoundError"
    assert registry.unusable_members() == {}
    assert registry.unusable_members(own=True)["square"].startswith(reason)


def test_every_size_of_an_encoder_and_every_recipe_has_a_description_of_its_own() -> None:
    from jepakit.nn import ENCODERS
    from jepakit.recipes import RECIPES

    for registry in (ENCODERS, RECIPES):
        found = [registry.describe(name) for name in registry.names()]
        assert all(found)
        assert len(set(found)) == len(found)
        assert not [text for text in found if text.startswith("`jepa")]
