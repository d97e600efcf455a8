"""The rules of the house that a reader relies on: who imports whom, what is public, what loads quickly."""

import ast
import importlib
import importlib.metadata
import inspect
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import jepakit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import parts  # noqa: E402

PACKAGE = ROOT / "jepakit"
MODULES = sorted(PACKAGE.rglob("*.py"))

LEVEL = {name: level for level, layer in enumerate(parts.LAYERS) for name in layer}
NEVER = {("planning", "methods")}


def unit(path: Path) -> str:
    """The top-level module or sub-package a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(path: Path) -> set[str]:
    """What a file imports anywhere, also inside functions, as full dotted names."""
    package = ["jepakit", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            targets = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= set(targets)
    return found


def imported_units(path: Path) -> set[str]:
    """The units of the package that a file imports."""
    units = {name.split(".")[1] for name in imported_names(path) if name.startswith("jepakit.")}
    return {name for name in units if not name.startswith("__")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    me = unit(path)
    if me == "__init__":
        return
    assert me in LEVEL, f"jepakit/{me} has no place in the import order; give it one in docs/parts.py"
    for other in imported_units(path) - {me}:
        assert (me, other) not in NEVER, f"{me} never imports {other}"
        assert LEVEL.get(other, len(parts.LAYERS)) < LEVEL[me], f"{me} imports {other}, which does not lie below it"


def test_the_import_test_sees_lazy_and_relative_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "nn").mkdir()
    file = tmp_path / "nn" / "x.py"
    file.write_text("from .. import losses\ndef f():\n    from ..data.base import Dataset\n    import jepakit.cli\n")
    assert imported_units(file) == {"losses", "data", "cli"}


ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def doors(room: str) -> set[str]:
    """The public names of a room: what its `__init__` lists in `__all__`."""
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    return set(ast.literal_eval(lists[0])) if lists else set()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_whatever_another_room_imports_goes_through_a_public_door(path: Path) -> None:
    wanted = [
        name.split(".")[1:3] for name in imported_names(path) if name.startswith("jepakit.") and name.count(".") > 1
    ]
    closed = {
        f"{room}.{door}" for room, door in wanted if room in ROOMS and room != unit(path) and door not in doors(room)
    }
    assert not closed, f"not in the __all__ of their rooms: {', '.join(sorted(closed))}"


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_is_there(room: str) -> None:
    package = importlib.import_module(f"jepakit.{room}")
    for name in package.__all__:
        folder = PACKAGE / room
        if (folder / f"{name}.py").is_file() or (folder / name).is_dir():
            importlib.import_module(f"jepakit.{room}.{name}")
        else:
            assert hasattr(package, name), f"jepakit.{room} lists {name} and has none"


def asked_kinds(path: Path) -> list[str]:
    """The classes of data that a file tells apart by isinstance, or by the type of what it has."""
    tree = ast.parse(path.read_text())
    ours: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and "data" in (node.module or "").split(".")[:2]:
            ours |= {alias.asname or alias.name for alias in node.names}
    found = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            named = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            found += sorted(named & ours - {"Unreadable"})
    return found


def test_nobody_outside_data_asks_of_which_kind_a_data_set_is() -> None:
    # The data contract asks whether answers are of the kind that it expects.
    files = [path for path in MODULES if unit(path) != "data" and path != PACKAGE / "testing" / "data.py"]
    asking = {str(path.relative_to(PACKAGE)): kinds for path in files if (kinds := asked_kinds(path))}
    assert not asking, f"{asking}: let the data set or its settings answer, by a method of their base"


def test_the_search_for_kinds_sees_one_that_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("from ..data.series import Series, Config as C\nisinstance(a, int | C), isinstance(b, Series)\n")
    assert asked_kinds(file) == ["C", "Series"]


def third_party(folder: Path) -> set[str]:
    """The packages outside the standard library and the repository that the files of a folder import."""
    files = sorted(folder.rglob("*.py"))
    own = {"jepakit", "parts", *(name for path in files for name in (path.stem, path.parent.name))}
    found: set[str] = set()
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - own - sys.stdlib_module_names


def declared(*extras: str) -> set[str]:
    """The packages that pyproject.toml asks for: the core's, and those of `extras`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for name in extras for line in project["optional-dependencies"][name])]
    return {re.split(r"[^\w.-]", line)[0].lower() for line in lines}


@pytest.mark.parametrize(("folder", "extras"), [("jepakit", ["control"]), ("tests", ["dev"]), ("benchmarks", ["dev"])])
def test_whatever_is_imported_is_declared(folder: str, extras: list[str]) -> None:
    providers = importlib.metadata.packages_distributions()
    imported = third_party(ROOT / folder) - {"a_library_that_is_not_there"}  # of the broken plugin
    assert {"torch", "numpy"} <= imported
    missing = {name for name in imported if declared(*extras).isdisjoint(map(str.lower, providers.get(name, [name])))}
    assert not missing, f"{folder} imports what pyproject.toml does not declare: {', '.join(sorted(missing))}"


def test_the_public_names_are_exactly_these() -> None:
    names = {
        "train",
        "rfp",
        "load",
        "plan",
        "embed",
        "collect",
        "forecast",
        "complete",
        "probe",
        "report",
        "compare",
        "reproduce",
        "score",
        "check_data",
        "testing",
    }
    types = {"Batch", "Masks", "Method", "Model", "Rng", "Signal", "Terms"}
    assert set(jepakit.__all__) == names | types
    assert all(getattr(jepakit, name) is not None for name in jepakit.__all__)
    assert set(jepakit.__all__) <= set(dir(jepakit))


def test_no_module_takes_the_name_of_a_public_function() -> None:
    # Importing jepakit.train would put that module where the function jepakit.train is.
    functions = {name for name in jepakit.__all__ if inspect.isfunction(getattr(jepakit, name))}
    assert {"train", "embed", "report"} <= functions
    assert not functions & {unit(path) for path in MODULES}


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="trian"):
        jepakit.trian  # noqa: B018


HELP = "import sys; sys.argv = ['jepa', '--help']; from jepakit.cli import main; main()"


@pytest.mark.parametrize("code", ["import jepakit", HELP], ids=["import jepakit", "jepa --help"])
def test_it_starts_without_torch_in_less_than_a_tenth_of_a_second(code: str) -> None:
    run = f"import atexit, sys; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr)); {code}"
    cost = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: the wall clock would measure what else the machine is doing.
        cost.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert not {"torch", "numpy", "yaml", "sklearn", "matplotlib"} & set(done.stderr.split())
    assert min(cost) < 0.1


def test_the_map_of_the_package_is_current() -> None:
    assert parts.PAGE.read_text() == parts.page(), "docs/parts.md is stale; run python docs/parts.py"


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    machine = re.compile("|".join(["/wor" + r"k/\w", "/roo" + r"t/\w", "/hom" + r"e/\w", "/User" + r"s/\w"]))
    kinds = {".py", ".md", ".toml", ".yaml", ".j2", ".json", ".sh", ""}
    folders = [PACKAGE, *(ROOT / name for name in ("tests", "docs", "benchmarks", ".ci"))]
    files = [p for f in folders for p in f.rglob("*") if p.is_file()] + [p for p in ROOT.iterdir() if p.is_file()]
    texts = {p: p.read_text() for p in files if p.suffix in kinds and "__pycache__" not in p.parts}
    assert len(texts) > len(MODULES)
    assert not [str(p.relative_to(ROOT)) for p, text in texts.items() if machine.search(text)]


def test_nothing_in_the_library_prints_and_only_the_command_line_talks() -> None:
    talking = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        if unit(path) != "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not talking
