"""Applies YAML files and dotted flags to a Run.

Changes are applied to an existing Run: the recipe, then the YAML file, then the flags. For a *family* (method, data,
encoder, masks), the entry `name` is read first and looked up in jepakit's registries. The other entries are then
checked against that member's dataclass, and jsonargparse checks each value against the field's type. So nothing in a
file is ever imported or called, and every mistake gives one sentence that names the key.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_type_hints

import yaml

from .. import methods
from ..core.registry import did_you_mean
from ..data import check_kind, read_like, training_settings
from ..types import Signal
from .families import Family, family_of
from .settings import HeadStage, Run, read_entries


class RenamedSetting(NamedTuple):
    """The new path of a setting, in the same section, and the conversion of a value written for the old path."""

    path: str
    value: Callable[[Any], Any] = lambda value: value


def as_list(value: Any) -> list[Any]:
    """A list with this one value; an empty list for an empty text."""
    return [value] if value else []


# Renamed settings, keyed by their paths in earlier versions.
RENAMED: Final[Mapping[str, RenamedSetting]] = {
    "loop.dear_every": RenamedSetting("loop.views_every"),
    "method.parent": RenamedSetting("method.parents", as_list),
    "method.parent_hash": RenamedSetting("method.parent_hashes", as_list),
}


def current_names(section: Mapping[Any, Any], known: Collection[str], path: str) -> dict[str, Any]:
    """The entries of a section under the current names of the settings.

    An entry is renamed only if no `known` setting has that name. Raises ValueError if both names are given.
    """
    found: dict[str, Any] = {}
    for key, value in section.items():
        name, old = str(key), f"{path}.{key}".lstrip(".")
        if name not in known and old in RENAMED:
            new = RENAMED[old]
            name, value = new.path.rpartition(".")[2], new.value(value)
            if name in section:
                raise ValueError(f"{old} is now called {new.path}, and both are given; remove {old}")
        found[name] = value
    return found


def current_path(path: str) -> str:
    """The current path of a setting."""
    return RENAMED[path].path if path in RENAMED else path


def renaming_notes(changes: Mapping[str, Any]) -> list[str]:
    """One sentence for each setting in nested `changes` that has been renamed."""
    return [f"{old} is now called {new.path}" for old, new in RENAMED.items() if _has_path(changes, old)]


def _has_path(changes: Any, path: str) -> bool:
    first, _, rest = path.partition(".")
    return isinstance(changes, Mapping) and first in changes and (not rest or _has_path(changes[first], rest))


def apply_changes(value: Any, changes: Any, path: str = "") -> Any:
    """`value`, a frozen dataclass, with the nested `changes` applied. Raises ValueError naming the first bad key."""
    if not isinstance(changes, Mapping):
        raise ValueError(f"{path or 'the config'} is a section with keys {_setting_keys(value)}; {changes!r} is not")
    hints = get_type_hints(type(value))
    new = {}
    for key, change in current_names(changes, hints, path).items():
        if key not in hints:
            raise ValueError(_unknown_key(value, key, path))
        new[key] = _apply_change(getattr(value, key), change, hints[key], f"{path}.{key}".lstrip("."))
    try:
        return dataclasses.replace(value, **new)
    except ValueError as error:
        raise ValueError(f"{path or 'config'}: {error}") from error


def _apply_change(current: Any, change: Any, hint: Any, path: str) -> Any:
    if group := family_of(hint):
        return _change_member(group, current, change, path)
    if (args := get_args(hint)) and (group := family_of(args[0])):
        return _change_members(group, current, _written_out(change), path)
    if args and args[0] is HeadStage:
        return _change_heads(current, _written_out(change), path)
    if args and dataclasses.is_dataclass(args[0]):
        return _change_sections(args[0], current, _written_out(change), path)
    if dataclasses.is_dataclass(current):
        return apply_changes(current, change, path)
    return _leaf_value(hint, change, path)


def _change_member(group: Family, current: Any, change: Any, path: str) -> Any:
    """One member of a family: `name` first, then its own settings."""
    change = _written_out(change)
    if isinstance(change, str):
        change = {"name": change}
    if not isinstance(change, Mapping):
        raise ValueError(f"{path} is a section; start it with name: one of {', '.join(group.names)}")
    rest = {key: v for key, v in change.items() if key != "name"}
    if "name" in change:
        name = str(change["name"])
        try:
            group.registry.check_name(name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        # Repeating the current name keeps the settings, so that a file may repeat it.
        if current is None or name != group.name_of(current):
            current = _is_renamed(current, group.default_settings(name))
    if current is None:
        raise ValueError(f"{path} has no name; give {path}.name: one of {', '.join(group.names)}")
    return apply_changes(current, rest, path)


def _is_renamed(old: Any, new: Any) -> Any:
    """`new` with its own defaults; a data set keeps the path it was given."""
    path = getattr(old, "path", "")
    return dataclasses.replace(new, path=path) if path and hasattr(new, "path") else new


def _change_members(group: Family, current: tuple[Any, ...], change: Any, path: str) -> tuple[Any, ...]:
    """Several members: a list replaces them all; a section changes the only one, or under keys 0, 1 … one of them."""
    if isinstance(change, Sequence) and not isinstance(change, str):
        old = (*current, *[None] * len(change))
        return tuple(_change_member(group, old[i], c, f"{path}.{i}") for i, c in enumerate(change))
    if isinstance(change, Mapping) and change and all(str(key).isdigit() for key in change):
        out = list(current)
        for key, c in change.items():
            if int(key) >= len(out):
                raise ValueError(f"{path}.{key}: {path} has {len(out)}, counted from 0")
            out[int(key)] = _change_member(group, out[int(key)], c, f"{path}.{key}")
        return tuple(out)
    if len(current) != 1:
        raise ValueError(f"{path} has {len(current)} entries; say which, as in {path}.0.KEY")
    return (_change_member(group, current[0], change, path),)


def _change_sections(kind: Any, current: tuple[Any, ...], change: Any, path: str) -> tuple[Any, ...]:
    """Several sections of one kind: a list replaces them all."""
    if not isinstance(change, Sequence) or isinstance(change, str):
        raise ValueError(f"{path} takes a list of sections with keys {_setting_keys(kind)}, not {change!r}")
    return tuple(apply_changes(kind(), entry, f"{path}.{i}") for i, entry in enumerate(change))


def _change_heads(current: tuple[HeadStage, ...], change: Any, path: str) -> tuple[HeadStage, ...]:
    """Heads: names replace them all, and none leaves none; a section under a name changes that head, or adds it."""
    known = {stage.name: stage for stage in current}
    if isinstance(change, Mapping):
        stages = known | {
            str(name): _change_head(known.get(str(name)), str(name), c, f"{path}.{name}")
            for name, c in change.items()
            if c != "none"
        }
        return tuple(stage for name, stage in stages.items() if change.get(name) != "none")
    names = [name.strip() for name in change.split(",")] if isinstance(change, str) else change or []
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} takes names of heads, or sections under their names, not {change!r}")
    wanted = [] if names == ["none"] else names
    return tuple(known.get(name) or _change_head(None, name, {}, f"{path}.{name}") for name in wanted)


def _change_head(current: HeadStage | None, name: str, change: Any, path: str) -> HeadStage:
    """One head, from the defaults of the method `name` if there is none yet."""
    try:
        methods.METHODS.check_name(name)
        start = current or HeadStage(methods.load(name).Config())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    change = change or {}
    if isinstance(change, Mapping) and isinstance(data := change.get("data"), Mapping):
        # One entry per key, so that giving the stored value again changes nothing.
        entries = read_entries(start.data) | {str(key): value for key, value in data.items()}
        change = {**change, "data": [f"{key}={value}" for key, value in entries.items()]}
    stage: HeadStage = apply_changes(start, change, path)
    if stage.name != name:
        raise ValueError(f"{path}.method.name is {stage.name}; write heads.{stage.name}, or leave the name out")
    return stage


def _written_out(change: Any) -> Any:
    """The value of a flag's text if it is a YAML list or mapping; anything else unchanged."""
    if isinstance(change, str) and change.lstrip().startswith(("[", "{")):
        try:
            return yaml.safe_load(change)
        except yaml.YAMLError:
            return change
    return change


