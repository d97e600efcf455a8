"""A Run: everything a training is made of, as frozen dataclasses; and how YAML and dotted flags change one.

Parsing applies changes to a Run that exists already: recipe, then the YAML file, then the flags. At a *family* (method,
data, encoder, masks) the entry `name` is read first and looked up in our own tables; the entries beside it are then
checked against that concrete dataclass, each value by jsonargparse against the field's type. So nothing that a file
says is ever imported or called, and every mistake is one sentence that names the key.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args, get_type_hints, runtime_checkable

import yaml

from . import methods
from .data import KINDS, Dataset
from .data.base import Settings
from .masks import MASKERS, Masker
from .names import did_you_mean, no_such
from .nn import ENCODERS
from .nn.encoder import EncoderConfig
from .optim import Optim


@runtime_checkable
class MethodConfig(Protocol):
    """The frozen dataclass `Config` of a method."""


@runtime_checkable
class DataConfig(Settings, Protocol):
    """The frozen dataclass `Config` of a kind of data."""

    @property
    def path(self) -> str:
        """The folder, file or pattern, or the name of a generated set."""
        ...

    def open(self) -> Dataset:
        """The data; raises ValueError, saying what to do, where they cannot be found or read."""
        ...


@dataclass(frozen=True)
class Length:
    """How long, in optimiser steps. `batch` is global: over all processes and accumulated micro-batches."""

    steps: int | None = None  # auto: epochs × samples / batch
    epochs: float = 100.0
    batch: int = 64
    accumulate: int = 1


@dataclass(frozen=True)
class Loop:
    """Where and how the loop runs; None means auto, and is replaced by the value chosen before step 1."""

    device: str | None = None
    amp: bool | None = None  # bfloat16 where it pays
    dtype: Literal["float32", "float64"] = "float32"
    workers: int | None = None
    activation_checkpointing: bool = False
    log_every: int = 10
    save_every: int | None = None
    keep: int = 2
    panel_every: int | None = None
    panel_size: int = 512


@dataclass(frozen=True)
class Evals:
    """What follows the last step: probes of these kinds, where there are labels, and the report."""

    kinds: tuple[str, ...] = ("knn", "linear")
    report: bool = True


@dataclass(frozen=True)
class Run:
    """One training, whole: the run folder's config.yaml is this."""

    method: MethodConfig
    data: DataConfig
    optim: Optim = field(default_factory=Optim)
    length: Length = field(default_factory=Length)
    loop: Loop = field(default_factory=Loop)
    evals: Evals = field(default_factory=Evals)
    seed: int = 0


class Family(NamedTuple):
    """A table of names; `default` gives the settings object that a name starts from."""

    noun: str
    names: tuple[str, ...]
    default: Any  # (name) -> settings object

    def name_of(self, value: Any) -> str:
        """The first name whose settings are of the same class."""
        return next(name for name in self.names if type(self.default(name)) is type(value))


def family(hint: Any) -> Family | None:
    """The table behind a field's type, or None where the type is concrete."""
    if hint is MethodConfig:
        return Family("method", tuple(methods.table()), lambda name: methods.load(name).Config())
    if hint is DataConfig:
        return Family("data", tuple(KINDS), lambda name: KINDS[name]())
    if hint is EncoderConfig:
        return Family("encoder", tuple(ENCODERS), ENCODERS.__getitem__)
    if hint is Masker:
        return Family("masker", tuple(MASKERS), MASKERS.__getitem__)
    return None


def apply(value: Any, changes: Any, path: str = "") -> Any:
    """`value`, a frozen dataclass, with the nested mapping `changes` applied; ValueError names the first bad key."""
    if not isinstance(changes, Mapping):
        raise ValueError(f"{path or 'the config'} is a section with keys {_keys(value)}; {changes!r} is not")
    hints = get_type_hints(type(value))
    new = {}
    for key, change in changes.items():
        if key not in hints:
            raise ValueError(_unknown(value, str(key), path))
        new[key] = _changed(getattr(value, key), change, hints[key], f"{path}.{key}".lstrip("."))
    try:
        return dataclasses.replace(value, **new)
    except ValueError as error:
        raise ValueError(f"{path or 'config'}: {error}") from error


def _changed(current: Any, change: Any, hint: Any, path: str) -> Any:
    if group := family(hint):
        return _member(group, current, change, path)
    if (args := get_args(hint)) and (group := family(args[0])):
        return _members(group, current, change, path)
    if dataclasses.is_dataclass(current):
        return apply(current, change, path)
    return _leaf(hint, change, path)


