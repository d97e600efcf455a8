"""The registry: members found by file name, or by the entry points of other packages, and imported when asked for.

A member is one file, or a folder whose `__init__.py` defines it or imports it from a module inside: nothing else lists
it. What a file offers is read from its syntax tree, so that names and descriptions cost no import; `load` imports the
one module that it is asked for. A package of somebody else's offers a
member by an entry point whose group is the registry's, as in

    [project.entry-points."jepakit.masks"]
    tubes = "my_package.tubes"              # or "my_package.tubes:Tubes"

A member of an outside package that cannot be used is an error of that name alone, and the sentence names the package.
"""

import ast
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")

# From a file's name, without .py, and its syntax tree: name → where the member is, as `Place.attribute` says it.
Rule = Callable[[str, ast.Module], Mapping[str, str]]


class Place(NamedTuple):
    """Where a member is.

    `attribute` is dotted, "" for the module itself; the keys of a mapping count as attributes. `owner` is the outside
    package that offers the member, "" for ours.
    """

    module: str
    attribute: str = ""
    owner: str = ""

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}" if self.attribute else self.module


class Registry(Generic[T]):
    """The members of one kind, in a package and in the packages of others. Sorted by name; nothing here changes.

    `noun` is what a member is called, `what` what its file has to define; `rule` reads names from a file's syntax tree
    and `member` makes a member of what is found at a place, or raises ValueError. `files` are the patterns, relative
    to the package's folder, of the files that may hold one.
    """

    def __init__(
        self,
        package: str,
        noun: str,
        what: str,
        rule: Rule,
        member: Callable[[Any], T],
        group: str = "",
        files: Iterable[str] = ("*.py", "*/__init__.py"),
    ) -> None:
        self.package, self.noun, self.what = package, noun, what
        self._rule, self._member = rule, member
        self.group, self._files = group or package, tuple(files)

    def names(self) -> tuple[str, ...]:
        """Every name, sorted. Imports nothing. Raises ValueError if two modules claim one name."""
        return tuple(self.places())

    def load(self, name: str) -> T:
        """The member called `name`.

        Raises ValueError, suggesting the nearest name, if there is none, or naming the package if another package's
        member is unusable.
        """
        place = self._place_of(name)
        try:
            return self._member(_load_place(self._resolve_attribute(name, place)))
        except Exception as error:  # the import of a broken module raises anything
            reason = str(error) if isinstance(error, ValueError | NameError) else f"{type(error).__name__}: {error}"
            if not place.owner:
                raise ValueError(f"the {self.noun} {name!r} of {place.module} cannot be used: {reason}") from error
            raise ValueError(
                f"the {self.noun} {name!r} of the package {place.owner} cannot be used: {reason}; "
                f"update {place.owner} or uninstall it"
            ) from error

    def describe(self, name: str) -> str:
        """What a member is, in one line: its entry in the module's DESCRIPTIONS, or the first line of its docstring.

        "" where it has neither. Imports nothing.
        """
        place = self._place_of(name)
        tree = _syntax_tree(place.module)
        if tree is None:
            return ""
        attribute, _, key = (place.attribute or self._rule(name, tree).get(name, "")).partition(".")
        if key and (described := _literal_entry(top_level_names(tree).get("DESCRIPTIONS"), key)):
            return described
        node = top_level_names(tree).get(attribute)
        documented = node if isinstance(node, ast.ClassDef | ast.FunctionDef) else tree
        return (ast.get_docstring(documented, clean=False) or "").strip().partition("\n")[0]

    def name_of(self, kind: type) -> str:
        """The first name whose member is, has as a part, or is an instance of, the class `kind`."""
        places = self.places()
        own = [name for name, place in places.items() if place.module == kind.__module__]
        if len(own) == 1:
            return own[0]
        # Defined beside others, or elsewhere, mostly below the module that has the name: such names are asked first.
        for name in sorted(places, key=lambda name: not f"{kind.__module__}.".startswith(f"{places[name].module}.")):
            try:
                member = self.load(name)
            except ValueError:
                continue
            if kind in (member, type(member), *(member if isinstance(member, tuple) else ())):
                return name
        raise ValueError(f"{kind.__module__}.{kind.__qualname__} is no {self.noun} that jepakit knows")

    def places(self) -> dict[str, Place]:
        """Every name and where its member is, sorted by name. Imports nothing."""
        return dict(_member_places(self, tuple(sys.path)))

    def unusable_members(self, own: bool = False) -> dict[str, str]:
        """Name → why, of the members of outside packages that cannot be used; with `own` of ours as well.

        Imports every member that it asks.
        """
        found: dict[str, str] = {}
        for name in (name for name, place in self.places().items() if own or place.owner):
            try:
                self.load(name)
            except ValueError as error:
                found[name] = str(error)
        return found

    def check_name(self, name: str) -> None:
        """Raise ValueError if no member has this name: it suggests the nearest name, or says what the file lacks."""
        self._place_of(name)

    def _place_of(self, name: str) -> Place:
        places = self.places()
        if name in places:
            return places[name]
        own = next((path for stem, path in self._own_files() if stem == name.replace("-", "_")), None)
        tree = _parse_file(own, self._module_of(own)) if own is not None else None
        if own is not None and (tree is None or not self._rule(name, tree)):
            file = own.relative_to(_package_folder(self.package)).as_posix()
            why = "Python cannot parse it" if tree is None else f"it does not define {self.what}"
            raise ValueError(f"{file} of {self.package} is no {self.noun}: {why}")
        raise ValueError(no_such(self.noun, name, places))

    def _resolve_attribute(self, name: str, place: Place) -> Place:
        """The place with its attribute, which an entry point may leave to the rule."""
        if not place.owner or place.attribute:
            return place
        tree = _syntax_tree(place.module)
        if tree is None:
            raise ValueError(f"there is no module {place.module}")
        offers = self._rule(name, tree)
        if name not in offers:
            raise ValueError(f"{place.module} does not define {self.what}")
        return _rule_place(place.module, offers[name], place.owner)

    def _own_files(self) -> Iterator[tuple[str, Path]]:
        """The name and the path of every file that may hold a member."""
        folder = _package_folder(self.package)
        for path in sorted({path for pattern in self._files for path in folder.glob(pattern)}):
            if path.parent != folder or not path.name.startswith("_"):
                yield path.parent.name if path.name == "__init__.py" else path.stem, path

    def own_trees(self) -> Iterator[tuple[str, str, ast.Module]]:
        """File name, module and syntax tree of every file of ours that may hold a member and that Python can parse."""
        for stem, path in self._own_files():
            module = self._module_of(path)
            tree = _parse_file(path, module)
            if tree is not None:
                yield stem, module, tree

    def _module_of(self, path: Path) -> str:
        parts = path.relative_to(_package_folder(self.package)).with_suffix("").parts
        return ".".join((self.package, *parts)).removesuffix(".__init__")

    def _own_places(self) -> Iterator[tuple[str, Place]]:
        for stem, module, tree in self.own_trees():
            for name, attribute in self._rule(stem, tree).items():
                yield name, _rule_place(module, attribute)


