"""Writes a Run as YAML, and compares the settings of two runs."""

import dataclasses
from typing import Any, get_args, get_type_hints

import yaml

from .families import family_of
from .settings import HeadStage, Run


def dump_settings(value: Any, hint: Any = None) -> Any:
    """Settings as plain lists, numbers and mappings; `apply_changes` reads them back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        entries = {f.name: dump_settings(getattr(value, f.name), hints[f.name]) for f in dataclasses.fields(value)}
        group = family_of(hint)
        return {"name": group.name_of(value), **entries} if group else entries
    if value and isinstance(value, tuple) and isinstance(value[0], HeadStage):
        return {stage.name: dump_settings(stage) for stage in value}
    if isinstance(value, tuple):
        inner = get_args(hint)[0] if hint is not None and get_args(hint) else None
        return [dump_settings(v, inner) for v in value]
    return value


def to_yaml(run: Run) -> str:
    """A Run as YAML; family members have a `name`."""
    return yaml.safe_dump(dump_settings(run), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def settings_difference(old: Run, new: Run) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both values."""
    a, b = (flatten_settings(dump_settings(run)) for run in (old, new))
    return {k: (a.get(k), b.get(k)) for k in sorted({*a, *b}) if a.get(k) != b.get(k)}


def flatten_settings(value: Any, path: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
        items = {str(i): v for i, v in enumerate(value)}.items()
    else:
        return {path: value}
    return {k: v for key, inner in items for k, v in flatten_settings(inner, f"{path}.{key}".lstrip(".")).items()}