def _leaf_value(hint: Any, value: Any, path: str) -> Any:
    """A value of the field's type, from YAML or from a flag's text."""
    import jsonargparse

    if value == "auto" and type(None) in get_args(hint):
        return None
    if isinstance(value, Mapping):  # jsonargparse would look for a class to import
        raise ValueError(f"{path} takes {_type_name(hint)}, not a section with {', '.join(map(str, value))}")
    if get_args(hint)[1:] == (Ellipsis,) and not isinstance(value, list | tuple) and str(value).strip()[:1] not in "[":
        value = [value]
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        return parser.parse_object({"value": value}).value
    except jsonargparse.ArgumentError as error:
        raise ValueError(f"{path} takes {_type_name(hint)}, not {value!r}{_list_example(hint, value, path)}") from error


def _list_example(hint: Any, value: Any, path: str) -> str:
    """An example for a setting that takes a list of given length, filled with `value` if it is a number; else ""."""
    sizes = [get_args(h) for h in (hint, *get_args(hint)) if getattr(h, "__origin__", None) is tuple]
    lists = [size for size in sizes if Ellipsis not in size]
    if not lists:
        return ""
    each = str(value) if re.fullmatch(r"[\d.]+", str(value)) else "1"
    return f"; write for example --{path} '[{', '.join([each] * len(lists[0]))}]'"