def _literal_entry(node: ast.stmt | None, key: str) -> str:
    """The text under `key` of a mapping that is written out; "" where there is none."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict):
        return ""
    entries = ast.literal_eval(node.value)
    return str(entries.get(key, ""))


def _parse_file(path: Path, module: str) -> ast.Module | None:
    """The syntax tree of a file; None where it is no Python, such as a file that is still being written."""
    try:
        return _read_tree(path, module)
    except SyntaxError:
        return None


def _read_tree(path: Path, module: str) -> ast.Module:
    """The syntax tree of a file; in that of a folder's `__init__.py`, imports from inside become definitions."""
    tree = ast.parse(path.read_text(), filename=str(path))
    if path.name == "__init__.py":
        tree.body = [part for node in tree.body for part in _written_out(node, path.parent, module)]
    return tree


def _written_out(node: ast.stmt, folder: Path, module: str) -> list[ast.stmt]:
    """A statement of the folder's `__init__.py`, and the definitions that it imports from modules in the folder."""
    if not isinstance(node, ast.ImportFrom):
        return [node]
    inside = (node.module or "") if node.level == 1 else (node.module or "").removeprefix(f"{module}.")
    if node.level > 1 or not inside or (node.level == 0 and inside == node.module):
        return [node]
    target = folder.joinpath(*inside.split("."))
    path = next((p for p in (target.with_suffix(".py"), target / "__init__.py") if p.is_file()), None)
    tree = _parse_file(path, f"{module}.{inside}") if path is not None else None
    if tree is None:
        return [node]
    known = {name: found for name, found in top_level_names(tree).items() if not isinstance(found, ast.ImportFrom)}
    wanted = {alias.name: alias.asname or alias.name for alias in node.names}
    if "*" in wanted:
        wanted = {name: name for name in known if not name.startswith("_")}
    found = [_renamed(known[name], asname) for name, asname in wanted.items() if name in known]
    return [node, *found]