def _member(group: Family, current: Any, change: Any, path: str) -> Any:
    """One member of a family: `name` first, then its own settings."""
    if isinstance(change, str):
        change = {"name": change}
    if not isinstance(change, Mapping):
        raise ValueError(f"{path} is a section; start it with name: one of {', '.join(group.names)}")
    rest = {key: v for key, v in change.items() if key != "name"}
    if "name" in change:
        name = str(change["name"])
        if name not in group.names:
            raise ValueError(f"{path}: {no_such(group.noun, name, group.names)}")
        # The name of what is there already keeps its settings, so that a file may repeat it.
        if current is None or name != group.name_of(current):
            current = group.default(name)
    if current is None:
        raise ValueError(f"{path} has no name; give {path}.name: one of {', '.join(group.names)}")
    return apply(current, rest, path)


def _members(group: Family, current: tuple[Any, ...], change: Any, path: str) -> tuple[Any, ...]:
    """Several members: a list replaces them all, a section changes the only one or, under 0, 1 …, one of them."""
    if isinstance(change, Sequence) and not isinstance(change, str):
        old = (*current, *[None] * len(change))
        return tuple(_member(group, old[i], c, f"{path}.{i}") for i, c in enumerate(change))
    if isinstance(change, Mapping) and change and all(str(key).isdigit() for key in change):
        out = list(current)
        for key, c in change.items():
            if int(key) >= len(out):
                raise ValueError(f"{path}.{key}: {path} has {len(out)}, counted from 0")
            out[int(key)] = _member(group, out[int(key)], c, f"{path}.{key}")
        return tuple(out)
    if len(current) != 1:
        raise ValueError(f"{path} has {len(current)} entries; say which, as in {path}.0.KEY")
    return (_member(group, current[0], change, path),)


def _leaf(hint: Any, value: Any, path: str) -> Any:
    """A value of the field's type, from YAML or from a flag's text."""
    import jsonargparse

    if value == "auto" and type(None) in get_args(hint):
        return None
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        return parser.parse_object({"value": value}).value
    except jsonargparse.ArgumentError as error:
        raise ValueError(f"{path} takes {_type_name(hint)}, not {value!r}") from error


def _type_name(hint: Any) -> str:
    if type(None) in get_args(hint):
        return " or ".join([_type_name(a) for a in get_args(hint) if a is not type(None)] + ["auto"])
    if getattr(hint, "__origin__", None) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if getattr(hint, "__origin__", None) is tuple:
        return "a list [" + ", ".join("…" if a is Ellipsis else _type_name(a) for a in get_args(hint)) + "]"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))


def _unknown(value: Any, key: str, path: str) -> str:
    """The sentence for a key that the section does not have."""
    where = f"{path}.{key}".lstrip(".")
    if key in ("class_path", "init_args"):
        return f"{where} is refused: a config names things from jepakit's own tables and runs no code; use name"
    known = [f.name for f in dataclasses.fields(value)]
    near = did_you_mean(key, known, prefix=f"{path}.".lstrip("."))
    if not near and (owners := [name for name in methods.table() if path == "method" and _has(name, key)]):
        return f"{where} is a setting of {', '.join(owners)}, not of {methods.name_of(value)}"
    return f"No setting {where}.{near} Available: {', '.join(known)}"


def _has(method: str, key: str) -> bool:
    return key in {f.name for f in dataclasses.fields(methods.load(method).Config)}


def _keys(value: Any) -> str:
    return ", ".join(f.name for f in dataclasses.fields(value))


def flags_to_changes(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted flags {"optim.lr": "1e-3"} as nested changes; ValueError where one is both a value and a section."""
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


def dump(value: Any, hint: Any = None) -> Any:
    """Settings as plain lists, numbers and mappings; `apply` reads them back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        entries = {f.name: dump(getattr(value, f.name), hints[f.name]) for f in dataclasses.fields(value)}
        group = family(hint)
        return {"name": group.name_of(value), **entries} if group else entries
    if isinstance(value, tuple):
        inner = get_args(hint)[0] if hint is not None and get_args(hint) else None
        return [dump(v, inner) for v in value]
    return value


def to_yaml(run: Run) -> str:
    """A Run as YAML, family members with their names."""
    return yaml.safe_dump(dump(run), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. ValueError names the file where it is missing, malformed or no mapping."""
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
    """The Run in a complete YAML file: one that names at least its method and its data."""
    return from_dict(read_yaml(path), str(path))


def from_dict(content: Mapping[str, Any], source: str) -> Run:
    """The Run of a complete mapping, as `dump` writes it."""
    if "method" not in content:
        raise ValueError(f"{source} names no method; add 'method: {{name: ijepa}}'")
    blank = Run(method=None, data=KINDS["images"]())
    run: Run = apply(blank, content)
    return run


def difference(old: Run, new: Run) -> dict[str, tuple[Any, Any]]:
    """Every dotted key whose value differs, with both values."""
    a, b = (_flat(dump(run)) for run in (old, new))
    return {k: (a.get(k), b.get(k)) for k in sorted({*a, *b}) if a.get(k) != b.get(k)}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
        items = {str(i): v for i, v in enumerate(value)}.items()
    else:
        return {path: value}
    return {k: v for key, inner in items for k, v in _flat(inner, f"{path}.{key}".lstrip(".")).items()}