def _type_name(hint: Any) -> str:
    if type(None) in get_args(hint):
        return " or ".join([_type_name(a) for a in get_args(hint) if a is not type(None)] + ["auto"])
    if getattr(hint, "__origin__", None) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if getattr(hint, "__origin__", None) is tuple:
        return "a list [" + ", ".join("…" if a is Ellipsis else _type_name(a) for a in get_args(hint)) + "]"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))


def _unknown_key(value: Any, key: str, path: str) -> str:
    """The error sentence for an unknown key of a section."""
    where = f"{path}.{key}".lstrip(".")
    if key in ("class_path", "init_args"):
        return f"{where} is refused: a config selects members of jepakit's registries and never runs code; use name"
    known = [f.name for f in dataclasses.fields(value)]
    near = did_you_mean(key, known, prefix=f"{path}.".lstrip("."))
    if not near and (owners := _methods_with(key) if path == "method" else []):
        return f"{where} is a setting of {', '.join(owners)}, not of {methods.name_of(value)}"
    return f"No setting {where}.{near} Available: {', '.join(known)}"


def _methods_with(key: str) -> list[str]:
    """The methods that have a setting of this name."""
    usable = [name for name in methods.METHODS.names() if name not in methods.METHODS.unusable_members()]
    return [name for name in usable if key in {f.name for f in dataclasses.fields(methods.load(name).Config)}]


def _setting_keys(value: Any) -> str:
    return ", ".join(f.name for f in dataclasses.fields(value))


def flags_to_changes(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted flags {"optim.lr": "1e-3"} as nested changes. Raises ValueError if one is both a value and a section."""
    out: dict[str, Any] = {}
    for flag, value in flags.items():
        *sections, key = flag.split(".")
        node = out
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or isinstance(node.get(key), dict):
            raise ValueError(f"--{flag} is given both a value and settings below it; give one of them")
        node[key] = value
    return out


def other_data(run: Run, path: str, signal: Signal, settings: Mapping[str, Any]) -> Any:
    """Settings that read all data at `path` as the run reads its own, changed by dotted `settings` {"data.fill": 30}.

    `signal` is the run's. Raises ValueError for a setting outside `data`, or for data of another kind.
    """
    if other := [name for name in settings if not name.startswith("data.")]:
        raise ValueError(
            f"--{other[0]} is a training setting; give only settings of how data are read, such as --data.fill 30"
        )
    cfg = read_like(run.data, path, channels=signal.channels).whole()
    check_kind(cfg, len(signal.size))
    return apply_changes(cfg, flags_to_changes(settings).get("data", {}), "data")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ValueError naming the file if it is missing, malformed or not a mapping."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings; write sections such as 'optim:' with keys below them")
    return content


def from_yaml(path: Path) -> Run:
    """The Run in a complete YAML file, which names at least a method and data."""
    return from_dict(read_yaml(path), str(path))


def from_dict(content: Mapping[str, Any], source: str) -> Run:
    """The Run in a complete mapping, in the form that `dump_settings` returns."""
    if "method" not in content:
        raise ValueError(f"{source} names no method; add 'method: {{name: ijepa}}'")
    blank = Run(method=None, data=training_settings("images"))
    run: Run = apply_changes(blank, content)
    return run