def _renamed(node: ast.stmt, name: str) -> ast.stmt:
    """A definition under another name."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return type(node)(**{**vars(node), "name": name})
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return ast.Assign([ast.Name(name, ast.Store())], value) if value is not None else node


@lru_cache
def _member_places(registry: Registry[Any], path: tuple[str, ...]) -> tuple[tuple[str, Place], ...]:
    """Name and place of every member, sorted; files and installed packages are looked at once for a `sys.path`."""
    found: dict[str, Place] = {}
    for name, place in (*registry._own_places(), *_entry_points(registry.group)):
        if (other := found.setdefault(name, place))[:2] != place[:2]:
            raise ValueError(
                f"two members of {registry.package} are called {name!r}: {other} and {place}; "
                f"{'uninstall' if place.owner else 'rename'} one"
            )
    return tuple(sorted(found.items()))


def _entry_points(group: str) -> Iterator[tuple[str, Place]]:
    """The members that other packages offer by entry points of `group`."""
    if not _may_offer(group):
        return
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group=group), key=lambda p: p.name):
        owner = point.dist.name if point.dist is not None else point.module.partition(".")[0]
        yield point.name, Place(point.module, point.attr or "", owner)


def _may_offer(group: str) -> bool:
    """Whether an installed package may have entry points of `group`; without one, importlib.metadata costs 40 ms."""
    for folder in map(Path, sys.path):
        if folder.is_file():  # an archive
            return True
        for pattern in ("*.dist-info/entry_points.txt", "*.egg-info/entry_points.txt"):
            if any(f"[{group}]" in path.read_text("utf-8", "replace") for path in folder.glob(pattern)):
                return True
    return False


def _rule_place(module: str, attribute: str, owner: str = "") -> Place:
    """A place from what a rule says: `Attribute` of the module itself, or `.submodule:Attribute` of one below it."""
    if attribute.startswith("."):
        submodule, _, attribute = attribute.partition(":")
        module += submodule
    return Place(module, attribute, owner)


def _load_place(place: Place) -> Any:
    """What is found at a place; imports its module."""
    value: Any = importlib.import_module(place.module)
    for part in place.attribute.split(".") if place.attribute else ():
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    return value


def _syntax_tree(module: str) -> ast.Module | None:
    """The syntax tree of a module that is not imported for it; None where it has no source."""
    path: list[str] | None = None
    origin = None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        specs = (finder.find_spec(".".join(parts[:end]), path) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None:
            return None
        origin, path = spec.origin, list(spec.submodule_search_locations or ())
    return _read_tree(Path(origin), module) if origin and origin.endswith(".py") else None


def _package_folder(package: str) -> Path:
    """The folder of one of our own packages, which is not imported for it."""
    return Path(__file__).parents[1].joinpath(*package.split(".")[1:])


def file_with(*names: str, dashes: bool = False) -> Rule:
    """The rule of a file that is a member as a whole: it defines all these `names`, and is named as the file is."""

    def rule(stem: str, tree: ast.Module) -> dict[str, str]:
        return {stem.replace("_", "-") if dashes else stem: ""} if set(names) <= set(top_level_names(tree)) else {}

    return rule


def one_class(fits: Callable[[ast.ClassDef], bool], listed: str = "") -> Rule:
    """The rule of a file whose one class that `fits` is the member, named as the file is.

    A file that has other names, or several, says so in a mapping `listed` from names to members, written out.
    """

    def rule(stem: str, tree: ast.Module) -> dict[str, str]:
        assigned = top_level_names(tree).get(listed)
        if isinstance(assigned, ast.Assign | ast.AnnAssign) and isinstance(assigned.value, ast.Dict):
            keys = [key.value for key in assigned.value.keys if isinstance(key, ast.Constant)]
            return {key: f"{listed}.{key}" for key in keys if isinstance(key, str)}
        found = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and fits(node)]
        return {stem: found[0]} if len(found) == 1 else {}

    return rule


def is_dataclass_with(method: str, *parameters: str) -> Callable[[ast.ClassDef], bool]:
    """Whether a class is a dataclass with a `method` whose first parameters, after self, have these names."""

    def fits(node: ast.ClassDef) -> bool:
        if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
            return False
        functions = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == method]
        named = [tuple(arg.arg for arg in f.args.args[1 : 1 + len(parameters)]) for f in functions]
        return parameters in named

    return fits


def default_settings(value: Any) -> Any:
    """Settings at their defaults, from a frozen dataclass or from one of its objects. Raises ValueError otherwise."""
    from dataclasses import is_dataclass

    kind = value if isinstance(value, type) else type(value)
    if not is_dataclass(kind) or kind.__hash__ is None:  # only frozen ones are hashable
        raise ValueError(f"{kind.__module__}.{kind.__qualname__} is no frozen dataclass; settings are one")
    return value() if isinstance(value, type) else value


def settings_like(module: str, protocol: str, lack: str) -> Callable[[Any], Any]:
    """A registry's `member`: settings at their defaults that satisfy a protocol, which `module` defines.

    ValueError says what other settings `lack`. The module is imported when a member is loaded, not before.
    """

    def check(value: Any) -> Any:
        settings = default_settings(value)
        if not isinstance(settings, getattr(importlib.import_module(module), protocol)):
            raise ValueError(f"{type(settings).__name__} {lack}")
        return settings

    return check


def top_level_names(tree: ast.Module) -> dict[str, ast.stmt]:
    """The names that a module binds at its top level, as classes, functions, constants or imports from elsewhere."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: node for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node
    return found


def no_such(noun: str, name: str, names: Iterable[str]) -> str:
    """What is missing, the nearest name, and all there are."""
    names = list(names)
    return f"No {noun} {name!r}.{did_you_mean(name, names, quote=True)} Available: {', '.join(names)}"


def did_you_mean(name: str, names: Iterable[str], prefix: str = "", quote: bool = False) -> str:
    """A question to end a sentence with, naming the nearest of `names` after `prefix`; nothing where none is near."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(names), n=1)
    if not near:
        return ""
    found = f"{prefix}{near[0]}"
    return f" Did you mean {found!r}?" if quote else f" Did you mean {found}?"
